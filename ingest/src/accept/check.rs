//! The rules for a message's values. Each refusal names its field and says what would be
//! right, never what was sent.

use std::borrow::Cow;

use jiff::{SignedDuration, Timestamp};
use serde_json::value::RawValue;
use weir_auth::door::{Code, Problem};
use weir_auth::{Caller, Kind};
use weir_records::Message;

use super::incoming::{Incoming, SentAt};
use crate::Config;

/// Characters of a channel, a sender or an id at most.
const NAME_CHARS: usize = 128;
/// How deep `metadata` may go: readers downstream stop at 128.
const METADATA_DEPTH: usize = 32;

/// The rules, from the configuration.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    text_bytes: usize,
    metadata_bytes: usize,
    past: SignedDuration,
    future: SignedDuration,
}

/// A message that keeps the rules. Its id may still have to be made.
pub(crate) struct Checked<'a> {
    channel: Cow<'a, str>,
    text: Cow<'a, str>,
    sender: Option<Cow<'a, str>>,
    by_user: bool,
    id: Option<Cow<'a, str>>,
    sent_at: Timestamp,
    received_at: Timestamp,
    metadata: Option<&'a RawValue>,
}

/// Who sent a message. A user who signed in is another one than somebody of the same name
/// that a producer's key tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Sender<'a> {
    pub(crate) name: Option<&'a str>,
    pub(crate) by_user: bool,
}

impl<'a> Sender<'a> {
    pub(crate) fn of(message: &'a Message) -> Self {
        Self {
            name: message.sender.as_deref(),
            by_user: message.by_user,
        }
    }

    /// The user of that name.
    pub(crate) const fn user(name: &'a str) -> Self {
        Self {
            name: Some(name),
            by_user: true,
        }
    }
}

impl Rules {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            text_bytes: config.text_bytes,
            metadata_bytes: config.metadata_bytes,
            past: SignedDuration::from_secs(config.sent_at_past_seconds.into()),
            future: SignedDuration::from_secs(config.sent_at_future_seconds.into()),
        }
    }

    /// Checks the values of a message that came at `now` from `caller`.
    ///
    /// # Errors
    /// The first field that breaks a rule.
    pub(crate) fn check<'a>(
        &self,
        incoming: Incoming<'a>,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Checked<'a>, Problem> {
        name("channel", &incoming.channel)?;
        Ok(Checked {
            text: self.text(incoming.text)?,
            sender: sender(incoming.sender, caller)?,
            by_user: caller.kind == Kind::User,
            id: incoming.id.map(id).transpose()?,
            sent_at: self.sent_at(incoming.sent_at.as_ref(), now)?,
            received_at: now,
            metadata: incoming
                .metadata
                .map(|raw| self.metadata(raw))
                .transpose()?,
            channel: incoming.channel,
        })
    }

    fn text<'a>(&self, text: Cow<'a, str>) -> Result<Cow<'a, str>, Problem> {
        let text = match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
            Cow::Owned(text) if text.trim().len() == text.len() => Cow::Owned(text),
            Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
        };
        if text.is_empty() {
            return Err(invalid("text", "the text is empty".to_owned()));
        }
        if text.len() > self.text_bytes {
            let detail = format!("the text is longer than {} bytes of UTF-8", self.text_bytes);
            return Err(Problem::new(Code::TooLarge, detail).field("text"));
        }
        if text.as_bytes().contains(&0) {
            return Err(invalid(
                "text",
                "the text holds the character U+0000".to_owned(),
            ));
        }
        Ok(text)
    }

    fn sent_at(&self, sent_at: Option<&SentAt<'_>>, now: Timestamp) -> Result<Timestamp, Problem> {
        let time = match sent_at {
            None => return Ok(now),
            Some(SentAt::Text(text)) => text.parse().ok(),
            Some(SentAt::Millis(millis)) => Timestamp::from_millisecond(*millis).ok(),
        };
        let Some(time) = time else {
            let detail = "the time is neither RFC 3339, such as 2026-01-31T12:00:00Z, nor milliseconds since 1970";
            return Err(invalid("sent_at", detail.to_owned()));
        };
        let late = now.duration_since(time);
        if late > self.past || late < -self.future {
            let detail = format!(
                "the time lies more than {} s in the past or more than {} s in the future",
                self.past.as_secs(),
                self.future.as_secs()
            );
            return Err(invalid("sent_at", detail));
        }
        Ok(time)
    }

    fn metadata<'a>(&self, raw: &'a RawValue) -> Result<&'a RawValue, Problem> {
        let text = raw.get();
        if !text.starts_with('{') {
            return Err(invalid(
                "metadata",
                "the metadata is not a JSON object".to_owned(),
            ));
        }
        if text.len() > self.metadata_bytes {
            let detail = format!("the metadata is longer than {} bytes", self.metadata_bytes);
            return Err(Problem::new(Code::TooLarge, detail).field("metadata"));
        }
        if depth(text) > METADATA_DEPTH {
            let detail = format!("the metadata is nested deeper than {METADATA_DEPTH} levels");
            return Err(invalid("metadata", detail));
        }
        // What a reader would stumble over later, such as 1e999, is refused now.
        if serde_json::from_str::<serde_json::Value>(text).is_err() {
            let detail = "the metadata holds a value that can't be represented";
            return Err(invalid("metadata", detail.to_owned()));
        }
        Ok(raw)
    }
}

