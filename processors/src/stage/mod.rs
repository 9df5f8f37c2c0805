//! The role: `weir.messages` in, `weir.verdicts` out, same partition, same order.
//!
//! A batch of records goes decode → sort out what has a verdict → judge → publish →
//! wait for the acknowledgements. Every verdict carries its source offset, and
//! readers drop what is not above the last they hold; so verdicts of a partition
//! leave in the order of their offsets, and one that has fallen behind goes to the
//! dead letters instead of being dropped unseen. It is judged all the same: a record
//! that was given up, and comes again because its letter was not out, has verdicts
//! behind it by then, and is given up for the reason it had.
//!
//! # Once
//! A record read again after a restart is known by its own offset: the verdicts that
//! the history has not written yet are read back when the partition comes, older
//! ones are asked of the history. Such a record is skipped.
//!
//! A message sent again has another offset and the same tenant and id. It is dropped
//! if the first is among those read back, among the partition's last
//! [`REMEMBERED`] verdicts, or in the history. One gap stays: the same id sent to
//! **two channels** at about the same time can lie in two partitions, and until the
//! history holds the first verdict, nobody knows of both. The history still keeps
//! one of them only, the lake both. A second gap needs the history to lag by more
//! than [`REMEMBERED`] messages of a partition.
//!
//! An id that Weir made is not looked up in the history ([`Message::id_made`]): who has it
//! was told it by Weir, and if he used it before this record was in the log, did so a moment
//! ago, in the same channel, which is remembered. Used in another channel, it is as above:
//! until this record is judged.
//!
//! # Erased
//! A message that is erased gets no verdict, and whatever comes with its id later is
//! another message.

pub(crate) mod publish;
pub(crate) mod seen;

use std::collections::BTreeMap;
use std::collections::hash_map::{Entry, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use prometheus::Registry;
use weir_bus::{BoxError, Dead, Erased, Outcome, Producer, Record, Stage};
use weir_records::{Message, Source, Verdict, topic};
use weir_store::History;

use self::seen::{Content, Fingerprint, Judgement, Seen};
use crate::judge::{Judge, JudgeError};
use crate::metrics::Records;

/// Messages of a partition whose verdicts are remembered, about 70 bytes each.
pub const REMEMBERED: usize = 200_000;

/// Verdicts of a partition that are read back at least: a message whose acknowledgement was
/// late may have been sent again, under the id that Weir made, and lie in the log just before
/// the record of its first send. 20 seconds of the fastest partition.
const READ_AGAIN: i64 = 20_000;

/// Partitions that are read back at a time.
const READ_BACKS: usize = 4;

/// Questions to the history at a time.
const LOOKUPS: usize = 64;

/// How often, and how long apart, a full queue is tried before the batch is given
/// back to the worker, which waits longer.
const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(10);

/// A verdict came too late to be stored in order; see the module's head.
const OUT_OF_ORDER: &str = "verdict_out_of_order";
/// The id stands for another message already; the way in refuses almost all of these.
const CONFLICT: &str = "id_conflict";
/// The model fails on the text, every time.
pub(crate) const REFUSED: &str = "model_refused";

/// Makes the stage of group `weir.process`. `erased`: whose messages get no verdict; the
/// stage takes no partition before it is ready.
///
/// # Errors
/// When a metric of this name is registered already.
pub fn stage(
    judge: Judge,
    producer: Producer,
    history: Arc<dyn History>,
    bus: weir_bus::Config,
    erased: Erased,
    registry: &Registry,
) -> Result<impl Stage + use<>, prometheus::Error> {
    Ok(Process {
        judge,
        producer,
        history,
        bus,
        erased,
        metrics: Records::new(registry)?,
        partitions: BTreeMap::new(),
    })
}

struct Process {
    judge: Judge,
    producer: Producer,
    history: Arc<dyn History>,
    bus: weir_bus::Config,
    erased: Erased,
    metrics: Records,
    partitions: BTreeMap<i32, Seen>,
}

/// A record that has been read, and what is to be done with it.
struct Work<'a> {
    record: &'a Record,
    message: Message,
    fingerprint: Fingerprint,
    content: Content,
    /// Whatever its verdict, it can't be published any more.
    late: bool,
}

