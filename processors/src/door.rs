//! `POST /v1/score`: verdicts without keeping anything.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{DefaultBodyLimit, FromRef, State};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use weir_auth::door::{self, Authenticated, Code, Problem};
use weir_auth::{Auth, Scope};
use weir_records::Verdict;

use crate::judge::{Judge, JudgeError};

/// Texts of a request at most.
pub const MAX_TEXTS: usize = 100;
/// Bytes of a text at most.
pub const MAX_TEXT_BYTES: usize = 8 * 1024;
/// Texts of all callers that may wait for the model at once: a small part of its queue,
/// so that messages get their verdicts however much is asked here.
pub const WAITING_TEXTS: usize = 500;

#[derive(Clone)]
struct Doors {
    judge: Judge,
    auth: Auth,
    room: Arc<Semaphore>,
}

impl FromRef<Doors> for Auth {
    fn from_ref(doors: &Doors) -> Self {
        doors.auth.clone()
    }
}

/// The route `POST /v1/score`.
pub fn router(judge: Judge, auth: Auth) -> OpenApiRouter {
    let doors = Doors {
        judge,
        auth,
        room: Arc::new(Semaphore::new(WAITING_TEXTS)),
    };
    OpenApiRouter::new()
        .routes(routes!(score))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(doors)
}

/// Room for the largest request, with some of its characters escaped.
const MAX_BODY: usize = 2 * MAX_TEXTS * MAX_TEXT_BYTES;

/// How long a caller waits before it tries a busy model again.
const RETRY: Duration = Duration::from_secs(1);

/// Texts to score.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Request {
    /// 1 to 100 texts, each of 1 byte to 8 KiB of UTF-8 after trimming.
    #[schema(min_items = 1, max_items = 100)]
    texts: Vec<String>,
}

/// One verdict for each text, in their order.
#[derive(Debug, Serialize, ToSchema)]
struct Answer {
    /// The verdicts; spans count code points of the trimmed text.
    #[schema(value_type = Vec<Object>, example = json!([{
        "action": "flag",
        "reasons": [{"attribute": "insult", "score": 0.93, "threshold": 0.8}],
        "scores": {"toxicity": 0.91, "severe_toxicity": 0.05, "insult": 0.93,
                   "threat": 0.01, "identity_attack": 0.02, "profanity": 0.4},
        "sentiment": {"label": "negative", "negative": 0.9, "neutral": 0.08, "positive": 0.02},
        "language": "en",
        "spans": [{"attribute": "toxicity", "start": 8, "end": 13}],
        "model": "weir-small-1",
        "judged_at": "2026-11-23T01:02:03.456789Z"
    }]))]
    verdicts: Vec<Verdict>,
}

/// Score texts.
///
/// Judges texts as `POST /v1/messages` would and keeps nothing. Needs the scope
/// `ingest` or `read`; each text counts against the caller's limit.
#[utoipa::path(
    post,
    path = "/v1/score",
    tag = "score",
    security(("bearer" = [])),
    request_body = Request,
    responses(
        (status = 200, description = "One verdict for each text, in their order.", body = Answer),
        (status = 400, description = "`invalid_json`, `not_utf8`, `unknown_field` or `invalid_field`; the problem names the text.", body = Problem, content_type = door::MEDIA_TYPE),
        (status = 401, description = "`unauthorized`: no credential, or one that does not work.", body = Problem, content_type = door::MEDIA_TYPE),
        (status = 403, description = "`forbidden`: neither of the scopes.", body = Problem, content_type = door::MEDIA_TYPE),
        (status = 413, description = "`too_large`: the body, or a text above 8 KiB.", body = Problem, content_type = door::MEDIA_TYPE),
        (status = 429, description = "`rate_limited`: wait as long as `Retry-After` says.", body = Problem, content_type = door::MEDIA_TYPE),
        (status = 503, description = "`overloaded` or `unavailable`: wait as long as `Retry-After` says.", body = Problem, content_type = door::MEDIA_TYPE),
    )
)]
async fn score(
    State(doors): State<Doors>,
    caller: Authenticated,
    door::Json(request): door::Json<Request>,
) -> Result<Json<Answer>, Problem> {
    if !caller.has(Scope::Ingest) {
        caller.require(Scope::Read)?;
    }
    let texts = check(&request.texts)?;
    // The request itself has been counted as one.
    let more = u32::try_from(texts.len() - 1).unwrap_or(u32::MAX);
    if more > 0 {
        caller.admit(more)?;
    }
    let places = u32::try_from(texts.len()).unwrap_or(u32::MAX);
    let Ok(_room) = doors.room.try_acquire_many(places) else {
        return Err(refusal(0, JudgeError::Overloaded));
    };
    let verdicts = doors.judge.judge(&texts).await;
    let verdicts = verdicts
        .into_iter()
        .enumerate()
        .map(|(at, verdict)| verdict.map_err(|fault| refusal(at, fault)));
    Ok(Json(Answer {
        verdicts: verdicts.collect::<Result<_, _>>()?,
    }))
}

/// The texts, trimmed.
fn check(texts: &[String]) -> Result<Vec<&str>, Problem> {
    if texts.is_empty() || texts.len() > MAX_TEXTS {
        let detail = format!("1 to {MAX_TEXTS} texts are taken at a time");
        return Err(Problem::new(Code::InvalidField, detail).field("texts"));
    }
    let text = |(at, text): (usize, &'_ String)| {
        let length = text.trim().len();
        if length == 0 {
            return Err(Problem::new(Code::InvalidField, "the text is empty").field(field(at)));
        }
        if length > MAX_TEXT_BYTES {
            let detail = format!("the text has {length} bytes, at most {MAX_TEXT_BYTES} are taken");
            return Err(Problem::new(Code::TooLarge, detail).field(field(at)));
        }
        Ok(())
    };
    texts.iter().enumerate().try_for_each(text)?;
    Ok(texts.iter().map(|text| text.trim()).collect())
}

fn field(at: usize) -> String {
    format!("texts[{at}]")
}

fn refusal(at: usize, fault: JudgeError) -> Problem {
    match fault {
        JudgeError::Overloaded => {
            Problem::new(Code::Overloaded, "too many texts wait for the model").retry_after(RETRY)
        }
        JudgeError::Stopped => {
            Problem::new(Code::Unavailable, "the model is stopping").retry_after(RETRY)
        }
        JudgeError::Refused => {
            Problem::new(Code::InvalidField, "the model fails on this text").field(field(at))
        }
    }
}
