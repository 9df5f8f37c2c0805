//! Boots the real account routes on a real store, and tries to get in.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod accounts;
mod app;
mod bodies;
mod keys;
mod limits;
mod secrets;
mod tokens;
