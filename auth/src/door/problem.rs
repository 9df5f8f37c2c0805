//! The one shape of every refusal: a problem document (RFC 9457).
//!
//! Its text is written for the caller and holds nothing that was sent but the names
//! of fields; internal causes go to the log, not in here.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::Code;

/// The media type of a problem document.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// A place in a text that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Position {
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
}

/// One of several faults of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Fault {
    /// The field at fault.
    pub field: String,
    /// What is wrong with it.
    pub detail: String,
}

/// Why a request was refused (RFC 9457). Boxed: it travels in many `Result`s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Problem(Box<Document>);

/// Why a request was refused (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
struct Document {
    /// A URI for the kind of problem: `urn:weir:problem:` and the code.
    #[serde(rename = "type")]
    kind: String,
    /// The kind of problem in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// The kind of problem, for programs.
    code: Code,
    /// What happened this time.
    detail: String,
    /// The field at fault, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// The place at fault, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<Position>,
    /// Every fault, where a request has several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Fault>,
    /// The OAuth2 error code (RFC 6749), at the token door only.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    /// Seconds to wait, also in `Retry-After`.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(skip)]
    challenge: Option<&'static str>,
}

impl Problem {
    /// A problem of that kind; `detail` says what happened this time.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self(Box::new(Document {
            kind: format!("urn:weir:problem:{}", code.as_str()),
            title: code.title(),
            status: code.status().as_u16(),
            code,
            detail: detail.into(),
            field: None,
            position: None,
            errors: Vec::new(),
            error: None,
            retry_after: None,
            challenge: None,
        }))
    }

    /// Names the field at fault.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// Names the place at fault, both from 1.
    #[must_use]
    pub fn position(mut self, line: u64, column: u64) -> Self {
        self.0.position = Some(Position { line, column });
        self
    }

    /// Lists every fault; the first one's field becomes the problem's field.
    #[must_use]
    pub fn errors(mut self, errors: Vec<Fault>) -> Self {
        if self.0.field.is_none() {
            self.0.field = errors.first().map(|fault| fault.field.clone());
        }
        self.0.errors = errors;
        self
    }

    /// Says when to come back; rounded up to whole seconds, at least one.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        self.0.retry_after = Some(seconds.max(1));
        self
    }

    /// The OAuth2 name of the problem, for the token door.
    #[must_use]
    pub fn oauth(mut self, error: &'static str) -> Self {
        self.0.error = Some(error);
        self
    }

    /// A 429 that says when to come back.
    #[must_use]
    pub fn rate_limited(after: Duration) -> Self {
        Self::new(Code::RateLimited, "too many requests, slow down").retry_after(after)
    }

    /// A 401 for a credential that was shown and does not work.
    pub(crate) fn bad_credential(detail: &str) -> Self {
        let mut problem = Self::new(Code::Unauthorized, detail);
        problem.0.challenge = Some(r#"Bearer realm="weir", error="invalid_token""#);
        problem
    }

    /// The kind of problem.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.code.status()
    }

    /// What happened this time.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The field at fault.
    #[must_use]
    pub fn field_name(&self) -> Option<&str> {
        self.0.field.as_deref()
    }
}

impl PartialSchema for Problem {
    fn schema() -> RefOr<Schema> {
        Document::schema()
    }
}

impl ToSchema for Problem {
    fn name() -> Cow<'static, str> {
        "Problem".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Document::schemas(schemas);
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        // A problem is made of strings and numbers: it always serialises.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, MEDIA_TYPE)], body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.0.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            let challenge = self.0.challenge.unwrap_or(r#"Bearer realm="weir""#);
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static(challenge),
            );
        }
        response
    }
}
