//! What an operator may set. Every bound of the broker is one field of [`Limits`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

/// How to run one broker.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address to listen on; port 0 takes a free one, see [`crate::Broker::address`]. Clients are told
    /// to come back to the address on which they reached the broker.
    pub listen: SocketAddr,
    /// Folder that holds everything; made when it is missing, locked while the broker runs.
    pub data: PathBuf,
    /// Who may connect.
    pub auth: Auth,
    /// Bounds.
    pub limits: Limits,
}

impl Config {
    /// The defaults, without authentication.
    pub fn new(listen: SocketAddr, data: impl Into<PathBuf>) -> Self {
        Self {
            listen,
            data: data.into(),
            auth: Auth::None,
            limits: Limits::default(),
        }
    }
}

/// Who may connect.
#[derive(Debug, Clone)]
pub enum Auth {
    /// Anyone who reaches the address.
    None,
    /// Only clients that know this name and password (SASL mechanism PLAIN, no TLS).
    Plain {
        /// User name.
        username: String,
        /// Password; compared in constant time.
        password: SecretString,
    },
}

/// Bounds that keep memory and files from growing without end.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections; one more is closed at once.
    pub connections: usize,
    /// Bytes of one request frame.
    pub request_bytes: usize,
    /// Bytes of all requests that are read but not yet answered.
    pub inflight_bytes: usize,
    /// Bytes of records in one fetch answer (a larger single batch is still handed out).
    pub fetch_bytes: usize,
    /// Partitions of all topics together.
    pub partitions: usize,
    /// Partitions of a topic that is created without a number.
    pub default_partitions: i32,
    /// Consumer groups.
    pub groups: usize,
    /// Members of one consumer group.
    pub group_members: usize,
    /// Smallest session time-out a member may ask for.
    pub min_session_timeout: Duration,
    /// Largest session time-out a member may ask for.
    pub max_session_timeout: Duration,
    /// How long an empty group waits for more members before its first assignment.
    pub initial_rebalance_delay: Duration,
    /// Committed offsets of a group without members are kept this long.
    pub offsets_retention: Duration,
    /// Remembered idempotent producers of one partition; the longest idle is forgotten first.
    pub producers: usize,
    /// An idempotent producer that is idle for longer is forgotten.
    pub producer_idle: Duration,
    /// A connection without a request for this long is closed.
    pub connection_idle: Duration,
    /// How often retention and expiry are looked after.
    pub maintenance: Duration,
    /// Writer threads; partitions are dealt out among them.
    pub writers: usize,
    /// Bytes appended to a partition between two recovery checkpoints: what a start after a crash reads
    /// again at most, for each partition.
    pub checkpoint_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1_000,
            request_bytes: 16 << 20,
            inflight_bytes: 32 << 20,
            fetch_bytes: 2 << 20,
            partitions: 2_000,
            default_partitions: 1,
            groups: 10_000,
            group_members: 1_000,
            min_session_timeout: Duration::from_secs(1),
            max_session_timeout: Duration::from_secs(1_800),
            initial_rebalance_delay: Duration::ZERO,
            offsets_retention: Duration::from_secs(30 * 86_400),
            producers: 2_000,
            producer_idle: Duration::from_secs(86_400),
            connection_idle: Duration::from_secs(600),
            maintenance: Duration::from_secs(10),
            writers: 4,
            checkpoint_bytes: 16 << 20,
        }
    }
}
