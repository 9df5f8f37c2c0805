//! The answers of one call of `send`: a slot for each record, and one waker.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use weir_records::Source;

use super::metrics::Metrics;
use crate::error::NotDelivered;

type Answer = Result<Source, NotDelivered>;

/// A slot that is never filled would be answered with this; every slot is.
const UNANSWERED: Answer = Err(NotDelivered::new("unavailable", true));

pub(super) struct Batch {
    answers: Mutex<Vec<Answer>>,
    missing: AtomicUsize,
    waker: AtomicWaker,
    sent: Instant,
    metrics: Metrics,
}

impl Batch {
    pub(super) fn new(records: usize, metrics: Metrics) -> (Arc<Self>, Delivery) {
        let batch = Arc::new(Self {
            answers: Mutex::new(vec![UNANSWERED; records]),
            missing: AtomicUsize::new(records),
            waker: AtomicWaker::new(),
            sent: Instant::now(),
            metrics,
        });
        (Arc::clone(&batch), Delivery { batch })
    }
}

/// A record's place in its batch; travels through librdkafka and back.
pub(super) struct Slot {
    batch: Arc<Batch>,
    index: usize,
    pub(super) bytes: usize,
}

impl Slot {
    pub(super) fn new(batch: &Arc<Batch>, index: usize, bytes: usize) -> Self {
        Self {
            batch: Arc::clone(batch),
            index,
            bytes,
        }
    }

    /// Filled once, by whoever owns the slot.
    pub(super) fn fill(&self, answer: Answer) {
        let batch = &self.batch;
        if let Some(slot) = batch.answers.lock().get_mut(self.index) {
            *slot = answer;
        }
        if batch.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            batch
                .metrics
                .ack_seconds
                .observe(batch.sent.elapsed().as_secs_f64());
            batch.waker.wake();
        }
    }
}

/// The answer to [`Producer::send`](super::Producer::send): for each record, in the
/// order sent, its partition and offset, or why it was not acknowledged. Comes when all
/// of them are answered. An offset of -1: acknowledged, but its place was not told.
#[must_use = "records may fail to be delivered"]
pub struct Delivery {
    batch: Arc<Batch>,
}

impl Future for Delivery {
    type Output = Vec<Result<Source, NotDelivered>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let done = || self.batch.missing.load(Ordering::Acquire) == 0;
        if !done() {
            self.batch.waker.register(context.waker());
            // The last answer may have come in between.
            if !done() {
                return Poll::Pending;
            }
        }
        Poll::Ready(std::mem::take(&mut *self.batch.answers.lock()))
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("missing", &self.batch.missing.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}
