//! What the embedded store needs done now and then: texts and verdicts go when their time
//! is over. A CQL database does this by itself.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use weir_store::{Retention, embedded};

const EVERY: Duration = Duration::from_hours(1);
/// First when the start is over.
const FIRST: Duration = Duration::from_secs(30);

/// Lets messages expire until `stop`.
pub(crate) async fn expire(
    store: Arc<embedded::Store>,
    retention: Retention,
    stop: CancellationToken,
) {
    let mut next = FIRST;
    loop {
        tokio::select! {
            () = tokio::time::sleep(next) => {}
            () = stop.cancelled() => return,
        }
        next = EVERY;
        match store.expire(&retention, Timestamp::now()).await {
            Ok(done) if done.texts + done.messages > 0 => tracing::info!(
                texts = done.texts,
                messages = done.messages,
                "their time is over: removed from the history"
            ),
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "retention failed; tried again in an hour"),
        }
    }
}
