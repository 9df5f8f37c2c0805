//! Which offsets may be committed, and which the brokers have confirmed. One commit is
//! under way at a time; one that fails is repeated, because what is wanted still differs
//! from what is confirmed.
//!
//! A commit waits for the brokers, so it has a thread of its own: librdkafka confirms
//! only to who waits, and the worker has to stay free to poll and to stop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use super::context::Member;
use crate::client::Linked as _;
use crate::error::Error;

/// At most one commit in so long: more would cost the brokers a write each, fewer would
/// have more repeated after a kill.
const EVERY: Duration = Duration::from_millis(200);

type Offsets = BTreeMap<i32, i64>;

pub(super) struct Commits {
    wanted: Offsets,
    sent: Option<Instant>,
    state: Arc<Mutex<State>>,
    requests: Sender<Offsets>,
}

#[derive(Default)]
struct State {
    under_way: bool,
    confirmed: Offsets,
}

impl Commits {
    /// Starts the thread; it ends when the answer is dropped.
    pub(super) fn start(
        consumer: Arc<Member>,
        topic: &'static str,
    ) -> Result<(Self, JoinHandle<()>), Error> {
        let state = Arc::new(Mutex::new(State::default()));
        let (requests, received) = mpsc::channel();
        let committer = Committer {
            consumer,
            topic,
            state: Arc::clone(&state),
            received,
        };
        let thread = std::thread::Builder::new().spawn(move || committer.run())?;
        let commits = Self {
            wanted: Offsets::new(),
            sent: None,
            state,
            requests,
        };
        Ok((commits, thread))
    }

    /// Everything of the partition below `next` is done.
    pub(super) fn want(&mut self, partition: i32, next: i64) {
        self.wanted.insert(partition, next);
    }

    /// The next offset that is not done, where any is.
    pub(super) fn wanted(&self, partition: i32) -> Option<i64> {
        self.wanted.get(&partition).copied()
    }

    /// The partition is someone else's.
    pub(super) fn forget(&mut self, partition: i32) {
        self.wanted.remove(&partition);
        self.state.lock().confirmed.remove(&partition);
    }

    pub(super) fn is_settled(&self) -> bool {
        let state = self.state.lock();
        !state.under_way
            && self
                .wanted
                .iter()
                .all(|(partition, next)| state.confirmed.get(partition) == Some(next))
    }

    /// Sends what is not confirmed, unless a commit is under way or, without `hurry`,
    /// was sent just now.
    pub(super) fn send(&mut self, hurry: bool) {
        if !hurry && self.sent.is_some_and(|sent| sent.elapsed() < EVERY) {
            return;
        }
        let mut state = self.state.lock();
        if state.under_way {
            return;
        }
        let offsets: Offsets = self
            .wanted
            .iter()
            .filter(|(partition, next)| state.confirmed.get(partition) != Some(next))
            .map(|(partition, next)| (*partition, *next))
            .collect();
        if !offsets.is_empty() {
            self.sent = Some(Instant::now());
            state.under_way = self.requests.send(offsets).is_ok();
        }
    }
}

struct Committer {
    consumer: Arc<Member>,
    topic: &'static str,
    state: Arc<Mutex<State>>,
    received: Receiver<Offsets>,
}

impl Committer {
    fn run(self) {
        while let Ok(offsets) = self.received.recv() {
            let result = self.commit(&offsets);
            let mut state = self.state.lock();
            state.under_way = false;
            match result {
                Ok(()) => {
                    self.consumer.context().link().answered();
                    state.confirmed.extend(offsets);
                }
                Err(error) => tracing::debug!(%error, "offsets were not committed; it is repeated"),
            }
        }
    }

    fn commit(&self, offsets: &Offsets) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for (partition, next) in offsets {
            list.add_partition_offset(self.topic, *partition, Offset::Offset(*next))?;
        }
        self.consumer.commit(&list, CommitMode::Sync)
    }
}
