//! What an operator may set about queries. Every bound has one; none is "unlimited".

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Bounds of queries and of the tail. Every default is safe to run with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the lake's Delta table is: a URL, or a path on this machine. It need not
    /// exist yet. Not among the settings of queries: whoever writes the lake knows it too.
    #[serde(skip)]
    pub lake: String,
    /// Memory for one query's sorts, joins and aggregates, in bytes.
    pub memory_bytes: usize,
    /// The same for all running queries together, in bytes.
    pub memory_total_bytes: usize,
    /// How long a query may run, answer included, in seconds.
    pub timeout_seconds: u32,
    /// Queries that run at once; one more is refused.
    pub concurrent_queries: usize,
    /// Threads that all queries share.
    pub threads: usize,
    /// How many streams a scan is split into.
    pub partitions: usize,
    /// Rows of an answer at most.
    pub result_rows: usize,
    /// Bytes of an answer at most, as held in memory.
    pub result_bytes: usize,
    /// Length of a query's text at most, in bytes.
    pub query_bytes: usize,
    /// Nodes of a query's plan at most, shared parts counted each time they are used.
    pub plan_nodes: usize,
    /// Rows that the tail holds at most while the lake does not have them.
    pub tail_rows: usize,
    /// Bytes that the tail holds at most.
    pub tail_bytes: usize,
    /// How often the lake is looked at for a new version, in milliseconds.
    pub refresh_millis: u32,
    /// Memory for the footers of the lake's files, in bytes.
    pub file_cache_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lake: String::new(),
            memory_bytes: 256 << 20,
            memory_total_bytes: 512 << 20,
            timeout_seconds: 30,
            concurrent_queries: 8,
            threads: 2,
            partitions: 2,
            result_rows: 1_000_000,
            result_bytes: 512 << 20,
            query_bytes: 64 << 10,
            plan_nodes: 4096,
            tail_rows: 500_000,
            tail_bytes: 256 << 20,
            refresh_millis: 1000,
            file_cache_bytes: 16 << 20,
        }
    }
}

impl Config {
    /// How long a query may run.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds as u64)
    }

    pub(crate) const fn refresh(&self) -> Duration {
        Duration::from_millis(self.refresh_millis as u64)
    }
}
