//! The bus against the embedded broker, or against the brokers that
//! `WEIR_TEST_BROKERS` names (those that need to stop a broker are then left out). What
//! needs TLS runs against those that `WEIR_TEST_SASL_BROKERS` names, and only there.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stderr
)]

mod cut;
mod outage;
mod produce;
mod rebalance;
mod secured;
mod stages;
mod support;
mod tail;
mod topics;
mod worker;
