//! Runs a stage's futures from the worker's thread.

use std::time::Duration;

use tokio::runtime::{Builder, Handle, RuntimeFlavor};
use tokio_util::sync::CancellationToken;

use crate::error::Error;

pub(super) enum Runtime {
    /// The caller's, whose other threads drive what stages leave running.
    Shared(Handle),
    /// Ours. A caller's single thread may be busy waiting for this worker.
    Own(tokio::runtime::Runtime),
}

impl Runtime {
    pub(super) fn current_or_own() -> Result<Self, Error> {
        match Handle::try_current() {
            Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
                Ok(Self::Shared(handle))
            }
            _ => Ok(Self::Own(
                Builder::new_multi_thread()
                    .worker_threads(1)
                    .enable_all()
                    .build()?,
            )),
        }
    }

    /// Waits for `future`; after `stop`, no longer than `grace`. `None`: it was dropped.
    pub(super) fn wait<T>(
        &self,
        stop: &CancellationToken,
        grace: Duration,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let late = async {
            stop.cancelled().await;
            tokio::time::sleep(grace).await;
        };
        let either = async {
            tokio::select! {
                biased;
                value = future => Some(value),
                () = late => None,
            }
        };
        match self {
            Self::Shared(handle) => handle.block_on(either),
            Self::Own(runtime) => runtime.block_on(either),
        }
    }
}
