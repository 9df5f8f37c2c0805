//! SQL over a real Delta table and the tail, driven from outside.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used
)]

mod broker;
mod consistency;
mod door;
mod erase;
mod errors;
mod limits;
mod refusals;
mod support;
mod tenants;
