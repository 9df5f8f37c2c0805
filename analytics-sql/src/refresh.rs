//! Keeps the snapshot of the lake young, and so the tail short.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use deltalake::DeltaTableError;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::lake::Reader;
use crate::metrics::Metrics;
use crate::tail::Tail;

/// Never look at the lake more often than this, however full the tail is.
const LEAST: Duration = Duration::from_millis(50);

/// The first look, before which no row can be placed.
pub(crate) async fn first(
    mut reader: Reader,
    partitions: BTreeSet<i32>,
    tail: Arc<Tail>,
) -> Result<Reader, DeltaTableError> {
    if let Some(snapshot) = reader.refresh(&partitions).await? {
        tail.install(Arc::new(snapshot));
    }
    Ok(reader)
}

/// Looks again every `every`, and at once when the tail asks.
pub(crate) async fn run(
    mut reader: Reader,
    mut partitions: BTreeSet<i32>,
    tail: Arc<Tail>,
    metrics: Arc<Metrics>,
    every: Duration,
    stop: CancellationToken,
) {
    let mut failing = false;
    metrics.lake_refreshed.set(Timestamp::now().as_second());
    while !stop.is_cancelled() {
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(every.max(LEAST)) => {}
            () = async { tail.wake.notified().await; tokio::time::sleep(LEAST).await } => {}
        }
        partitions.extend(tail.partitions());
        match reader.refresh(&partitions).await {
            Ok(snapshot) => {
                if let Some(snapshot) = snapshot {
                    tail.install(Arc::new(snapshot));
                }
                metrics.lake_refreshed.set(Timestamp::now().as_second());
                if failing {
                    tracing::info!("the lake can be read again");
                }
                failing = false;
            }
            Err(error) => {
                metrics.lake_refresh_failures.inc();
                if !failing {
                    tracing::warn!(%error, "the lake can't be read; queries go on with its last snapshot");
                }
                failing = true;
            }
        }
    }
    tail.close();
}
