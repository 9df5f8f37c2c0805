//! `/v1/admin/dead-letters/…`, for callers with the scope `admin`.
//!
//! The administrators of the tenant `default` see every letter; those of another tenant
//! the letters in which a message of their own can be read, and no others exist for them.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRef, Path, Query, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use weir_auth::door::{self, Authenticated, Code, Problem};
use weir_auth::{Auth, Caller, Scope};
use weir_records::{Message, Verdict};

use super::letter::{Id, Inside, Letter, State as Became};
use super::list::{Filter, MAX_PAGE, Request, Row};
use super::replay::Outcome;
use super::{Error, Letters, Replayed};
use crate::judge::JudgeError;

/// Its administrators run the installation and see every tenant.
const OPERATORS: &str = "default";
/// Letters of a page unless asked otherwise.
const LIMIT: usize = 100;
const RETRY: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Doors {
    letters: Letters,
    auth: Auth,
}

impl FromRef<Doors> for Auth {
    fn from_ref(doors: &Doors) -> Self {
        doors.auth.clone()
    }
}

/// The routes.
pub fn router(letters: Letters, auth: Auth) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(replay))
        .routes(routes!(discard))
        .with_state(Doors { letters, auth })
}

/// A dead letter, without what is in it.
#[derive(Serialize, ToSchema)]
struct Info {
    /// Its place in `weir.dead`: partition and offset.
    #[schema(example = "0-42")]
    id: String,
    state: Became,
    /// The stage that gave up; `unknown` where the letter itself can't be read.
    #[schema(example = "process")]
    stage: String,
    /// Why, as a stable code.
    #[schema(example = "model_refused")]
    reason: String,
    #[schema(value_type = String)]
    failed_at: Timestamp,
    /// Where the record was read.
    #[schema(example = "weir.messages")]
    topic: String,
    partition: i32,
    offset: i64,
    /// Bytes of the record.
    bytes: usize,
    /// These are absent where the record can't be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    /// Who settled it.
    #[serde(skip_serializing_if = "Option::is_none")]
    settled_by: Option<String>,
    #[schema(value_type = Option<String>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    settled_at: Option<Timestamp>,
}

/// A part of the list, newest first.
#[derive(Serialize, ToSchema)]
struct Page {
    letters: Vec<Info>,
    /// `cursor` of the next page; absent at the end. A page may be empty and still have
    /// a next one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A dead letter with what is in it.
#[derive(Serialize, ToSchema)]
struct Whole {
    #[serde(flatten)]
    info: Info,
    /// The message, where it can be read.
    #[schema(value_type = Option<Object>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message>,
    /// Its verdict, where the record held one that can be read.
    #[schema(value_type = Option<Object>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<Verdict>,
    /// What is wrong with the record, where it can't be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
    /// The record in base64, where the message can't be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
}

/// How to replay.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct How {
    /// Only say what would happen.
    #[serde(default)]
    dry_run: bool,
}

/// What a replay came to, or would come to.
#[derive(Serialize, ToSchema)]
struct Done {
    #[serde(flatten)]
    info: Info,
    outcome: Outcome,
    /// Why nothing can be done, as a stable code.
    #[serde(rename = "because", skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// The verdict that was given, where one is known.
    #[schema(value_type = Option<Object>)]
    then: Option<Verdict>,
    /// The verdict of today; absent where the model fails on the text or there is none.
    #[schema(value_type = Option<Object>)]
    now: Option<Verdict>,
    /// This request has settled the letter.
    done: bool,
}

/// A letter that is discarded.
#[derive(Serialize, ToSchema)]
struct Discarded {
    #[serde(flatten)]
    info: Info,
    /// This request has settled the letter.
    done: bool,
}

impl From<Row> for Info {
    fn from(row: Row) -> Self {
        let state = Became::of(row.settled.as_ref());
        let (settled_by, settled_at) = row.settled.map(|how| (how.by, how.settled_at)).unzip();
        Self {
            id: row.id.to_string(),
            state,
            stage: row.stage,
            reason: row.reason,
            failed_at: row.failed_at,
            topic: row.topic,
            partition: row.partition,
            offset: row.offset,
            bytes: row.bytes,
            tenant: row.tenant,
            channel: row.channel,
            sender: row.sender,
            message_id: row.message_id,
            settled_by,
            settled_at,
        }
    }
}

impl Info {
    fn new(letter: &Letter, inside: &Inside) -> Self {
        let mut row = Row::new(letter.id, &letter.letter, inside);
        row.settled.clone_from(&letter.settled);
        row.into()
    }
}

