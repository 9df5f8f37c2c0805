//! Joining a group: who is let in, under which id, and what it is told.

use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::group::{Group, State};
use super::member::{Join, JoinReply, Joined, Member};

enum Admission {
    Wait(String),
    Answer(String, Joined),
}

impl Group {
    /// Takes a member in; the answer comes when the join is over.
    pub(crate) fn join(
        &mut self,
        join: &Join,
        delay: Duration,
        most: usize,
        now: Instant,
    ) -> oneshot::Receiver<JoinReply> {
        self.touched = now;
        let (send, receive) = oneshot::channel();
        match self.admit(join, delay, most, now) {
            Ok(Admission::Wait(id)) => {
                if let Some(member) = self.members.get_mut(&id) {
                    // A join sent twice: the first is answered by the second.
                    member.answer_join(&id, Err(ResponseError::UnknownMemberId));
                    member.joining = Some(send);
                    member.alive(now);
                }
                self.complete_if_all_joined(now);
            }
            // The receiver is right here.
            Ok(Admission::Answer(id, joined)) => drop(send.send((id, Ok(joined)))),
            Err((id, error)) => drop(send.send((id, Err(error)))),
        }
        receive
    }

    fn admit(
        &mut self,
        join: &Join,
        delay: Duration,
        most: usize,
        now: Instant,
    ) -> Result<Admission, (String, ResponseError)> {
        let refuse = |error| Err((join.member_id.clone(), error));
        if !self.compatible(join) {
            return refuse(ResponseError::InconsistentGroupProtocol);
        }
        let holder = join
            .instance
            .as_ref()
            .and_then(|instance| self.instances.get(instance))
            .cloned();
        if join.member_id.is_empty() {
            if let Some(holder) = holder {
                return Ok(self.take_over(&holder, join, now));
            }
            if self.members.len() + self.pending.len() >= most {
                return refuse(ResponseError::GroupMaxSizeReached);
            }
            let id = new_id(join);
            if join.instance.is_none() && join.asks_for_id {
                self.pending.insert(id.clone(), now + join.session);
                return Err((id, ResponseError::MemberIdRequired));
            }
            self.add(id.clone(), join, delay, now);
            return Ok(Admission::Wait(id));
        }
        match holder {
            Some(holder) if holder != join.member_id => {
                return refuse(ResponseError::FencedInstanceId);
            }
            None if join.instance.is_some() => return refuse(ResponseError::UnknownMemberId),
            _ => {}
        }
        let id = join.member_id.clone();
        if self.pending.remove(&id).is_some() {
            self.add(id.clone(), join, delay, now);
            return Ok(Admission::Wait(id));
        }
        let Some(member) = self.members.get_mut(&id) else {
            return refuse(ResponseError::UnknownMemberId);
        };
        let same = member.protocols == join.protocols;
        member.update(join);
        member.alive(now);
        match self.state {
            State::PreparingRebalance => {}
            State::CompletingRebalance if same => return Ok(self.present(&id)),
            State::Stable if same && id != self.leader => return Ok(self.present(&id)),
            _ => self.rebalance(delay, now),
        }
        Ok(Admission::Wait(id))
    }

    /// Whether a member can work with the group: one assignor must be everybody's.
    fn compatible(&self, join: &Join) -> bool {
        if join.protocol_type.is_empty() || join.protocols.is_empty() {
            return false;
        }
        let mut others = self.members.iter().filter(|(id, member)| {
            **id != join.member_id && (join.instance.is_none() || member.instance != join.instance)
        });
        let mut shared = join
            .protocols
            .iter()
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>();
        let same_type = self.members.is_empty() || self.protocol_type == join.protocol_type;
        same_type
            && others.all(|(_, member)| {
                shared.retain(|name| member.protocols.iter().any(|(known, _)| known == name));
                !shared.is_empty()
            })
    }

    fn add(&mut self, id: String, join: &Join, delay: Duration, now: Instant) {
        if self.members.is_empty() {
            self.protocol_type.clone_from(&join.protocol_type);
        }
        if let Some(instance) = &join.instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        self.members.insert(id, Member::new(join, now));
        if self.state != State::PreparingRebalance {
            self.rebalance(delay, now);
        }
    }

    /// A static member comes back under a new id; its old one is fenced.
    fn take_over(&mut self, holder: &str, join: &Join, now: Instant) -> Admission {
        let id = new_id(join);
        let before = self.leader.clone();
        if let Some(mut member) = self.members.remove(holder) {
            member.answer_join(holder, Err(ResponseError::FencedInstanceId));
            member.answer_sync(Err(ResponseError::FencedInstanceId));
            member.update(join);
            member.alive(now);
            self.members.insert(id.clone(), member);
        }
        if let Some(instance) = &join.instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        let leads = self.leader == holder;
        if leads {
            self.leader.clone_from(&id);
        }
        match self.state {
            State::Stable if self.select() == self.protocol => {
                let mut joined = self.joined(&id);
                if leads && join.can_skip {
                    joined.skip_assignment = true;
                } else {
                    // An older client that finds itself the leader would assign again.
                    joined.leader = before;
                    joined.members.clear();
                }
                return Admission::Answer(id, joined);
            }
            State::Stable | State::CompletingRebalance => self.rebalance(Duration::ZERO, now),
            State::Empty | State::PreparingRebalance => {}
        }
        Admission::Wait(id)
    }

    pub(super) fn joined(&self, id: &str) -> Joined {
        let members = if id == self.leader {
            let all = self.members.iter();
            all.map(|(id, member)| {
                (
                    id.clone(),
                    member.instance.clone(),
                    member.metadata(&self.protocol),
                )
            })
            .collect()
        } else {
            Vec::new()
        };
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            members,
            skip_assignment: false,
        }
    }

    fn present(&self, id: &str) -> Admission {
        Admission::Answer(id.to_owned(), self.joined(id))
    }
}

fn new_id(join: &Join) -> String {
    let stem = join.instance.as_ref().unwrap_or(&join.client_id);
    format!("{stem}-{}", Uuid::new_v4())
}
