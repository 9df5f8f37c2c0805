//! The way to a running writer: what is to be erased, from its topic or by a call.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use prometheus::Registry;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use weir_bus::{Record, Start, Tail, TailHandle};
use weir_records::{Erasure, topic};

use super::{Erased, Error};

/// Asks a running writer to erase. Cheap to clone.
#[derive(Clone, Default)]
pub struct Eraser {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    tail: Mutex<Option<TailHandle>>,
}

#[derive(Default)]
struct Queue {
    requests: Vec<Request>,
    closed: bool,
}

/// What the writer is to do.
pub(crate) enum Request {
    /// An erasure of the topic, with its offset.
    Read(i64, Erasure),
    /// Erasures that somebody waits for.
    Asked(Vec<Erasure>, oneshot::Sender<Erased>),
}

impl Eraser {
    /// Erases, and answers when the rows are out of the table and their files are gone
    /// from the storage. What fails is tried again, so this may take as long as the
    /// storage is away; dropping it does not take the request back.
    ///
    /// # Errors
    /// [`Error::Stopped`]: the writer has ended. Whether the rows are erased is not known.
    pub async fn erase(&self, erasures: Vec<Erasure>) -> Result<Erased, Error> {
        let (reply, answer) = oneshot::channel();
        {
            let mut queue = lock(&self.shared.queue);
            if queue.closed {
                return Err(Error::Stopped);
            }
            queue.requests.push(Request::Asked(erasures, reply));
        }
        answer.await.map_err(|_| Error::Stopped)
    }

    /// Has the writer follow `weir.erasures` from its beginning, until `stop`. It then
    /// commits no row before it has read what was there at the start. To be called once,
    /// before the writer is given its first record.
    pub(super) fn follow(
        &self,
        bus: &weir_bus::Config,
        registry: &Registry,
        stop: CancellationToken,
    ) -> Result<(), weir_bus::Error> {
        let tail = Tail {
            config: bus.clone(),
            name: "lake.erasures",
            topic: topic::ERASURES,
            start: Start::Earliest,
        };
        let shared = Arc::clone(&self.shared);
        let sink = move |records: Vec<Record>| {
            let mut queue = lock(&shared.queue);
            if queue.closed {
                return;
            }
            for record in records {
                if let Some(erasure) = weir_bus::erasure(&record) {
                    queue.requests.push(Request::Read(record.offset, erasure));
                }
            }
        };
        let tail = tail.spawn(registry, stop, sink)?;
        *lock(&self.shared.tail) = Some(tail);
        Ok(())
    }

    /// Whether all erasures are known that there were at the start.
    pub(crate) fn is_ready(&self) -> bool {
        lock(&self.shared.tail)
            .as_ref()
            .is_none_or(|tail| tail.caught_up().now_or_never().is_some())
    }

    pub(crate) fn has_requests(&self) -> bool {
        !lock(&self.shared.queue).requests.is_empty()
    }

    pub(crate) fn take(&self) -> Vec<Request> {
        std::mem::take(&mut lock(&self.shared.queue).requests)
    }

    /// Whoever waits is told that the writer has ended.
    pub(crate) fn close(&self) {
        let mut queue = lock(&self.shared.queue);
        queue.closed = true;
        queue.requests.clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
