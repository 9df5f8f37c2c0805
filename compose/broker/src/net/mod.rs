//! Sockets: accepting within bounds, reading frames, answering in order.

pub(crate) mod buffers;
pub(crate) mod connection;
pub(crate) mod frame;
pub(crate) mod sasl;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::config::{Auth, Limits};
use crate::groups::Coordinator;
use crate::log::Log;
use crate::log::producer_ids::ProducerIds;
use crate::metrics::Metrics;
use buffers::Buffers;

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) log: Arc<Log>,
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) producer_ids: Arc<ProducerIds>,
    pub(crate) auth: Auth,
    pub(crate) limits: Arc<Limits>,
    pub(crate) metrics: Metrics,
    pub(crate) cluster_id: String,
    pub(crate) buffers: Buffers,
    /// Bytes of requests that may be in memory.
    pub(crate) inflight: Arc<Semaphore>,
    /// Bytes of fetch answers that may be in memory.
    pub(crate) fetching: Arc<Semaphore>,
    /// Stops the broker.
    pub(crate) stop: CancellationToken,
}

/// One client.
pub(crate) struct Peer {
    pub(crate) id: u64,
    /// The address on which the client reached us: where it is told to come back.
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// Told when a partition that a waiting fetch looks at has changed.
    pub(crate) changed: Arc<Notify>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
