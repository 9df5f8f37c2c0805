//! `GET /v1/channels/{channel}/messages` and `GET /v1/senders/{sender}/messages`: judged
//! messages, newest first, by cursor.

use std::time::{Duration, Instant};

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use weir_auth::door::{Authenticated, Code, Problem};
use weir_auth::{Kind, Scope};
use weir_store::{Error, Page, PageRequest};

use super::Door;
use super::parameters::{Parameters, Raw};
use super::read::{Shown, unreadable};
use super::schema::Messages;
use crate::accept::answer;
use crate::ingest::Inner;

/// Messages of a page, unless the caller says.
const LIMIT: usize = 50;

/// List a channel's messages
///
/// Judged messages, newest first. `next` is the cursor of the next page, which stays the
/// same while new messages arrive; `null` at the end.
#[utoipa::path(
    get,
    path = "/v1/channels/{channel}/messages",
    tag = "history",
    security(("bearer" = [])),
    params(
        ("channel" = String, Path, description = "The channel", example = "lobby"),
        ("limit" = Option<u32>, Query, description = "Messages of the page, 1 to 200; 50 if not given", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = 200, description = "A page", body = Messages),
        (status = 400, description = "A parameter is not valid", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No credential, or one that does not work", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Without the scope `read`", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many requests", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The history can't be read now", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn channel(
    State(door): State<Door>,
    Authenticated(caller): Authenticated,
    channel: Result<Path<String>, PathRejection>,
    query: Raw,
) -> Result<Response, Problem> {
    let began = Instant::now();
    let inner = door.ingest.inner();
    let page = async {
        caller.require(Scope::Read)?;
        let Path(channel) = channel?;
        let request = request(inner, query)?;
        written(
            inner
                .history
                .channel(&caller.tenant, &channel, &request)
                .await,
        )
    };
    let page = page.await;
    inner
        .metrics
        .channel_seconds
        .observe(began.elapsed().as_secs_f64());
    page
}

/// List a sender's messages
///
/// As for a channel. A user without the scope `read` may list its own messages.
#[utoipa::path(
    get,
    path = "/v1/senders/{sender}/messages",
    tag = "history",
    security(("bearer" = [])),
    params(
        ("sender" = String, Path, description = "The sender", example = "ann"),
        ("limit" = Option<u32>, Query, description = "Messages of the page, 1 to 200; 50 if not given", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = 200, description = "A page", body = Messages),
        (status = 400, description = "A parameter is not valid", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No credential, or one that does not work", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Without the scope `read`, and not a user's own messages", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many requests", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The history can't be read now", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn sender(
    State(door): State<Door>,
    Authenticated(caller): Authenticated,
    sender: Result<Path<String>, PathRejection>,
    query: Raw,
) -> Result<Response, Problem> {
    let began = Instant::now();
    let inner = door.ingest.inner();
    let page = async {
        let Path(sender) = sender?;
        let own = caller.kind == Kind::User && caller.id == sender && !caller.has(Scope::Read);
        if !own {
            caller.require(Scope::Read)?;
        }
        let request = request(inner, query)?;
        let history = &inner.history;
        let mut page = history.sender(&caller.tenant, &sender, &request).await;
        if own && let Ok(page) = &mut page {
            // Somebody else of that name may have been told of by a producer's key.
            page.rows.retain(|judged| judged.message.by_user);
        }
        written(page)
    };
    let page = page.await;
    inner
        .metrics
        .sender_seconds
        .observe(began.elapsed().as_secs_f64());
    page
}

fn request(inner: &Inner, query: Raw) -> Result<PageRequest, Problem> {
    let most = inner.config.page_messages;
    let mut query = Parameters::new(query)?;
    let limit = query.number("limit", 1, most)?.unwrap_or(LIMIT.min(most));
    let cursor = query.take("cursor", |text| {
        text.parse().map_err(|_| NOT_OURS.to_owned())
    })?;
    query.end()?;
    Ok(PageRequest { limit, cursor })
}

const NOT_OURS: &str = "the cursor is not one that this list gave out";

fn written(page: Result<Page, Error>) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Body<'a> {
        messages: Vec<Shown<'a>>,
        next: Option<String>,
    }

    let page = page.map_err(|error| problem(&error))?;
    let body = Body {
        messages: page.rows.iter().map(Shown::from).collect(),
        next: page.next.map(|cursor| cursor.to_string()),
    };
    let body = serde_json::to_vec(&body).map_err(|_| unreadable())?;
    Ok(answer::json(StatusCode::OK, body))
}

/// Why the history could not answer.
pub(super) fn problem(error: &Error) -> Problem {
    if matches!(error, Error::Cursor) {
        return Problem::new(Code::InvalidField, NOT_OURS).field("cursor");
    }
    tracing::error!(%error, "the history can't be read");
    if error.retriable() {
        Problem::new(Code::Unavailable, "the history can't be read now")
            .retry_after(Duration::from_secs(1))
    } else {
        Problem::new(Code::Internal, "the history can't be read")
    }
}
