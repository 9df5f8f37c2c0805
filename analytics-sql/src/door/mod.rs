//! `POST /v1/sql`: a query in, rows out as JSON, CSV or an Arrow stream.
//!
//! The first mebibyte of an answer is held back, so that most queries either answer
//! whole or with a problem document. A larger answer streams; if its query fails then,
//! the connection breaks off, and no client can take the part for the whole.

mod format;
mod request;

use std::io;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, FromRef, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::stream;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use weir_auth::door::{Authenticated, Code, Problem};
use weir_auth::{Auth, Scope};

use self::format::{Encoder, Format};
use self::request::SqlRequest;
use crate::answer::Answer;
use crate::engine::{Engine, Query};
use crate::error::Error;

/// Bytes of an answer that are held back until its query is known to go well.
const HELD_BACK: usize = 1 << 20;
/// When a refused caller may come back.
const COME_BACK: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Door {
    engine: Engine,
    auth: Auth,
}

impl FromRef<Door> for Auth {
    fn from_ref(door: &Door) -> Self {
        door.auth.clone()
    }
}

#[derive(OpenApi)]
#[openapi(components(schemas(SqlRequest, format::SqlAnswer, format::Column)))]
struct Doc;

/// `POST /v1/sql`.
pub fn router(engine: Engine, auth: Auth) -> OpenApiRouter {
    // JSON may write a character of the query in six.
    let most = engine.config().query_bytes.saturating_mul(6) + 1024;
    OpenApiRouter::with_openapi(Doc::openapi())
        .routes(routes!(sql))
        .layer(DefaultBodyLimit::max(most))
        .with_state(Door { engine, auth })
}

/// Run a query
///
/// One reading statement over the table `messages`, which holds the caller's tenant's
/// messages with their verdicts, up to a second ago. Answers by `Accept`.
#[utoipa::path(
    post,
    path = "/v1/sql",
    tag = "sql",
    security(("bearer" = [])),
    request_body(
        description = "The query, as JSON or as it is",
        content(
            (SqlRequest = "application/json"),
            (String = "application/sql", example = "SELECT action, count(*) FROM messages GROUP BY action"),
            (String = "text/plain"),
        )
    ),
    responses(
        (status = 200, description = "The rows", content(
            (format::SqlAnswer = "application/json"),
            (String = "text/csv"),
            (Vec<u8> = "application/vnd.apache.arrow.stream"),
        )),
        (status = 400, description = "The query can't be run as written; `position` says where", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Not authenticated", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The credential lacks the scope `sql`", body = Problem, content_type = "application/problem+json"),
        (status = 406, description = "None of the accepted answers can be given", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is of an unsupported kind", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The query needs more memory, or answers more rows, than allowed", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many requests", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "As many queries run as may run at once, or Weir is starting", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "The query took too long and was stopped", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn sql(
    State(door): State<Door>,
    caller: Authenticated,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Response, Problem> {
    caller.require(Scope::Sql)?;
    let format = Format::accepted(&headers)?;
    let request = SqlRequest::read(&headers, &body?)?;
    let started = Instant::now();
    let answer = door
        .engine
        .query(Query {
            tenant: caller.tenant.clone(),
            sql: request.query,
            limit: request.limit,
        })
        .await?;
    let encoder = Encoder::new(format, answer.schema(), started)?;
    let mut flow = Flow {
        answer,
        encoder,
        done: false,
    };

    let mut head = Vec::new();
    while !flow.done && head.len() < HELD_BACK {
        head.extend_from_slice(&flow.chunk().await?);
    }
    let body = if flow.done {
        Body::from(head)
    } else {
        Body::from_stream(stream::try_unfold(
            (Some(head), flow),
            |(head, mut flow)| async move {
                if let Some(head) = head {
                    return Ok(Some((head, (None, flow))));
                }
                if flow.done {
                    return Ok(None);
                }
                // An error here cuts the connection off, which is all that is left to say.
                let chunk = flow.chunk().await.map_err(io::Error::other)?;
                Ok::<_, io::Error>(Some((chunk, (None, flow))))
            },
        ))
    };
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(format.media_type()),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// An answer on its way out.
struct Flow {
    answer: Answer,
    encoder: Encoder,
    done: bool,
}

impl Flow {
    /// The next bytes; after the last, `done`.
    async fn chunk(&mut self) -> Result<Vec<u8>, Error> {
        match self.answer.next().await? {
            Some(batch) => self.encoder.rows(&batch),
            None => {
                self.done = true;
                self.encoder.end(self.answer.truncated())
            }
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let words = error.to_string();
        match &error {
            Error::Invalid(fault) => {
                let problem = Self::new(Code::QueryInvalid, words).field("query");
                match &fault.place {
                    Some(place) => problem.position(place.line, place.column),
                    None => problem,
                }
            }
            Error::Timeout(_) => Self::new(Code::QueryTimeout, words),
            Error::TooLarge(_) => Self::new(Code::QueryTooLarge, words),
            Error::Overloaded => Self::new(Code::Overloaded, words).retry_after(COME_BACK),
            Error::Unavailable => Self::new(Code::Unavailable, words).retry_after(COME_BACK),
            Error::Internal => Self::new(Code::Internal, words),
        }
    }
}
