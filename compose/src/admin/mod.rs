//! Accounts and keys of a running Weir. The commands are clients of the routes in
//! `http`: the store belongs to the process that runs.

mod commands;
mod http;

pub(crate) use commands::{Key, User};
pub(crate) use http::router;
