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
    /// The history was written from another log, or this one was lost.
    #[error(
        "partition {partition} of weir.messages ends at offset {end}, but the history holds verdicts \
         up to {judged}: it is of another log, or this one was lost. Put the log back from a copy, or \
         name a new store (`cql.keyspace`; with `weir up`, a new data folder) and a new `lake`"
    )]
    AnotherLog {
        /// Partition of the topic.
        partition: i32,
        /// The last offset that the history says is judged.
        judged: i64,
        /// The offset behind the last record.
        end: i64,
    },
    /// A metric of that name is registered already.
    #[error("a metric can't be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}
