//! The way out: `weir.verdicts` is read twice, by two groups.
//!
//! ```text
//! weir.verdicts ─ weir.history ─▶ history   by id, by channel, by sender
//!               └ weir.lake    ─▶ lake      one Delta table, partitioned by date
//! ```
//!
//! Both read at least once and write once: every row carries its offset in
//! `weir.messages`, and the place it is written to remembers, in the same atomic
//! write, the last of those offsets for each partition. What is not above it is
//! dropped and counted. Offsets of a group move only past what is safe in its store.
//!
//! Both can follow `weir.erasures`, and then write no row that was erased, however late it
//! comes; the lake's writer also takes such rows out of the table and its files.
//!
//! Neither stage knows offsets' storage, retries or dead letters: [`weir_bus::Worker`]
//! owns them. The sinks and the SQL role share nothing but the table format.

pub mod history;
pub mod lake;
mod metrics;

use std::sync::Arc;

use prometheus::Registry;
use weir_store::History;

/// The stage of group `weir.history`: writes verdicts into the history.
///
/// # Errors
/// When a metric of this name is registered already.
pub fn history(
    store: Arc<dyn History>,
    registry: &Registry,
) -> Result<history::Writer, prometheus::Error> {
    history::Writer::new(store, registry)
}

/// The stage of group `weir.lake`: writes verdicts into the Delta table at
/// `config.url`, which is made if there is none. It is to [`follow`](lake::Writer::follow) the
/// log that it reads; its [`eraser`](lake::Writer::eraser) is the way to erase in it.
///
/// # Errors
/// [`lake::Error`] says whether the place or what lies there is at fault.
pub async fn lake(config: lake::Config, registry: &Registry) -> Result<lake::Writer, lake::Error> {
    lake::Writer::open(config, registry).await
}
