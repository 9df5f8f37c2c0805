//! Follows `weir.verdicts` from where the history stands: keeps what comes, measures how
//! long it took, and wakes whoever waits for it.

use std::sync::Arc;

use jiff::Timestamp;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use weir_bus::{Record, Start, Tail, TailHandle};
use weir_records::{Judged, topic};

use super::fences::Fences;
use crate::Error;
use crate::ingest::Inner;

/// A verdict that names another partition than the one that it lies in.
const PARTITION_MISMATCH: &str = "partition_mismatch";

/// Starts the reader; it ends with `stop`.
pub(crate) async fn follow(
    inner: Arc<Inner>,
    bus: weir_bus::Config,
    registry: &Registry,
    stop: CancellationToken,
) -> Result<TailHandle, Error> {
    let since = Timestamp::now();
    // In this order: what lies before where it begins, the history has up to its fences.
    let from = weir_bus::committed(&bus, topic::GROUP_HISTORY, topic::VERDICTS).await?;
    let mut fences = Fences::of(&*inner.history, &bus).await?;
    let tail = Tail {
        config: bus,
        name: "ingest",
        topic: topic::VERDICTS,
        start: Start::Offsets(from),
    };
    let sink = move |records: Vec<Record>| {
        let now = Timestamp::now();
        for record in records {
            let code = match weir_records::judged(&record.payload) {
                // It would move the fence of a partition that it is not from.
                Ok(judged) if judged.source.partition != record.partition => PARTITION_MISMATCH,
                Ok(judged) => {
                    if fences.pass(judged.source) {
                        take(&inner, &judged, &record, since, now);
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

fn take(inner: &Inner, judged: &Judged, record: &Record, since: Timestamp, now: Timestamp) {
    let message = &judged.message;
    // Received perhaps by another process, whose clock is ahead.
    inner.clock.saw(message.received_at);
    let key = inner.recent.hashes().key(&message.tenant, &message.id);
    inner.verdicts.keep(key, &record.payload, judged);
    // After it can be found, so that nobody is woken in vain.
    inner.waiters.wake(key);
    // What was judged before this process started was measured by the one before.
    if judged.verdict.judged_at >= since {
        let seconds = now.duration_since(message.received_at).as_secs_f64();
        inner.metrics.verdict_seconds.observe(seconds.max(0.0));
    }
}
