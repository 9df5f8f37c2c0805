//! Verdicts into the history: decode, group by source partition, write in order.
//!
//! The store moves a fence with the rows, so a replay changes nothing. A row that
//! the store refuses for good is given up alone, and nothing behind it is written before
//! its dead letter is: else the fence would pass it, and who reads it once more after a
//! crash would take it for a replay. Any other failure counts as nothing done, and the
//! same records come again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::future::{BoxFuture, FutureExt as _, join_all};
use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use weir_bus::{BoxError, Dead, Erased, Outcome, Record, Stage};
use weir_records::{Erasure, Judged};
use weir_store::{Erase, Error, History};

use crate::lake::PARTITION_MISMATCH;
use crate::metrics::HistoryMetrics;

/// The reason of a dead letter that the store will never take.
pub const REFUSED: &str = "refused_by_store";

/// How long an erasure that could not be repeated is left alone: this, and then twice as
/// long each time.
const LATER: Duration = Duration::from_secs(1);
/// At most this long.
const LATEST: Duration = Duration::from_secs(600);
/// After this time the rest of the erasures waits for the next tick. At a start it is each
/// that there ever was, and the group takes a member that does not poll for gone.
const AT_ONCE: Duration = Duration::from_millis(100);

/// The stage of group `weir.history`.
pub struct Writer {
    store: Arc<dyn History>,
    erasures: Erased,
    repeats: VecDeque<Repeat>,
    /// The erasure that was repeated last could not be.
    failing: bool,
    metrics: HistoryMetrics,
}

/// Rows of one source partition, in offset order, each with the index of its record.
#[derive(Default)]
struct Rows {
    rows: Vec<Judged>,
    records: Vec<usize>,
}

/// An erasure to do once more.
struct Repeat {
    erasure: Erasure,
    /// Not before then.
    at: Instant,
    /// How long it was put off the last time.
    wait: Duration,
}

