//! Follows a topic without a group: every reader sees everything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use prometheus::Registry;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admin::{Asker, bounds, committed_of};
use crate::client::{Context, Link};
use crate::config::Config;
use crate::error::Error;
use crate::position::Positions;
use crate::record::Record;

const POLL: Duration = Duration::from_millis(50);
const MAX_RECORDS: usize = 1_000;
const MAX_BYTES: usize = 4 << 20;
const MEASURE_EVERY: Duration = Duration::from_secs(2);
const LOOK_FOR_PARTITIONS: Duration = Duration::from_secs(30);
const ASK: Duration = Duration::from_secs(3);
/// Between two tries to find out where to start.
const RETRY: Duration = Duration::from_millis(500);

/// Where a tail begins, for each partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// With the first record that is held.
    Earliest,
    /// With the first record written after the tail has started.
    Latest,
    /// Where this group would go on; with the first record where it has committed nothing.
    Committed {
        /// The group.
        group: &'static str,
    },
    /// At these offsets; with the first record in partitions that are not named.
    Offsets(BTreeMap<i32, i64>),
}

/// A reader of all of a topic's partitions, also of those that are added later.
#[derive(Debug, Clone)]
pub struct Tail {
    /// The brokers.
    pub config: Config,
    /// Names the tail in metrics and logs; unlike any group and any other tail.
    pub name: &'static str,
    /// The topic.
    pub topic: &'static str,
    /// Where to begin.
    pub start: Start,
}

/// A tail that runs. It ends when its token is cancelled, not when this is dropped.
#[derive(Debug)]
pub struct TailHandle {
    state: Arc<State>,
    caught_up: watch::Receiver<bool>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    lag: AtomicI64,
}

impl Tail {
    /// Starts the thread. `sink` gets records in order within each partition, never
    /// none; the tail reads no further while it runs, so blocking is how to slow it down.
    ///
    /// Where no broker answers, the tail goes on trying.
    ///
    /// # Errors
    /// A setting is refused, the name is taken in this registry, or there is no thread
    /// to be had.
    pub fn spawn(
        self,
        registry: &Registry,
        stop: CancellationToken,
        sink: impl FnMut(Vec<Record>) + Send + 'static,
    ) -> Result<TailHandle, Error> {
        let consumer: BaseConsumer<Context> = self
            .config
            .consumer(&format!("weir.tail.{}", self.name))?
            .create_with_context(Context(Link::new(self.name)))
            .map_err(|error| Error::kafka("making a consumer", &error))?;
        let state = Arc::new(State::default());
        let (reached, caught_up) = watch::channel(false);
        let run = Run {
            positions: Positions::new(self.name, registry)?,
            tail: self,
            consumer,
            sink,
            stop,
            state: Arc::clone(&state),
            reached,
            goals: None,
            ends: BTreeMap::new(),
            next_measure: Instant::now(),
            next_look: Instant::now() + LOOK_FOR_PARTITIONS,
            missed: false,
        };
        let thread = std::thread::Builder::new()
            .name(run.tail.name.to_owned())
            .spawn(move || run.run())?;
        Ok(TailHandle {
            state,
            caught_up,
            thread,
        })
    }
}

impl TailHandle {
    /// Waits until everything has been given to the sink that was there when the tail
    /// started; for ever if the tail ends before.
    pub async fn caught_up(&self) {
        if self
            .caught_up
            .clone()
            .wait_for(|reached| *reached)
            .await
            .is_err()
        {
            std::future::pending::<()>().await;
        }
    }

    /// Records that are there and have not been given to the sink, as far as is known.
    #[must_use]
    pub fn lag(&self) -> i64 {
        self.state.lag.load(Ordering::Relaxed)
    }

    /// Whether the thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

struct Run<F> {
    tail: Tail,
    consumer: BaseConsumer<Context>,
    sink: F,
    stop: CancellationToken,
    state: Arc<State>,
    reached: watch::Sender<bool>,
    positions: Positions,
    /// Ends seen at the start that are not reached yet; `None` before they are known.
    goals: Option<BTreeMap<i32, i64>>,
    /// Ends as far as is known.
    ends: BTreeMap<i32, i64>,
    next_measure: Instant,
    next_look: Instant,
    /// It was said that the topic does not exist.
    missed: bool,
}

impl<F: FnMut(Vec<Record>)> Run<F> {
    fn run(mut self) {
        let name = self.tail.name;
        while !self.stop.is_cancelled() {
            if let Err(error) = self.step() {
                tracing::debug!(tail = name, %error, "the tail can't read; it tries again");
                self.pause();
            }
        }
        tracing::debug!(tail = name, "tail ended");
    }

    fn step(&mut self) -> Result<(), KafkaError> {
        if self.goals.is_none() {
            self.begin()?;
        }
        let records = self.fill();
        if !records.is_empty() {
            (self.sink)(records);
        }
        self.measure();
        self.arrive();
        Ok(())
    }

    fn pause(&self) {
        let until = Instant::now() + RETRY;
        while Instant::now() < until && !self.stop.is_cancelled() {
            // Brings events of the connection.
            let _ = self.consumer.poll(POLL);
        }
    }

