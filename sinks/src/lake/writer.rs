//! The stage: takes records, decides when to flush, and stays whole when a flush fails.
//!
//! After any failure the table is read again before the next attempt, because a commit
//! may have landed although its answer was lost: rows that turn out to be in are
//! dropped. Files already written are committed as they are, not written twice. As
//! long as a flush fails nothing more is taken, so memory stays bounded.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use deltalake::kernel::{Action, Add, Transaction};
use deltalake::protocol::{DeltaOperation, SaveMode};
use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use weir_bus::{BoxError, Outcome, Record, Stage};
use weir_records::Erasures;
use weir_records::columns::DATE;
use weir_records::topic::{LAKE_REWRITE, lake_transaction};

use super::buffer::{Buffer, Taken};
use super::eraser::Eraser;
use super::erasing::Erasing;
use super::files::Files;
use super::origin;
use super::retention::Keeper;
use super::rewrite::Rewritten;
use super::table::Table;
use super::upkeep::{Finished, Upkeep};
use super::{Config, Error};
use crate::metrics::LakeMetrics;

/// Other writers that one flush puts up with before it counts as failed.
const ROUNDS: usize = 8;
/// The wait after a failed flush, doubled from the first to the last.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// The stage of group `weir.lake`.
pub struct Writer {
    pub(super) config: Config,
    pub(super) table: Table,
    /// The log that rows come from, once it is followed.
    log: Option<weir_bus::Config>,
    /// Why the lake can't be of this log: that stays so when the log has outgrown it.
    refusal: Option<String>,
    pub(super) files: Files,
    pub(super) buffer: Buffer,
    /// The files of exactly the rows that wait, if a flush got that far and failed.
    pub(super) encoded: Option<Encoded>,
    /// The table has to be read again before the fences count.
    pub(super) stale: bool,
    pause: Option<(Instant, Duration)>,
    pub(super) upkeep: Upkeep,
    pub(super) eraser: Eraser,
    /// Rows that are not to get in.
    pub(super) erased: Erasures,
    pub(super) erasing: Erasing,
    /// The offset of the last erasure that the table was searched for.
    pub(super) mark: Option<i64>,
    pub(super) keeper: Keeper,
    pub(super) metrics: LakeMetrics,
}

pub(super) struct Encoded {
    pub(super) adds: Vec<Add>,
    at: Instant,
}

impl Writer {
    /// Opens the table, or makes it. Must be called on the runtime that is to do the
    /// work in the background.
    ///
    /// # Errors
    /// [`Error`] says whether the place or what lies there is at fault.
    pub async fn open(config: Config, registry: &Registry) -> Result<Self, Error> {
        let table = Table::open(&config).await?;
        Ok(Self {
            files: Files::new(&table)?,
            upkeep: Upkeep::new(&table).await,
            eraser: Eraser::default(),
            erased: Erasures::default(),
            erasing: Erasing::default(),
            mark: table.erased().await?,
            keeper: Self::keeper(&config),
            metrics: LakeMetrics::new(registry)?,
            table,
            config,
            log: None,
            refusal: None,
            buffer: Buffer::default(),
            encoded: None,
            stale: false,
            pause: None,
        })
    }

    /// Makes sure that the lake is of this log, then has the stage follow `weir.erasures`
    /// from its beginning, until `stop`. It commits no row before it has read what was
    /// there at the start. To be called once, before the first record.
    ///
    /// # Errors
    /// [`Error::AnotherLog`]; otherwise the log can't be used.
    pub async fn follow(
        &mut self,
        bus: &weir_bus::Config,
        registry: &Registry,
        stop: CancellationToken,
    ) -> Result<(), Error> {
        loop {
            match origin::check(&self.table, &self.config.url, bus, None).await {
                Ok(()) => break,
                Err(Error::Bus(error)) => weir_bus::wait_if_away(error).await?,
                Err(error) => return Err(error),
            }
        }
        self.eraser.follow(bus, registry, stop)?;
        self.log = Some(bus.clone());
        Ok(())
    }

    /// Makes sure that nothing of these partitions would be dropped that the lake does not hold.
    async fn check_origin(&mut self, partitions: &[i32]) -> Result<(), BoxError> {
        let Some(bus) = &self.log else {
            return Ok(());
        };
        if let Some(refusal) = &self.refusal {
            return Err(refusal.as_str().into());
        }
        self.table.refresh().await?;
        let checked = origin::check(&self.table, &self.config.url, bus, Some(partitions)).await;
        if let Err(error @ Error::AnotherLog { .. }) = &checked {
            self.refusal = Some(error.to_string());
        }
        Ok(checked?)
    }

    /// The way to this writer once it runs.
    #[must_use]
    pub fn eraser(&self) -> Eraser {
        self.eraser.clone()
    }

