//! Why a query was not answered, in words for who wrote it.
//!
//! What the query itself caused is told, with its place. What is Weir's own, such as a
//! file that can't be read, goes to the log and is not told.

use std::time::Duration;

use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, SchemaError};
use datafusion::sql::sqlparser::parser::ParserError;

use crate::grow::TooMuch;
use crate::place::{Place, closest};

/// Why a query was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The query can't be run as written.
    #[error("{0}")]
    Invalid(Box<Fault>),
    /// It ran longer than allowed.
    #[error("the query took longer than {} s and was stopped", .0.as_secs())]
    Timeout(Duration),
    /// It needs more memory, or answers more, than allowed.
    #[error("{0}")]
    TooLarge(String),
    /// As many queries run as may run at once.
    #[error("as many queries run as may run at once")]
    Overloaded,
    /// The rows of before the start are not all there yet.
    #[error("the newest rows are still being read back after the start")]
    Unavailable,
    /// A fault of Weir itself.
    #[error("the query failed for a reason that is not its own")]
    Internal,
}

/// What is wrong with a query, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub detail: String,
    /// Where, if that is known.
    pub place: Option<Place>,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Some(place) => write!(
                f,
                "{}, at line {} column {}:\n{}",
                self.detail, place.line, place.column, place.excerpt
            ),
            None => f.write_str(&self.detail),
        }
    }
}

