//! `GET /v1/messages/{id}`: a message with its verdict, as soon as there is one.

use std::time::{Duration, Instant};

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use weir_auth::door::{Authenticated, Code, Problem};
use weir_auth::{Caller, Kind, Scope};
use weir_records::Judged;

use super::parameters::{Parameters, Raw};
use super::schema::{JudgedMessage, Status};
use super::{Door, history};
use crate::accept::answer;
use crate::accept::check::Sender;
use crate::ingest::Inner;
use crate::recent::generations::Key;

/// Get a message with its verdict
///
/// Answers `"status": "judged"` with the verdict, or `"status": "pending"` for a message
/// that was accepted and is not judged yet. With `wait`, the answer is held back until the
/// verdict comes, or the time is over. A caller without the scope `read` sees the messages
/// of its own user only.
#[utoipa::path(
    get,
    path = "/v1/messages/{id}",
    tag = "messages",
    security(("bearer" = [])),
    params(
        ("id" = String, Path, description = "The message's id", example = "0198b2f0-7c1a-7d3e-9f21-1b7c44a90c55"),
        ("wait" = Option<u32>, Query, description = "Seconds to wait for the verdict, 0 to 30", minimum = 0, maximum = 30),
    ),
    responses(
        (status = 200, description = "The message, judged or pending", body = JudgedMessage),
        (status = 400, description = "A parameter is not valid", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No credential, or one that does not work", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "A key without the scope `read`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such message for this caller", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many requests", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The history can't be read now, or too many wait already", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn message(
    State(door): State<Door>,
    Authenticated(caller): Authenticated,
    id: Result<Path<String>, PathRejection>,
    query: Raw,
) -> Response {
    let began = Instant::now();
    let inner = door.ingest.inner();
    let answer = find(inner, &caller, id, query).await;
    inner
        .metrics
        .read_seconds
        .observe(began.elapsed().as_secs_f64());
    answer.unwrap_or_else(Problem::into_response)
}

async fn find(
    inner: &Inner,
    caller: &Caller,
    id: Result<Path<String>, PathRejection>,
    query: Raw,
) -> Result<Response, Problem> {
    let reader = Reader::of(inner, caller)?;
    let Path(id) = id?;
    let mut query = Parameters::new(query)?;
    let wait = query.number("wait", 0, inner.config.wait_seconds as usize)?;
    query.end()?;
    let key = inner.recent.hashes().key(&caller.tenant, &id);
    // Known before the verdict is looked for: in between it may have come, not gone.
    let pending = reader.knows(key);
    if let Some(judged) = reader.judged(key, &id).await? {
        return Ok(shown(&judged));
    }
    // Asked again: what the history has had, and has no more, is forgotten by now.
    if !(pending && reader.knows(key)) {
        return Err(Problem::new(Code::NotFound, "there is no such message"));
    }
    if let Some(seconds) = wait.filter(|seconds| *seconds > 0)
        && let Some(judged) = reader
            .wait(key, &id, Duration::from_secs(seconds as u64))
            .await?
    {
        return Ok(shown(&judged));
    }
    Ok(still_pending(&id))
}

/// A caller, and what of its tenant it may see.
struct Reader<'a> {
    inner: &'a Inner,
    caller: &'a Caller,
    /// Only messages of this sender.
    only: Option<&'a str>,
}

impl<'a> Reader<'a> {
    fn of(inner: &'a Inner, caller: &'a Caller) -> Result<Self, Problem> {
        let only = match caller.kind {
            Kind::User if !caller.has(Scope::Read) => Some(caller.id.as_str()),
            _ => {
                caller.require(Scope::Read)?;
                None
            }
        };
        Ok(Self {
            inner,
            caller,
            only,
        })
    }

    /// Whether the message was accepted lately.
    fn knows(&self, key: Key) -> bool {
        match self.only {
            Some(sender) => {
                self.inner
                    .recent
                    .is_accepted_from(key, &self.caller.tenant, Sender::user(sender))
            }
            None => self.inner.recent.is_accepted(key),
        }
    }

    /// The verdict, fresh or from the history.
    async fn judged(&self, key: Key, id: &str) -> Result<Option<Judged>, Problem> {
        let tenant = &self.caller.tenant;
        let found = match self.inner.verdicts.get(key, tenant, id) {
            Some(judged) => Some(judged),
            None => self
                .inner
                .stored(key, tenant, id)
                .await
                .map_err(|error| history::problem(&error))?,
        };
        let visible = |judged: &Judged| {
            self.only
                .is_none_or(|only| Sender::of(&judged.message) == Sender::user(only))
        };
        Ok(found.filter(visible))
    }

    /// The verdict, if it comes in time.
    async fn wait(&self, key: Key, id: &str, time: Duration) -> Result<Option<Judged>, Problem> {
        let Some(waiting) = self.inner.waiters.wait_for(key) else {
            let detail = "too many requests wait for a verdict now";
            return Err(Problem::new(Code::Overloaded, detail).retry_after(Duration::from_secs(1)));
        };
        // It may have come before we began to wait.
        if let Some(judged) = self.judged(key, id).await? {
            return Ok(Some(judged));
        }
        tokio::select! {
            () = waiting.verdict() => self.judged(key, id).await,
            () = self.inner.hurry.cancelled() => Ok(None),
            () = tokio::time::sleep(time) => Ok(None),
        }
    }
}

/// A judged message as users meet it.
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    status: Status,
    #[serde(flatten)]
    judged: &'a Judged,
}

impl<'a> From<&'a Judged> for Shown<'a> {
    fn from(judged: &'a Judged) -> Self {
        Self {
            status: Status::Judged,
            judged,
        }
    }
}

fn shown(judged: &Judged) -> Response {
    match serde_json::to_vec(&Shown::from(judged)) {
        Ok(body) => answer::json(StatusCode::OK, body),
        Err(_) => unreadable().into_response(),
    }
}

/// A stored message that can't be shown: only metadata that is no JSON could do that.
pub(super) fn unreadable() -> Problem {
    tracing::error!("a stored message can't be written as JSON");
    Problem::new(Code::Internal, "the message can't be shown")
}

fn still_pending(id: &str) -> Response {
    #[derive(Serialize)]
    struct Pending<'a> {
        id: &'a str,
        status: Status,
    }

    // A text and a word into memory: it can't fail.
    let body = serde_json::to_vec(&Pending {
        id,
        status: Status::Pending,
    })
    .unwrap_or_default();
    answer::json(StatusCode::OK, body)
}
