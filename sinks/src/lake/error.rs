//! Why the lake could not be opened or written. Texts name the place and the
//! cause, never a row.

use deltalake::kernel::transaction::{CommitConflictError, TransactionError};
use deltalake::{DeltaTableError, ObjectStoreError};

/// A failure of the lake.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The setting is neither a folder nor a URL that this build can write.
    #[error("`{url}` is neither a folder nor a URL of a kind that this build can write")]
    Location {
        /// The setting.
        url: String,
    },
    /// The folder can't be made or written.
    #[error("the lake in {url} cannot be written")]
    NotWritable {
        /// The place.
        url: String,
        /// What the storage said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What lies there is a table, but not this one.
    #[error("the table in {url} has another schema: {difference}")]
    Schema {
        /// The place.
        url: String,
        /// The first column that differs.
        difference: String,
    },
    /// The table was written by a later version of Weir, or by a Delta writer whose
    /// features this build does not know.
    #[error(
        "the table in {url} has format {found}, this build knows formats up to {known}: start the newer Weir on it"
    )]
    NewerFormat {
        /// The place.
        url: String,
        /// What the table says.
        found: String,
        /// The newest that this build reads.
        known: u32,
    },
    /// The table was written from a log that is not the one read now.
    #[error(
        "the lake in {url} was written from another log, or from what this one has lost since: it holds \
         {topic} up to offset {held} of partition {partition}, which ends before offset {end}. Name another \
         folder in the setting `lake`, or move this one away; Weir then makes a new lake"
    )]
    AnotherLog {
        /// The place.
        url: String,
        /// The topic that has not got as far.
        topic: &'static str,
        /// Its partition.
        partition: i32,
        /// The last offset that the lake says it holds.
        held: i64,
        /// The offset that the next record of the log will have.
        end: i64,
    },
    /// The log could not be asked how far it reaches, or followed.
    #[error(transparent)]
    Bus(#[from] weir_bus::Error),
    /// The table could not be read or committed to.
    #[error("the lake's table failed")]
    Table(#[from] DeltaTableError),
    /// Rows could not be made into columns or into a file.
    #[error("the lake's rows could not be encoded")]
    Encode(#[from] arrow::error::ArrowError),
    /// The storage failed.
    #[error("the lake's storage failed")]
    Storage(#[from] ObjectStoreError),
    /// A rewrite did not hold the rows it was to hold; it was not committed.
    #[error("a rewrite of {expected} rows held {found}")]
    Rewrite {
        /// Rows of the files read.
        expected: usize,
        /// Rows of the file written.
        found: usize,
    },
    /// Another writer has replaced a file that was being rewritten.
    #[error("a file of the lake was replaced while it was being rewritten")]
    Replaced,
    /// The writer stops; the work is done another time.
    #[error("the lake's writer is stopping")]
    Stopped,
    /// A part of the writer ended without an answer.
    #[error("a task of the lake ended early")]
    Task(#[from] tokio::task::JoinError),
    /// A metric of that name is registered already.
    #[error("the lake's metrics could not be registered")]
    Metrics(#[from] prometheus::Error),
}

impl Error {
    /// Whether another writer came between: the table must be read again, then the
    /// same work may succeed.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(
            self,
            Self::Replaced
                | Self::Table(DeltaTableError::Transaction {
                    source: TransactionError::CommitConflict(
                        CommitConflictError::ConcurrentTransaction
                            | CommitConflictError::MetadataChanged
                            | CommitConflictError::ConcurrentDeleteDelete
                            | CommitConflictError::ConcurrentDeleteRead
                            | CommitConflictError::ConcurrentAppend
                    ) | TransactionError::MaxCommitAttempts(_)
                })
        )
    }
}