impl From<Letter> for Whole {
    fn from(letter: Letter) -> Self {
        let inside = Inside::of(&letter.letter);
        let info = Info::new(&letter, &inside);
        let payload = || Some(STANDARD.encode(&letter.letter.payload));
        let (mut message, verdict, fault, mut bytes) = match inside {
            Inside::Message(message) => (Some(message), None, None, None),
            Inside::Judged(judged) => (Some(judged.message), Some(judged.verdict), None, None),
            Inside::Unjudged(message, _) => {
                let fault = weir_records::judged(&letter.letter.payload).err();
                (Some(message), None, fault, payload())
            }
            Inside::Nothing(fault) => (None, None, Some(fault), payload()),
        };
        // Metadata that is not JSON can't be shown as what it should be.
        if message
            .as_ref()
            .is_some_and(|m| serde_json::to_value(m).is_err())
        {
            message = None;
            bytes = payload();
        }
        Self {
            info,
            message,
            verdict,
            fault: fault.map(|fault| fault.to_string()),
            payload: bytes,
        }
    }
}

impl From<Replayed> for Done {
    fn from(replayed: Replayed) -> Self {
        let Replayed { letter, plan, done } = replayed;
        Self {
            info: Info::new(&letter, &Inside::of(&letter.letter)),
            outcome: plan.outcome,
            reason: plan.reason,
            then: plan.then,
            now: plan.now,
            done,
        }
    }
}

/// List dead letters
///
/// Newest first, those that are open unless asked otherwise. A letter that a stage wrote
/// twice is listed once.
#[utoipa::path(
    get,
    path = "/v1/admin/dead-letters",
    tag = "administration",
    security(("bearer" = [])),
    params(
        ("stage" = Option<String>, Query, description = "The stage that gave up", example = "process"),
        ("reason" = Option<String>, Query, description = "Why", example = "model_refused"),
        ("tenant" = Option<String>, Query, description = "Whose message it is"),
        ("channel" = Option<String>, Query, description = "Where it was said"),
        ("since" = Option<String>, Query, description = "Given up at that time or later", example = "2026-11-23T00:00:00Z"),
        ("state" = Option<String>, Query, description = "`open`, `replayed`, `discarded` or `all`; `open` if not given"),
        ("limit" = Option<u32>, Query, description = "Letters of the page, 1 to 1000; 100 if not given", minimum = 1, maximum = 1000),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses((status = 200, body = Page), (status = "4XX", body = Problem, content_type = door::MEDIA_TYPE), (status = 503, body = Problem, content_type = door::MEDIA_TYPE))
)]
async fn list(
    State(doors): State<Doors>,
    Authenticated(caller): Authenticated,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    caller.require(Scope::Admin)?;
    let request = request(query?.0, &caller)?;
    let page = doors.letters.list(request).await?;
    Ok(Json(Page {
        letters: page.rows.into_iter().map(Info::from).collect(),
        next: page.next.map(|cursor| cursor.to_string()),
    }))
}

/// Show a dead letter
///
/// With its message, text included, or else with the record as it is.
#[utoipa::path(
    get,
    path = "/v1/admin/dead-letters/{id}",
    tag = "administration",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "The letter's id", example = "0-42")),
    responses((status = 200, body = Whole), (status = "4XX", body = Problem, content_type = door::MEDIA_TYPE), (status = 503, body = Problem, content_type = door::MEDIA_TYPE))
)]
async fn show(
    State(doors): State<Doors>,
    Authenticated(caller): Authenticated,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Whole>, Problem> {
    caller.require(Scope::Admin)?;
    let letter = doors.letters.find(read_id(&id?)?, only(&caller)).await?;
    Ok(Json(letter.into()))
}

/// Replay a dead letter
///
/// With `dry_run`, says what would happen and does nothing. Without, does it once: a
/// letter that is settled already, or would fail again, stays as it is, and `done` is false.
#[utoipa::path(
    post,
    path = "/v1/admin/dead-letters/{id}/replay",
    tag = "administration",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "The letter's id", example = "0-42")),
    request_body = How,
    responses((status = 200, body = Done), (status = "4XX", body = Problem, content_type = door::MEDIA_TYPE), (status = 503, body = Problem, content_type = door::MEDIA_TYPE))
)]
async fn replay(
    State(doors): State<Doors>,
    Authenticated(caller): Authenticated,
    id: Result<Path<String>, PathRejection>,
    door::Json(how): door::Json<How>,
) -> Result<Json<Done>, Problem> {
    caller.require(Scope::Admin)?;
    let id = read_id(&id?)?;
    let replayed = if how.dry_run {
        doors.letters.dry_run(id, only(&caller)).await?
    } else {
        let only = only(&caller).map(str::to_owned);
        doors.letters.replay(id, only, caller.id.clone()).await?
    };
    Ok(Json(replayed.into()))
}

