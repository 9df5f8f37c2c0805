//! Consumer groups: who is in them ([`group`]), and what they have committed ([`commits`]).
//!
//! Membership lives in memory: after a restart members find themselves unknown, and join again.
//! Committed offsets are on disk.

pub(crate) mod commits;
pub(crate) mod group;
mod join;
pub(crate) mod member;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use kafka_protocol::ResponseError;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::config::Limits;
use crate::log::partition::now_ms;
use crate::metrics::Metrics;
use commits::{Change, Commits};
use group::Group;
use member::{Join, JoinReply};

/// All groups.
pub(crate) struct Coordinator {
    groups: Mutex<HashMap<String, Arc<Mutex<Group>>>>,
    pub(crate) commits: Commits,
    limits: Arc<Limits>,
    metrics: Metrics,
}

impl Coordinator {
    pub(crate) fn new(commits: Commits, limits: Arc<Limits>, metrics: Metrics) -> Self {
        Self {
            groups: Mutex::default(),
            commits,
            limits,
            metrics,
        }
    }

    /// A group that has members, or had some lately.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Mutex<Group>>> {
        self.groups.lock().get(name).cloned()
    }

    /// Lets a member join, making the group where it is new.
    pub(crate) fn join(
        &self,
        name: &str,
        join: &Join,
    ) -> Result<oneshot::Receiver<JoinReply>, ResponseError> {
        if name.is_empty() {
            return Err(ResponseError::InvalidGroupId);
        }
        if join.session < self.limits.min_session_timeout
            || join.session > self.limits.max_session_timeout
        {
            return Err(ResponseError::InvalidSessionTimeout);
        }
        let now = Instant::now();
        let mut groups = self.groups.lock();
        let group = match groups.get(name) {
            Some(group) => Arc::clone(group),
            // An id is only known to a group that exists.
            None if !join.member_id.is_empty() => return Err(ResponseError::UnknownMemberId),
            None if groups.len() >= self.limits.groups => {
                return Err(ResponseError::GroupMaxSizeReached);
            }
            None => {
                let group = Arc::new(Mutex::new(Group::new(now)));
                groups.insert(name.to_owned(), Arc::clone(&group));
                group
            }
        };
        // Locked before the table is let go, so that no tick removes it in between.
        let mut group = group.lock();
        drop(groups);
        Ok(group.join(
            join,
            self.limits.initial_rebalance_delay,
            self.limits.group_members,
            now,
        ))
    }

    /// Whether a member may commit offsets now.
    pub(crate) fn may_commit(
        &self,
        name: &str,
        generation: i32,
        member_id: &str,
        instance: Option<&str>,
    ) -> Result<(), ResponseError> {
        let group = self.get(name);
        let mut group = group.as_ref().map(|group| group.lock());
        match group
            .as_deref_mut()
            .filter(|group| !group.members.is_empty())
        {
            Some(group) => {
                let id = group.identify(member_id, instance, Some(generation))?;
                if group.state == group::State::CompletingRebalance {
                    return Err(ResponseError::RebalanceInProgress);
                }
                // Committing is a sign of life; that a rebalance is on doesn't matter here.
                let _ = group.heartbeat(&id, Instant::now());
                Ok(())
            }
            // Nobody is in it: whoever manages offsets without joining may commit.
            None if generation < 0 => {
                let known =
                    self.commits.group_count() < self.limits.groups || self.commits.knows(name);
                if known {
                    Ok(())
                } else {
                    Err(ResponseError::PolicyViolation)
                }
            }
            None => Err(ResponseError::UnknownMemberId),
        }
    }

    /// Names of all groups, with those that have only offsets.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.groups.lock().keys().cloned().collect();
        names.extend(self.commits.groups());
        names.sort();
        names.dedup();
        names
    }

    /// Removes a group nobody is in.
    pub(crate) async fn delete(&self, name: &str) -> Result<(), ResponseError> {
        let known = self.commits.knows(name);
        {
            let mut groups = self.groups.lock();
            match groups.get(name).map(|group| group.lock().vacant()) {
                Some(false) => return Err(ResponseError::NonEmptyGroup),
                Some(true) => drop(groups.remove(name)),
                None if !known => return Err(ResponseError::GroupIdNotFound),
                None => {}
            }
        }
        let removals = self.commits.removals(|group, _, _| group == name);
        settled(self.commits.change(removals)).await
    }

    /// Forgets what was committed for a deleted topic. Blocks on the disk.
    pub(crate) fn forget_topic(&self, name: &str) {
        let removals = self.commits.removals(|_, topic, _| topic == name);
        if self.commits.change(removals).blocking_recv().is_err() {
            tracing::warn!(
                topic = name,
                "committed offsets of a deleted topic may remain"
            );
        }
    }

    /// Looks after time-outs; call often.
    pub(crate) fn tick(&self) {
        let now = Instant::now();
        let mut groups = self.groups.lock();
        groups.retain(|name, group| {
            let mut group = group.lock();
            group.tick(now);
            // A group without members and offsets is as good as none.
            !group.vacant()
                || self.commits.knows(name)
                || now.duration_since(group.touched).as_secs() < 60
        });
        self.metrics
            .groups
            .set(i64::try_from(groups.len()).unwrap_or(i64::MAX));
    }

    /// Forgets offsets that nobody has used for long; call now and then.
    pub(crate) fn expire(&self) {
        let keep = i64::try_from(self.limits.offsets_retention.as_millis()).unwrap_or(i64::MAX);
        let oldest = now_ms().saturating_sub(keep);
        let in_use: Vec<String> = {
            let groups = self.groups.lock();
            groups
                .iter()
                .filter(|(_, group)| !group.lock().vacant())
                .map(|(name, _)| name.clone())
                .collect()
        };
        let removals = self.commits.removals(|group, _, committed| {
            committed.at < oldest && !in_use.iter().any(|one| one == group)
        });
        drop(self.commits.change(removals));
    }
}

/// Waits for a change to be on disk.
pub(crate) async fn settled(
    change: oneshot::Receiver<Result<(), ResponseError>>,
) -> Result<(), ResponseError> {
    change
        .await
        .unwrap_or(Err(ResponseError::KafkaStorageError))
}

/// What one change is made of, for a commit.
pub(crate) fn change(
    group: &str,
    topic: &str,
    partition: i32,
    committed: Option<commits::Committed>,
) -> Change {
    Change {
        group: group.to_owned(),
        topic: topic.to_owned(),
        partition,
        committed,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
