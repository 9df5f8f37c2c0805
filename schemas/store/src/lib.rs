//! What is kept: accounts, and the history of judged messages.
//!
//! Two traits say it, [`Accounts`] and [`History`]; [`embedded`] is the one-machine
//! implementation on a log-structured store inside the process, [`cql`] the one on
//! ScyllaDB or Apache Cassandra. Both traits are shaped for a partitioned database:
//! every read names its partition key, a page walks day buckets from the newest to the
//! oldest, nothing scans, and a write is idempotent behind the source offset it carries
//! along.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod accounts;
pub mod cql;
pub mod cursor;
pub mod embedded;
pub mod error;
pub mod history;
mod record;
pub mod retention;

pub use accounts::{Accounts, CreateError, Key, Scope, UpdateError, User};
pub use cursor::{Cursor, CursorError};
pub use error::Error;
pub use history::{Erase, Erased, History, MAX_PAGE, Page, PageRequest};
pub use retention::{Days, Retention};
