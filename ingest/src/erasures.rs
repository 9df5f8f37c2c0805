//! Follows `weir.erasures`: what is erased is neither kept here nor answered from here.
//!
//! What was there at the start is read before anything else is, so that no message is
//! shown that had to be forgotten before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use weir_bus::{Record, Start, Tail};
use weir_records::{Erasure, topic};

use crate::Error;
use crate::ingest::Inner;

/// Starts the reader of those that come; it ends with `stop`.
pub(crate) fn follow(
    inner: Arc<Inner>,
    bus: weir_bus::Config,
    from: BTreeMap<i32, i64>,
    registry: &Registry,
    stop: CancellationToken,
) -> Result<(), Error> {
    let tail = Tail {
        config: bus,
        name: "ingest.erasures",
        topic: topic::ERASURES,
        start: Start::Offsets(from),
    };
    tail.spawn(registry, stop, move |records: Vec<Record>| {
        let erasures: Vec<Erasure> = records.iter().filter_map(weir_bus::erasure).collect();
        inner.verdicts.erase(&erasures);
        for erasure in &erasures {
            // Asked for at another process, whose clock is ahead.
            inner.clock.saw(erasure.up_to);
            inner.recent.erase(erasure);
        }
        if let Some(last) = records.last() {
            inner.next_erasure.store(last.offset + 1, Ordering::Release);
        }
    })?;
    Ok(())
}
