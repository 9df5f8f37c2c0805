//! Committed offsets and group membership, said in the protocol itself.

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    GroupId, HeartbeatRequest, JoinGroupRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest, SyncGroupRequest,
};

use crate::raw::{Raw, text, topic};
use crate::server::{Server, name};

fn group(name: &str) -> GroupId {
    GroupId(text(name))
}

/// A consumer's metadata: version, topics, user data.
fn subscription(name: &str) -> Bytes {
    let mut out = vec![0, 0, 0, 0, 0, 1];
    out.extend_from_slice(&u16::try_from(name.len()).unwrap().to_be_bytes());
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(&(-1_i32).to_be_bytes());
    Bytes::from(out)
}

fn commit(
    raw: &mut Raw,
    group_name: &str,
    member: (i32, &str),
    topic_name: &str,
    partition: i32,
    metadata: &str,
) -> i16 {
    let wanted = OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(5)
        .with_committed_metadata(Some(text(metadata)));
    let wanted = OffsetCommitRequestTopic::default()
        .with_name(topic(topic_name))
        .with_partitions(vec![wanted]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group(group_name))
        .with_generation_id_or_member_epoch(member.0)
        .with_member_id(text(member.1))
        .with_topics(vec![wanted]);
    raw.call(&request, 7).topics[0].partitions[0].error_code
}

fn committed(raw: &mut Raw, group_name: &str, topic_name: &str) -> i64 {
    let wanted = OffsetFetchRequestTopic::default()
        .with_name(topic(topic_name))
        .with_partition_indexes(vec![0]);
    let request = OffsetFetchRequest::default()
        .with_group_id(group(group_name))
        .with_topics(Some(vec![wanted]));
    raw.call(&request, 5).topics[0].partitions[0].committed_offset
}

/// Joins a group alone and takes everything; answers generation and member id.
fn join(raw: &mut Raw, group_name: &str, topic_name: &str) -> (i32, String) {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(subscription(topic_name));
    let mut request = JoinGroupRequest::default()
        .with_group_id(group(group_name))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    let first = raw.call(&request, 5);
    assert_eq!(first.error_code, 79, "MEMBER_ID_REQUIRED");
    request.member_id = first.member_id;
    let joined = raw.call(&request, 5);
    assert_eq!((joined.error_code, &joined.leader), (0, &joined.member_id));
    let assignment = SyncGroupRequestAssignment::default().with_member_id(joined.member_id.clone());
    let synced = SyncGroupRequest::default()
        .with_group_id(group(group_name))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_assignments(vec![assignment]);
    assert_eq!(raw.call(&synced, 3).error_code, 0);
    (joined.generation_id, joined.member_id.to_string())
}

#[test]
fn only_members_of_the_generation_may_commit() {
    let server = Server::start();
    let (topic_name, group_name) = (server.topic("fenced", 1, &[]), name("fenced"));
    let mut raw = Raw::connect(server.address());
    let (generation, member) = join(&mut raw, &group_name, &topic_name);
    let try_as = |raw: &mut Raw, who| commit(raw, &group_name, who, &topic_name, 0, "");
    assert_eq!(try_as(&mut raw, (generation, &member)), 0);
    assert_eq!(
        try_as(&mut raw, (generation + 1, &member)),
        22,
        "ILLEGAL_GENERATION"
    );
    assert_eq!(
        try_as(&mut raw, (generation, "somebody")),
        25,
        "UNKNOWN_MEMBER_ID"
    );
    assert_eq!(try_as(&mut raw, (-1, "")), 25, "UNKNOWN_MEMBER_ID");
    let beat = |raw: &mut Raw, generation: i32, member: &str| {
        let request = HeartbeatRequest::default()
            .with_group_id(group(&group_name))
            .with_generation_id(generation)
            .with_member_id(text(member));
        raw.call(&request, 3).error_code
    };
    assert_eq!(beat(&mut raw, generation, &member), 0);
    assert_eq!(
        beat(&mut raw, generation - 1, &member),
        22,
        "ILLEGAL_GENERATION"
    );
    assert_eq!(
        beat(&mut raw, generation, "somebody"),
        25,
        "UNKNOWN_MEMBER_ID"
    );
}

#[test]
fn commits_are_checked_one_by_one() {
    let server = Server::start();
    let (topic_name, group_name) = (server.topic("checked", 1, &[]), name("checked"));
    let mut raw = Raw::connect(server.address());
    let nobody = (-1, "");
    assert_eq!(
        commit(&mut raw, &group_name, nobody, &topic_name, 0, "note"),
        0
    );
    assert_eq!(
        commit(
            &mut raw,
            &group_name,
            nobody,
            &topic_name,
            0,
            &"x".repeat(5_000)
        ),
        12,
        "too much metadata"
    );
    assert_eq!(
        commit(&mut raw, &group_name, nobody, &topic_name, 9, ""),
        3,
        "UNKNOWN_TOPIC_OR_PARTITION"
    );
    assert_eq!(committed(&mut raw, &group_name, &topic_name), 5);
    assert_eq!(committed(&mut raw, &name("other"), &topic_name), -1);
}

#[test]
fn offsets_are_deleted_unless_somebody_reads_the_topic() {
    let server = Server::start();
    let (topic_name, group_name) = (server.topic("deleted", 1, &[]), name("deleted"));
    let mut raw = Raw::connect(server.address());
    let (generation, member) = join(&mut raw, &group_name, &topic_name);
    let unread = server.topic("unread", 1, &[]);
    for one in [&topic_name, &unread] {
        assert_eq!(
            commit(&mut raw, &group_name, (generation, &member), one, 0, ""),
            0
        );
    }
    let delete = |raw: &mut Raw, topic_name: &str| {
        let partitions = vec![OffsetDeleteRequestPartition::default()];
        let wanted = OffsetDeleteRequestTopic::default()
            .with_name(topic(topic_name))
            .with_partitions(partitions);
        let request = OffsetDeleteRequest::default()
            .with_group_id(group(&group_name))
            .with_topics(vec![wanted]);
        raw.call(&request, 0).topics[0].partitions[0].error_code
    };
    assert_eq!(
        delete(&mut raw, &topic_name),
        86,
        "GROUP_SUBSCRIBED_TO_TOPIC"
    );
    assert_eq!(delete(&mut raw, &unread), 0);
    assert_eq!(committed(&mut raw, &group_name, &topic_name), 5);
    assert_eq!(committed(&mut raw, &group_name, &unread), -1);
}
