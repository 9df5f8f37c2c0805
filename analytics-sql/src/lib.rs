//! SQL over everything that was judged: DataFusion over the lake and the tail.
//!
//! ```text
//! weir.verdicts ──► tail (memory) ──┐
//!        │                          ├──► one view ──► the caller's rows ──► DataFusion ──► door
//!        └► sinks ──► lake (Delta) ─┘
//! ```
//!
//! What holds:
//! - **each row once.** A query reads one version of the lake and those rows of the tail
//!   that this version does not hold ([`tail`]), whatever the writer does meanwhile.
//! - **own rows only.** The tenant's filter is under everything a query computes ([`table`]).
//! - **only reads,** of one table ([`check`], [`session`]).
//! - **bounded** in time ([`guard`]), memory ([`memory`], [`grow`]), rows, and number.
//! - errors say where in the query ([`place`]), and nothing of Weir's inside ([`error`]).
//!
//! This crate is the only user of DataFusion, but for what deltalake needs of it.

mod answer;
mod check;
mod config;
mod door;
mod engine;
mod error;
mod feed;
mod grow;
mod guard;
mod lake;
mod memory;
mod metrics;
mod place;
mod plan;
mod refresh;
mod session;
mod shape;
mod table;
mod tail;

pub use answer::Answer;
pub use config::Config;
pub use door::router;
pub use engine::{Engine, Query};
pub use error::{Error, Fault, StartError};
pub use place::Place;
