//! SIGTERM and SIGINT: the first asks for a graceful stop, the second ends now.

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit status after a second signal: what was not drained is read again on the next start.
const STOPPED_NOW: i32 = 130;

/// A token that is cancelled by the first signal.
pub(crate) fn stop_token() -> Result<CancellationToken> {
    let mut term = signal(SignalKind::terminate()).context("can't listen for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("can't listen for SIGINT")?;
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        for second in [false, true] {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            if second {
                tracing::warn!("second signal: stopping now");
                std::process::exit(STOPPED_NOW);
            }
            tracing::info!("stopping; a second signal stops at once");
            stop.cancel();
        }
    });
    Ok(token)
}
