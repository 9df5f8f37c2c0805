//! Every error code that an HTTP door answers: stable, described, with its status.
//! Clients branch on the code; the words around it may change.

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What went wrong, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Code {
    /// A field is missing, or its value breaks a rule; `field` names it.
    InvalidField,
    /// The body is not JSON; `position` says where.
    InvalidJson,
    /// The body is not UTF-8.
    NotUtf8,
    /// A field that this request does not have; `field` names it.
    UnknownField,
    /// The body, or a part of it, is larger than allowed.
    TooLarge,
    /// The body is of a kind that this door does not read.
    UnsupportedMediaType,
    /// None of the accepted answers can be given.
    NotAcceptable,
    /// No credential, or one that does not work.
    Unauthorized,
    /// The credential works but does not allow this.
    Forbidden,
    /// There is no such thing, or not for this caller.
    NotFound,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// It clashes with what exists.
    Conflict,
    /// Too many requests from this caller or address; wait as long as `Retry-After` says.
    RateLimited,
    /// Weir is at its limit now; wait as long as `Retry-After` says.
    Overloaded,
    /// A part that this needs is not reachable now; wait as long as `Retry-After` says.
    Unavailable,
    /// The query can't be run as written; `position` says where.
    QueryInvalid,
    /// The query ran longer than allowed.
    QueryTimeout,
    /// The query needs more memory or gives more rows than allowed.
    QueryTooLarge,
    /// A fault of Weir itself.
    Internal,
}

impl Code {
    /// All codes.
    pub const ALL: [Self; 19] = [
        Self::InvalidField,
        Self::InvalidJson,
        Self::NotUtf8,
        Self::UnknownField,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::NotAcceptable,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::RateLimited,
        Self::Overloaded,
        Self::Unavailable,
        Self::QueryInvalid,
        Self::QueryTimeout,
        Self::QueryTooLarge,
        Self::Internal,
    ];

    /// The code as it is written in an answer.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.entry().0
    }

    /// The HTTP status it travels with.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.entry().1
    }

    /// A short title, the same for every occurrence.
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.entry().2
    }

    const fn entry(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::InvalidField => ("invalid_field", S::BAD_REQUEST, "A field is not valid"),
            Self::InvalidJson => ("invalid_json", S::BAD_REQUEST, "The body is not valid JSON"),
            Self::NotUtf8 => ("not_utf8", S::BAD_REQUEST, "The body is not UTF-8"),
            Self::UnknownField => ("unknown_field", S::BAD_REQUEST, "A field is not known"),
            Self::TooLarge => ("too_large", S::PAYLOAD_TOO_LARGE, "Too large"),
            Self::UnsupportedMediaType => (
                "unsupported_media_type",
                S::UNSUPPORTED_MEDIA_TYPE,
                "The body is of an unsupported kind",
            ),
            Self::NotAcceptable => ("not_acceptable", S::NOT_ACCEPTABLE, "No acceptable answer"),
            Self::Unauthorized => ("unauthorized", S::UNAUTHORIZED, "Not authenticated"),
            Self::Forbidden => ("forbidden", S::FORBIDDEN, "Not allowed"),
            Self::NotFound => ("not_found", S::NOT_FOUND, "Not found"),
            Self::MethodNotAllowed => (
                "method_not_allowed",
                S::METHOD_NOT_ALLOWED,
                "Method not allowed",
            ),
            Self::Conflict => ("conflict", S::CONFLICT, "In conflict with what exists"),
            Self::RateLimited => ("rate_limited", S::TOO_MANY_REQUESTS, "Too many requests"),
            Self::Overloaded => ("overloaded", S::SERVICE_UNAVAILABLE, "Overloaded"),
            Self::Unavailable => ("unavailable", S::SERVICE_UNAVAILABLE, "Not available now"),
            Self::QueryInvalid => ("query_invalid", S::BAD_REQUEST, "The query is not valid"),
            Self::QueryTimeout => (
                "query_timeout",
                S::GATEWAY_TIMEOUT,
                "The query took too long",
            ),
            Self::QueryTooLarge => (
                "query_too_large",
                S::UNPROCESSABLE_ENTITY,
                "The query is too large",
            ),
            Self::Internal => ("internal", S::INTERNAL_SERVER_ERROR, "Internal error"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_written_as_it_is_serialised_and_only_once() {
        let mut seen = std::collections::BTreeSet::new();
        for code in Code::ALL {
            let json = serde_json::to_value(code).unwrap();
            assert_eq!(json.as_str(), Some(code.as_str()));
            assert!(seen.insert(code.as_str()));
            assert!(code.status().is_client_error() || code.status().is_server_error());
        }
    }
}
