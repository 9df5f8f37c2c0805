//! The lake: a Delta table of judged messages, partitioned by the UTC date of `received_at`.
//!
//! ```text
//! buffer   what waits; lets a row in once
//! files    rows → Parquet
//! table    open, fences, commits
//! store    the local folder, safe against a power cut
//! merge    small files → larger ones
//! upkeep   checkpoints, clean-up, merging, in the background
//! writer   the stage: when to flush, what to do when it fails
//! ```
//!
//! One flush is one Delta commit that adds files and, for each source partition among
//! the rows, an application transaction ([`weir_records::topic::lake_transaction`])
//! with the last source offset. A writer reads these before it writes, and Delta
//! refuses the second of two commits with the same application: so a replay, a
//! process killed at any moment, or two writers at a time leave every row in once.

mod buffer;
mod config;
mod error;
mod files;
mod merge;
mod store;
mod table;
mod upkeep;
mod writer;

pub use buffer::PARTITION_MISMATCH;
pub use config::Config;
pub use error::Error;
pub use writer::Writer;
