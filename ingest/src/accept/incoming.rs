//! A message as it is sent: its fields, borrowed from the body where they can be.
//!
//! Read by hand and not by derive for two reasons: a struct's derived reader also takes
//! an array in place of an object, and it copies every optional text.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use weir_auth::door::{Code, Problem, parse_json};

/// The fields of a message, in the order of the documentation.
const FIELDS: &[&str] = &["channel", "text", "sender", "id", "sent_at", "metadata"];

/// A message of the right shape, whose values are not checked yet.
#[derive(Debug)]
pub(crate) struct Incoming<'a> {
    pub(crate) channel: Cow<'a, str>,
    pub(crate) text: Cow<'a, str>,
    pub(crate) sender: Option<Cow<'a, str>>,
    pub(crate) id: Option<Cow<'a, str>>,
    pub(crate) sent_at: Option<SentAt<'a>>,
    pub(crate) metadata: Option<&'a RawValue>,
}

/// A time, in either of its two forms.
#[derive(Debug)]
pub(crate) enum SentAt<'a> {
    /// RFC 3339, if it is.
    Text(Cow<'a, str>),
    /// Milliseconds since 1970.
    Millis(i64),
}

/// One message out of `json`.
///
/// # Errors
/// A problem that names the field or the position, and the message's id where it has one
/// that can be told.
pub(crate) fn parse(json: &[u8]) -> Result<Incoming<'_>, Problem> {
    let fast = std::str::from_utf8(json)
        .ok()
        .and_then(|text| serde_json::from_str(text).ok());
    match fast {
        Some(incoming) => Ok(incoming),
        // Once more, slowly, to say what is wrong with it.
        None => parse_json(json).map_err(name_the_message),
    }
}

/// Where the value as a whole is of the wrong kind, no field is to blame.
fn name_the_message(problem: Problem) -> Problem {
    if problem.code() == Code::InvalidField && problem.field_name().is_none() {
        return Problem::new(Code::InvalidField, "a message is a JSON object");
    }
    problem
}

impl<'de> Deserialize<'de> for Incoming<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Object)
    }
}

struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = Incoming<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Incoming<'de>, A::Error> {
        let (mut channel, mut text): (Option<Text<'_>>, Option<Text<'_>>) = (None, None);
        // The outer option: whether the field was there, be it as `null`.
        let (mut sender, mut id): (Option<Option<Text<'_>>>, Option<Option<Text<'_>>>) =
            (None, None);
        let mut sent_at: Option<Option<SentAt<'_>>> = None;
        let mut metadata: Option<Option<&RawValue>> = None;
        while let Some(Text(name)) = map.next_key()? {
            match name.as_ref() {
                "channel" => once(&mut channel, &mut map, "channel")?,
                "text" => once(&mut text, &mut map, "text")?,
                "sender" => once(&mut sender, &mut map, "sender")?,
                "id" => once(&mut id, &mut map, "id")?,
                "sent_at" => once(&mut sent_at, &mut map, "sent_at")?,
                "metadata" => once(&mut metadata, &mut map, "metadata")?,
                unknown => return Err(A::Error::unknown_field(unknown, FIELDS)),
            }
        }
        Ok(Incoming {
            channel: channel.ok_or_else(|| A::Error::missing_field("channel"))?.0,
            text: text.ok_or_else(|| A::Error::missing_field("text"))?.0,
            sender: sender.flatten().map(|text| text.0),
            id: id.flatten().map(|text| text.0),
            sent_at: sent_at.flatten(),
            metadata: metadata.flatten(),
        })
    }
}

/// Reads a value into its field, which must be empty.
fn once<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    field: &mut Option<T>,
    map: &mut A,
    name: &'static str,
) -> Result<(), A::Error> {
    if field.is_some() {
        return Err(A::Error::duplicate_field(name));
    }
    *field = Some(map.next_value()?);
    Ok(())
}

/// A text that borrows where the JSON holds it without escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        from.deserialize_str(Reader)
    }
}

