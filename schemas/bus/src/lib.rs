//! Over what it is said: the one door to Kafka.
//!
//! ```text
//! Producer  send → Delivery          acknowledged by all replicas, bounded, idempotent
//! Worker    group → Stage            owns offsets, retries, dead letters, rebalances
//! Tail      topic → a function       follows without a group
//! read_back partition → a function   a bounded read, to rebuild what a stage remembers
//! ```
//!
//! What it keeps true:
//! - **At least once.** A record's offset is committed only after its stage has said
//!   that it is done and its dead letters are acknowledged. Stages make their own
//!   effects idempotent by the record's offset.
//! - **Order.** Within a partition, a stage sees records in the order of the log, and
//!   sees the same ones again when it fails.
//! - **Bounded.** The producer refuses at once when its queue is full; consumers hold
//!   a few MiB; whoever can't keep up slows down its own reading.
//! - **Quiet.** No error, log or `Debug` here shows a payload, a key or a secret.
//!
//! Every client speaks to Kafka or to the embedded broker alike.

mod admin;
mod barred;
mod client;
mod config;
mod cut;
mod erasures;
mod error;
mod position;
mod producer;
mod read_back;
mod record;
mod stage;
mod tail;
mod topics;
mod worker;

pub use admin::{committed, reachable, wait_if_away, watermarks};
pub use config::{Config, Security};
pub use cut::{cut_settled, delete_records};
pub use erasures::{Erased, erasure, erasures};
pub use error::{BoxError, Error, NotDelivered, Refused};
pub use producer::{Delivery, Producer};
pub use read_back::read_back;
pub use record::{Outgoing, Record};
pub use stage::{Dead, Outcome, Stage};
pub use tail::{Start, Tail, TailHandle};
pub use topics::{check_topics, create_topics};
pub use worker::Worker;
