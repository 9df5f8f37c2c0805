//! The bus against the embedded broker, or against the brokers that
//! `WEIR_TEST_BROKERS` names (those that need to stop a broker are then left out).

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod cut;
mod outage;
mod produce;
mod rebalance;
mod stages;
mod support;
mod tail;
mod topics;
mod worker;
