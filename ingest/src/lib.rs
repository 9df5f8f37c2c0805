//! The way in, and the HTTP surface for people and programs.
//!
//! The path of a message in this crate:
//!
//! 1. [`door`] takes `POST /v1/messages` or `POST /v1/messages/batch`: `weir-auth` says
//!    who calls, `accept::body` reads the body within its bounds.
//! 2. `accept::incoming` and `accept::batch` read the JSON, borrowing from the body. What
//!    is wrong is found in a second, slower reading that names the field; in a batch it
//!    costs no other message.
//! 3. `accept::check` holds the rules: lengths, characters, times, who may be the sender.
//! 4. `recent` knows the ids of the last messages, `accept::stored` what was judged: a retry
//!    is not published again but answered with its verdict, and the same id with another text
//!    is a conflict. Where other processes accept messages too, `recent` follows `weir.messages`
//!    and knows their ids as its own.
//! 5. `accept::publish` hands the records to the bus, one call for a request, and
//!    `accept::answer` says 202 after the broker has them.
//! 6. Meanwhile `verdicts` follows `weir.verdicts`. `GET /v1/messages/{id}` looks there
//!    first, then in the history, then in `recent` for what is not judged yet, or not stored.
//! 7. `erasures` follows `weir.erasures`: what it names is dropped from both memories.
//!
//! What it keeps true: an accepted message is in the broker's log; each message of a batch
//! has its own result; everything is bounded, and full means 503 with `Retry-After` at
//! once; a tenant sees its own messages only, and a user without the scope `read` only its
//! own; no message text is logged.

mod accept;
mod clock;
mod config;
pub mod door;
mod erasures;
mod error;
mod ingest;
mod metrics;
mod recent;
mod verdicts;

pub use config::Config;
pub use door::router;
pub use error::Error;
pub use ingest::{Backends, Ingest};
