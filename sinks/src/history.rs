//! Verdicts into the history: decode, group by source partition, write in order.
//!
//! The store moves a fence with the rows, so a replay changes nothing. A row that
//! the store refuses for good is given up alone: it never holds back the rows
//! behind it. Any other failure counts as nothing done, and the same records come again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::{BoxFuture, FutureExt as _, join_all};
use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use weir_bus::{BoxError, Dead, Erased, Outcome, Record, Stage};
use weir_records::{Judged, Target};
use weir_store::{Erase, Error, History};

use crate::lake::PARTITION_MISMATCH;
use crate::metrics::HistoryMetrics;

/// The reason of a dead letter that the store will never take.
pub const REFUSED: &str = "refused_by_store";

/// The stage of group `weir.history`.
pub struct Writer {
    store: Arc<dyn History>,
    erasures: Erased,
    /// Rows by topic partition and offset that the store refused in a call that failed in
    /// another place: it need not say so again.
    refused: BTreeSet<(i32, i64)>,
    metrics: HistoryMetrics,
}

/// Rows of one source partition, in offset order, each with the index of its record.
#[derive(Default)]
struct Rows {
    rows: Vec<Judged>,
    records: Vec<usize>,
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
            refused: BTreeSet::new(),
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

    /// Writes rows; `refused` gets those (by index) that the store refuses for good, also
    /// where the rest then fails.
    fn write<'a>(
        &'a self,
        partition: i32,
        rows: &'a [Judged],
        first: usize,
        refused: &'a mut Vec<usize>,
    ) -> BoxFuture<'a, Result<(), Error>> {
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
                    Ok(())
                }
                Err(Error::Refused(_)) if rows.len() == 1 => {
                    refused.push(first);
                    Ok(())
                }
                // All or nothing: halve until the refused row stands alone.
                Err(Error::Refused(_)) => {
                    let (left, right) = rows.split_at(rows.len() / 2);
                    self.write(partition, left, first, refused).await?;
                    self.write(partition, right, first + left.len(), refused)
                        .await
                }
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    /// Goes through the erasures that have come: a row may have been on its way into the
    /// store when it was erased there, and before this stage knew.
    async fn erase(&self) -> Result<(), Error> {
        while let Some(erasure) = self.erasures.next() {
            let what = match erasure.target {
                Target::Message(id) => Erase::Message {
                    id,
                    up_to: erasure.up_to,
                },
                Target::Sender(name) => Erase::Sender {
                    name,
                    up_to: erasure.up_to,
                },
            };
            let erased = self.store.erase(&erasure.tenant, &what).await?;
            self.metrics.erased.inc_by(erased.messages);
            self.erasures.done();
        }
        Ok(())
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
        self.erase().await?;
        let mut groups: BTreeMap<i32, Rows> = BTreeMap::new();
        let mut given_up = Vec::new();
        let (mut repeated, mut erased) = (0, 0);
        let mut done = BTreeMap::new();
        for (index, record) in records.iter().enumerate() {
            done.insert(record.partition, record.offset + 1);
            match weir_records::judged(&record.payload) {
                // It would move the fence of a partition that it is not from.
                Ok(row) if row.source.partition != record.partition => {
                    given_up.push((index, PARTITION_MISMATCH));
                }
                Ok(row) if self.erasures.covers(&row.message) => erased += 1,
                Ok(row) => {
                    let group = groups.entry(row.source.partition).or_default();
                    // A processor that went down may have published its last verdicts twice.
                    if group
                        .rows
                        .last()
                        .is_some_and(|last| last.source.offset >= row.source.offset)
                    {
                        repeated += 1;
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
        let this = &*self;
        let outcomes = join_all(groups.iter().map(|(partition, group)| async move {
            let mut refused = Vec::new();
            let outcome = this.write(*partition, &group.rows, 0, &mut refused).await;
            let records = refused.into_iter().map(|at| group.records[at]);
            (records.collect::<Vec<_>>(), outcome)
        }))
        .await;
        let (refused, outcomes): (Vec<_>, Vec<_>) = outcomes.into_iter().unzip();
        let place = |index: usize| (records[index].partition, records[index].offset);
        self.refused
            .extend(refused.into_iter().flatten().map(place));
        outcomes.into_iter().collect::<Result<(), _>>()?;

        let refused = std::mem::take(&mut self.refused);
        let refused = (0..records.len()).filter(|index| refused.contains(&place(*index)));
        // Counted only now: a failed call comes again as a whole.
        self.metrics.replays.inc_by(repeated);
        self.metrics.erased.inc_by(erased);
        given_up.extend(refused.map(|index| (index, REFUSED)));
        given_up.sort_unstable_by_key(|(index, _)| *index);
        Ok(Outcome {
            done,
            dead: given_up
                .into_iter()
                .map(|(index, reason)| self.dead(&records[index], reason))
                .collect(),
        })
    }

    async fn tick(&mut self) -> Result<Outcome, BoxError> {
        self.erase().await?;
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
