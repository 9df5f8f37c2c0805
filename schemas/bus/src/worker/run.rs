//! What the worker's thread does, from the first poll to leaving the group.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::Worker;
use super::commits::Commits;
use super::context::Member;
use super::letters::Letters;
use super::metrics::Metrics;
use super::retry::Failing;
use super::runtime::Runtime;
use crate::admin::bounds;
use crate::client::Linked as _;
use crate::error::{BoxError, Error, name, needs_operator};
use crate::position::Positions;
use crate::record::Record;
use crate::stage::{Outcome, Stage};

/// Longest wait in one poll: what a stop or a tick may be late by.
pub(super) const POLL: Duration = Duration::from_millis(50);
/// Bytes that a stage takes at a time, at most, beyond one record.
const BATCH_BYTES: usize = 8 << 20;
const MEASURE_EVERY: Duration = Duration::from_secs(5);

// Together the limit of a stop, about 5 s.
pub(super) const STOP_CALL: Duration = Duration::from_millis(1_500);
const STOP_FINISH: Duration = Duration::from_secs(2);
const STOP_COMMIT: Duration = Duration::from_millis(500);
const STOP_LEAVE: Duration = Duration::from_secs(1);

pub(super) struct Run<S> {
    pub(super) worker: Worker,
    pub(super) consumer: Arc<Member>,
    pub(super) stage: S,
    pub(super) letters: Letters,
    pub(super) runtime: Runtime,
    pub(super) metrics: Metrics,
    pub(super) positions: Positions,
    pub(super) commits: Commits,
    pub(super) committer: JoinHandle<()>,
    /// Read and not yet taken by the stage, in order within each partition.
    pub(super) batch: Vec<Record>,
    /// Partitions are paused: the thread waits, and polls only to stay in the group.
    pub(super) held: bool,
    /// Letters that no broker has acknowledged yet, and the offsets that wait for them. A
    /// stage tells of both once, so they are kept until they are safe or their partition goes.
    pub(super) owed: Outcome,
    pub(super) failing: Failing,
    pub(super) next_tick: Instant,
    pub(super) next_measure: Instant,
    pub(super) stop: CancellationToken,
}

impl<S: Stage> Run<S> {
    pub(super) fn run(mut self) -> Result<(), Error> {
        let _running = self.metrics.running();
        let group = self.worker.group;
        tracing::info!(
            group,
            topic = self.worker.topic,
            stage = self.stage.name(),
            "worker started"
        );
        let result = self.serve();
        if let Err(error) = &result {
            tracing::error!(group, %error, "the consumer can't go on");
        }
        self.close();
        tracing::info!(group, "worker ended");
        result
    }

    fn serve(&mut self) -> Result<(), Error> {
        self.consumer
            .subscribe(&[self.worker.topic])
            .map_err(|error| Error::kafka("subscribing", &error))?;
        while !self.stop.is_cancelled() {
            self.fill()?;
            self.rebalance()?;
            // What a partition that went has left of those that stay.
            self.settle(Outcome::default())?;
            self.work()?;
            self.tick()?;
            self.commits.send(false);
            self.measure();
        }
        Ok(())
    }

    /// Waits for the first record, then takes what else is there.
    fn fill(&mut self) -> Result<(), Error> {
        let mut wait = POLL.min(self.next_tick.saturating_duration_since(Instant::now()));
        // What the stage has left does not wait.
        if !self.batch.is_empty() {
            wait = Duration::ZERO;
        }
        let mut bytes = self.batch.iter().map(Record::bytes).sum::<usize>();
        while self.batch.len() < self.worker.max_records && bytes < BATCH_BYTES {
            if !self.poll(wait)? || self.consumer.context().has_events() {
                break;
            }
            bytes += self.batch.last().map_or(0, Record::bytes);
            wait = Duration::ZERO;
        }
        Ok(())
    }