/// What is known of a message before it is judged.
enum Known {
    /// Nothing: judge it.
    New,
    /// The same: its id was another's, whose time is over.
    Free,
    /// This very record has a verdict.
    Replay,
    /// An earlier record of the same message has one.
    Duplicate,
    /// An earlier record of the same id, but another message, has one.
    Conflict,
    /// It has none, but later records of the partition have: too late.
    Late,
}

#[async_trait]
impl Stage for Process {
    fn name(&self) -> &'static str {
        "process"
    }

    async fn assigned(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, i64>, BoxError> {
        if !self.erased.is_ready() {
            return Err("the erasures are not read yet".into());
        }
        // Each of these is a connection of its own, so they are asked once, for all partitions.
        let (messages, verdicts, judged, stored) = tokio::try_join!(
            weir_bus::watermarks(&self.bus, topic::MESSAGES),
            weir_bus::watermarks(&self.bus, topic::VERDICTS),
            weir_bus::committed(&self.bus, topic::GROUP_PROCESS, topic::MESSAGES),
            weir_bus::committed(&self.bus, topic::GROUP_HISTORY, topic::VERDICTS),
        )?;
        let mut memories = BTreeMap::new();
        for part in partitions.chunks(READ_BACKS) {
            let learning = part.iter().map(|&partition| {
                let (low, high) = verdicts.get(&partition).copied().unwrap_or_default();
                let stored = stored
                    .get(&partition)
                    .map_or(low, |stored| low.max(*stored));
                // Some that are stored as well, for the ids that Weir made. What is further back
                // than REMEMBERED would not be remembered.
                let from = stored
                    .min(high - READ_AGAIN)
                    .max(low)
                    .max(high - REMEMBERED as i64);
                self.learn(partition, from, high)
            });
            memories.extend(futures::future::try_join_all(learning).await?);
        }
        let mut starts = BTreeMap::new();
        for (&partition, seen) in &memories {
            let Some(last) = seen.last() else { continue };
            let end = messages.get(&partition).map_or(0, |(_, high)| *high);
            if last >= end {
                return Err(Fault::Recreated {
                    partition,
                    last,
                    end,
                }
                .into());
            }
            // What is committed may lie before the last verdict; those records come again, because
            // a dead letter among them may not be out. A worker commits where it begins before it
            // reads, so without a commit the brokers have forgotten it: then that verdict is the mark.
            if !judged.contains_key(&partition) {
                starts.insert(partition, last + 1);
            }
        }
        for (partition, seen) in memories {
            tracing::info!(partition, last_judged = seen.last(), "partition taken");
            self.partitions.insert(partition, seen);
        }
        Ok(starts)
    }

    async fn revoked(&mut self, partition: i32) {
        self.partitions.remove(&partition);
    }

    async fn handle(&mut self, records: &[Record]) -> Result<Outcome, BoxError> {
        let mut outcome = Outcome::default();
        for record in records {
            let next = outcome.done.entry(record.partition).or_default();
            *next = (*next).max(record.offset + 1);
        }
        let mut work = decode(records, &mut outcome.dead);
        self.leave_out_erased(&mut work);
        let work = self.new_ones(work, &mut outcome.dead).await?;
        let judged = self.judge(work, &mut outcome.dead).await?;
        let judged = self.leave_out_late(judged, &mut outcome.dead);
        self.publish(judged, &mut outcome.dead).await?;
        Ok(outcome)
    }
}

/// Why the stage can't go on as things are.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(
        "partition {partition} of weir.messages ends at offset {end}, but verdicts up to {last} are stored: \
         the topic was made anew under an old store. Put the topic back from a copy, or name a new \
         `cql.keyspace` (with `weir up`: a new data folder) and a new `lake`"
    )]
    Recreated { partition: i32, last: i64, end: i64 },
    #[error("{failed} of {count} verdicts were not acknowledged ({code})")]
    NotDelivered {
        failed: usize,
        count: usize,
        code: &'static str,
    },
    #[error("the producer's queue stays full")]
    QueueFull,
    #[error("no verdicts: {0}")]
    Model(#[from] JudgeError),
}

