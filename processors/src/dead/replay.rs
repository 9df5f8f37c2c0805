//! What a replay would do, and doing it.
//!
//! A [`Plan`] is made in the same way for a dry run and for the real one; only the
//! latter carries out its [`Work`]. It is made of what is known now: the model, its
//! thresholds and the history may have changed since the stage gave up, and may change
//! again between the two.

use weir_records::{DecodeError, Judged, Message, Verdict, topic};

use super::letter::{Inside, Letter};
use super::{Error, Letters};
use crate::judge::JudgeError;
use crate::stage::REFUSED as MODEL_REFUSED;
use crate::stage::publish::TOO_LARGE;
use crate::stage::seen::Content;

/// The stages that read `weir.verdicts`, as they name themselves.
const HISTORY: &str = "history";
/// The store refuses the row for good, now as then.
pub(super) const STORE_REFUSED: &str = "refused_by_store";
/// The history has the id for another message.
const CONFLICT: &str = "id_conflict";

/// What a replay comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// Its message goes into `weir.messages` again and is judged.
    Judged,
    /// Its row goes into the history.
    Stored,
    /// Its message has a verdict already; nothing is left to do but to settle the letter.
    Duplicate,
    /// It would fail again, for the reason given; nothing is done.
    FailsAgain,
    /// This version has no way to replay it, for the reason given.
    Impossible,
    /// It is settled already.
    Settled,
}

/// What is to be done with a letter.
pub(super) struct Plan {
    pub(super) outcome: Outcome,
    /// A stable code where nothing can be done.
    pub(super) reason: Option<&'static str>,
    /// The verdict that was given, as far as one is known.
    pub(super) then: Option<Verdict>,
    /// The verdict of today.
    pub(super) now: Option<Verdict>,
    pub(super) work: Work,
}

/// The effect of a plan, before the letter is settled.
pub(super) enum Work {
    /// The letter stays open.
    Nothing,
    /// The letter is settled without any other effect.
    Settle,
    /// Its record into `weir.messages` again.
    Publish,
    /// The row into the history.
    Put(Box<Judged>),
}

impl Plan {
    pub(super) const fn of(outcome: Outcome, work: Work) -> Self {
        Self {
            outcome,
            reason: None,
            then: None,
            now: None,
            work,
        }
    }

    const fn fails(reason: &'static str) -> Self {
        let mut plan = Self::of(Outcome::FailsAgain, Work::Nothing);
        plan.reason = Some(reason);
        plan
    }

    const fn impossible(reason: &'static str) -> Self {
        let mut plan = Self::of(Outcome::Impossible, Work::Nothing);
        plan.reason = Some(reason);
        plan
    }

    pub(super) fn now_fails(mut self, reason: &'static str) -> Self {
        self.outcome = Outcome::FailsAgain;
        self.reason = Some(reason);
        self.work = Work::Nothing;
        self
    }
}

impl Letters {
    pub(super) async fn plan(&self, letter: &Letter) -> Result<Plan, Error> {
        if letter.settled.is_some() {
            return Ok(Plan::of(Outcome::Settled, Work::Nothing));
        }
        match Inside::of(&letter.letter) {
            Inside::Message(message) => self.plan_message(letter, message).await,
            Inside::Judged(row) => {
                let mut plan = match self.known(&row.message).await? {
                    Some(plan) => plan,
                    None => Plan::of(Outcome::Stored, Work::Put(row.clone())),
                };
                plan.now = self.verdict(&row.message.text).await?;
                plan.then.get_or_insert(row.verdict);
                Ok(only_for_the_history(letter, plan))
            }
            Inside::Unjudged(message, source) => {
                let now = self.verdict(&message.text).await?;
                let mut plan = match (self.known(&message).await?, now.clone()) {
                    (Some(plan), _) => plan,
                    (None, None) => Plan::fails(MODEL_REFUSED),
                    (None, Some(verdict)) => {
                        let row = Judged {
                            message,
                            verdict,
                            source,
                        };
                        Plan::of(Outcome::Stored, Work::Put(Box::new(row)))
                    }
                };
                plan.now = now;
                Ok(only_for_the_history(letter, plan))
            }
            Inside::Nothing(fault) => Ok(unreadable(letter, &fault)),
        }
    }

    async fn plan_message(&self, letter: &Letter, message: Message) -> Result<Plan, Error> {
        let now = self.verdict(&message.text).await?;
        let mut plan = match (self.known(&message).await?, now.clone()) {
            (Some(plan), _) => plan,
            (None, None) => Plan::fails(MODEL_REFUSED),
            (None, Some(verdict)) => {
                let record = Judged {
                    message,
                    verdict,
                    source: letter.letter.source,
                };
                let bytes = letter.letter.key.len() + record.encode().len();
                if bytes > self.inner.bus.max_record_bytes() {
                    Plan::fails(TOO_LARGE)
                } else {
                    Plan::of(Outcome::Judged, Work::Publish)
                }
            }
        };
        plan.now = now;
        Ok(plan)
    }

    /// What follows from what the history has under the message's id.
    async fn known(&self, message: &Message) -> Result<Option<Plan>, Error> {
        let stored = self
            .inner
            .history
            .message(&message.tenant, &message.id)
            .await?;
        Ok(stored.map(|stored| {
            let content = Content::of_stored(&stored.message, message);
            let mut plan = if content == Content::of(message) {
                Plan::of(Outcome::Duplicate, Work::Settle)
            } else {
                Plan::fails(CONFLICT)
            };
            plan.then = Some(stored.verdict);
            plan
        }))
    }

    /// Today's verdict; `None` where the model fails on the text.
    async fn verdict(&self, text: &str) -> Result<Option<Verdict>, Error> {
        let mut verdicts = self.inner.judge.judge(&[text]).await;
        match verdicts.pop() {
            Some(Ok(verdict)) => Ok(Some(verdict)),
            Some(Err(JudgeError::Refused)) => Ok(None),
            Some(Err(fault)) => Err(Error::Model(fault)),
            None => Err(Error::Model(JudgeError::Stopped)),
        }
    }
}

/// The lake takes rows only in the order of the stream; a row below its mark would be
/// dropped unseen. Everything else that reads verdicts is the history.
fn only_for_the_history(letter: &Letter, plan: Plan) -> Plan {
    if letter.letter.stage == HISTORY || matches!(plan.work, Work::Nothing) {
        return plan;
    }
    Plan {
        then: plan.then,
        now: plan.now,
        ..Plan::impossible("lake_takes_no_single_rows")
    }
}

fn unreadable(letter: &Letter, fault: &DecodeError) -> Plan {
    match letter.letter.topic.as_str() {
        topic::MESSAGES => Plan::fails(fault.code()),
        topic::VERDICTS if letter.letter.stage == HISTORY => Plan::fails(fault.code()),
        topic::VERDICTS => Plan::impossible(fault.code()),
        _ => Plan::impossible("unknown_topic"),
    }
}
