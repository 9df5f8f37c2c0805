//! One consumer group: the classic rebalance protocol as a state machine, without clock or sockets.
//!
//! Empty → PreparingRebalance (members join) → CompletingRebalance (the leader assigns) → Stable, and
//! back to PreparingRebalance whenever the membership changes. The broker never looks into an
//! assignment: range, round-robin and cooperative-sticky are the clients' own.
//!
//! What it keeps true: every waiting member is answered; a member of an older generation, or one whose
//! static identity another took over, changes nothing.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use tokio::sync::oneshot;

use super::member::{Joined, Member, SyncReply};

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
}

impl State {
    /// The protocol's name for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// One group.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) state: State,
    pub(crate) generation: i32,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) members: BTreeMap<String, Member>,
    pub(super) leader: String,
    /// Member ids by static identity.
    pub(super) instances: HashMap<String, String>,
    /// Ids handed out to members that haven't joined with them yet, and until when.
    pub(super) pending: HashMap<String, Instant>,
    /// When the present phase ends without those who are missing.
    pub(super) deadline: Option<Instant>,
    /// The first members of an empty group wait for the deadline, for more of them.
    pub(super) gathering: bool,
    /// When it was last used.
    pub(crate) touched: Instant,
}

impl Group {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            state: State::Empty,
            generation: 0,
            protocol_type: String::new(),
            protocol: String::new(),
            members: BTreeMap::new(),
            leader: String::new(),
            instances: HashMap::new(),
            pending: HashMap::new(),
            deadline: None,
            gathering: false,
            touched: now,
        }
    }

    /// Nobody is in it or about to come.
    pub(crate) fn vacant(&self) -> bool {
        self.members.is_empty() && self.pending.is_empty()
    }

    fn longest_rebalance(&self) -> Duration {
        self.members
            .values()
            .map(|member| member.rebalance)
            .max()
            .unwrap_or_default()
    }

    pub(super) fn rebalance(&mut self, delay: Duration, now: Instant) {
        if self.state == State::CompletingRebalance {
            for member in self.members.values_mut() {
                member.assignment = Bytes::new();
                member.answer_sync(Err(ResponseError::RebalanceInProgress));
            }
        }
        self.gathering = self.state == State::Empty && !delay.is_zero();
        self.deadline = Some(
            now + if self.gathering {
                delay
            } else {
                self.longest_rebalance()
            },
        );
        self.state = State::PreparingRebalance;
    }

    pub(super) fn complete_if_all_joined(&mut self, now: Instant) {
        let all = self.pending.is_empty() && self.members.values().all(Member::is_joining);
        if self.state == State::PreparingRebalance && !self.gathering && all {
            self.complete(now);
        }
    }

    /// Ends the joining with those who are there.
    fn complete(&mut self, now: Instant) {
        self.gathering = false;
        let absent = |member: &Member| !member.is_joining() && member.instance.is_none();
        let gone: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| absent(member))
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            self.members.remove(&id);
        }
        if self.members.is_empty() {
            self.generation += 1;
            self.state = State::Empty;
            self.protocol.clear();
            self.leader.clear();
            self.deadline = None;
            return;
        }
        if !self
            .members
            .get(&self.leader)
            .is_some_and(Member::is_joining)
        {
            let Some(first) = self.members.iter().find(|(_, member)| member.is_joining()) else {
                // Only static members that are away: they have until their sessions end.
                self.deadline = Some(now + self.longest_rebalance());
                return;
            };
            self.leader.clone_from(first.0);
        }
        self.generation += 1;
        self.protocol = self.select();
        self.state = State::CompletingRebalance;
        self.deadline = Some(now + self.longest_rebalance());
        let answers: Vec<(String, Joined)> = self
            .members
            .keys()
            .map(|id| (id.clone(), self.joined(id)))
            .collect();
        for (id, joined) in answers {
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = Bytes::new();
                if member.is_joining() {
                    member.alive(now);
                }
                member.answer_join(&id, Ok(joined));
            }
        }
    }

    /// The assignor that most members prefer among those that all know.
    pub(super) fn select(&self) -> String {
        let known = |name: &str| {
            self.members
                .values()
                .all(|one| one.protocols.iter().any(|(other, _)| other == name))
        };
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| known(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        votes
            .into_iter()
            .max_by_key(|(_, count)| *count)
            .map(|(name, _)| name.to_owned())
            .unwrap_or_default()
    }

    /// Checks who speaks. `member_id` may be empty where a static identity is given.
    pub(crate) fn identify(
        &self,
        member_id: &str,
        instance: Option<&str>,
        generation: Option<i32>,
    ) -> Result<String, ResponseError> {
        let holder = instance.map(|instance| {
            self.instances
                .get(instance)
                .ok_or(ResponseError::UnknownMemberId)
        });
        let id = match holder.transpose()? {
            Some(holder) if member_id.is_empty() || holder == member_id => holder.as_str(),
            Some(_) => return Err(ResponseError::FencedInstanceId),
            None => member_id,
        };
        if !self.members.contains_key(id) {
            return Err(ResponseError::UnknownMemberId);
        }
        if generation.is_some_and(|generation| generation != self.generation) {
            return Err(ResponseError::IllegalGeneration);
        }
        Ok(id.to_owned())
    }

    /// Hands in (the leader) and asks for assignments.
    pub(crate) fn sync(
        &mut self,
        id: &str,
        assignments: HashMap<String, Bytes>,
        now: Instant,
    ) -> oneshot::Receiver<SyncReply> {
        self.touched = now;
        let (send, receive) = oneshot::channel();
        let leads = self.leader == id;
        let Some(member) = self.members.get_mut(id) else {
            drop(send.send(Err(ResponseError::UnknownMemberId)));
            return receive;
        };
        member.alive(now);
        match self.state {
            State::Empty => drop(send.send(Err(ResponseError::UnknownMemberId))),
            State::PreparingRebalance => drop(send.send(Err(ResponseError::RebalanceInProgress))),
            State::Stable => drop(send.send(Ok(member.assignment.clone()))),
            State::CompletingRebalance => {
                member.answer_sync(Err(ResponseError::UnknownMemberId));
                member.syncing = Some(send);
                if leads {
                    self.assign(assignments, now);
                }
            }
        }
        receive
    }

    fn assign(&mut self, mut assignments: HashMap<String, Bytes>, now: Instant) {
        self.state = State::Stable;
        self.deadline = None;
        for (id, member) in &mut self.members {
            member.assignment = assignments.remove(id).unwrap_or_default();
            if member.is_syncing() {
                member.alive(now);
            }
            let assignment = member.assignment.clone();
            member.answer_sync(Ok(assignment));
        }
    }

    /// A sign of life.
    pub(crate) fn heartbeat(&mut self, id: &str, now: Instant) -> Result<(), ResponseError> {
        if let Some(member) = self.members.get_mut(id) {
            member.alive(now);
        }
        match self.state {
            State::Empty => Err(ResponseError::UnknownMemberId),
            State::PreparingRebalance => Err(ResponseError::RebalanceInProgress),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    /// A member goes.
    pub(crate) fn leave(
        &mut self,
        member_id: &str,
        instance: Option<&str>,
        now: Instant,
    ) -> Result<(), ResponseError> {
        self.touched = now;
        if instance.is_none() && self.pending.remove(member_id).is_some() {
            self.complete_if_all_joined(now);
            return Ok(());
        }
        let id = self.identify(member_id, instance, None)?;
        self.remove(&id);
        self.after_removal(now);
        Ok(())
    }

    fn remove(&mut self, id: &str) {
        let Some(mut member) = self.members.remove(id) else {
            return;
        };
        member.answer_join(id, Err(ResponseError::UnknownMemberId));
        member.answer_sync(Err(ResponseError::UnknownMemberId));
        if let Some(instance) = &member.instance {
            self.instances.remove(instance);
        }
        if self.leader == id {
            self.leader.clear();
        }
    }

    fn after_removal(&mut self, now: Instant) {
        if matches!(self.state, State::Stable | State::CompletingRebalance) {
            self.rebalance(Duration::ZERO, now);
        }
        self.complete_if_all_joined(now);
    }

    /// Puts out who gave no sign of life, and ends phases whose time is over.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.pending.retain(|_, until| *until > now);
        let silent = |member: &Member| {
            member.deadline <= now && !member.is_joining() && !member.is_syncing()
        };
        let gone: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| silent(member))
            .map(|(id, _)| id.clone())
            .collect();
        for id in &gone {
            self.remove(id);
        }
        if gone.is_empty() {
            self.complete_if_all_joined(now);
        } else {
            self.touched = now;
            self.after_removal(now);
        }
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        match self.state {
            State::PreparingRebalance => self.complete(now),
            State::CompletingRebalance => {
                let late = self
                    .members
                    .iter()
                    .filter(|(_, member)| !member.is_syncing() && member.instance.is_none());
                let late: Vec<String> = late.map(|(id, _)| id.clone()).collect();
                for id in &late {
                    self.remove(id);
                }
                self.rebalance(Duration::ZERO, now);
                self.complete_if_all_joined(now);
            }
            State::Empty | State::Stable => self.deadline = None,
        }
    }
}