impl Process {
    /// Learns which messages of a partition have verdicts: from the topic those that the
    /// history may not hold yet, and from the history how far it is.
    async fn learn(&self, partition: i32, from: i64, high: i64) -> Result<(i32, Seen), BoxError> {
        let mut seen = Seen::new(REMEMBERED);
        if from < high {
            self.read_back(partition, from, &mut seen).await?;
        }
        // Asked last: the history may have moved on while the rest was read.
        if let Some(fence) = self.history.fence(partition).await? {
            seen.reach(fence);
        }
        Ok((partition, seen))
    }

    async fn read_back(&self, partition: i32, from: i64, seen: &mut Seen) -> Result<(), BoxError> {
        weir_bus::read_back(
            &self.bus,
            topic::VERDICTS,
            partition,
            from,
            &mut |record: Record| {
                // A verdict that can't be read, or names another partition, is the history's
                // to report.
                if let Ok(judged) = weir_records::judged(&record.payload)
                    && judged.source.partition == partition
                {
                    seen.add_judged(&judged);
                }
            },
        )
        .await?;
        Ok(())
    }

    /// Drops what is erased, and forgets earlier messages that were erased since.
    fn leave_out_erased(&mut self, work: &mut Vec<Work<'_>>) {
        let erased = &self.erased;
        let before = work.len();
        work.retain(|item| !erased.covers(&item.message));
        self.metrics.erased.inc_by((before - work.len()) as u64);
        for item in work.iter() {
            let Some(seen) = self.partitions.get_mut(&item.record.partition) else {
                continue;
            };
            let message = &item.message;
            let erased = |first: Judgement| {
                let (sender, first) = (message.sender.as_deref(), first.received_at);
                erased.covered(&message.tenant, sender, &message.id, first)
            };
            if seen.judged(item.fingerprint).is_some_and(erased) {
                seen.forget(item.fingerprint);
            }
        }
    }

