//! What is to be forgotten: `weir.erasures` in one bounded read, and followed.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use weir_records::{Erasure, Erasures, Message, topic};

use crate::admin::watermarks;
use crate::config::Config;
use crate::error::Error;
use crate::read_back::read_back;
use crate::record::Record;
use crate::tail::{Start, Tail, TailHandle};

/// The erasures that there are, and where their topic goes on, by partition. One that
/// can't be read is told in the log and left out.
///
/// # Errors
/// No broker answers, it refuses us, or there is no such topic.
pub async fn erasures(config: &Config) -> Result<(Vec<Erasure>, BTreeMap<i32, i64>), Error> {
    let mut erasures = Vec::new();
    let mut next = BTreeMap::new();
    for (partition, (low, _)) in watermarks(config, topic::ERASURES).await? {
        let mut take = |record: Record| erasures.extend(erasure(&record));
        let end = read_back(config, topic::ERASURES, partition, low, &mut take).await?;
        next.insert(partition, end);
    }
    Ok((erasures, next))
}

/// A record of `weir.erasures`; `None`, with a line in the log, where it can't be read.
#[must_use]
pub fn erasure(record: &Record) -> Option<Erasure> {
    weir_records::decode_erasure(&record.payload)
        .inspect_err(|error| {
            let offset = record.offset;
            tracing::error!(offset, code = error.code(), "an erasure can't be read");
        })
        .ok()
}

/// What is erased, as far as a stage knows by now.
#[derive(Default)]
pub struct Erased {
    known: Arc<Mutex<Known>>,
    tail: Option<TailHandle>,
}

#[derive(Default)]
struct Known {
    all: Erasures,
    /// Those that the stage has not gone through yet, oldest first; `None` where it only asks.
    new: Option<VecDeque<Erasure>>,
}

impl fmt::Debug for Erased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Erased")
            .field("all", &lock(&self.known).all)
            .finish_non_exhaustive()
    }
}

impl Erased {
    /// Follows the topic from its beginning until `stop`, for a stage that goes through each
    /// by [`next`](Self::next) and [`done`](Self::done). `name` as for a [`Tail`].
    ///
    /// # Errors
    /// A setting is refused, the name is taken in this registry, or there is no thread
    /// to be had.
    pub fn follow(
        name: &'static str,
        bus: &Config,
        registry: &Registry,
        stop: CancellationToken,
    ) -> Result<Self, Error> {
        Self::start(name, bus, registry, stop, Some(VecDeque::new()))
    }

    /// The same, for a stage that only asks what is erased.
    ///
    /// # Errors
    /// As of [`follow`](Self::follow).
    pub fn watch(
        name: &'static str,
        bus: &Config,
        registry: &Registry,
        stop: CancellationToken,
    ) -> Result<Self, Error> {
        Self::start(name, bus, registry, stop, None)
    }

    fn start(
        name: &'static str,
        bus: &Config,
        registry: &Registry,
        stop: CancellationToken,
        new: Option<VecDeque<Erasure>>,
    ) -> Result<Self, Error> {
        let all = Erasures::default();
        let known = Arc::new(Mutex::new(Known { all, new }));
        let sink = {
            let known = Arc::clone(&known);
            move |records: Vec<Record>| {
                let mut known = lock(&known);
                for erasure in records.iter().filter_map(erasure) {
                    known.all.insert(&erasure);
                    if let Some(new) = &mut known.new {
                        new.push_back(erasure);
                    }
                }
            }
        };
        let tail = Tail {
            config: bus.clone(),
            name,
            topic: topic::ERASURES,
            start: Start::Earliest,
        };
        Ok(Self {
            known,
            tail: Some(tail.spawn(registry, stop, sink)?),
        })
    }

    /// Whether all erasures are known that there were at the start. One that follows no
    /// topic knows of none.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.tail
            .as_ref()
            .is_none_or(|tail| tail.caught_up().now_or_never().is_some())
    }

    /// Whether the message is erased.
    #[must_use]
    pub fn covers(&self, message: &Message) -> bool {
        lock(&self.known).all.cover(message)
    }

    /// Whether a message of that tenant, sender and id is erased that was received at that
    /// time, in microseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn covered(&self, tenant: &str, sender: Option<&str>, id: &str, received: i64) -> bool {
        lock(&self.known).all.covers(tenant, sender, id, received)
    }

    /// Takes the oldest one that the stage has not taken.
    #[must_use]
    pub fn next(&self) -> Option<Erasure> {
        lock(&self.known).new.as_mut()?.pop_front()
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}