impl Writer {
    /// A stage that writes into `store`.
    ///
    /// # Errors
    /// When a metric of this name is registered already.
    pub fn new(store: Arc<dyn History>, registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            store,
            erasures: Erased::default(),
            repeats: VecDeque::new(),
            failing: false,
            metrics: HistoryMetrics::new(registry)?,
        })
    }

    /// Has the stage follow `weir.erasures` from its beginning, until `stop`. It then writes
    /// no erased row, and none at all before it has read what was there at the start.
    ///
    /// Whoever asks for an erasure erases in the history as well; the stage does it once
    /// more for what it was writing at that moment.
    ///
    /// # Errors
    /// A setting of the bus is refused, or there is no thread to be had.
    pub fn follow(
        &mut self,
        bus: &weir_bus::Config,
        registry: &Registry,
        stop: CancellationToken,
    ) -> Result<(), weir_bus::Error> {
        self.erasures = Erased::follow("history.erasures", bus, registry, stop)?;
        Ok(())
    }

    /// Writes rows up to the first that the store refuses for good, and answers which that
    /// is: it is not written, and nothing behind it.
    fn write<'a>(
        &'a self,
        partition: i32,
        rows: &'a [Judged],
    ) -> BoxFuture<'a, Result<Option<usize>, Error>> {
        async move {
            let timer = self.metrics.write_seconds.start_timer();
            let outcome = self.store.write(partition, rows).await;
            timer.observe_duration();
            match outcome {
                Ok(written) => {
                    self.metrics.rows.inc_by(written as u64);
                    self.metrics
                        .replays
                        .inc_by(rows.len().saturating_sub(written) as u64);
                    Ok(None)
                }
                Err(Error::Refused(_)) if rows.len() == 1 => Ok(Some(0)),
                // All or nothing: halve until the refused row stands alone.
                Err(Error::Refused(_)) => {
                    let (left, right) = rows.split_at(rows.len() / 2);
                    if let Some(refused) = self.write(partition, left).await? {
                        return Ok(Some(refused));
                    }
                    let refused = self.write(partition, right).await?;
                    Ok(refused.map(|refused| left.len() + refused))
                }
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    /// Goes through the erasures that have come: a row may have been on its way into the
    /// store when it was erased there, and before this stage knew. One that the store can't
    /// do now waits, and holds up neither the others nor the rows, none of which is written
    /// that it covers.
    async fn erase(&mut self) {
        while let Some(erasure) = self.erasures.next() {
            // Before those of the start, which are most likely done.
            self.repeats.push_front(Repeat {
                erasure,
                at: Instant::now(),
                wait: Duration::ZERO,
            });
        }
        let began = Instant::now();
        for _ in 0..self.repeats.len() {
            if began.elapsed() > AT_ONCE {
                return;
            }
            let Some(mut repeat) = self.repeats.pop_front() else {
                return;
            };
            if repeat.at > Instant::now() {
                self.repeats.push_back(repeat);
                continue;
            }
            let (tenant, what) = (&repeat.erasure.tenant, Erase::from(&repeat.erasure));
            match self.store.erase_late(tenant, &what).await {
                Ok(erased) => {
                    self.failing = false;
                    self.metrics.erased.inc_by(erased.messages);
                }
                Err(error) => {
                    if !self.failing && repeat.wait.is_zero() {
                        tracing::warn!(
                            tenant,
                            %error,
                            "an erasure could not be repeated; rows are written meanwhile, and it is tried again"
                        );
                    }
                    self.failing = true;
                    repeat.wait = (repeat.wait * 2).clamp(LATER, LATEST);
                    repeat.at = Instant::now() + repeat.wait;
                    self.repeats.push_back(repeat);
                    // The store may be away; then it would be so for each of them.
                    return;
                }
            }
        }
    }

    fn dead(&self, record: &Record, reason: &'static str) -> Dead {
        self.metrics.dead.with_label_values(&[reason]).inc();
        dead(record, reason)
    }
}

#[async_trait]
impl Stage for Writer {
    fn name(&self) -> &'static str {
        "history"
    }

    async fn handle(&mut self, records: &[Record]) -> Result<Outcome, BoxError> {
        if !self.erasures.is_ready() {
            return Err("the erasures are not read yet".into());
        }
        let mut groups: BTreeMap<i32, Rows> = BTreeMap::new();
        let mut given_up = Vec::new();
        let (mut repeated, mut erased) = (Vec::new(), Vec::new());
        let mut done = BTreeMap::new();
        for (index, record) in records.iter().enumerate() {
            done.insert(record.partition, record.offset + 1);
            match weir_records::judged(&record.payload) {
                // It would move the fence of a partition that it is not from.
                Ok(row) if row.source.partition != record.partition => {
                    given_up.push((index, PARTITION_MISMATCH));
                }
                Ok(row) if self.erasures.covers(&row.message) => erased.push(index),
                Ok(row) => {
                    let group = groups.entry(row.source.partition).or_default();
                    // A processor that went down may have published its last verdicts twice.
                    if group
                        .rows
                        .last()
                        .is_some_and(|last| last.source.offset >= row.source.offset)
                    {
                        repeated.push(index);
                        continue;
                    }
                    group.rows.push(row);
                    group.records.push(index);
                }
                Err(error) => given_up.push((index, error.code())),
            }
        }

        // All at once, so that the store may share one sync; and all to their end, even
        // if one fails, so that what was written is counted.
        let writes = groups
            .iter()
            .map(|(partition, group)| self.write(*partition, &group.rows));
        let outcomes = join_all(writes).await;
        let mut left = BTreeMap::new();
        for (group, outcome) in groups.values().zip(outcomes) {
            let Some(refused) = outcome? else { continue };
            let (until, behind) = group.records.split_at(refused + 1);
            given_up.extend(until.last().map(|index| (*index, REFUSED)));
            let first = behind.first().map(|index| &records[*index]);
            left.extend(first.map(|record| (record.partition, record.offset)));
        }
        // What is behind it comes again.
        let taken = |index: &usize| {
            let record = &records[*index];
            let from = left.get(&record.partition);
            from.is_none_or(|from| record.offset < *from)
        };
        let count = |indices: Vec<usize>| indices.iter().filter(|index| taken(index)).count();
        // Counted only now: a failed call comes again as a whole.
        self.metrics.replays.inc_by(count(repeated) as u64);
        self.metrics.erased.inc_by(count(erased) as u64);
        given_up.retain(|(index, _)| taken(index));
        given_up.sort_unstable_by_key(|(index, _)| *index);
        done.extend(&left);
        Ok(Outcome {
            done,
            dead: given_up
                .into_iter()
                .map(|(index, reason)| self.dead(&records[index], reason))
                .collect(),
            left,
        })
    }

    async fn tick(&mut self) -> Result<Outcome, BoxError> {
        self.erase().await;
        Ok(Outcome::default())
    }
}

/// The record, given up.
pub(crate) fn dead(record: &Record, reason: &'static str) -> Dead {
    Dead {
        partition: record.partition,
        offset: record.offset,
        reason,
        key: record.key.clone(),
        payload: record.payload.clone(),
    }
}
