//! The messages of a batch: a JSON array, or one object a line (NDJSON).
//!
//! The whole body is read at once when it is all well. When it is not, it is cut into
//! its elements and each is read by itself, so that one bad message (not JSON, not
//! UTF-8, a wrong field) costs no other.

use std::fmt;

use axum::http::{HeaderMap, header};
use serde::Deserializer as _;
use serde::de::{SeqAccess, Visitor};
use weir_auth::door::{Code, Problem};

use super::incoming::{self, Incoming};

/// A message of the batch, or what is wrong with it.
pub(crate) type Parsed<'a> = Result<Incoming<'a>, Problem>;

/// Reads at most `most` messages.
///
/// # Errors
/// The body as a whole is of no use: no messages, too many, or not one batch.
pub(crate) fn parse<'a>(
    headers: &HeaderMap,
    body: &'a [u8],
    most: usize,
) -> Result<Vec<Parsed<'a>>, Problem> {
    let body = body.trim_ascii();
    let messages = match body.first() {
        None => return Err(empty()),
        Some(_) if says_ndjson(headers) => lines(body, most)?,
        Some(b'[') => array(body, most)?,
        Some(b'{') => lines(body, most)?,
        Some(_) => {
            let detail = "a batch is a JSON array of messages, or one message a line";
            return Err(Problem::new(Code::InvalidJson, detail).position(1, 1));
        }
    };
    if messages.is_empty() {
        return Err(empty());
    }
    Ok(messages)
}

fn says_ndjson(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let essence = kind
        .and_then(|kind| kind.split(';').next())
        .unwrap_or_default()
        .trim();
    [
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonlines",
    ]
    .iter()
    .any(|ndjson| essence.eq_ignore_ascii_case(ndjson))
}

fn lines(body: &[u8], most: usize) -> Result<Vec<Parsed<'_>>, Problem> {
    let mut messages = Vec::new();
    let filled = body
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty());
    for line in filled {
        if messages.len() == most {
            return Err(too_many(most));
        }
        messages.push(incoming::parse(line));
    }
    Ok(messages)
}

fn array(body: &[u8], most: usize) -> Result<Vec<Parsed<'_>>, Problem> {
    if let Some(messages) = whole(body, most) {
        return Ok(messages);
    }
    let elements = elements(body, most)?;
    Ok(elements.into_iter().map(incoming::parse).collect())
}

/// The array in one go, if everything in it is as it should be.
fn whole(body: &[u8], most: usize) -> Option<Vec<Parsed<'_>>> {
    let text = std::str::from_utf8(body).ok()?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let messages = reader.deserialize_seq(UpTo(most)).ok()?;
    reader.end().ok()?;
    Some(messages)
}

/// Gives up at one message more than that.
struct UpTo(usize);

impl<'de> Visitor<'de> for UpTo {
    type Value = Vec<Parsed<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of up to {} messages", self.0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
        let mut messages = Vec::with_capacity(self.0.min(128));
        while let Some(message) = from.next_element::<Incoming<'de>>()? {
            if messages.len() == self.0 {
                return Err(serde::de::Error::invalid_length(self.0 + 1, &self));
            }
            messages.push(Ok(message));
        }
        Ok(messages)
    }
}

/// Cuts an array into its elements, without looking into them further than to tell
/// where each ends.
fn elements(body: &[u8], most: usize) -> Result<Vec<&[u8]>, Problem> {
    let mut elements = Vec::new();
    // Depth 1 is inside of the array itself.
    let (mut depth, mut start, mut in_text, mut escaped) = (0_usize, 1_usize, false, false);
    for (at, byte) in body.iter().enumerate() {
        if in_text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'[' | b'{' => depth += 1,
            b',' if depth == 1 => {
                elements.push(element(body, start, at)?);
                start = at + 1;
            }
            b']' | b'}' => {
                depth -= 1;
                if depth == 0 {
                    return finish(body, elements, start, at, most);
                }
            }
            _ => {}
        }
        if elements.len() > most {
            return Err(too_many(most));
        }
    }
    Err(place(
        body,
        body.len(),
        "the body ends before its array does",
    ))
}

/// The array ends at `at`.
fn finish<'a>(
    body: &'a [u8],
    mut elements: Vec<&'a [u8]>,
    start: usize,
    at: usize,
    most: usize,
) -> Result<Vec<&'a [u8]>, Problem> {
    let nothing = body[start..at].trim_ascii().is_empty();
    if !(nothing && elements.is_empty()) {
        elements.push(element(body, start, at)?);
    }
    if body[at] != b']' || at + 1 != body.len() {
        return Err(place(body, at + 1, "the body is not one JSON array"));
    }
    if elements.len() > most {
        return Err(too_many(most));
    }
    Ok(elements)
}

