//! The shapes of requests and answers, for the OpenAPI document. What is really read and
//! written is in `accept` and in `weir-records`; the tests compare them with these.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_auth::door::Code;

/// A message to be judged.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"channel": "lobby", "text": "that was a great game", "sender": "ann"}))]
pub struct NewMessage {
    /// Where it was said: 1 to 128 characters without control characters.
    pub channel: String,
    /// What was said: 1 to 8,192 bytes of UTF-8 after trimming.
    pub text: String,
    /// Who said it. A user's key may leave it out and can't name another.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sender: Option<String>,
    /// Unique in the tenant: 1 to 128 of `A-Z a-z 0-9 . _ : ~ @ + = -`. Sent again, the same
    /// id is the same message, and its verdict is the answer as soon as there is one. Without
    /// an id, the message gets a UUIDv7.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<String>,
    /// When it was said; now, if not given. At most 7 days in the past or 5 minutes in the
    /// future.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sent_at: Option<SentAt>,
    /// The producer's own fields, up to 4 KiB: kept and given back.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<serde_json::Map<String, serde_json::Value>>,
}

/// A time in either form.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum SentAt {
    /// RFC 3339.
    #[schema(format = DateTime, example = "2026-01-31T12:00:00Z")]
    Text(String),
    /// Milliseconds since 1970-01-01 UTC.
    #[schema(example = 1_769_860_800_000_i64)]
    Millis(i64),
}

/// The message is stored and will be judged, or was before and is judged already.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"id": "0198b2f0-7c1a-7d3e-9f21-1b7c44a90c55", "status": "accepted"}))]
pub struct Accepted {
    /// Its id.
    pub id: String,
    /// `accepted`; `pending` or `judged` where it had been accepted before.
    pub status: SendStatus,
    /// Its verdict, where it is judged.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub verdict: Option<Verdict>,
}

/// One result for each message of a batch, in order.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"results": [
    {"id": "0198b2f0-7c1a-7d3e-9f21-1b7c44a90c55", "status": "accepted"},
    {"index": 1, "status": "rejected", "problem": {"code": "invalid_field", "field": "text", "detail": "the text is empty"}},
]}))]
pub struct BatchResults {
    /// The results.
    pub results: Vec<SendResult>,
}

/// What has become of one message.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SendResult {
    /// Place in the batch, from 0; with a problem only.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub index: Option<u32>,
    /// Its id, where it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<String>,
    /// What has become of it.
    pub status: SendStatus,
    /// Its verdict, where it is judged.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub verdict: Option<Verdict>,
    /// Why it was not accepted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub problem: Option<SendProblem>,
}

/// What has become of a message that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SendStatus {
    /// Stored now; will be judged.
    Accepted,
    /// Stored before; not judged yet, or the verdict can't be told now.
    Pending,
    /// Stored and judged before.
    Judged,
    /// Not valid; will not pass as it is.
    Rejected,
    /// Not stored for now; to be sent again, with the same id.
    Failed,
}

/// Why one message of a batch was not accepted.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SendProblem {
    /// The kind of problem, for programs.
    pub code: Code,
    /// The field at fault, where there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub field: Option<String>,
    /// What happened.
    pub detail: String,
}

/// Whether there is a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Accepted, not judged yet.
    Pending,
    /// Judged.
    Judged,
}

/// A message with its verdict. While `pending`, only `id` and `status` are there.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct JudgedMessage {
    /// Its id.
    pub id: String,
    /// Whether there is a verdict.
    pub status: Status,
    /// Whose it is.
    pub tenant: Option<String>,
    /// Where it was said.
    pub channel: Option<String>,
    /// Who said it, where one was named.
    pub sender: Option<String>,
    /// The sender is a user who signed in, not a name that a producer's key gave.
    pub by_user: Option<bool>,
    /// What was said.
    pub text: Option<String>,
    /// When it was said, as the producer says.
    #[schema(format = DateTime)]
    pub sent_at: Option<String>,
    /// When Weir accepted it.
    #[schema(format = DateTime)]
    pub received_at: Option<String>,
    /// The producer's own fields.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<serde_json::Map<String, serde_json::Value>>,
    /// The verdict.
    pub verdict: Option<Verdict>,
    /// Partition of `weir.messages`.
    pub partition: Option<i32>,
    /// Offset in that partition.
    pub offset: Option<i64>,
}

/// A page of judged messages, newest first.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Messages {
    /// The messages.
    pub messages: Vec<JudgedMessage>,
    /// Cursor of the next page; `null` at the end.
    pub next: Option<String>,
}

/// What a model scored, and what the thresholds made of it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "action": "flag",
    "reasons": [{"attribute": "insult", "score": 0.93, "threshold": 0.8}],
    "scores": {"toxicity": 0.91, "severe_toxicity": 0.05, "insult": 0.93, "threat": 0.01, "identity_attack": 0.02, "profanity": 0.4},
    "sentiment": {"label": "negative", "negative": 0.9, "neutral": 0.08, "positive": 0.02},
    "language": "en",
    "spans": [{"attribute": "toxicity", "start": 8, "end": 13}],
    "model": "weir-small-1",
    "judged_at": "2026-01-31T12:00:00.004Z",
}))]
pub struct Verdict {
    /// What to do: `allow`, `flag`, `hold` or `block`.
    pub action: String,
    /// The scores that led there; empty for `allow`.
    pub reasons: Vec<Reason>,
    /// Every attribute's score, 0 to 1.
    pub scores: std::collections::BTreeMap<String, f32>,
    /// The mood of the text.
    pub sentiment: Sentiment,
    /// ISO 639-1 where there is one, else 639-3; `und` where it can't be told.
    pub language: String,
    /// Where in the text.
    pub spans: Vec<Span>,
    /// Name of the model.
    pub model: String,
    /// When.
    #[schema(format = DateTime)]
    pub judged_at: String,
}

/// Why a message was not simply allowed.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Reason {
    /// Which score.
    pub attribute: String,
    /// What it was.
    pub score: f32,
    /// What it reached.
    pub threshold: f32,
}

/// Three probabilities and the likeliest.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Sentiment {
    /// `negative`, `neutral` or `positive`.
    pub label: String,
    /// Probability.
    pub negative: f32,
    /// Probability.
    pub neutral: f32,
    /// Probability.
    pub positive: f32,
}

/// The words that a score points at: half-open, in Unicode code points.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Span {
    /// Which score.
    pub attribute: String,
    /// First code point.
    pub start: u32,
    /// One past the last code point.
    pub end: u32,
}