impl Checked<'_> {
    /// The id that the producer chose.
    pub(crate) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    pub(crate) const fn received_at(&self) -> Timestamp {
        self.received_at
    }

    /// What an id stands for: the channel and the text.
    pub(crate) fn content(&self) -> (&str, &str) {
        (&self.channel, &self.text)
    }

    pub(crate) fn sender(&self) -> Sender<'_> {
        Sender {
            name: self.sender.as_deref(),
            by_user: self.by_user,
        }
    }

    /// Whether it is the message that is stored under its id, as far as that one can tell: its
    /// text may have run out.
    pub(crate) fn is(&self, stored: &Message) -> bool {
        self.channel == stored.channel
            && (stored.text.is_empty() || self.text == stored.text)
            && self.sender() == Sender::of(stored)
    }

    /// The record, under that id.
    pub(crate) fn message(self, tenant: &str, id: &str) -> Message {
        Message {
            tenant: tenant.to_owned(),
            channel: self.channel.into_owned(),
            sender: self.sender.map(Cow::into_owned),
            by_user: self.by_user,
            id_made: self.id.is_none(),
            id: id.to_owned(),
            text: self.text.into_owned(),
            sent_at: self.sent_at,
            received_at: self.received_at,
            metadata: self.metadata.map(|raw| raw.get().to_owned()),
        }
    }
}

/// A user sends as itself; a program says who.
fn sender<'a>(
    sender: Option<Cow<'a, str>>,
    caller: &Caller,
) -> Result<Option<Cow<'a, str>>, Problem> {
    if caller.kind == Kind::User {
        if sender.is_some_and(|sender| sender != caller.id) {
            let detail = "a user sends under its own name; leave `sender` out";
            return Err(Problem::new(Code::Forbidden, detail).field("sender"));
        }
        return Ok(Some(Cow::Owned(caller.id.clone())));
    }
    if let Some(sender) = &sender {
        name("sender", sender)?;
    }
    Ok(sender)
}

fn name(field: &'static str, value: &str) -> Result<(), Problem> {
    if value.is_empty() || (value.len() > NAME_CHARS && value.chars().count() > NAME_CHARS) {
        return Err(invalid(
            field,
            format!("the {field} has 1 to {NAME_CHARS} characters"),
        ));
    }
    if value.chars().any(char::is_control) {
        return Err(invalid(
            field,
            format!("the {field} holds a control character"),
        ));
    }
    Ok(())
}

fn id(id: Cow<'_, str>) -> Result<Cow<'_, str>, Problem> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:~@+=-".contains(&byte);
    if id.is_empty() || id.len() > NAME_CHARS || !id.bytes().all(allowed) {
        let detail =
            format!("the id has 1 to {NAME_CHARS} of the characters A-Z a-z 0-9 . _ : ~ @ + = -");
        return Err(invalid("id", detail));
    }
    Ok(id)
}

/// How many objects and arrays are open at once, at most.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => depth += 1,
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

fn invalid(field: &'static str, detail: String) -> Problem {
    Problem::new(Code::InvalidField, detail).field(field)
}

#[cfg(test)]
mod tests {
    use weir_auth::Scope;

    use super::*;
    use crate::accept::incoming::parse;

    fn now() -> Timestamp {
        "2026-01-31T12:00:00.123456789Z".parse().unwrap()
    }

    fn check(body: &str, kind: Kind) -> Result<Message, (Code, String)> {
        let caller = Caller::unlimited(kind, "acme", "ann", [Scope::Ingest]);
        let checked = Rules::new(&Config::default())
            .check(parse(body.as_bytes()).unwrap(), &caller, now())
            .map_err(|problem| {
                (
                    problem.code(),
                    problem.field_name().unwrap_or_default().to_owned(),
                )
            })?;
        let id = checked.id().unwrap_or("made").to_owned();
        Ok(checked.message("acme", &id))
    }

