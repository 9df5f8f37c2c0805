//! The service: what every request works with, put together once.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use weir_bus::Producer;
use weir_records::{Judged, topic};
use weir_store::History;

use crate::accept::body::Room;
use crate::accept::check::Rules;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::recent::generations::Key;
use crate::recent::{self, Recent};
use crate::verdicts::{self, Origin, Verdicts, Waiters};
use crate::{Config, Error, erasures};

/// What the way in works on.
pub struct Backends {
    /// The brokers. The topics must exist.
    pub bus: weir_bus::Config,
    /// Publishes messages.
    pub producer: Producer,
    /// Answers what was judged.
    pub history: Arc<dyn History>,
    /// No other process accepts messages for these brokers: there is nothing to learn from
    /// them, and `weir.messages` is not followed.
    pub alone: bool,
}

/// The way in. Cheap to clone.
#[derive(Clone)]
pub struct Ingest {
    inner: Arc<Inner>,
}

/// What the routes share.
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) rules: Rules,
    pub(crate) clock: Clock,
    pub(crate) ack_timeout: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) producer: Producer,
    pub(crate) history: Arc<dyn History>,
    bus: weir_bus::Config,
    /// The first offset of `weir.erasures` that has not been followed yet.
    pub(crate) next_erasure: AtomicI64,
    pub(crate) recent: Arc<Recent>,
    pub(crate) verdicts: Arc<Verdicts>,
    pub(crate) waiters: Waiters,
    pub(crate) room: Room,
    pub(crate) metrics: Metrics,
    /// Cancelled when nobody is to wait any more.
    pub(crate) hurry: CancellationToken,
}

impl Ingest {
    /// Opens the way in: learns again which messages were judged that the history may not
    /// have, and which wait to be judged, and begins to follow `weir.verdicts`, and what others
    /// accept, until `stop`, when everybody who waits for a verdict is answered. It takes as
    /// long as reading the verdicts that the history has not read, and where the brokers go
    /// away meanwhile it waits for them: whoever wants to stop before that drops it.
    ///
    /// # Errors
    /// A setting that can't work, no broker, no history, or a metric that is registered
    /// already.
    pub async fn start(
        config: Config,
        on: Backends,
        registry: &Registry,
        stop: CancellationToken,
    ) -> Result<Self, Error> {
        config.check()?;
        let Backends {
            bus,
            producer,
            history,
            alone,
        } = on;
        let metrics = Metrics::register(registry)?;
        let recent = Recent::new(config.recent_ids, metrics.recent_ids.clone());
        let (erasures, next_erasure) = loop {
            match weir_bus::erasures(&bus).await {
                Ok(found) => break found,
                Err(error) => weir_bus::wait_if_away(error).await?,
            }
        };
        let clock = Clock::default();
        for erasure in &erasures {
            clock.saw(erasure.up_to);
        }
        // Before anything is read back: what is judged from here on is followed.
        let origin = loop {
            match Origin::find(&*history, &bus).await {
                Ok(found) => break Arc::new(found),
                Err(Error::Bus(error)) => weir_bus::wait_if_away(error).await?,
                Err(error) => return Err(error),
            }
        };
        let verdicts = Verdicts::new(config.recent_verdict_bytes, metrics.recent_verdicts.clone());
        let inner = Arc::new(Inner {
            rules: Rules::new(&config),
            clock,
            ack_timeout: Duration::from_secs(config.ack_seconds.into()),
            body_timeout: Duration::from_secs(config.body_seconds.into()),
            producer,
            history,
            bus: bus.clone(),
            next_erasure: AtomicI64::new(next_erasure.get(&0).copied().unwrap_or_default()),
            recent: Arc::new(recent),
            verdicts: Arc::new(verdicts),
            waiters: Waiters::new(config.waiters, metrics.waiters.clone()),
            room: Room::new(config.bodies_bytes, metrics.bodies.clone()),
            metrics,
            hurry: stop.child_token(),
            config,
        });
        inner.verdicts.erase(&erasures);
        let (all, token) = (Arc::clone(&inner), stop.clone());
        erasures::follow(all, bus.clone(), next_erasure, registry, token)?;
        let (all, token) = (Arc::clone(&inner), stop.clone());
        let tail = verdicts::follow(all, bus.clone(), Arc::clone(&origin), registry, token)?;
        tail.caught_up().await;
        // Half of what is remembered: the other half is for what comes.
        let most = inner.config.recent_ids / 2;
        let next = loop {
            match recent::seed(&inner, &bus, most, &origin).await {
                Ok(next) => break next,
                // What it has read already it reads once more, to no effect.
                Err(Error::Bus(error)) => weir_bus::wait_if_away(error).await?,
                Err(error) => return Err(error),
            }
        };
        if !alone {
            recent::follow(Arc::clone(&inner), bus, next, registry, stop)?;
        }
        Ok(Self { inner })
    }

    /// The moment that an erasure asked for now reaches up to: what was received before
    /// it, or at it, was accepted before this call or while it ran; what this process
    /// accepts later is received after it.
    #[must_use]
    pub fn erase_up_to(&self) -> jiff::Timestamp {
        let moment = self.inner.clock.take(1).next();
        // One was asked for, and one is there.
        moment.unwrap_or_else(jiff::Timestamp::now)
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }
}

impl Inner {
    /// The message that the history has under that id. Where it had one whose time is over,
    /// the id is forgotten here as well: who asks for it next finds nothing, and who sends it
    /// next sends a new message.
    ///
    /// # Errors
    /// The history can't be read.
    pub(crate) async fn stored(
        &self,
        key: Key,
        tenant: &str,
        id: &str,
    ) -> Result<Option<Judged>, weir_store::Error> {
        let found = self.history.message(tenant, id).await?;
        let (None, Some(source)) = (&found, self.recent.source(key)) else {
            return Ok(found);
        };
        if self.history.fence(source.partition).await? < Some(source.offset) {
            return Ok(None);
        }
        // Asked once more: it may have been written between the first two questions.
        let found = self.history.message(tenant, id).await?;
        if found.is_none() && self.knows_all_erasures().await {
            self.recent.forget(key, source);
        }
        Ok(found)
    }

    /// Whether the erasures that there are have been followed. What one took out of the history
    /// is forgotten with it, and not before: a new message under its id must be received later.
    async fn knows_all_erasures(&self) -> bool {
        let ends = weir_bus::watermarks(&self.bus, topic::ERASURES).await;
        let end = ends.map(|ends| ends.get(&0).map_or(0, |(_, end)| *end));
        end.is_ok_and(|end| self.next_erasure.load(Ordering::Acquire) >= end)
    }
}
