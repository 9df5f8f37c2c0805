//! Who may: accounts and passwords, tokens, API keys, roles and limits.
//!
//! ```text
//! register ─ policy ─ argon2id ─┐
//! token ──── argon2id ─ sign ───┼─ weir-store (users, keys)
//! any door ─ authenticate ──────┘
//!            └ SHA-256 of the credential → cache, trusted for a few seconds
//! ```
//!
//! [`Auth`] is a cheap handle; [`door`] is what every HTTP door shares: the
//! [`Authenticated`](door::Authenticated) caller, [`Problem`](door::Problem)
//! documents with their codes, and the account routes.
//!
//! What holds: an unknown name and a wrong password cost and answer the same; a
//! revoked key, a disabled user or a changed scope takes effect within
//! [`Config::recheck_seconds`](config::Config::recheck_seconds); every queue and table
//! is bounded; no password, key or token is kept, logged or shown by `Debug`.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod admin;
pub mod caller;
pub mod config;
pub mod door;
pub mod error;
mod keys;
mod limits;
mod metrics;
mod passwords;
mod policy;
mod secrets;
mod service;
mod tokens;

pub use caller::{Caller, Kind};
pub use config::Config;
pub use error::{Denied, Error, OpenError, RegisterError};
pub use service::{Auth, Registration, Token};
pub use tokens::{forget_signing_keys, has_signing_key};
pub use weir_store::{Key, Scope, User};
