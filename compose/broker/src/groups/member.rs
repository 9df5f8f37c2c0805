//! One member of a group, and what it is told.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use tokio::sync::oneshot;

/// What a member asks when it joins.
#[derive(Debug, Clone)]
pub(crate) struct Join {
    pub(crate) member_id: String,
    pub(crate) instance: Option<String>,
    pub(crate) client_id: String,
    pub(crate) host: String,
    pub(crate) session: Duration,
    pub(crate) rebalance: Duration,
    pub(crate) protocol_type: String,
    /// Assignors by preference, each with the member's metadata for it.
    pub(crate) protocols: Vec<(String, Bytes)>,
    /// The client can first ask for an id (from version 4).
    pub(crate) asks_for_id: bool,
    /// The client understands that an assignment need not be made again (from version 9).
    pub(crate) can_skip: bool,
}

/// What a member is told when a join is over.
#[derive(Debug, Clone)]
pub(crate) struct Joined {
    pub(crate) generation: i32,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) leader: String,
    /// For the leader alone: id, instance and metadata of all.
    pub(crate) members: Vec<(String, Option<String>, Bytes)>,
    pub(crate) skip_assignment: bool,
}

/// The member's id, which an error may carry too, and the outcome.
pub(crate) type JoinReply = (String, Result<Joined, ResponseError>);
/// The member's assignment.
pub(crate) type SyncReply = Result<Bytes, ResponseError>;

/// One member.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) instance: Option<String>,
    pub(crate) client_id: String,
    pub(crate) host: String,
    pub(crate) session: Duration,
    pub(crate) rebalance: Duration,
    pub(crate) protocols: Vec<(String, Bytes)>,
    pub(crate) assignment: Bytes,
    pub(crate) joining: Option<oneshot::Sender<JoinReply>>,
    pub(crate) syncing: Option<oneshot::Sender<SyncReply>>,
    /// Without a sign of life until then it is out.
    pub(crate) deadline: Instant,
}

impl Member {
    pub(crate) fn new(join: &Join, now: Instant) -> Self {
        Self {
            instance: join.instance.clone(),
            client_id: join.client_id.clone(),
            host: join.host.clone(),
            session: join.session,
            rebalance: join.rebalance,
            protocols: join.protocols.clone(),
            assignment: Bytes::new(),
            joining: None,
            syncing: None,
            deadline: now + join.session,
        }
    }

    pub(crate) fn update(&mut self, join: &Join) {
        self.client_id.clone_from(&join.client_id);
        self.host.clone_from(&join.host);
        self.session = join.session;
        self.rebalance = join.rebalance;
        self.protocols.clone_from(&join.protocols);
    }

    /// Waits for the others to join, and its client is still there.
    pub(crate) fn is_joining(&self) -> bool {
        self.joining
            .as_ref()
            .is_some_and(|reply| !reply.is_closed())
    }

    /// Waits for its assignment, and its client is still there.
    pub(crate) fn is_syncing(&self) -> bool {
        self.syncing
            .as_ref()
            .is_some_and(|reply| !reply.is_closed())
    }

    pub(crate) fn alive(&mut self, now: Instant) {
        self.deadline = now + self.session;
    }

    pub(crate) fn metadata(&self, protocol: &str) -> Bytes {
        let found = self.protocols.iter().find(|(name, _)| name == protocol);
        found
            .map(|(_, metadata)| metadata.clone())
            .unwrap_or_default()
    }

    pub(crate) fn answer_join(&mut self, id: &str, outcome: Result<Joined, ResponseError>) {
        if let Some(reply) = self.joining.take() {
            // The client may have gone.
            let _ = reply.send((id.to_owned(), outcome));
        }
    }

    pub(crate) fn answer_sync(&mut self, outcome: SyncReply) {
        if let Some(reply) = self.syncing.take() {
            let _ = reply.send(outcome);
        }
    }
}
