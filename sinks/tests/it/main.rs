//! Every verdict is in the history and in the lake once, whatever breaks on the way.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub
)]

mod broker;
mod erase;
mod failure;
mod history;
mod kill;
mod once;
mod origin;
mod rate;
mod retention;
mod support;
mod upkeep;