    /// Polls once. Answers whether a record came.
    pub(super) fn poll(&mut self, wait: Duration) -> Result<bool, Error> {
        match self.consumer.poll(wait) {
            None => Ok(false),
            Some(Ok(message)) => {
                self.consumer.context().link().answered();
                let record = Record::copy(&message);
                self.positions.pass(&record);
                self.batch.push(record);
                Ok(true)
            }
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                Err(Error::kafka("consuming", &error))
            }
            Some(Err(error)) => {
                let (group, topic) = (self.worker.group, self.worker.topic);
                if needs_operator(&error) {
                    tracing::warn!(group, topic, %error, "the topic can't be read; trying on");
                } else {
                    // Repaired by librdkafka; outages are logged by the link.
                    tracing::debug!(group, %error, "a poll brought an error");
                }
                Ok(false)
            }
        }
    }

    /// Gives the batch to the stage until it takes it, or some of it.
    fn work(&mut self) -> Result<(), Error> {
        while !self.batch.is_empty() && !self.stop.is_cancelled() {
            let timer = self.metrics.stage_seconds.start_timer();
            let call = self.stage.handle(&self.batch);
            let outcome = self.runtime.wait(&self.stop, STOP_CALL, call);
            timer.observe_duration();
            match outcome {
                None => tracing::warn!(
                    group = self.worker.group,
                    "a call was cut short by the stop"
                ),
                Some(Ok(outcome)) => {
                    self.failing.over(self.stage.name());
                    let given = self.batch.len();
                    self.batch.retain(|record| {
                        let left = outcome.left.get(&record.partition);
                        left.is_some_and(|left| record.offset >= *left)
                    });
                    let taken = given - self.batch.len();
                    self.metrics.consumed.inc_by(taken as u64);
                    self.settle(outcome)?;
                    break;
                }
                Some(Err(error)) => {
                    let wait = self.failed(&error);
                    self.hold();
                    self.wait(wait)?;
                }
            }
        }
        self.go_on();
        Ok(())
    }

    fn tick(&mut self) -> Result<(), Error> {
        if Instant::now() < self.next_tick || self.stop.is_cancelled() {
            return Ok(());
        }
        let outcome = self.runtime.wait(&self.stop, STOP_CALL, self.stage.tick());
        // From the end of this one, so that a slow tick leaves room for records.
        self.next_tick = Instant::now() + self.worker.tick;
        match outcome {
            None => Ok(()),
            Some(Ok(outcome)) => {
                self.failing.over(self.stage.name());
                self.settle(outcome)?;
                self.go_on();
                Ok(())
            }
            Some(Err(error)) => {
                // Records keep coming meanwhile; a stage that can't take them says so.
                let wait = self.failed(&error);
                self.next_tick = Instant::now() + self.worker.tick.max(wait);
                Ok(())
            }
        }
    }

    fn failed(&mut self, error: &BoxError) -> Duration {
        self.metrics.retries.inc();
        self.failing.again(self.stage.name(), error)
    }

    /// Writes dead letters until they are acknowledged; only then is anything done.
    fn settle(&mut self, outcome: Outcome) -> Result<(), Error> {
        self.owe(outcome);
        let mut failing = Failing::default();
        while !self.write_letters(STOP_CALL) && !self.stop.is_cancelled() {
            let wait = failing.again(self.stage.name(), &"dead letters are not acknowledged");
            self.hold();
            self.wait(wait)?;
        }
        Ok(())
    }

    fn owe(&mut self, Outcome { done, dead, .. }: Outcome) {
        self.owed.done.extend(done);
        self.owed.dead.extend(dead);
    }

    /// Writes the letters that are owed, once; after a stop, within `grace`. Answers whether
    /// nothing is owed any more.
    fn write_letters(&mut self, grace: Duration) -> bool {
        if !self.owed.dead.is_empty() {
            // Copies: what is broken off is still owed.
            let write = self.letters.write(self.owed.dead.clone());
            if let Some(left) = self.runtime.wait(&self.stop, grace, write) {
                self.owed.dead = left;
            }
        }
        if !self.owed.dead.is_empty() {
            return false;
        }
        let done = std::mem::take(&mut self.owed.done);
        self.done(done);
        true
    }

    fn done(&mut self, done: BTreeMap<i32, i64>) {
        for (partition, next) in done {
            if self.positions.holds(partition) {
                self.commits.want(partition, next);
            }
        }
    }

    /// Lets time pass as a member of the group.
    fn wait(&mut self, time: Duration) -> Result<(), Error> {
        let until = Instant::now() + time;
        while !self.stop.is_cancelled() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.poll(left.min(POLL))?;
            self.rebalance()?;
            self.commits.send(false);
            self.measure();
        }
        Ok(())
    }

    pub(super) fn hold(&mut self) {
        if !self.held {
            self.held = true;
            let list = self.list(&self.positions.partitions());
            if let Err(error) = self.consumer.pause(&list) {
                tracing::debug!(%error, "partitions could not be paused");
            }
        }
    }

    pub(super) fn go_on(&mut self) {
        if self.held {
            self.held = false;
            let list = self.list(&self.positions.partitions());
            if let Err(error) = self.consumer.resume(&list) {
                tracing::debug!(%error, "partitions could not be resumed");
            }
        }
    }

    pub(super) fn list(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(self.worker.topic, *partition);
        }
        list
    }

    /// What is buffered goes to safety and offsets are committed, as far as time allows.
    /// What is not done then is read again by whoever comes next.
    pub(super) fn finish(&mut self, commit: Duration) {
        let group = self.worker.group;
        match self
            .runtime
            .wait(&self.stop, STOP_FINISH, self.stage.finish())
        {
            Some(Ok(outcome)) => {
                self.owe(outcome);
                if !self.write_letters(STOP_COMMIT) {
                    tracing::warn!(
                        group,
                        "dead letters are not acknowledged; those of partitions that stay are repeated"
                    );
                }
            }
            Some(Err(error)) => {
                tracing::warn!(group, %error, "the stage could not finish; its records come again")
            }
            None => tracing::warn!(
                group,
                "the stage did not finish in time; its records come again"
            ),
        }
        let until = Instant::now() + commit;
        while !self.commits.is_settled() && Instant::now() < until {
            self.commits.send(true);
            if self.poll(Duration::from_millis(10)).is_err() {
                return;
            }
        }
        if !self.commits.is_settled() {
            tracing::warn!(
                group,
                "offsets could not be committed in time; their records come again"
            );
        }
    }

    /// Finishes, commits and leaves the group.
    fn close(mut self) {
        self.batch.clear();
        self.hold();
        self.finish(STOP_COMMIT);
        for partition in self.positions.partitions() {
            self.forget(partition);
        }
        // Librdkafka may wait long for brokers that are gone; nothing depends on it.
        let (closed, wait) = mpsc::channel();
        let Self {
            consumer,
            commits,
            committer,
            ..
        } = self;
        let close = move || {
            drop(commits);
            let _ = committer.join();
            drop(consumer);
            let _ = closed.send(());
        };
        if std::thread::Builder::new().spawn(close).is_ok() {
            let _ = wait.recv_timeout(STOP_LEAVE);
        }
    }

    /// How far the group is behind. A question to the brokers, so seldom.
    pub(super) fn measure(&mut self) {
        let partitions = self.positions.partitions();
        if Instant::now() < self.next_measure || partitions.is_empty() {
            return;
        }
        self.next_measure = Instant::now() + MEASURE_EVERY;
        let wait = Duration::from_millis(500);
        match bounds(
            &self.consumer,
            self.worker.topic,
            &partitions,
            Offset::End,
            wait,
        ) {
            Ok(ends) => {
                self.consumer.context().link().answered();
                for (partition, end) in ends {
                    let done = self
                        .commits
                        .wanted(partition)
                        .or_else(|| self.positions.first(partition));
                    self.metrics.set_lag(partition, end - done.unwrap_or(end));
                }
            }
            Err(error) => {
                tracing::debug!(code = ?error.rdkafka_error_code().map(name), "the lag is not known")
            }
        }
    }
}