    fn of_key(fields: &str) -> Result<Message, (Code, String)> {
        check(
            &format!(r#"{{"channel":"c","text":"t"{fields}}}"#),
            Kind::Key,
        )
    }

    fn with(field: &str, value: &str) -> Result<Message, (Code, String)> {
        let mut body = serde_json::json!({"channel": "c", "text": "t"});
        body[field] = value.into();
        check(&body.to_string(), Kind::Key)
    }

    #[test]
    fn a_message_takes_the_place_and_time_it_was_sent_with() {
        let message = of_key(
            r#","sender":"bob","id":"a.b:c","sent_at":"2026-01-30T13:00:00+01:00","metadata":{"a": [1]}"#,
        )
        .unwrap();
        assert_eq!(
            (message.tenant.as_str(), message.channel.as_str()),
            ("acme", "c")
        );
        assert_eq!(
            (message.sender.as_deref(), message.id.as_str()),
            (Some("bob"), "a.b:c")
        );
        assert_eq!(message.sent_at, "2026-01-30T12:00:00Z".parse().unwrap());
        assert_eq!(message.received_at, now());
        assert_eq!(message.metadata.as_deref(), Some(r#"{"a": [1]}"#));
        let message = of_key(r#","sent_at":1769860800123"#).unwrap();
        assert_eq!(message.sent_at, "2026-01-31T12:00:00.123Z".parse().unwrap());
        assert_eq!(of_key("").unwrap().sent_at, now());
    }

    #[test]
    fn a_text_is_trimmed_and_has_its_bounds_in_bytes() {
        assert_eq!(with("text", "\u{2003} a b\n").unwrap().text, "a b");
        assert_eq!(
            with("text", &format!(" {} ", "é".repeat(4096)))
                .unwrap()
                .text
                .len(),
            8192
        );
        let fault = |code| Err((code, "text".to_owned()));
        assert_eq!(
            with("text", &format!("{}a", "é".repeat(4096))).map(|_| ()),
            fault(Code::TooLarge)
        );
        assert_eq!(with("text", " \t\n").map(|_| ()), fault(Code::InvalidField));
        assert_eq!(with("text", "").map(|_| ()), fault(Code::InvalidField));
        assert_eq!(with("text", "a\0b").map(|_| ()), fault(Code::InvalidField));
        assert!(with("text", "tabs\tand\u{1b}[0m are the model's to read").is_ok());
    }

    #[test]
    fn names_and_ids_have_their_bounds_in_characters() {
        for field in ["channel", "sender"] {
            let fault = Err((Code::InvalidField, field.to_owned()));
            assert!(with(field, &"é".repeat(128)).is_ok());
            assert_eq!(with(field, &"é".repeat(129)).map(|_| ()), fault);
            assert_eq!(with(field, "").map(|_| ()), fault);
            assert_eq!(with(field, "a\u{0}b").map(|_| ()), fault);
            assert_eq!(with(field, "a\u{85}b").map(|_| ()), fault);
        }
        let fault = Err((Code::InvalidField, "id".to_owned()));
        assert!(with("id", "AZaz09._:~@+=-").is_ok());
        for bad in ["", "a b", "a/b", "é", "a\n", &"a".repeat(129)] {
            assert_eq!(with("id", bad).map(|_| ()), fault, "{bad}");
        }
    }

    #[test]
    fn a_time_out_of_range_or_not_a_time_is_refused() {
        let fault = Err((Code::InvalidField, "sent_at".to_owned()));
        for bad in [
            "2026-01-24T11:59:59Z",
            "2026-01-31T12:05:01Z",
            "yesterday",
            "",
            "2026-01-31",
        ] {
            assert_eq!(with("sent_at", bad).map(|_| ()), fault, "{bad}");
        }
        for bad in ["0", "-1", "9223372036854775807", "18446744073709551615"] {
            assert_eq!(
                of_key(&format!(r#","sent_at":{bad}"#)).map(|_| ()),
                fault,
                "{bad}"
            );
        }
        assert!(with("sent_at", "2026-01-24T12:00:01Z").is_ok());
        assert!(with("sent_at", "2026-01-31T12:05:00Z").is_ok());
    }

    #[test]
    fn metadata_is_a_small_and_readable_object() {
        let fault = |code| Err((code, "metadata".to_owned()));
        let deep = |n: usize| format!(r#","metadata":{{"a":{}{}}}"#, "[".repeat(n), "]".repeat(n));
        for bad in ["[]", "7", "\"{}\"", r#"{"a":1e999}"#] {
            let read = of_key(&format!(r#","metadata":{bad}"#)).map(|_| ());
            assert_eq!(read, fault(Code::InvalidField), "{bad}");
        }
        assert!(of_key(&deep(31)).is_ok());
        assert_eq!(of_key(&deep(32)).map(|_| ()), fault(Code::InvalidField));
        assert!(of_key(&format!(r#","metadata":{{"a":"{}"}}"#, "[".repeat(4088))).is_ok());
        let large = of_key(&format!(r#","metadata":{{"a":"{}"}}"#, "b".repeat(4089)));
        assert_eq!(large.map(|_| ()), fault(Code::TooLarge));
    }

    #[test]
    fn a_user_is_its_own_sender_and_a_program_names_one() {
        let own = r#"{"channel":"c","text":"t"}"#;
        let named = r#"{"channel":"c","text":"t","sender":"ann"}"#;
        let other = r#"{"channel":"c","text":"t","sender":"bob"}"#;
        assert_eq!(
            check(own, Kind::User).unwrap().sender.as_deref(),
            Some("ann")
        );
        assert_eq!(
            check(named, Kind::User).unwrap().sender.as_deref(),
            Some("ann")
        );
        assert_eq!(
            check(other, Kind::User),
            Err((Code::Forbidden, "sender".to_owned()))
        );
        assert_eq!(check(own, Kind::Key).unwrap().sender, None);
        assert_eq!(
            check(other, Kind::Key).unwrap().sender.as_deref(),
            Some("bob")
        );
    }
}