    fn take(&mut self, records: &[Record]) {
        for record in records {
            // The worker announces partitions; a stage driven otherwise is as safe.
            if !self.buffer.knows(record.partition) {
                self.buffer.assign(record.partition);
                self.stale = true;
            }
            match self.buffer.push(record, &self.erased) {
                Taken::Replay => self.metrics.replays.inc(),
                Taken::Dead(reason) => self.metrics.dead.with_label_values(&[reason]).inc(),
                Taken::Erased => self.metrics.erased.inc(),
                Taken::Row | Taken::Again => {}
            }
        }
        self.metrics
            .buffered
            .set(i64::try_from(self.buffer.len()).unwrap_or(i64::MAX));
    }

    /// Reads the table's newest version and drops what it holds already.
    pub(super) async fn reload(&mut self) -> Result<(), Error> {
        self.table.refresh().await?;
        for partition in self.buffer.partitions() {
            let fence = self.table.fence(partition).await?;
            let dropped = self.buffer.fence(partition, fence);
            if dropped > 0 {
                self.encoded = None;
                self.metrics.replays.inc_by(dropped as u64);
            }
        }
        self.stale = false;
        Ok(())
    }

    /// Puts everything that waits into the table and answers what that settles.
    async fn flush(&mut self) -> Result<Outcome, Error> {
        match self.try_flush().await {
            Ok(outcome) => {
                if self.pause.take().is_some() {
                    tracing::info!("the lake can be written again");
                }
                self.metrics.buffered.set(0);
                Ok(outcome)
            }
            Err(error) => {
                self.stale = true;
                self.metrics.failures.with_label_values(&["flush"]).inc();
                let [first, last] = PAUSES;
                let pause = match self.pause {
                    None => {
                        tracing::warn!(
                            error = chain(&error),
                            "the lake cannot be written; trying again"
                        );
                        first
                    }
                    Some((_, pause)) => (pause * 2).min(last),
                };
                self.pause = Some((Instant::now() + pause, pause));
                Err(error)
            }
        }
    }

