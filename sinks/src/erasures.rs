//! Follows `weir.erasures` as a filter for a stage that writes rows one by one.

use std::sync::{Arc, PoisonError, RwLock};

use futures::FutureExt as _;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use weir_bus::{Record, Start, Tail, TailHandle};
use weir_records::{Erasures, Message, topic};

/// What is erased, as far as it is known.
pub(crate) struct Filter {
    known: Arc<RwLock<Erasures>>,
    tail: TailHandle,
}

impl Filter {
    /// Follows the topic from its beginning until `stop`.
    pub(crate) fn follow(
        name: &'static str,
        bus: &weir_bus::Config,
        registry: &Registry,
        stop: CancellationToken,
    ) -> Result<Self, weir_bus::Error> {
        let known = Arc::<RwLock<Erasures>>::default();
        let sink = {
            let known = Arc::clone(&known);
            move |records: Vec<Record>| {
                let mut known = known.write().unwrap_or_else(PoisonError::into_inner);
                for record in records {
                    match weir_records::decode_erasure(&record.payload) {
                        Ok(erasure) => known.insert(&erasure),
                        Err(error) => tracing::error!(
                            offset = record.offset,
                            code = error.code(),
                            "an erasure can't be read"
                        ),
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
            tail: tail.spawn(registry, stop, sink)?,
        })
    }

    /// Whether all erasures are known that there were at the start.
    pub(crate) fn is_ready(&self) -> bool {
        self.tail.caught_up().now_or_never().is_some()
    }

    pub(crate) fn covers(&self, message: &Message) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.cover(message)
    }
}
