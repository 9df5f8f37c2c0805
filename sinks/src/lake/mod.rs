//! The lake: a Delta table of judged messages, partitioned by the UTC date of `received_at`.
//!
//! ```text
//! buffer   what waits; lets a row in once
//! files    rows → Parquet
//! table    open, fences, commits
//! store    the local folder, safe against a power cut
//! read     some columns of a file
//! rewrite  files → one file, with rows left out or changed
//! merge    small files → larger ones
//! erase    files → files without what is to be forgotten
//! retention files → files without what is too old
//! upkeep   checkpoints, clean-up, merging, in the background
//! writer   the stage: when to flush, what to do when it fails
//! erasing  the stage: filters what comes, commits erasures and retention
//! eraser   the way to a running stage
//! origin   whether the lake is of this log
//! ```
//!
//! One flush is one Delta commit that adds files and, for each source partition among
//! the rows, an application transaction ([`weir_records::topic::lake_transaction`])
//! with the last source offset. A writer reads these before it writes, and Delta
//! refuses the second of two commits with the same application: so a replay, a
//! process killed at any moment, or two writers at a time leave every row in once.

mod buffer;
mod config;
mod erase;
mod eraser;
mod erasing;
mod error;
mod files;
mod merge;
mod origin;
mod read;
mod retention;
mod rewrite;
mod select;
mod store;
mod table;
mod upkeep;
mod writer;

pub use buffer::PARTITION_MISMATCH;
pub use config::Config;
pub use erase::Erased;
pub use eraser::Eraser;
pub use error::Error;
pub use retention::{Days, Retention};
pub use writer::Writer;

use weir_records::topic;

/// Erases in the table at `config.url` without a stage: for a process of its own. Others
/// may write the table meanwhile; what they have not committed yet is theirs to leave out.
///
/// # Errors
/// [`Error`]; what was erased until then stays so, and asking again goes on.
pub async fn erase(config: &Config, erasures: Vec<weir_records::Erasure>) -> Result<Erased, Error> {
    erasing::erase_alone(config, erasures).await
}

/// The offset of the last record of `weir.erasures` that all files of the table were
/// searched for; `None` before the first.
///
/// # Errors
/// [`Error::AnotherLog`] where that topic has no such record; otherwise the table or the
/// log can't be read.
pub async fn erased_up_to(config: &Config, bus: &weir_bus::Config) -> Result<Option<i64>, Error> {
    let erased = table::Table::open(config).await?.erased().await?;
    let ends = weir_bus::watermarks(bus, topic::ERASURES).await?;
    let end = ends.get(&0).map_or(0, |(_, end)| *end);
    origin::reached(&config.url, topic::ERASURES, 0, erased, end)?;
    Ok(erased)
}

/// The files that the table at `config.url` consists of and that are not there: none,
/// unless it is a copy that went wrong. Changes nothing; no table is no file.
///
/// # Errors
/// The table's log can't be read.
pub async fn missing_files(config: &Config) -> Result<Vec<String>, Error> {
    table::missing_files(config).await
}
