//! How the lake is written. Every default is safe to run with.

use std::time::Duration;

use super::Retention;

/// Where the table lies, when it is committed, and how long its past is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A folder, or a URL of a kind that this build can write.
    pub url: String,
    /// A row waits this long for its commit at most.
    pub every: Duration,
    /// Rows that make a commit at once; no more than these wait in memory.
    pub rows: usize,
    /// Bytes of records that make a commit at once; no more than these wait in memory.
    pub bytes: usize,
    /// Files of one date and of like size that are merged into one.
    pub merge_files: usize,
    /// Files of this size are left as they are, in bytes.
    pub target_bytes: u64,
    /// Commits between two checkpoints of the log.
    pub checkpoint_commits: u64,
    /// How long a file that the table no longer uses stays on disk. A reader must
    /// refresh its snapshot, and a query must end, within this time.
    pub retention: Duration,
    /// How long entries of the log stay after a checkpoint holds them.
    pub log_retention: Duration,
    /// Time between two looks at what there is to merge or to clean up.
    pub upkeep: Duration,
    /// How long messages and their verdicts are kept. For good unless set.
    pub keep: Retention,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: String::new(),
            every: Duration::from_secs(2),
            rows: 50_000,
            bytes: 32 << 20,
            merge_files: 16,
            target_bytes: 64 << 20,
            checkpoint_commits: 100,
            retention: Duration::from_hours(1),
            log_retention: Duration::from_mins(10),
            upkeep: Duration::from_secs(5),
            keep: Retention::default(),
        }
    }
}
