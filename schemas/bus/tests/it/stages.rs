//! A stage for tests: remembers what it took, and does what the test tells it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use weir_bus::{BoxError, Config, Dead, Error, Outcome, Producer, Record, Stage, Worker};

use crate::support::number;

/// What a stage is to do, and what it has seen.
#[derive(Default)]
pub struct Book {
    /// Taken, by partition, in order; a call that failed is not in it.
    pub taken: BTreeMap<i32, Vec<u32>>,
    /// Offsets of the first record of each partition that was seen.
    pub first: BTreeMap<i32, i64>,
    pub assigned: Vec<i32>,
    pub revoked: Vec<i32>,
    pub calls: u32,
    /// Calls that failed.
    pub failures: u32,
    /// Fail every so many calls.
    pub fail_every: Option<u32>,
    /// Fail all calls.
    pub broken: bool,
    /// Give these numbers up.
    pub give_up: BTreeSet<u32>,
    /// Take so many records of a call, and leave the rest.
    pub take: Option<usize>,
    /// Where partitions begin.
    pub starts: BTreeMap<i32, i64>,
    /// Failures of `assigned` still to come.
    pub unready: u32,
    /// Say that records are done, or given up, only when asked to finish.
    pub buffer: bool,
    pub buffered: Outcome,
    pub finished: u32,
}

impl Book {
    pub fn count(&self) -> usize {
        self.taken.values().map(Vec::len).sum()
    }
}

#[derive(Clone, Default)]
pub struct Shared(pub Arc<Mutex<Book>>);

impl Shared {
    pub fn with(change: impl FnOnce(&mut Book)) -> Self {
        let shared = Self::default();
        change(&mut shared.0.lock());
        shared
    }

    pub fn count(&self) -> usize {
        self.0.lock().count()
    }

    /// Taken, repeats left out.
    pub fn distinct(&self) -> usize {
        let book = self.0.lock();
        book.taken
            .values()
            .map(|numbers| numbers.iter().collect::<BTreeSet<_>>().len())
            .sum()
    }

    /// Each number once, in order, in each partition.
    pub fn assert_once_in_order(&self) {
        for (partition, numbers) in &self.0.lock().taken {
            assert!(
                numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]),
                "partition {partition}: {numbers:?}"
            );
        }
    }
}

#[async_trait]
impl Stage for Shared {
    fn name(&self) -> &'static str {
        "test"
    }

    async fn assigned(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, i64>, BoxError> {
        let mut book = self.0.lock();
        if book.unready > 0 {
            book.unready -= 1;
            return Err("not ready".into());
        }
        book.assigned.extend(partitions);
        let mut starts = book.starts.clone();
        starts.retain(|partition, _| partitions.contains(partition));
        Ok(starts)
    }

    async fn revoked(&mut self, partition: i32) {
        let mut book = self.0.lock();
        book.buffered.done.remove(&partition);
        book.buffered
            .dead
            .retain(|dead| dead.partition != partition);
        book.revoked.push(partition);
    }

    async fn handle(&mut self, records: &[Record]) -> Result<Outcome, BoxError> {
        // As a stage that waits for something.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut book = self.0.lock();
        book.calls += 1;
        if book.broken
            || book
                .fail_every
                .is_some_and(|every| book.calls.is_multiple_of(every))
        {
            book.failures += 1;
            return Err("told to fail".into());
        }
        let mut outcome = Outcome::default();
        let (records, left) =
            records.split_at(book.take.unwrap_or(records.len()).min(records.len()));
        for record in left {
            outcome
                .left
                .entry(record.partition)
                .or_insert(record.offset);
        }
        for record in records {
            let number = number(&record.payload);
            book.first.entry(record.partition).or_insert(record.offset);
            book.taken.entry(record.partition).or_default().push(number);
            if book.give_up.contains(&number) {
                outcome.dead.push(Dead {
                    partition: record.partition,
                    offset: record.offset,
                    reason: "told_to",
                    key: record.key.clone(),
                    payload: record.payload.clone(),
                });
            }
            outcome.done.insert(record.partition, record.offset + 1);
        }
        if book.buffer {
            book.buffered.done.append(&mut outcome.done);
            book.buffered.dead.append(&mut outcome.dead);
        }
        Ok(outcome)
    }

    async fn tick(&mut self) -> Result<Outcome, BoxError> {
        Ok(Outcome::default())
    }

    async fn finish(&mut self) -> Result<Outcome, BoxError> {
        let mut book = self.0.lock();
        book.finished += 1;
        Ok(std::mem::take(&mut book.buffered))
    }
}

/// A worker that runs.
pub struct Running {
    thread: Option<JoinHandle<Result<(), Error>>>,
    stop: CancellationToken,
    pub registry: Registry,
}

impl Running {
    pub fn start(
        config: &Config,
        group: &'static str,
        topic: &'static str,
        stage: &Shared,
        producer: &Producer,
    ) -> Self {
        let registry = Registry::new();
        let stop = CancellationToken::new();
        let worker = Worker {
            config: config.clone(),
            group,
            topic,
            max_records: 50,
            tick: Duration::from_millis(50),
        };
        let thread = worker
            .spawn(stage.clone(), producer.clone(), &registry, stop.clone())
            .unwrap();
        Self {
            thread: Some(thread),
            stop,
            registry,
        }
    }

    pub async fn stop(mut self) {
        self.stop.cancel();
        let thread = self.thread.take().unwrap();
        tokio::task::spawn_blocking(move || thread.join().unwrap().unwrap())
            .await
            .unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
