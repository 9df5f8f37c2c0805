//! The real router, on the embedded broker, the embedded store and real credentials.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used
)]

mod accept;
mod batches;
mod documents;
mod erase;
mod ids;
mod logs;
mod others;
mod outage;
mod paging;
mod past;
mod reading;
mod refusals;
mod robust;
mod support;