    async fn try_flush(&mut self) -> Result<Outcome, Error> {
        let started = Instant::now();
        // Before the rows go in, those that were erased meanwhile go out.
        self.learn().await?;
        for round in 0.. {
            if self.stale {
                self.reload().await?;
            }
            if self.buffer.len() == 0 {
                break;
            }
            match self.commit_rows().await {
                Ok(()) => {
                    self.metrics
                        .commit_seconds
                        .observe(started.elapsed().as_secs_f64());
                    break;
                }
                Err(error) if error.is_conflict() && round < ROUNDS => {
                    self.metrics.conflicts.inc();
                    self.stale = true;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self.buffer.settle())
    }

    async fn commit_rows(&mut self) -> Result<(), Error> {
        if self
            .encoded
            .as_ref()
            .is_some_and(|encoded| self.may_be_gone(encoded.at))
        {
            self.encoded = None;
        }
        let adds = match &self.encoded {
            Some(encoded) => encoded.adds.clone(),
            None => {
                let at = Instant::now();
                let adds = self.files.write(self.buffer.rows()).await?;
                self.encoded = Some(Encoded {
                    adds: adds.clone(),
                    at,
                });
                adds
            }
        };
        let bytes: i64 = adds.iter().map(|add| add.size).sum();
        let transactions = self
            .buffer
            .marks()
            .into_iter()
            .map(|(partition, offset)| Transaction::new(lake_transaction(partition), offset))
            .collect();
        let operation = DeltaOperation::Write {
            mode: SaveMode::Append,
            partition_by: Some(vec![DATE.to_owned()]),
            predicate: None,
        };
        let actions = adds.into_iter().map(Action::Add).collect();
        let committed = self.table.commit(actions, transactions, operation).await?;
        // The commit that came between may have moved a fence that this one did not name.
        self.stale = !committed.alone;
        self.encoded = None;
        self.metrics.commits.inc();
        self.metrics.rows.inc_by(self.buffer.len() as u64);
        self.metrics.bytes.inc_by(u64::try_from(bytes).unwrap_or(0));
        Ok(())
    }

    /// Whether files written at `at`, and still not part of the table, may be taken for
    /// forgotten before a commit names them.
    fn may_be_gone(&self, at: Instant) -> bool {
        at.elapsed() > self.config.retention / 2
    }

    /// Whether a flush that failed may be tried again by now.
    fn may_try(&self) -> bool {
        self.pause.is_none_or(|(until, _)| Instant::now() >= until) && self.eraser.is_ready()
    }

    /// Takes the result of background work and starts the next.
    async fn look_after(&mut self) {
        let learned = self.learn().await;
        let mut result = match self.upkeep.finished().await {
            None => learned,
            Some(Ok(Finished::Merged(merged))) => self.commit_merge(merged).await,
            Some(Ok(Finished::Searched(round))) => self.commit_erasure(round).await,
            Some(Ok(Finished::Retained(round))) => self.commit_retention(round).await,
            Some(Ok(Finished::Purged(files))) => self.purged(files).await,
            Some(Ok(Finished::Checkpoint(_))) => {
                self.metrics.checkpoints.inc();
                Ok(())
            }
            Some(Ok(Finished::Removed(files))) => {
                self.metrics.removed.inc_by(files as u64);
                Ok(())
            }
            Some(Err(error)) => Err(error),
        };
        if result.is_ok() && self.upkeep.is_free() {
            result = self.start_erasing().await;
        }
        if let Err(error) = result {
            self.upkeep.hold_back();
            self.metrics.failures.with_label_values(&["upkeep"]).inc();
            tracing::warn!(
                error = chain(&error),
                "upkeep of the lake failed; trying again later"
            );
        }
        if self.upkeep.is_due() && self.pause.is_none() {
            self.metrics
                .files
                .set(i64::try_from(self.table.file_count()).unwrap_or(i64::MAX));
            self.upkeep
                .start(&self.table, &self.files, &self.config, &mut self.keeper);
        }
    }

    async fn commit_merge(&mut self, merged: Rewritten) -> Result<(), Error> {
        if self.stale {
            self.reload().await?;
        }
        // The merge read an older version: each file it replaces must still be there.
        let present: HashSet<String> = self
            .table
            .files()
            .map(|view| view.path().into_owned())
            .collect();
        if !merged.inputs.is_subset(&present) || self.may_be_gone(merged.at) {
            merged.discard(&self.files).await;
            return Ok(());
        }
        let version = i64::try_from(self.table.version()).unwrap_or(i64::MAX);
        let transaction = Transaction::new(LAKE_REWRITE, version);
        let operation = DeltaOperation::Optimize {
            predicate: None,
            target_size: i64::try_from(self.config.target_bytes).unwrap_or(i64::MAX),
        };
        match self
            .table
            .commit(merged.actions.clone(), vec![transaction], operation)
            .await
        {
            Ok(committed) => {
                self.stale = !committed.alone;
                self.metrics.merged.inc_by(merged.inputs.len() as u64);
                Ok(())
            }
            Err(error) => {
                self.stale = true;
                // Another writer merged the same files: its result is as good.
                if error.is_conflict() {
                    merged.discard(&self.files).await;
                    Ok(())
                } else {
                    Err(error)
                }
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.eraser.close();
    }
}

#[async_trait]
impl Stage for Writer {
    fn name(&self) -> &'static str {
        "lake"
    }

    async fn assigned(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, i64>, BoxError> {
        self.encoded = None;
        for partition in partitions {
            self.buffer.assign(*partition);
        }
        // Their fences are read before the first of their rows.
        self.stale = true;
        self.check_origin(partitions).await?;
        Ok(BTreeMap::new())
    }

    async fn revoked(&mut self, partition: i32) {
        self.encoded = None;
        self.buffer.revoke(partition);
    }

    async fn handle(&mut self, records: &[Record]) -> Result<Outcome, BoxError> {
        let mut outcome = Outcome::default();
        // Files that wait to be committed hold exactly the rows that wait.
        if self.encoded.is_some() || self.buffer.is_full(&self.config) {
            if !self.may_try() {
                return Err("the lake cannot be written".into());
            }
            outcome = self.flush().await?;
        }
        if self.stale && self.buffer.len() == 0 && self.may_try() {
            // So that a long replay is dropped as it comes. If it fails, the next flush
            // reads the fences, and tells.
            let _ = self.reload().await;
        }
        self.take(records);
        if (self.buffer.is_full(&self.config) || self.buffer.is_due(self.config.every))
            && self.may_try()
        {
            // The records are taken: if this fails they wait here, and the next call is refused.
            if let Ok(more) = self.flush().await {
                outcome.done.extend(more.done);
                outcome.dead.extend(more.dead);
            }
        }
        self.look_after().await;
        Ok(outcome)
    }

    async fn tick(&mut self) -> Result<Outcome, BoxError> {
        let mut outcome = Outcome::default();
        if self.buffer.is_due(self.config.every) && self.may_try() {
            outcome = self.flush().await.unwrap_or_default();
        }
        self.look_after().await;
        Ok(outcome)
    }

    async fn finish(&mut self) -> Result<Outcome, BoxError> {
        let flushed = if self.eraser.is_ready() {
            self.flush().await
        } else {
            // What is to be left out is not known yet: the rows come again.
            Ok(Outcome::default())
        };
        self.upkeep.rest().await;
        Ok(flushed?)
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