/// Why queries can't be served at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The lake can't be read, or is of a place that is not one.
    #[error("the lake can't be opened: {0}")]
    Lake(#[from] deltalake::DeltaTableError),
    /// The broker can't be reached.
    #[error("the broker can't be read: {0}")]
    Bus(#[from] weir_bus::Error),
    /// A metric is registered twice.
    #[error("a metric can't be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// No threads for queries.
    #[error("the threads for queries can't be started: {0}")]
    Threads(#[from] std::io::Error),
    /// A setting that DataFusion refuses.
    #[error("the query engine can't be set up: {0}")]
    Engine(#[from] DataFusionError),
}

impl Error {
    /// The stable code, as in problem documents and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "query_invalid",
            Self::Timeout(_) => "query_timeout",
            Self::TooLarge(_) => "query_too_large",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::at(detail, None)
    }

    fn at(detail: impl Into<String>, place: Option<Place>) -> Self {
        Self::Invalid(Box::new(Fault {
            detail: detail.into(),
            place,
        }))
    }

    /// What DataFusion's error means for who wrote `sql`.
    pub(crate) fn of(error: &DataFusionError, sql: &str) -> Self {
        let spanned = error
            .diagnostic()
            .and_then(|d| d.span)
            .and_then(|span| Place::new(sql, span.start.line, span.start.column));
        match root(error) {
            DataFusionError::SQL(parser, _) => Self::of_parser(parser, sql),
            DataFusionError::SchemaError(schema, _) => Self::of_schema(schema, spanned, sql),
            DataFusionError::Plan(detail)
            | DataFusionError::NotImplemented(detail)
            | DataFusionError::Configuration(detail) => Self::of_plan(detail, spanned, sql),
            DataFusionError::Execution(detail) => Self::at(first_line(detail), spanned),
            DataFusionError::ArrowError(arrow, _) => match &**arrow {
                ArrowError::CastError(detail)
                | ArrowError::ParseError(detail)
                | ArrowError::ComputeError(detail)
                | ArrowError::ArithmeticOverflow(detail)
                | ArrowError::InvalidArgumentError(detail)
                | ArrowError::NotYetImplemented(detail) => Self::at(first_line(detail), spanned),
                ArrowError::DivideByZero => Self::at("division by zero", spanned),
                ArrowError::OffsetOverflowError(_) => Self::too_much_memory(),
                _ => Self::internal("arrow", None),
            },
            DataFusionError::ResourcesExhausted(_) => Self::too_much_memory(),
            DataFusionError::Internal(words) if words.contains("'regex_match") => {
                Self::at("a regular expression in the query is not valid", spanned)
            }
            // These may quote the query, so they do not go to the log.
            DataFusionError::Internal(_) => Self::internal("engine", None),
            DataFusionError::External(cause)
                if cause.to_string().starts_with("regex parse error") =>
            {
                Self::at("a regular expression in the query is not valid", spanned)
            }
            DataFusionError::External(cause)
                if cause
                    .to_string()
                    .starts_with("Compiled regex exceeds size limit") =>
            {
                Self::at("a regular expression in the query is too large", spanned)
            }
            DataFusionError::External(cause) if cause.is::<TooMuch>() => {
                Self::TooLarge(cause.to_string())
            }
            DataFusionError::ExecutionJoin(_) => Self::internal("panic", None),
            other => Self::internal("storage", Some(other)),
        }
    }

    fn too_much_memory() -> Self {
        Self::TooLarge(
            "the query needs more memory than one query may take; read fewer rows or columns, or group by less"
                .to_owned(),
        )
    }

    /// A fault of Weir itself, logged here once.
    pub(crate) fn internal(kind: &'static str, cause: Option<&DataFusionError>) -> Self {
        match cause {
            Some(cause) => {
                tracing::error!(kind, error = %cause.strip_backtrace(), "a query failed")
            }
            None => tracing::error!(kind, "a query failed"),
        }
        Self::Internal
    }

    fn of_parser(error: &ParserError, sql: &str) -> Self {
        match error {
            ParserError::TokenizerError(words) | ParserError::ParserError(words) => {
                let (detail, place) = Place::in_words(words, sql);
                Self::at(detail, place)
            }
            ParserError::RecursionLimitExceeded => {
                Self::TooLarge("the query is nested too deeply".to_owned())
            }
        }
    }

    fn of_schema(error: &SchemaError, spanned: Option<Place>, sql: &str) -> Self {
        let SchemaError::FieldNotFound {
            field,
            valid_fields,
        } = error
        else {
            return Self::at(error.to_string(), spanned);
        };
        let mut detail = format!("there is no column `{}` here", field.flat_name());
        let names: Vec<&str> = valid_fields
            .iter()
            .map(|column| column.name.as_str())
            .collect();
        match closest(&field.name, &names) {
            Some(name) => detail.push_str(&format!("; did you mean `{name}`?")),
            None if (1..=40).contains(&names.len()) => {
                detail.push_str(&format!("; there are {}", names.join(", ")))
            }
            None => {}
        }
        Self::at(detail, spanned.or_else(|| Place::of_name(sql, &field.name)))
    }

    fn of_plan(detail: &str, spanned: Option<Place>, sql: &str) -> Self {
        // DataFusion: table 'weir.public.mesages' not found
        let table = detail
            .strip_prefix("table '")
            .and_then(|rest| rest.split_once("' not found"))
            .map(|(name, _)| name);
        if let Some(full) = table {
            let name = full.rsplit('.').next().unwrap_or(full);
            let mut detail = format!("there is no table `{name}`");
            match closest(name, &["messages"]) {
                Some(close) => detail.push_str(&format!("; did you mean `{close}`?")),
                None => detail.push_str("; the table to read is `messages`"),
            }
            return Self::at(detail, spanned.or_else(|| Place::of_name(sql, name)));
        }
        // DataFusion: Invalid function 'cout'.\nDid you mean 'count'?
        let detail = detail
            .split("\n\n")
            .next()
            .unwrap_or(detail)
            .replace('\n', " ");
        let place = spanned.or_else(|| {
            let name = detail.split('\'').nth(1)?;
            Place::of_name(sql, name)
        });
        Self::at(detail, place)
    }
}

/// The error at the bottom.
fn root(error: &DataFusionError) -> &DataFusionError {
    let mut error = error;
    loop {
        error = match error {
            DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => inner,
            DataFusionError::Shared(inner) => inner,
            DataFusionError::Collection(all) => match all.first() {
                Some(first) => first,
                None => return error,
            },
            DataFusionError::External(inner) => match inner.downcast_ref() {
                Some(inner) => inner,
                None => return error,
            },
            DataFusionError::ArrowError(arrow, _) => match &**arrow {
                ArrowError::ExternalError(inner) => match inner.downcast_ref() {
                    Some(inner) => inner,
                    None => return error,
                },
                _ => return error,
            },
            _ => return error,
        };
    }
}

fn first_line(detail: &str) -> &str {
    detail.lines().next().unwrap_or_default()
}
