//! Accounts, keys and dead letters of a running Weir. The commands are clients of its
//! routes (`http`, and those of the processors): the store belongs to the process that runs.

pub(crate) mod backup;
mod commands;
mod dead;
pub(crate) mod erase;
mod http;

pub(crate) use commands::{Key, User, agree, ask};
pub(crate) use dead::Dead;
pub(crate) use http::router;
