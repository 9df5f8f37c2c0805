//! Follows `weir.messages` where other processes accept messages too: what they have accepted
//! is known here before it is judged, a moment after it is in the log.
//!
//! It goes on where [`seed`](super::seed) has ended, so nothing is left out in between. What
//! this process accepted comes by as well and is known already. An id that is sent to two
//! processes within that moment is published twice: the processor judges the first and drops
//! the other, or gives it up as a dead letter if it says something else.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use weir_bus::{Record, Start, Tail};
use weir_records::{Source, topic};

use crate::Error;
use crate::ingest::Inner;

/// Starts the reader; it ends with `stop`.
pub(crate) fn follow(
    inner: Arc<Inner>,
    bus: weir_bus::Config,
    from: BTreeMap<i32, i64>,
    registry: &Registry,
    stop: CancellationToken,
) -> Result<(), Error> {
    let tail = Tail {
        config: bus,
        name: "ingest.messages",
        topic: topic::MESSAGES,
        start: Start::Offsets(from),
    };
    tail.spawn(registry, stop, move |records: Vec<Record>| {
        for record in records {
            // What can't be read is for the processor to give up.
            let Ok(message) = weir_records::decode_message(&record.payload) else {
                continue;
            };
            inner.clock.saw(message.received_at);
            let identity = inner.recent.identity_of(&message);
            let at = Source {
                partition: record.partition,
                offset: record.offset,
            };
            inner.verdicts.unless_erased(&message, || {
                inner.recent.hear(&identity, at, &inner.verdicts);
            });
        }
    })?;
    Ok(())
}