/// Discard a dead letter
///
/// It stays in `weir.dead` until its time is over, and is no longer open. A letter that
/// is settled already stays as it is, and `done` is false.
#[utoipa::path(
    post,
    path = "/v1/admin/dead-letters/{id}/discard",
    tag = "administration",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "The letter's id", example = "0-42")),
    responses((status = 200, body = Discarded), (status = "4XX", body = Problem, content_type = door::MEDIA_TYPE), (status = 503, body = Problem, content_type = door::MEDIA_TYPE))
)]
async fn discard(
    State(doors): State<Doors>,
    Authenticated(caller): Authenticated,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Discarded>, Problem> {
    caller.require(Scope::Admin)?;
    let only = only(&caller).map(str::to_owned);
    let id = read_id(&id?)?;
    let (letter, done) = doors.letters.discard(id, only, caller.id.clone()).await?;
    Ok(Json(Discarded {
        info: Info::new(&letter, &Inside::of(&letter.letter)),
        done,
    }))
}

/// The tenant that an administrator is confined to; `None`: all of them.
fn only(caller: &Caller) -> Option<&str> {
    (caller.tenant != OPERATORS).then_some(caller.tenant.as_str())
}

fn read_id(text: &str) -> Result<Id, Problem> {
    // What is no id names no letter.
    text.parse().map_err(|()| Error::NotFound.into())
}

fn request(parameters: Vec<(String, String)>, caller: &Caller) -> Result<Request, Problem> {
    let mut filter = Filter {
        state: Some(Became::Open),
        only: only(caller).map(str::to_owned),
        ..Filter::default()
    };
    let (mut limit, mut cursor) = (LIMIT, None);
    let mut seen: Vec<String> = Vec::new();
    for (name, value) in parameters {
        let wrong = |detail: &str| Problem::new(Code::InvalidField, detail).field(name.clone());
        if seen.contains(&name) {
            return Err(wrong("this parameter is there twice"));
        }
        match name.as_str() {
            "stage" => filter.stage = Some(value),
            "reason" => filter.reason = Some(value),
            "tenant" => filter.tenant = Some(value),
            "channel" => filter.channel = Some(value),
            "since" => {
                let rule = "`since` is a time such as 2026-11-23T00:00:00Z";
                filter.since = Some(value.parse().map_err(|_| wrong(rule))?);
            }
            "state" => {
                filter.state = match value.as_str() {
                    "open" => Some(Became::Open),
                    "replayed" => Some(Became::Replayed),
                    "discarded" => Some(Became::Discarded),
                    "all" => None,
                    _ => return Err(wrong("`state` is open, replayed, discarded or all")),
                };
            }
            "limit" => {
                let number = value.parse().ok();
                limit = number
                    .filter(|number| (1..=MAX_PAGE).contains(number))
                    .ok_or_else(|| wrong("`limit` is a number from 1 to 1000"))?;
            }
            "cursor" => {
                let rule = "the cursor is not one that this list gave out";
                cursor = Some(value.parse().map_err(|()| wrong(rule))?);
            }
            _ => {
                let name: String = name.chars().take(64).collect();
                let detail = format!("the parameter `{name}` is not known here");
                return Err(Problem::new(Code::UnknownField, detail).field(name));
            }
        }
        seen.push(name);
    }
    Ok(Request {
        filter,
        limit,
        cursor,
    })
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let words = error.to_string();
        match &error {
            Error::NotFound => return Self::new(Code::NotFound, words),
            Error::Busy | Error::Model(JudgeError::Overloaded) => {
                return Self::new(Code::Overloaded, words).retry_after(RETRY);
            }
            Error::Model(_) => return Self::new(Code::Unavailable, words).retry_after(RETRY),
            _ => {}
        }
        tracing::error!(%error, "a request for dead letters failed");
        match error {
            Error::Store(error) if !error.retriable() => {
                Self::new(Code::Internal, "the history can't be used")
            }
            Error::Store(_) => {
                Self::new(Code::Unavailable, "the history can't be used now").retry_after(RETRY)
            }
            Error::BrokenOff => Self::new(Code::Internal, words),
            _ => Self::new(
                Code::Unavailable,
                "the dead letters can't be read or written now; asking again does nothing twice",
            )
            .retry_after(RETRY),
        }
    }
}
