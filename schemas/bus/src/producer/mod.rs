//! The producer: bounded, idempotent, acknowledged by all replicas.
//!
//! A call of [`Producer::send`] reserves its room first, all or none, so that a full
//! queue refuses at once. Its records then share one [`batch::Batch`]: each delivery
//! fills a slot, the last one wakes the caller. No channel and no task per record.

mod batch;
mod metrics;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use prometheus::Registry;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use weir_records::Source;

pub use self::batch::Delivery;
use self::batch::{Batch, Slot};
use self::metrics::Metrics;
use crate::client::{Link, Linked};
use crate::config::Config;
use crate::error::{Error, NotDelivered, Refused, is_fatal};
use crate::record::Outgoing;

/// Writes records. Cheap to clone; all clones share one queue and one connection.
#[derive(Clone)]
pub struct Producer {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    room: Arc<Room>,
    metrics: Metrics,
    max_record_bytes: usize,
    native: RwLock<Native>,
}

type Native = ThreadedProducer<Context>;

impl Producer {
    /// A producer; it connects by itself, and goes on trying where no broker answers.
    ///
    /// # Errors
    /// A setting is refused, or a metric is registered already.
    pub fn new(config: &Config, registry: &Registry) -> Result<Self, Error> {
        let metrics = Metrics::register(registry)?;
        let room = Arc::new(Room {
            messages: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            max_messages: config.queue_messages,
            max_bytes: config.queue_bytes,
        });
        let native = native(config, &room, &metrics)?;
        Ok(Self {
            shared: Arc::new(Shared {
                config: config.clone(),
                max_record_bytes: config.max_record_bytes(),
                room,
                metrics,
                native: RwLock::new(native),
            }),
        })
    }

    /// Queues the records, all or none, and never blocks. The answer comes through
    /// [`Delivery`], within the delivery timeout; dropping it takes nothing back.
    ///
    /// # Errors
    /// [`Refused::Full`]: try again later. [`Refused::TooLarge`]: never.
    pub fn send(&self, records: Vec<Outgoing>) -> Result<Delivery, Refused> {
        let shared = &*self.shared;
        let mut bytes = 0;
        for (index, record) in records.iter().enumerate() {
            if record.bytes() > shared.max_record_bytes {
                return Err(Refused::TooLarge { index });
            }
            bytes += record.bytes();
        }
        if !shared.room.reserve(records.len(), bytes) {
            shared.metrics.refused.inc();
            return Err(Refused::Full);
        }
        let count = i64::try_from(records.len()).unwrap_or(i64::MAX);
        shared.metrics.waiting.add(count);
        let (batch, delivery) = Batch::new(records.len(), shared.metrics.clone());
        self.replace_if_fatal();
        let native = shared.native.read();
        for (index, record) in records.into_iter().enumerate() {
            enqueue(&native, &record, Slot::new(&batch, index, record.bytes()));
        }
        Ok(delivery)
    }

    /// Records that wait for their acknowledgement.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.room.messages.load(Ordering::Relaxed)
    }

    /// Waits until nothing waits any more, or for `timeout`.
    pub async fn flush(&self, timeout: Duration) {
        let empty = async {
            while self.in_flight() > 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(timeout, empty).await.is_err() {
            tracing::warn!(waiting = self.in_flight(), "records still wait for Kafka");
        }
    }

    /// An idempotent producer that has lost its sequence refuses everything from then
    /// on; a new one takes its place. What the old one had queued is answered as not
    /// delivered.
    fn replace_if_fatal(&self) {
        let shared = &*self.shared;
        if !is_broken(&shared.native.read()) {
            return;
        }
        let mut current = shared.native.write();
        if !is_broken(&current) {
            return;
        }
        match native(&shared.config, &shared.room, &shared.metrics) {
            Ok(new) => {
                let old = std::mem::replace(&mut *current, new);
                shared.metrics.replaced.inc();
                tracing::warn!("the producer was replaced after a fatal error");
                // Its end takes up to a second, and this may be an async thread.
                drop(current);
                std::thread::spawn(move || drop(old));
            }
            Err(error) => tracing::error!(%error, "the producer can't be replaced"),
        }
    }
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer")
            .field("config", &self.shared.config)
            .field("in_flight", &self.in_flight())
            .finish()
    }
}

fn native(config: &Config, room: &Arc<Room>, metrics: &Metrics) -> Result<Native, Error> {
    config
        .producer()?
        .create_with_context(Context {
            link: Link::new("producer"),
            room: Arc::clone(room),
            metrics: metrics.clone(),
        })
        .map_err(|error| Error::kafka("making a producer", &error))
}

/// Almost always one look at a flag.
fn is_broken(native: &Native) -> bool {
    use rdkafka::producer::Producer as _;
    let link = &native.context().link;
    if !link.is_suspect() {
        return false;
    }
    let broken = native.client().fatal_error().is_some();
    link.suspect(broken);
    broken
}

fn enqueue(native: &Native, record: &Outgoing, slot: Slot) {
    let mut out =
        BaseRecord::with_opaque_to(record.topic, Box::new(slot)).payload(record.payload.as_slice());
    if !record.key.is_empty() {
        out = out.key(record.key.as_slice());
    }
    if let Some(partition) = record.partition {
        out = out.partition(partition);
    }
    if let Err((error, out)) = native.send(out) {
        use rdkafka::producer::Producer as _;
        let context = native.context();
        context.note(&error);
        context.done(&out.delivery_opaque, Err(NotDelivered::of(&error)));
    }
}

/// How much may wait. Taken before a record is queued, given back when it is answered.
struct Room {
    messages: AtomicUsize,
    bytes: AtomicUsize,
    max_messages: usize,
    max_bytes: usize,
}

impl Room {
    fn reserve(&self, messages: usize, bytes: usize) -> bool {
        if !take(&self.messages, messages, self.max_messages) {
            return false;
        }
        if !take(&self.bytes, bytes, self.max_bytes) {
            self.messages.fetch_sub(messages, Ordering::Relaxed);
            return false;
        }
        true
    }

    fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.messages.fetch_sub(1, Ordering::Relaxed);
    }
}

fn take(used: &AtomicUsize, amount: usize, max: usize) -> bool {
    used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
        used.checked_add(amount).filter(|sum| *sum <= max)
    })
    .is_ok()
}

/// What librdkafka's thread calls.
struct Context {
    link: Link,
    room: Arc<Room>,
    metrics: Metrics,
}

impl Context {
    fn note(&self, error: &KafkaError) {
        if error.rdkafka_error_code().is_some_and(is_fatal) {
            self.link.suspect(true);
        }
    }

    fn done(&self, slot: &Slot, result: Result<Source, NotDelivered>) {
        // Before the caller is woken, so that it can send again.
        self.room.release(slot.bytes);
        self.metrics.waiting.dec();
        match &result {
            Ok(_) => self.metrics.produced.inc(),
            Err(error) => self.metrics.failed.with_label_values(&[error.code]).inc(),
        }
        slot.fill(result);
    }
}

impl Linked for Context {
    fn link(&self) -> &Link {
        &self.link
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.on_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.on_error(&error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Slot>;

    fn delivery(&self, delivered: &DeliveryResult<'_>, slot: Box<Slot>) {
        let result = match delivered {
            Ok(message) => {
                self.link.answered();
                Ok(Source {
                    partition: message.partition(),
                    // Below 0 where the broker acknowledged a repeat without saying where it is.
                    offset: message.offset().max(-1),
                })
            }
            Err((error, _)) => {
                self.note(error);
                Err(NotDelivered::of(error))
            }
        };
        self.done(&slot, result);
    }
}
