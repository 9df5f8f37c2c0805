//! `POST /v1/messages` and `POST /v1/messages/batch`.

use std::time::Instant;

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use weir_auth::door::{Authenticated, Problem};
use weir_auth::{Caller, Scope};

use super::Door;
use super::schema::{Accepted, BatchResults, NewMessage};
use crate::accept::body::Whole;
use crate::accept::{accept, answer, batch, incoming};
use crate::ingest::Inner;

/// Send a message
///
/// Answers 202 after the message is safely stored; its verdict follows within
/// milliseconds at `GET /v1/messages/{id}`. Send again, with the same `id`, after any
/// answer that has a `Retry-After`, and after no answer: the message stays one, and what
/// was accepted before is answered as `judged`, with its verdict, or as `pending`.
#[utoipa::path(
    post,
    path = "/v1/messages",
    tag = "messages",
    security(("bearer" = [])),
    request_body(content = NewMessage, content_type = "application/json"),
    responses(
        (status = 200, description = "It had been accepted before, and is judged", body = Accepted),
        (status = 202, description = "Accepted, now or before", body = Accepted),
        (status = 400, description = "Not JSON, not UTF-8, or a field that is not valid, missing or unknown; `field` names it", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No credential, or one that does not work", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Without the scope `ingest`, or a user who names another sender", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The `id` stands for another text or channel", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body, the text or the metadata is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is compressed", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many messages; `Retry-After` says when to come back", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "At the limit, or the broker does not answer; `Retry-After` says when to come back", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn message(
    State(door): State<Door>,
    caller: Authenticated,
    request: Request,
) -> Response {
    let began = Instant::now();
    let inner = door.ingest.inner();
    let response = one(inner, &caller, request)
        .await
        .unwrap_or_else(|problem| refuse(inner, problem));
    inner
        .metrics
        .send_seconds
        .observe(began.elapsed().as_secs_f64());
    response
}

async fn one(inner: &Inner, caller: &Caller, request: Request) -> Result<Response, Problem> {
    caller.require(Scope::Ingest)?;
    let (_, body) = read(inner, request, inner.config.message_bytes).await?;
    let outcomes = accept(inner, caller, vec![incoming::parse(strip(&body.bytes))]).await?;
    // One message in, one outcome out.
    Ok(outcomes
        .into_iter()
        .next()
        .map_or_else(|| answer::batch(Vec::new()), answer::single))
}

/// Send up to 1,000 messages
///
/// A JSON array of messages, or one message a line (NDJSON), up to 8 MiB. Each message
/// has its own result, in order: `accepted`; `pending` or `judged`, which had been accepted
/// before; `rejected`, which will not pass as it is; or `failed`, which may pass later. The
/// status is 202 when at least one message was accepted, now or before. When none was, it is 503 if one had failed, else that of the first problem;
/// the problem document then has the `results` too.
#[utoipa::path(
    post,
    path = "/v1/messages/batch",
    tag = "messages",
    security(("bearer" = [])),
    request_body(content(
        (Vec<NewMessage> = "application/json"),
        (String = "application/x-ndjson", example = "{\"channel\": \"lobby\", \"text\": \"hello\"}\n{\"channel\": \"lobby\", \"text\": \"how are you?\"}\n"),
    )),
    responses(
        (status = 202, description = "At least one message was accepted, now or before", body = BatchResults),
        (status = 400, description = "No usable batch, or no usable message in it", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "No credential, or one that does not work", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Without the scope `ingest`, or a user who names another sender", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Every message has an `id` that stands for another text or channel", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "Too many messages or bytes", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is compressed", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many messages; `Retry-After` says when to come back", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "At the limit, or the broker does not answer; `Retry-After` says when to come back", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn batch(
    State(door): State<Door>,
    caller: Authenticated,
    request: Request,
) -> Response {
    let began = Instant::now();
    let inner = door.ingest.inner();
    let response = many(inner, &caller, request)
        .await
        .unwrap_or_else(|problem| refuse(inner, problem));
    inner
        .metrics
        .batch_seconds
        .observe(began.elapsed().as_secs_f64());
    response
}

async fn many(inner: &Inner, caller: &Caller, request: Request) -> Result<Response, Problem> {
    caller.require(Scope::Ingest)?;
    let (parts, body) = read(inner, request, inner.config.batch_bytes).await?;
    let messages = batch::parse(
        &parts.headers,
        strip(&body.bytes),
        inner.config.batch_messages,
    )?;
    // The request itself has counted as one.
    caller.admit(
        u32::try_from(messages.len())
            .unwrap_or(u32::MAX)
            .saturating_sub(1),
    )?;
    let outcomes = accept(inner, caller, messages).await?;
    Ok(answer::batch(outcomes))
}

async fn read(
    inner: &Inner,
    request: Request,
    most: usize,
) -> Result<(axum::http::request::Parts, Whole<'_>), Problem> {
    let (parts, body) = request.into_parts();
    let body = inner
        .room
        .read(&parts.headers, body, most, inner.body_timeout)
        .await?;
    inner.metrics.body_bytes.inc_by(body.bytes.len() as u64);
    Ok((parts, body))
}

/// Some programs begin UTF-8 with a byte order mark.
fn strip(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

fn refuse(inner: &Inner, problem: Problem) -> Response {
    inner.metrics.refuse(&problem);
    problem.into_response()
}