impl<'de> Deserialize<'de> for SentAt<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = SentAt<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<SentAt<'de>, E> {
                Ok(SentAt::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<SentAt<'de>, E> {
                Ok(SentAt::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_i64<E: Error>(self, millis: i64) -> Result<SentAt<'de>, E> {
                Ok(SentAt::Millis(millis))
            }

            fn visit_u64<E: Error>(self, millis: u64) -> Result<SentAt<'de>, E> {
                // Beyond any time; the check of its range refuses it.
                Ok(SentAt::Millis(i64::try_from(millis).unwrap_or(i64::MAX)))
            }
        }

        from.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_message_borrows_everything_from_the_body() {
        let body =
            br#"{"channel":"c","text":"t","sender":"s","id":"i","sent_at":"x","metadata":{"a":1}}"#;
        let incoming = parse(body).unwrap();
        let borrowed = |text: &Cow<'_, str>| matches!(text, Cow::Borrowed(_));
        assert!(borrowed(&incoming.channel) && borrowed(&incoming.text));
        assert!(
            borrowed(incoming.sender.as_ref().unwrap()) && borrowed(incoming.id.as_ref().unwrap())
        );
        assert!(matches!(
            incoming.sent_at,
            Some(SentAt::Text(Cow::Borrowed("x")))
        ));
        assert_eq!(incoming.metadata.unwrap().get(), r#"{"a":1}"#);
    }

    #[test]
    fn escapes_are_read_and_null_is_as_good_as_absent() {
        let body = br#"{"te\u0078t":"a\n\ud83d\ude00","channel":"c","sender":null,"id":null,"sent_at":null,"metadata":null}"#;
        let incoming = parse(body).unwrap();
        assert_eq!(incoming.text, "a\n\u{1f600}");
        assert!(incoming.sender.is_none() && incoming.id.is_none());
        assert!(incoming.sent_at.is_none() && incoming.metadata.is_none());
    }

    #[test]
    fn what_is_wrong_is_named() {
        use Code::{InvalidField, InvalidJson, NotUtf8, UnknownField};
        for (body, code, field) in [
            (r#"{"channel":"c"}"#, InvalidField, Some("text")),
            (r#"{"text":"t"}"#, InvalidField, Some("channel")),
            (r#"{"channel":"c","text":7}"#, InvalidField, Some("text")),
            (r#"{"channel":"c","text":null}"#, InvalidField, Some("text")),
            (
                r#"{"channel":["c"],"text":"t"}"#,
                InvalidField,
                Some("channel"),
            ),
            (
                r#"{"channel":"c","text":"t","sent_at":1.5}"#,
                InvalidField,
                Some("sent_at"),
            ),
            (
                r#"{"channel":"c","text":"t","sender":{}}"#,
                InvalidField,
                Some("sender"),
            ),
            (
                r#"{"channel":"c","text":"t","metadata":{"a":1},"text":"u"}"#,
                InvalidField,
                Some("text"),
            ),
            (
                r#"{"channel":"c","text":"t","txet":"u"}"#,
                UnknownField,
                Some("txet"),
            ),
            (r#"["c","t"]"#, InvalidField, None),
            (r#""c""#, InvalidField, None),
            ("null", InvalidField, None),
            (r#"{"channel":"c","text":"t"} x"#, InvalidJson, None),
            (r#"{"channel":"c","text":"t""#, InvalidJson, None),
            (r#"{"channel":"c","text":"\ud800"}"#, InvalidJson, None),
            ("", InvalidJson, None),
        ] {
            let problem = parse(body.as_bytes()).unwrap_err();
            assert_eq!(
                (problem.code(), problem.field_name()),
                (code, field),
                "{body}"
            );
        }
        assert_eq!(
            parse(b"{\"channel\":\"c\",\"text\":\"\xff\"}")
                .unwrap_err()
                .code(),
            NotUtf8
        );
    }
}
