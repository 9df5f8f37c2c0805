//! From a body to an acknowledged record.
//!
//! ```text
//! body ─ incoming / batch ─ check ─ claim ─ publish ─ answer
//! bytes  fields, borrowed   rules   ids     broker    one result for each message
//! ```
//!
//! A message is in one of these states from [`Item`] to [`Outcome`]; nothing in here
//! allocates a task or a channel for a message.

pub(crate) mod answer;
pub(crate) mod batch;
pub(crate) mod body;
pub(crate) mod check;
pub(crate) mod incoming;
mod publish;
mod stored;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;
use weir_auth::Caller;
use weir_auth::door::{Code, Problem};
use weir_bus::Outgoing;
use weir_records::{Verdict, topic};

use self::batch::Parsed;
use self::check::Checked;
use self::publish::Publication;
use self::stored::{Before, Stored};
use crate::ingest::Inner;
use crate::recent::generations::Key;
use crate::recent::{Claim, Claims, Flight, Identity};

/// When to come back after a refusal for now.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A message of a request while the request is under way.
enum Item {
    /// Its record goes to the broker; the next of the publication's answers is for it.
    Sent { id: String },
    /// Another send of the same id is under way, in this request or in another one.
    Shared {
        id: String,
        key: Key,
        flight: Arc<Flight>,
    },
    /// The broker has had it before; no verdict is known.
    Pending { id: String },
    /// It was judged before.
    Judged { id: String, verdict: Box<Verdict> },
    /// It breaks a rule.
    Refused {
        id: Option<String>,
        problem: Box<Problem>,
    },
}

/// What has become of a message.
pub(crate) enum Outcome {
    /// The broker has it, and did not before.
    Accepted { id: String },
    /// It was accepted before, and no verdict is known.
    Pending { id: String },
    /// It was judged before.
    Judged { id: String, verdict: Box<Verdict> },
    /// It was good, but the broker has not confirmed it: to be sent again.
    Failed { id: String, problem: Box<Problem> },
    /// It breaks a rule: not to be sent again as it is.
    Rejected {
        id: Option<String>,
        problem: Box<Problem>,
    },
}

/// Checks the messages, publishes those that are new, and answers when the broker has
/// them: one outcome for each message, in order.
///
/// # Errors
/// The producer's queue is full, or the history can't be read: none of them was published.
pub(crate) async fn accept(
    inner: &Inner,
    caller: &Caller,
    messages: Vec<Parsed<'_>>,
) -> Result<Vec<Outcome>, Problem> {
    let moments = inner.clock.take(messages.len());
    let messages: Vec<_> = messages
        .into_iter()
        .zip(moments)
        .map(|(message, now)| message.and_then(|message| inner.rules.check(message, caller, now)))
        .collect();
    let stored = stored::look_up(inner, &caller.tenant, &messages).await?;
    let mut request = Request {
        inner,
        caller,
        stored,
        records: Vec::with_capacity(messages.len()),
        claims: Claims::new(
            Arc::clone(&inner.recent),
            Arc::clone(&inner.verdicts),
            messages.len(),
        ),
    };
    let items: Vec<Item> = messages
        .into_iter()
        .enumerate()
        .map(|(index, message)| match message {
            Ok(message) => request.take(index, message),
            Err(problem) => Item::refused(None, problem),
        })
        .collect();
    let publication = request.publish()?;
    let deadline = tokio::time::Instant::now() + inner.ack_timeout;
    // Ours first: two requests that wait for each other's ids must both get on.
    let mut answers = match publication {
        Some(publication) => {
            let answers = tokio::time::timeout_at(deadline, publication.finish()).await;
            answers.unwrap_or_default().into_iter()
        }
        None => Vec::new().into_iter(),
    };
    let mut outcomes = Vec::with_capacity(items.len());
    for item in items {
        outcomes.push(match item {
            Item::Sent { id } => match answers.next() {
                Some(Ok(_)) => Outcome::Accepted { id },
                Some(Err(error)) => Outcome::failed(id, publish::explain(error)),
                None => Outcome::failed(id, publish::no_answer()),
            },
            Item::Shared { id, key, flight } => {
                // Whether it is in time or not, what counts is what is known then.
                let _ = tokio::time::timeout_at(deadline, flight.wait()).await;
                if inner.recent.is_accepted(key) {
                    Outcome::Pending { id }
                } else {
                    Outcome::failed(id, publish::no_answer())
                }
            }
            Item::Pending { id } => Outcome::Pending { id },
            Item::Judged { id, verdict } => Outcome::Judged { id, verdict },
            Item::Refused { id, problem } => Outcome::Rejected { id, problem },
        });
    }
    count(inner, &outcomes);
    Ok(outcomes)
}