    fn begin(&mut self) -> Result<(), KafkaError> {
        let topic = self.tail.topic;
        let partitions = self.partitions()?;
        if partitions.is_empty() {
            if !std::mem::replace(&mut self.missed, true) {
                let tail = self.tail.name;
                tracing::warn!(tail, topic, "the topic does not exist; trying on");
            }
            return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopic));
        }
        let ends = bounds(&self.consumer, topic, &partitions, Offset::End, ASK)?;
        let firsts = bounds(&self.consumer, topic, &partitions, Offset::Beginning, ASK)?;
        let first = |partition: &i32| firsts.get(partition).copied();
        let starts: BTreeMap<i32, Option<i64>> = match &self.tail.start {
            Start::Earliest => partitions.iter().map(|p| (*p, first(p))).collect(),
            Start::Latest => partitions
                .iter()
                .map(|p| (*p, ends.get(p).copied()))
                .collect(),
            Start::Offsets(offsets) => partitions
                .iter()
                .map(|p| (*p, offsets.get(p).copied().or_else(|| first(p))))
                .collect(),
            Start::Committed { group } => {
                let committed = self.committed_by(group, &partitions)?;
                partitions
                    .iter()
                    .map(|p| (*p, committed.get(p).copied().or_else(|| first(p))))
                    .collect()
            }
        };
        self.assign(&starts)?;
        self.ends.clone_from(&ends);
        self.goals = Some(ends);
        self.consumer.context().0.answered();
        tracing::info!(
            tail = self.tail.name,
            topic,
            partitions = partitions.len(),
            "tail started"
        );
        Ok(())
    }

    fn partitions(&self) -> Result<Vec<i32>, KafkaError> {
        let topic = self.tail.topic;
        let metadata = self.consumer.fetch_metadata(Some(topic), ASK)?;
        let found = metadata
            .topics()
            .iter()
            .find(|found| found.name() == topic && found.error().is_none());
        Ok(found.map_or_else(Vec::new, |found| {
            found.partitions().iter().map(|p| p.id()).collect()
        }))
    }

    /// Asks as the other group, without joining it.
    fn committed_by(
        &self,
        group: &str,
        partitions: &[i32],
    ) -> Result<BTreeMap<i32, i64>, KafkaError> {
        let asker = Asker::new(&self.tail.config, Some(group)).map_err(|_| KafkaError::Canceled)?;
        committed_of(asker.consumer(), self.tail.topic, partitions, ASK)
    }

    /// Reads these partitions, beside those that are read already.
    fn assign(&mut self, starts: &BTreeMap<i32, Option<i64>>) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        for (partition, start) in starts {
            self.positions.start(*partition, *start);
        }
        for partition in self.positions.partitions() {
            let offset = self
                .positions
                .next(partition)
                .map_or(Offset::Beginning, Offset::Offset);
            list.add_partition_offset(self.tail.topic, partition, offset)?;
        }
        self.consumer.assign(&list)
    }

    fn fill(&mut self) -> Vec<Record> {
        let (mut records, mut bytes, mut wait) = (Vec::new(), 0, POLL);
        while records.len() < MAX_RECORDS && bytes < MAX_BYTES {
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    let record = Record::copy(&message);
                    self.positions.pass(&record);
                    bytes += record.bytes();
                    records.push(record);
                    self.consumer.context().0.answered();
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => self.end_of(partition),
                Some(Err(error)) => {
                    tracing::debug!(tail = self.tail.name, %error, "a poll brought an error")
                }
            }
            wait = Duration::ZERO;
        }
        records
    }

    /// Nothing is left in the partition, whatever offset its end has.
    fn end_of(&mut self, partition: i32) {
        self.consumer.context().0.answered();
        if let Some(goals) = &mut self.goals {
            goals.remove(&partition);
        }
        if let Some(next) = self.positions.next(partition) {
            self.ends.insert(partition, next);
        }
    }

    fn measure(&mut self) {
        let now = Instant::now();
        if now >= self.next_look {
            self.next_look = now + LOOK_FOR_PARTITIONS;
            self.look_for_partitions();
        }
        if now >= self.next_measure {
            self.next_measure = now + MEASURE_EVERY;
            let partitions = self.positions.partitions();
            let wait = Duration::from_millis(500);
            if let Ok(ends) = bounds(
                &self.consumer,
                self.tail.topic,
                &partitions,
                Offset::End,
                wait,
            ) {
                self.ends = ends;
            }
        }
    }

    fn look_for_partitions(&mut self) {
        let Ok(partitions) = self.partitions() else {
            return;
        };
        let new: BTreeMap<i32, Option<i64>> = partitions
            .into_iter()
            .filter(|partition| !self.positions.holds(*partition))
            .map(|partition| (partition, None))
            .collect();
        if !new.is_empty() {
            tracing::info!(
                tail = self.tail.name,
                partitions = new.len(),
                "new partitions"
            );
            if let Err(error) = self.assign(&new) {
                tracing::warn!(tail = self.tail.name, %error, "new partitions can't be read");
            }
        }
    }

    fn arrive(&mut self) {
        let positions = &self.positions;
        if let Some(goals) = &mut self.goals {
            goals.retain(|partition, goal| {
                positions.next(*partition).is_none_or(|next| next < *goal)
            });
            if goals.is_empty() {
                // Stays true.
                self.reached
                    .send_if_modified(|reached| !std::mem::replace(reached, true));
            }
        }
        let lag = self.ends.iter().map(|(partition, end)| {
            positions
                .next(*partition)
                .or_else(|| positions.first(*partition))
                .map_or(0, |next| (end - next).max(0))
        });
        self.state.lag.store(lag.sum(), Ordering::Relaxed);
    }
}
