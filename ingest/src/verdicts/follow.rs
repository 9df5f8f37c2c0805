//! Follows `weir.verdicts` from where the history stands: keeps what comes, remembers whose
//! it is, measures how long it took, and wakes whoever waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use weir_bus::{Record, Start, Tail, TailHandle};
use weir_records::{Judged, Source, topic};
use weir_store::History;

use super::fences::Fences;
use crate::Error;
use crate::ingest::Inner;

/// A verdict that names another partition than the one that it lies in.
const PARTITION_MISMATCH: &str = "partition_mismatch";

/// Where the reader begins.
pub(crate) struct Origin {
    since: Timestamp,
    /// Where the history reads on.
    from: BTreeMap<i32, i64>,
    /// What the history has up to there.
    fences: Fences,
    /// Where the processor read on.
    judged: BTreeMap<i32, i64>,
    /// Behind the verdicts that there were: of all that it was done with, by then.
    ends: BTreeMap<i32, i64>,
}

impl Origin {
    /// Asks history and brokers.
    ///
    /// # Errors
    /// As for the fences of the history.
    pub(crate) async fn find(history: &dyn History, bus: &weir_bus::Config) -> Result<Self, Error> {
        let since = Timestamp::now();
        // In this order: what lies before where it begins, the history has up to its fences.
        let from = weir_bus::committed(bus, topic::GROUP_HISTORY, topic::VERDICTS).await?;
        let fences = Fences::of(history, bus).await?;
        // As here: what lies before where the processor goes on has its verdict before the end.
        let judged = weir_bus::committed(bus, topic::GROUP_PROCESS, topic::MESSAGES).await?;
        let ends = weir_bus::watermarks(bus, topic::VERDICTS).await?;
        Ok(Self {
            since,
            from,
            fences,
            judged,
            ends: ends.into_iter().map(|(at, (_, end))| (at, end)).collect(),
        })
    }

    /// Whether the history was past that message then: of its id it answers all there is.
    pub(crate) fn is_stored(&self, source: Source) -> bool {
        self.fences.reach(source)
    }

    /// Where, of each partition, what waits to be judged began then.
    pub(crate) const fn judged(&self) -> &BTreeMap<i32, i64> {
        &self.judged
    }

    /// Whether the verdict was there then.
    fn holds(&self, record: &Record) -> bool {
        self.ends.get(&record.partition).copied() > Some(record.offset)
    }
}

/// Starts the reader; it ends with `stop`.
pub(crate) fn follow(
    inner: Arc<Inner>,
    bus: weir_bus::Config,
    origin: Arc<Origin>,
    registry: &Registry,
    stop: CancellationToken,
) -> Result<TailHandle, Error> {
    let mut fences = origin.fences.clone();
    let tail = Tail {
        config: bus,
        name: "ingest",
        topic: topic::VERDICTS,
        start: Start::Offsets(origin.from.clone()),
    };
    let sink = move |records: Vec<Record>| {
        let now = Timestamp::now();
        for record in records {
            let code = match weir_records::judged(&record.payload) {
                // It would move the fence of a partition that it is not from.
                Ok(judged) if judged.source.partition != record.partition => PARTITION_MISMATCH,
                Ok(judged) => {
                    if fences.pass(judged.source) {
                        take(&inner, &judged, &record, &origin, now);
                    }
                    continue;
                }
                Err(error) => error.code(),
            };
            inner.metrics.unreadable.inc();
            let (partition, offset) = (record.partition, record.offset);
            tracing::warn!(partition, offset, code, "a verdict can't be read");
        }
    };
    Ok(tail.spawn(registry, stop, sink)?)
}

fn take(inner: &Inner, judged: &Judged, record: &Record, origin: &Origin, now: Timestamp) {
    let message = &judged.message;
    // Received perhaps by another process, whose clock is ahead.
    inner.clock.saw(message.received_at);
    let identity = inner.recent.identity_of(message);
    inner.verdicts.keep(identity.key, &record.payload, judged);
    inner.verdicts.unless_erased(message, || {
        if origin.holds(record) {
            // Neither kept for sure nor stored, and not read back with what waits.
            inner.recent.was_judged(&identity, judged.source);
        } else {
            inner.recent.judged(&identity, judged.source);
        }
    });
    // After it can be found, so that nobody is woken in vain.
    inner.waiters.wake(identity.key);
    // What was judged before this process started was measured by the one before.
    if judged.verdict.judged_at >= origin.since {
        let seconds = now.duration_since(message.received_at).as_secs_f64();
        inner.metrics.verdict_seconds.observe(seconds.max(0.0));
    }
}
