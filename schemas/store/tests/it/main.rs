//! The store's tests: what every implementation must do ([`contract`]), run over each
//! of them, and what only one of them has to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

mod backend;
mod contract;
mod cql;
mod embedded;
mod files;
mod rows;
