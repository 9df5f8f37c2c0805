//! Fills the tail from `weir.verdicts`, and takes out of it what `weir.erasures` names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use weir_bus::{Record, Start, TailHandle};
use weir_records::{Erasure, Judged, topic};

use crate::engine::Engine;
use crate::error::StartError;
use crate::tail::Tail;

/// How often the lag is shown.
const SHOW: Duration = Duration::from_millis(500);

/// Where the tail begins, for every partition: what the lake's writer has committed,
/// else the earliest record.
///
/// # Errors
/// The broker can't be reached, or has no such topic.
pub(crate) async fn offsets(bus: &weir_bus::Config) -> Result<BTreeMap<i32, i64>, StartError> {
    let committed = weir_bus::committed(bus, topic::GROUP_LAKE, topic::VERDICTS).await?;
    let watermarks = weir_bus::watermarks(bus, topic::VERDICTS).await?;
    Ok(watermarks
        .into_iter()
        .map(|(partition, (low, _))| {
            (
                partition,
                committed.get(&partition).map_or(low, |&next| next.max(low)),
            )
        })
        .collect())
}

/// Follows the topic on a thread of the bus, and makes the engine ready when the
/// records that were there are read, or as many of them as the tail may hold.
///
/// # Errors
/// A consumer can't be made.
pub(crate) fn follow(
    engine: &Engine,
    bus: &weir_bus::Config,
    from: BTreeMap<i32, i64>,
    registry: &Registry,
) -> Result<(), StartError> {
    let tail = Arc::clone(engine.tail());
    let metrics = Arc::clone(engine.metrics());
    let stop = engine.stop().clone();
    let erasures = follow_erasures(engine, bus, registry)?;
    let follower = weir_bus::Tail {
        config: bus.clone(),
        name: "query",
        topic: topic::VERDICTS,
        start: Start::Offsets(from),
    };
    let handle = follower.spawn(registry, stop.clone(), move |records: Vec<Record>| {
        let rows = records.iter().filter_map(|record| {
            let row = row(record);
            if row.is_none() {
                metrics.tail_undecodable.inc();
            }
            row
        });
        push(&tail, rows.collect());
    })?;
    let (engine_tail, metrics) = (Arc::clone(engine.tail()), Arc::clone(engine.metrics()));
    let ready = engine.readiness();
    tokio::spawn(async move {
        let mut caught_up = false;
        // Before that, a row could be shown that is to be forgotten.
        tokio::select! {
            () = stop.cancelled() => {}
            () = erasures.caught_up() => {}
        }
        while !stop.is_cancelled() {
            if caught_up {
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(SHOW) => {}
                }
            } else {
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = handle.caught_up() => caught_up = true,
                    () = tokio::time::sleep(SHOW) => caught_up = engine_tail.full(),
                }
                if caught_up {
                    ready.set();
                }
            }
            metrics.tail_lag.set(handle.lag());
        }
        engine_tail.close();
    });
    Ok(())
}

/// The record's row; `None` where it can't be read, or names another partition than the one
/// that it lies in: it would hold up or hide the rows of that one.
fn row(record: &Record) -> Option<Judged> {
    let row = weir_records::judged(&record.payload).ok()?;
    (row.source.partition == record.partition).then_some(row)
}

/// Follows the erasures from the first that is kept.
fn follow_erasures(
    engine: &Engine,
    bus: &weir_bus::Config,
    registry: &Registry,
) -> Result<TailHandle, StartError> {
    let tail = Arc::clone(engine.tail());
    let follower = weir_bus::Tail {
        config: bus.clone(),
        name: "query.erasures",
        topic: topic::ERASURES,
        start: Start::Earliest,
    };
    let sink = move |records: Vec<Record>| {
        let erasures = records.iter().filter_map(|record| {
            weir_records::decode_erasure(&record.payload)
                .inspect_err(|error| {
                    tracing::error!(
                        offset = record.offset,
                        code = error.code(),
                        "an erasure can't be read"
                    );
                })
                .ok()
        });
        erase(&tail, &erasures.collect::<Vec<_>>());
    };
    Ok(follower.spawn(registry, engine.stop().clone(), sink)?)
}

/// Takes rows out of the tail.
pub(crate) fn erase(tail: &Tail, erasures: &[Erasure]) {
    if let Err(error) = tail.erase(erasures) {
        tracing::error!(%error, "rows could not be taken out of the tail");
    }
    // The lake will have a version without them soon.
    tail.wake.notify_one();
}

/// Puts rows into the tail.
pub(crate) fn push(tail: &Tail, rows: Vec<Judged>) {
    if let Err(error) = tail.push(rows) {
        // Arrow's words are of columns, not of what is in them.
        tracing::error!(%error, "verdicts could not be put into columns");
    }
}
