//! Bodies, read so that a fault names its field and echoes nothing of what was sent;
//! and what is answered where axum could not read a part of the request.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, FormRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Code, Problem};

/// A JSON body, read by [`parse_json`].
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::new(
                Code::UnsupportedMediaType,
                "the body must be sent as `Content-Type: application/json`",
            ));
        }
        let body = Bytes::from_request(request, state).await?;
        parse_json(&body).map(Self)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
    else {
        return false;
    };
    let essence = kind.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || essence.to_ascii_lowercase().ends_with("+json")
}

/// Reads JSON.
///
/// # Errors
/// [`Code::NotUtf8`], [`Code::InvalidJson`] with the position, [`Code::UnknownField`]
/// or [`Code::InvalidField`] with the field's path, such as `metadata.depth` or `[3].text`.
pub fn parse_json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    let text = std::str::from_utf8(body).map_err(|fault| {
        Problem::new(
            Code::NotUtf8,
            format!(
                "the byte at offset {} does not belong to UTF-8 text",
                fault.valid_up_to()
            ),
        )
    })?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|fault| {
        let path = fault.path().to_string();
        explain(&path, &fault.into_inner())
    })?;
    reader.end().map_err(|fault| explain(".", &fault))?;
    Ok(value)
}

fn explain(path: &str, fault: &serde_json::Error) -> Problem {
    let (line, column) = (fault.line() as u64, fault.column() as u64);
    if !fault.is_data() {
        let what = if fault.is_eof() {
            "the body ends too early"
        } else {
            "the body is not valid JSON"
        };
        return Problem::new(Code::InvalidJson, what).position(line, column);
    }
    let words = fault.to_string();
    // serde quotes the names of fields in backticks; it quotes values too, so only these three are used.
    let (code, detail, name) = if let Some(name) = quoted(&words, "unknown field `") {
        (
            Code::UnknownField,
            format!("the field `{name}` is not known here"),
            Some(name),
        )
    } else if let Some(name) = quoted(&words, "missing field `") {
        (
            Code::InvalidField,
            format!("the field `{name}` is missing"),
            Some(name),
        )
    } else if let Some(name) = quoted(&words, "duplicate field `") {
        (
            Code::InvalidField,
            format!("the field `{name}` is there twice"),
            Some(name),
        )
    } else {
        (
            Code::InvalidField,
            "the value is not of the kind that this field takes".to_owned(),
            None,
        )
    };
    let problem = Problem::new(code, detail).position(line, column);
    match field(path, name) {
        Some(field) => problem.field(field),
        None => problem,
    }
}

/// The path of the field: where serde stood, and the name it spoke of.
fn field(path: &str, name: Option<&str>) -> Option<String> {
    let path = path.trim_start_matches('.');
    match name {
        Some(name) if path.is_empty() || path == name => Some(name.to_owned()),
        Some(name) if path.ends_with(&format!(".{name}")) => Some(path.to_owned()),
        Some(name) => Some(format!("{path}.{name}")),
        None => (!path.is_empty()).then(|| path.to_owned()),
    }
}

/// The name after `start`, up to the next backtick, cut to a length worth answering.
fn quoted<'a>(words: &'a str, start: &str) -> Option<&'a str> {
    let name = words.strip_prefix(start)?.split('`').next()?;
    let end = name.char_indices().nth(64).map_or(name.len(), |(at, _)| at);
    Some(&name[..end])
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        if rejection.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
            return Self::new(Code::TooLarge, "the body is larger than this door takes");
        }
        Self::new(Code::InvalidField, "the body could not be read to its end")
    }
}

impl From<QueryRejection> for Problem {
    fn from(_: QueryRejection) -> Self {
        // The rejection's text may quote values.
        Self::new(
            Code::InvalidField,
            "the query string holds a parameter that is missing, unknown or not valid",
        )
    }
}

impl From<PathRejection> for Problem {
    fn from(_: PathRejection) -> Self {
        Self::new(
            Code::InvalidField,
            "the path holds a part that is not valid UTF-8 or not of its kind",
        )
    }
}

impl From<FormRejection> for Problem {
    fn from(rejection: FormRejection) -> Self {
        match rejection {
            FormRejection::InvalidFormContentType(_) => Self::new(
                Code::UnsupportedMediaType,
                "the body must be sent as `Content-Type: application/x-www-form-urlencoded`",
            ),
            FormRejection::BytesRejection(inner) => inner.into(),
            _ => Self::new(
                Code::InvalidField,
                "the form lacks a field, or one is not valid",
            ),
        }
    }
}
