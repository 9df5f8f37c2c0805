//! The broker, driven from outside by the clients that people use.
//!
//! `client` is a suite for anything that speaks Kafka's protocol: with `WEIR_TEST_BROKERS=host:port` it
//! runs against that broker (Apache Kafka, say) instead of an embedded one. `embedded` tests what only
//! the embedded broker has: its folder, its limits, its way of stopping and of being killed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    missing_docs
)]

mod client;
mod embedded;
mod raw;
mod server;
