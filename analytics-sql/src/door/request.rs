//! What a query request holds: JSON, or the query as it is.

use axum::http::{HeaderMap, header};
use serde::Deserialize;
use utoipa::ToSchema;
use weir_auth::door::{Code, Problem, parse_json};

/// A query.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SqlRequest {
    /// One reading statement.
    #[schema(
        example = "SELECT channel, count(*) FROM messages WHERE action <> 'allow' GROUP BY channel"
    )]
    pub(crate) query: String,
    /// Rows wanted at most. A JSON answer says `"truncated": true` where that left any out.
    #[serde(default)]
    pub(crate) limit: Option<usize>,
}

impl SqlRequest {
    /// Reads the body by its `Content-Type`; without one it is JSON.
    ///
    /// # Errors
    /// 400 naming the field, 415 for another kind of body.
    pub(crate) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, Problem> {
        let kind = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .unwrap_or("application/json")
            .trim()
            .to_ascii_lowercase();
        let request = match kind.as_str() {
            "application/json" => parse_json::<Self>(body)?,
            "text/plain" | "application/sql" => Self {
                query: std::str::from_utf8(body)
                    .map_err(|fault| {
                        let at = fault.valid_up_to();
                        Problem::new(
                            Code::NotUtf8,
                            format!("the byte at offset {at} does not belong to UTF-8 text"),
                        )
                    })?
                    .to_owned(),
                limit: None,
            },
            _ => {
                return Err(Problem::new(
                    Code::UnsupportedMediaType,
                    "a query is sent as `application/json`, `application/sql` or `text/plain`",
                ));
            }
        };
        if request.limit == Some(0) {
            return Err(Problem::new(Code::InvalidField, "`limit` is at least 1").field("limit"));
        }
        Ok(request)
    }
}
