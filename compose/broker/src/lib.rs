//! The embedded broker: the Kafka wire protocol over segment files, for one machine.
//!
//! Why it exists: `weir up` must run with nothing else installed, and every client of it must be the
//! same client that talks to Apache Kafka. So this crate answers the part of the Kafka protocol that a
//! pipeline needs, from plain files, and leaves out what only a cluster needs.
//!
//! The way of a record batch:
//! 1. [`net`] reads a frame within bounds and hands a produce request on at once, so that the requests
//!    of one connection are pipelined; everything else is answered in order.
//! 2. [`log`] checks the batch (magic 2, CRC-32C, count), gives it offsets and stores its bytes
//!    verbatim. One writer thread serves several partitions: what arrives while it syncs shares the
//!    next fdatasync.
//! 3. Only after the fdatasync is the batch acknowledged, and only then can it be fetched: nobody ever
//!    reads a record that a crash could take back.
//! 4. Fetch hands out the stored bytes, checked against their CRC, without decoding them.
//! 5. [`groups`] holds the classic consumer groups in memory and their committed offsets in a journal.
//!
//! What it keeps true: an acknowledged record is on disk; an idempotent producer's retry is recognised,
//! also after a SIGKILL; a bad request costs its own connection and nothing else; memory does not grow
//! with the log. Deliberately absent: transactions, compaction, replication, ACLs.

mod api;
mod broker;
mod config;
mod error;
mod groups;
mod log;
mod metrics;
mod net;
mod state_file;
mod wire;

pub use broker::Broker;
pub use config::{Auth, Config, Limits};
pub use error::Error;