fn element(body: &[u8], start: usize, end: usize) -> Result<&[u8], Problem> {
    let element = body[start..end].trim_ascii();
    if element.is_empty() {
        return Err(place(body, end, "a message is missing between two commas"));
    }
    Ok(element)
}

fn place(body: &[u8], at: usize, detail: &'static str) -> Problem {
    let before = &body[..at.min(body.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count();
    let column = before
        .iter()
        .rev()
        .take_while(|byte| **byte != b'\n')
        .count();
    Problem::new(Code::InvalidJson, detail).position(line as u64 + 1, column as u64 + 1)
}

fn empty() -> Problem {
    Problem::new(Code::InvalidField, "the batch holds no message")
}

fn too_many(most: usize) -> Problem {
    Problem::new(
        Code::TooLarge,
        format!("a batch takes up to {most} messages"),
    )
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const GOOD: &str = r#"{"channel":"c","text":"a, ] } \" \\"}"#;

    fn read(body: &[u8]) -> Result<Vec<Option<Code>>, Code> {
        let parsed = parse(&HeaderMap::new(), body, 3).map_err(|problem| problem.code())?;
        Ok(parsed
            .into_iter()
            .map(|one| one.err().map(|problem| problem.code()))
            .collect())
    }

    #[test]
    fn a_bad_element_costs_no_other() {
        for (bad, code) in [
            (&b"7"[..], Code::InvalidField),
            (b"[]", Code::InvalidField),
            (br#"["c","t"]"#, Code::InvalidField),
            (br#"{"channel":"c","text":"t" "#, Code::InvalidJson),
            (b"{\"channel\":\"c\",\"text\":\"\xff\"", Code::NotUtf8),
            (
                br#"{"channel":"c","text":"t","x":{"y":[1,2]}"#,
                Code::UnknownField,
            ),
            (b"tru", Code::InvalidJson),
        ] {
            // Objects above lack their last brace, so that it is the element that is cut right.
            let mut bad = bad.to_vec();
            if bad[0] == b'{' {
                bad.extend_from_slice(if code == Code::InvalidJson {
                    b",}"
                } else {
                    b"}"
                });
            }
            let mut body = format!(" [ {GOOD} , ").into_bytes();
            body.extend_from_slice(&bad);
            body.extend_from_slice(format!(",\n{GOOD}]\n").as_bytes());
            let read = read(&body);
            assert_eq!(
                read,
                Ok(vec![None, Some(code), None]),
                "{}",
                String::from_utf8_lossy(&body)
            );
        }
    }

    #[test]
    fn what_is_no_batch_is_refused_as_a_whole() {
        let four = format!("[{GOOD},{GOOD},{GOOD},{GOOD}]");
        let four_lines = [GOOD; 4].join("\n");
        let bad_and_three = format!("[7,{GOOD},{GOOD},{GOOD}]");
        for (body, code) in [
            ("", Code::InvalidField),
            (" \n ", Code::InvalidField),
            ("[]", Code::InvalidField),
            ("[ \n]", Code::InvalidField),
            ("7", Code::InvalidJson),
            ("[7", Code::InvalidJson),
            ("[7}", Code::InvalidJson),
            ("[7,]", Code::InvalidJson),
            ("[,7]", Code::InvalidJson),
            ("[7,,7]", Code::InvalidJson),
            ("[7] 7", Code::InvalidJson),
            ("[\"", Code::InvalidJson),
            (&four, Code::TooLarge),
            (&four_lines, Code::TooLarge),
            (&bad_and_three, Code::TooLarge),
        ] {
            assert_eq!(read(body.as_bytes()), Err(code), "{body}");
        }
    }

    #[test]
    fn lines_are_messages_whatever_their_ends() {
        let body = format!("{GOOD}\r\n\n  {GOOD}\n{{\"channel\":}}");
        assert_eq!(
            read(body.as_bytes()),
            Ok(vec![None, None, Some(Code::InvalidJson)])
        );
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-ndjson; charset=utf-8"),
        );
        let parsed = parse(&headers, b"[]\n{}", 3).unwrap();
        assert_eq!(parsed.len(), 2, "an array is no message there");
        assert!(parsed.iter().all(Result::is_err));
    }

    #[test]
    fn the_place_of_a_fault_is_told() {
        let problem = parse(&HeaderMap::new(), b"[7,\n 7,,]", 3).unwrap_err();
        let shown = serde_json::to_value(&problem).unwrap();
        assert_eq!(
            shown["position"],
            serde_json::json!({"line": 2, "column": 4})
        );
    }
}