    /// Sorts out what needs no verdict any more; what is left is in order, or late.
    async fn new_ones<'a>(
        &mut self,
        work: Vec<Work<'a>>,
        dead: &mut Vec<Dead>,
    ) -> Result<Vec<Work<'a>>, BoxError> {
        // Within the batch, the first of each message counts.
        let mut here = HashMap::new();
        let mut first = Vec::with_capacity(work.len());
        for item in work {
            match here.entry(item.fingerprint) {
                Entry::Vacant(place) => {
                    place.insert(item.content);
                    first.push(item);
                }
                Entry::Occupied(known) => match repeated(&item, *known.get()) {
                    Known::Conflict => dead.push(item.dead(CONFLICT)),
                    _ => self.metrics.duplicates.inc(),
                },
            }
        }
        let work = first;
        let mut known = Vec::with_capacity(work.len());
        for part in work.chunks(LOOKUPS) {
            let mut questions = Vec::with_capacity(part.len());
            for item in part {
                questions.push(self.known(item));
            }
            known.extend(futures::future::join_all(questions).await);
        }
        let mut new = Vec::with_capacity(work.len());
        for (mut item, known) in work.into_iter().zip(known) {
            match known? {
                Known::New => new.push(item),
                Known::Free => {
                    if let Some(seen) = self.partitions.get_mut(&item.record.partition) {
                        seen.forget(item.fingerprint);
                    }
                    new.push(item);
                }
                Known::Late => {
                    item.late = true;
                    new.push(item);
                }
                Known::Replay => self.metrics.replays.inc(),
                Known::Duplicate => self.metrics.duplicates.inc(),
                Known::Conflict => dead.push(item.dead(CONFLICT)),
            }
        }
        Ok(new)
    }

    async fn known(&self, item: &Work<'_>) -> Result<Known, BoxError> {
        let (partition, offset) = (item.record.partition, item.record.offset);
        let seen = self.partitions.get(&partition);
        match seen.and_then(|seen| seen.judged(item.fingerprint)) {
            Some(first) if first.offset == offset => return Ok(Known::Replay),
            Some(first) if first.offset < offset => {
                return Ok(if self.has_run_out(item, first.offset).await? {
                    Known::Free
                } else {
                    repeated(item, first.content)
                });
            }
            _ => {}
        }
        let behind = seen.and_then(Seen::last).is_some_and(|last| offset <= last);
        // What was judged of a made id was judged a moment ago, and is remembered.
        if item.message.id_made && !behind {
            return Ok(Known::New);
        }
        let stored = self
            .history
            .source(&item.message.tenant, &item.message.id)
            .await?;
        let own = Source { partition, offset };
        Ok(match stored {
            // Read again although the fence says it is stored: only so can it be skipped safely.
            Some(source) if source == own && behind => Known::Replay,
            Some(source)
                if source != own && (source.partition != partition || source.offset < offset) =>
            {
                let first = self.history.message(&item.message.tenant, &item.message.id);
                first.await?.map_or(Known::Duplicate, |first| {
                    repeated(item, Content::of_stored(&first.message, &item.message))
                })
            }
            _ if behind => Known::Late,
            _ => Known::New,
        })
    }

    /// Whether the history has had the message that was judged there, and has it no more. The
    /// fence is asked first: what it says is stored is stored when the row is asked for.
    async fn has_run_out(&self, item: &Work<'_>, first: i64) -> Result<bool, BoxError> {
        let (tenant, id) = (&item.message.tenant, &item.message.id);
        let stored = self.history.fence(item.record.partition).await?;
        Ok(stored >= Some(first) && self.history.source(tenant, id).await?.is_none())
    }

    /// Judges in one go. Texts that the model refuses for good are given up; that it
    /// is busy or gone fails the whole.
    async fn judge<'a>(
        &self,
        work: Vec<Work<'a>>,
        dead: &mut Vec<Dead>,
    ) -> Result<Vec<(Work<'a>, Verdict)>, BoxError> {
        let texts: Vec<&str> = work.iter().map(|item| item.message.text.as_str()).collect();
        let mut tries = 0;
        let verdicts = loop {
            let verdicts = self.judge.judge(&texts).await;
            // All or none are admitted.
            if tries == TRIES || !verdicts.contains(&Err(JudgeError::Overloaded)) {
                break verdicts;
            }
            tries += 1;
            tokio::time::sleep(PAUSE).await;
        };
        let mut judged = Vec::with_capacity(work.len());
        for (item, verdict) in work.into_iter().zip(verdicts) {
            match verdict {
                Ok(verdict) => judged.push((item, verdict)),
                Err(JudgeError::Refused) => dead.push(item.dead(REFUSED)),
                Err(fault) => return Err(Fault::Model(fault).into()),
            }
        }
        Ok(judged)
    }
}

/// What a record is whose id was used before, for that content.
fn repeated(item: &Work<'_>, first: Content) -> Known {
    if item.content == first {
        Known::Duplicate
    } else {
        Known::Conflict
    }
}

impl Work<'_> {
    fn dead(&self, reason: &'static str) -> Dead {
        give_up(self.record, reason)
    }
}

/// Reads every record; what is none is given up.
fn decode<'a>(records: &'a [Record], dead: &mut Vec<Dead>) -> Vec<Work<'a>> {
    let mut work = Vec::with_capacity(records.len());
    for record in records {
        match weir_records::decode_message(&record.payload) {
            Ok(message) => work.push(Work {
                fingerprint: Fingerprint::of(&message.tenant, &message.id),
                content: Content::of(&message),
                late: false,
                record,
                message,
            }),
            Err(fault) => dead.push(give_up(record, fault.code())),
        }
    }
    work
}

fn give_up(record: &Record, reason: &'static str) -> Dead {
    Dead {
        partition: record.partition,
        offset: record.offset,
        reason,
        key: record.key.clone(),
        payload: record.payload.clone(),
    }
}
