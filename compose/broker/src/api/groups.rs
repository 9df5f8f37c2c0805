//! Group membership on the wire; the rules are in [`crate::groups::group`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    GroupId, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, SyncGroupRequest,
    SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::{code, text};
use crate::groups::group::State;
use crate::groups::member::Join;
use crate::net::{Peer, Shared};

const CONSUMER: &str = "consumer";
const CLASSIC: &str = "classic";
const UNKNOWN_OPERATIONS: i32 = i32::MIN;

fn instance(id: Option<&StrBytes>) -> Option<&str> {
    id.map(StrBytes::as_str)
}

fn milliseconds(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// Waits until the group's members have joined.
pub(crate) async fn join(
    shared: &Shared,
    peer: &Peer,
    request: JoinGroupRequest,
    client_id: String,
    version: i16,
) -> JoinGroupResponse {
    let session = milliseconds(request.session_timeout_ms);
    let join = Join {
        member_id: request.member_id.to_string(),
        instance: request.group_instance_id.as_ref().map(ToString::to_string),
        client_id,
        host: format!("/{}", peer.remote.ip()),
        session,
        rebalance: if version >= 1 {
            milliseconds(request.rebalance_timeout_ms)
        } else {
            session
        },
        protocol_type: request.protocol_type.to_string(),
        // Copied, so that a member doesn't keep its whole request in memory.
        protocols: request
            .protocols
            .iter()
            .map(|one| {
                (
                    one.name.to_string(),
                    bytes::Bytes::copy_from_slice(&one.metadata),
                )
            })
            .collect(),
        asks_for_id: version >= 4,
        can_skip: version >= 9,
    };
    let (id, outcome) = match shared.coordinator.join(&request.group_id, &join) {
        Ok(reply) => tokio::select! {
            reply = reply => reply.unwrap_or((join.member_id, Err(ResponseError::NotCoordinator))),
            () = shared.stop.cancelled() => (join.member_id, Err(ResponseError::NotCoordinator)),
        },
        Err(error) => (join.member_id, Err(error)),
    };
    let response = JoinGroupResponse::default()
        .with_error_code(code(&outcome))
        .with_member_id(text(id));
    let Ok(joined) = outcome else {
        let protocol = (version < 7).then(StrBytes::new);
        return response.with_generation_id(-1).with_protocol_name(protocol);
    };
    let members = joined.members.into_iter().map(|(id, instance, metadata)| {
        JoinGroupResponseMember::default()
            .with_member_id(text(id))
            .with_group_instance_id(instance.map(text))
            .with_metadata(metadata)
    });
    response
        .with_generation_id(joined.generation)
        .with_protocol_type(Some(text(joined.protocol_type)))
        .with_protocol_name(Some(text(joined.protocol)))
        .with_leader(text(joined.leader))
        .with_skip_assignment(joined.skip_assignment)
        .with_members(members.collect())
}

/// Waits until the leader has assigned.
pub(crate) async fn sync(shared: &Shared, request: SyncGroupRequest) -> SyncGroupResponse {
    let waiting = start_sync(shared, &request);
    let outcome = match waiting {
        Ok(reply) => tokio::select! {
            reply = reply => reply.unwrap_or(Err(ResponseError::NotCoordinator)),
            () = shared.stop.cancelled() => Err(ResponseError::NotCoordinator),
        },
        Err(error) => Err(error),
    };
    SyncGroupResponse::default()
        .with_error_code(code(&outcome))
        .with_protocol_type(request.protocol_type)
        .with_protocol_name(request.protocol_name)
        .with_assignment(outcome.unwrap_or_default())
}

fn start_sync(
    shared: &Shared,
    request: &SyncGroupRequest,
) -> Result<tokio::sync::oneshot::Receiver<crate::groups::member::SyncReply>, ResponseError> {
    let group = shared
        .coordinator
        .get(&request.group_id)
        .ok_or(ResponseError::UnknownMemberId)?;
    let mut group = group.lock();
    let instance = instance(request.group_instance_id.as_ref());
    let id = group.identify(&request.member_id, instance, Some(request.generation_id))?;
    let differs = |given: &Option<StrBytes>, known: &str| {
        given.as_ref().is_some_and(|given| given.as_str() != known)
    };
    if differs(&request.protocol_type, &group.protocol_type)
        || differs(&request.protocol_name, &group.protocol)
    {
        return Err(ResponseError::InconsistentGroupProtocol);
    }
    let assignments: HashMap<_, _> = request
        .assignments
        .iter()
        .map(|one| {
            (
                one.member_id.to_string(),
                bytes::Bytes::copy_from_slice(&one.assignment),
            )
        })
        .collect();
    Ok(group.sync(&id, assignments, Instant::now()))
}

pub(crate) fn heartbeat(shared: &Shared, request: &HeartbeatRequest) -> HeartbeatResponse {
    let beat = || {
        let group = shared
            .coordinator
            .get(&request.group_id)
            .ok_or(ResponseError::UnknownMemberId)?;
        let mut group = group.lock();
        let instance = instance(request.group_instance_id.as_ref());
        let id = group.identify(&request.member_id, instance, Some(request.generation_id))?;
        group.heartbeat(&id, Instant::now())
    };
    HeartbeatResponse::default().with_error_code(code(&beat()))
}

pub(crate) fn leave(
    shared: &Shared,
    request: &LeaveGroupRequest,
    version: i16,
) -> LeaveGroupResponse {
    let leave = |member_id: &str, instance: Option<&str>| {
        let group = shared
            .coordinator
            .get(&request.group_id)
            .ok_or(ResponseError::UnknownMemberId)?;
        let mut group = group.lock();
        group.leave(member_id, instance, Instant::now())
    };
    if version < 3 {
        return LeaveGroupResponse::default()
            .with_error_code(code(&leave(&request.member_id, None)));
    }
    let members = request.members.iter().map(|member| {
        let left = leave(
            &member.member_id,
            instance(member.group_instance_id.as_ref()),
        );
        MemberResponse::default()
            .with_member_id(member.member_id.clone())
            .with_group_instance_id(member.group_instance_id.clone())
            .with_error_code(code(&left))
    });
    LeaveGroupResponse::default().with_members(members.collect())
}

pub(crate) fn list(shared: &Shared, request: &ListGroupsRequest) -> ListGroupsResponse {
    let wanted = |filter: &[StrBytes], value: &str| {
        filter.is_empty() || filter.iter().any(|one| one.eq_ignore_ascii_case(value))
    };
    let groups = shared.coordinator.names().into_iter().filter_map(|name| {
        let (state, protocol_type) = match shared.coordinator.get(&name) {
            Some(group) => {
                let group = group.lock();
                (group.state.name(), group.protocol_type.clone())
            }
            None => (State::Empty.name(), String::new()),
        };
        let listed =
            wanted(&request.states_filter, state) && wanted(&request.types_filter, CLASSIC);
        listed.then(|| {
            ListedGroup::default()
                .with_group_id(GroupId(text(name)))
                .with_protocol_type(text(protocol_type))
                .with_group_state(StrBytes::from_static_str(state))
                .with_group_type(StrBytes::from_static_str(CLASSIC))
        })
    });
    ListGroupsResponse::default().with_groups(groups.collect())
}

pub(crate) fn describe(
    shared: &Shared,
    request: &DescribeGroupsRequest,
    version: i16,
) -> DescribeGroupsResponse {
    let groups = request.groups.iter().map(|name| {
        let described = DescribedGroup::default()
            .with_group_id(name.clone())
            .with_authorized_operations(UNKNOWN_OPERATIONS);
        let Some(group) = shared.coordinator.get(name) else {
            return absent(shared, name, described, version);
        };
        let group = group.lock();
        let members = group.members.iter().map(|(id, member)| {
            DescribedGroupMember::default()
                .with_member_id(text(id.clone()))
                .with_group_instance_id(member.instance.clone().map(text))
                .with_client_id(text(member.client_id.clone()))
                .with_client_host(text(member.host.clone()))
                .with_member_metadata(member.metadata(&group.protocol))
                .with_member_assignment(member.assignment.clone())
        });
        described
            .with_group_state(StrBytes::from_static_str(group.state.name()))
            .with_protocol_type(text(group.protocol_type.clone()))
            .with_protocol_data(text(group.protocol.clone()))
            .with_members(members.collect())
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

/// A group without members: empty where it has offsets, else dead.
fn absent(
    shared: &Shared,
    name: &GroupId,
    described: DescribedGroup,
    version: i16,
) -> DescribedGroup {
    if shared.coordinator.commits.knows(name) {
        return described.with_group_state(StrBytes::from_static_str(State::Empty.name()));
    }
    let dead = described.with_group_state(StrBytes::from_static_str("Dead"));
    if version < 6 {
        return dead;
    }
    dead.with_error_code(ResponseError::GroupIdNotFound.code())
        .with_error_message(Some(text(format!("Group {} not found.", name.as_str()))))
}

pub(crate) async fn delete(
    shared: &Arc<Shared>,
    request: &DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for name in &request.groups_names {
        let deleted = shared.coordinator.delete(name).await;
        results.push(
            DeletableGroupResult::default()
                .with_group_id(name.clone())
                .with_error_code(code(&deleted)),
        );
    }
    DeleteGroupsResponse::default().with_results(results)
}

/// Whether a member of the group reads the topic, as far as its consumer metadata tells.
pub(crate) fn subscribed(shared: &Shared, group: &str, topic: &str) -> bool {
    let Some(group) = shared.coordinator.get(group) else {
        return false;
    };
    let group = group.lock();
    if group.protocol_type != CONSUMER {
        return !group.members.is_empty();
    }
    group.members.values().any(|member| {
        let metadata = member.metadata(&group.protocol);
        topics_of(&metadata).is_none_or(|topics| topics.contains(&topic.as_bytes()))
    })
}

/// The topics in a consumer's metadata: version, then an array of strings.
fn topics_of(metadata: &[u8]) -> Option<Vec<&[u8]>> {
    let (count, mut rest) = metadata.get(2..)?.split_first_chunk::<4>()?;
    let mut topics = Vec::new();
    for _ in 0..u32::from_be_bytes(*count) {
        let (length, tail) = rest.split_first_chunk::<2>()?;
        let (topic, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        topics.push(topic);
        rest = tail;
    }
    Some(topics)
}
