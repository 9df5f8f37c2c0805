//! Why the way in can't be opened. What a request may be refused for is a
//! [`Problem`](weir_auth::door::Problem) instead.

/// A failure at start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that can't work.
    #[error("the setting `ingest.{setting}` {reason}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The topics can't be read.
    #[error(transparent)]
    Bus(#[from] weir_bus::Error),
    /// The history can't be read.
    #[error(transparent)]
    Store(#[from] weir_store::Error),
    /// A metric of that name is registered already.
    #[error("a metric can't be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}