fn count(inner: &Inner, outcomes: &[Outcome]) {
    let (mut accepted, mut repeated) = (0, 0);
    for outcome in outcomes {
        match outcome {
            Outcome::Accepted { .. } => accepted += 1,
            Outcome::Pending { .. } | Outcome::Judged { .. } => repeated += 1,
            Outcome::Failed { problem, .. } | Outcome::Rejected { problem, .. } => {
                inner.metrics.refuse(problem);
            }
        }
    }
    inner.metrics.accepted.inc_by(accepted + repeated);
    inner.metrics.repeated.inc_by(repeated);
}

impl Outcome {
    fn failed(id: String, problem: Problem) -> Self {
        Self::Failed {
            id,
            problem: Box::new(problem),
        }
    }
}

/// The messages of one request on their way to the producer.
struct Request<'a> {
    inner: &'a Inner,
    caller: &'a Caller,
    /// What was judged before under the ids that producers chose again.
    stored: Stored,
    records: Vec<Outgoing>,
    claims: Claims,
}

impl Request<'_> {
    fn take(&mut self, index: usize, checked: Checked<'_>) -> Item {
        match checked.id().map(str::to_owned) {
            Some(id) => match self.stored.remove(&index) {
                Some(Before::Judged(verdict)) => Item::Judged { id, verdict },
                Some(Before::Conflict) => Item::conflict(id),
                None => self.claim(id, checked),
            },
            None => {
                let id = new_id(checked.received_at());
                let identity = self.identify(&id, &checked);
                self.claims.take(identity);
                self.send(id, checked)
            }
        }
    }

    /// An id that the producer chose may be known.
    fn claim(&mut self, id: String, checked: Checked<'_>) -> Item {
        let identity = self.identify(&id, &checked);
        match self.claims.claim(identity) {
            Claim::Ours => self.send(id, checked),
            Claim::Accepted => Item::Pending { id },
            Claim::InFlight(flight) => Item::Shared {
                id,
                key: identity.key,
                flight,
            },
            Claim::Conflict => Item::conflict(id),
        }
    }

    fn send(&mut self, id: String, checked: Checked<'_>) -> Item {
        let tenant = &self.caller.tenant;
        self.records.push(Outgoing {
            topic: topic::MESSAGES,
            partition: None,
            key: topic::key(tenant, checked.content().0),
            payload: checked.message(tenant, &id).encode(),
        });
        Item::Sent { id }
    }

    fn identify(&self, id: &str, checked: &Checked<'_>) -> Identity {
        let tenant = &self.caller.tenant;
        let recent = &self.inner.recent;
        recent.identify(tenant, id, checked.content(), checked.sender())
    }

    /// Hands the records to the producer, all or none; `None` where there are none.
    fn publish(self) -> Result<Option<Publication>, Problem> {
        if self.records.is_empty() {
            return Ok(None);
        }
        match self.inner.producer.send(self.records) {
            Ok(delivery) => Ok(Some(Publication::new(delivery, self.claims))),
            Err(refused) => Err(publish::refused(refused)),
        }
    }
}

/// UUIDv7, in the order in which messages are received: milliseconds, then the microsecond
/// in the leftmost of the random bits (RFC 9562, section 6.2, method 3), which no other
/// message of this process has, then 62 random bits.
fn new_id(received_at: Timestamp) -> String {
    let micros = u64::try_from(received_at.as_microsecond()).unwrap_or_default();
    // In parts of 1/4,096 of a millisecond: each microsecond begins in another one.
    let part = u16::try_from(micros % 1_000 * 4_096 / 1_000).unwrap_or_default();
    let mut rest: [u8; 10] = rand::random();
    rest[..2].copy_from_slice(&part.to_be_bytes());
    let id: Uuid = uuid::Builder::from_unix_timestamp_millis(micros / 1_000, &rest).into_uuid();
    id.hyphenated().to_string()
}

impl Item {
    fn conflict(id: String) -> Self {
        let detail = "the id stands for another text, channel or sender already";
        let problem = Problem::new(Code::Conflict, detail).field("id");
        Self::refused(Some(id), problem)
    }

    fn refused(id: Option<String>, problem: Problem) -> Self {
        Self::Refused {
            id,
            problem: Box::new(problem),
        }
    }
}
