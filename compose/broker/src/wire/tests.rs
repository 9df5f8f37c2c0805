//! The shapes agree with the encoder, and nothing that arrives can hurt.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, StrBytes};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn body<T: Encodable>(message: &T, version: i16) -> Vec<u8> {
    let mut out = BytesMut::new();
    message
        .encode(&mut out, version)
        .unwrap_or_else(|error| panic!("version {version}: {error}"));
    out.to_vec()
}

/// A request with an element in each of its arrays.
fn full(key: ApiKey, version: i16) -> Vec<u8> {
    let name = || TopicName(StrBytes::from_static_str("topic"));
    let word = || StrBytes::from_static_str("word");
    match key {
        ApiKey::Produce => {
            use produce_request::{PartitionProduceData, TopicProduceData};
            let data =
                PartitionProduceData::default().with_records(Some(Bytes::from_static(b"records")));
            let topic = TopicProduceData::default()
                .with_name(name())
                .with_partition_data(vec![data.clone(), data]);
            body(
                &ProduceRequest::default().with_topic_data(vec![topic]),
                version,
            )
        }
        ApiKey::Fetch => {
            use fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
            let topic = FetchTopic::default()
                .with_topic(name())
                .with_partitions(vec![FetchPartition::default(); 2]);
            let request = FetchRequest::default().with_topics(vec![topic]);
            let forgotten = ForgottenTopic::default()
                .with_topic(name())
                .with_partitions(vec![1, 2]);
            let forgotten = if version >= 7 {
                vec![forgotten]
            } else {
                Vec::new()
            };
            body(&request.with_forgotten_topics_data(forgotten), version)
        }
        ApiKey::ListOffsets => {
            use list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
            let partitions = vec![ListOffsetsPartition::default(); 2];
            let topic = ListOffsetsTopic::default()
                .with_name(name())
                .with_partitions(partitions);
            body(
                &ListOffsetsRequest::default().with_topics(vec![topic]),
                version,
            )
        }
        ApiKey::Metadata => {
            let topic = metadata_request::MetadataRequestTopic::default().with_name(Some(name()));
            body(
                &MetadataRequest::default().with_topics(Some(vec![topic])),
                version,
            )
        }
        ApiKey::OffsetCommit => {
            use offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
            let partition =
                OffsetCommitRequestPartition::default().with_committed_metadata(Some(word()));
            let topic = OffsetCommitRequestTopic::default()
                .with_name(name())
                .with_partitions(vec![partition]);
            body(
                &OffsetCommitRequest::default().with_topics(vec![topic]),
                version,
            )
        }
        ApiKey::OffsetFetch => {
            use offset_fetch_request::{
                OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
            };
            let request = OffsetFetchRequest::default();
            if version < 8 {
                let topic = OffsetFetchRequestTopic::default()
                    .with_name(name())
                    .with_partition_indexes(vec![1, 2]);
                return body(&request.with_topics(Some(vec![topic])), version);
            }
            let topic = OffsetFetchRequestTopics::default()
                .with_name(name())
                .with_partition_indexes(vec![1, 2]);
            let group = OffsetFetchRequestGroup::default().with_topics(Some(vec![topic]));
            body(&request.with_groups(vec![group]), version)
        }
        ApiKey::FindCoordinator if version >= 4 => body(
            &FindCoordinatorRequest::default().with_coordinator_keys(vec![word(), word()]),
            version,
        ),
        ApiKey::FindCoordinator => {
            body(&FindCoordinatorRequest::default().with_key(word()), version)
        }
        ApiKey::JoinGroup => {
            let protocol = join_group_request::JoinGroupRequestProtocol::default()
                .with_name(word())
                .with_metadata(Bytes::from_static(b"metadata"));
            body(
                &JoinGroupRequest::default().with_protocols(vec![protocol.clone(), protocol]),
                version,
            )
        }
        ApiKey::Heartbeat => body(&HeartbeatRequest::default(), version),
        ApiKey::LeaveGroup if version >= 3 => {
            let member = leave_group_request::MemberIdentity::default().with_member_id(word());
            body(
                &LeaveGroupRequest::default().with_members(vec![member]),
                version,
            )
        }
        ApiKey::LeaveGroup => body(
            &LeaveGroupRequest::default().with_member_id(word()),
            version,
        ),
        ApiKey::SyncGroup => {
            let one =
                sync_group_request::SyncGroupRequestAssignment::default().with_member_id(word());
            body(
                &SyncGroupRequest::default().with_assignments(vec![one]),
                version,
            )
        }
        ApiKey::DescribeGroups => body(
            &DescribeGroupsRequest::default().with_groups(vec![GroupId(word())]),
            version,
        ),
        ApiKey::ListGroups => {
            let states = if version >= 4 {
                vec![word()]
            } else {
                Vec::new()
            };
            let types = if version >= 5 {
                vec![word()]
            } else {
                Vec::new()
            };
            body(
                &ListGroupsRequest::default()
                    .with_states_filter(states)
                    .with_types_filter(types),
                version,
            )
        }
        ApiKey::SaslHandshake => body(
            &SaslHandshakeRequest::default().with_mechanism(word()),
            version,
        ),
        ApiKey::ApiVersions => body(&ApiVersionsRequest::default(), version),
        ApiKey::CreateTopics => {
            use create_topics_request::{
                CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
            };
            let assignment =
                CreatableReplicaAssignment::default().with_broker_ids(vec![BrokerId(1)]);
            let config = CreatableTopicConfig::default()
                .with_name(word())
                .with_value(Some(word()));
            let topic = CreatableTopic::default()
                .with_name(name())
                .with_assignments(vec![assignment])
                .with_configs(vec![config]);
            body(
                &CreateTopicsRequest::default().with_topics(vec![topic]),
                version,
            )
        }
        ApiKey::DeleteTopics if version >= 6 => {
            let topic = delete_topics_request::DeleteTopicState::default()
                .with_topic_id(Uuid::from_u128(7));
            body(
                &DeleteTopicsRequest::default().with_topics(vec![topic]),
                version,
            )
        }
        ApiKey::DeleteTopics => body(
            &DeleteTopicsRequest::default().with_topic_names(vec![name()]),
            version,
        ),
        ApiKey::DeleteRecords => {
            use delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
            let partitions = vec![DeleteRecordsPartition::default()];
            let topic = DeleteRecordsTopic::default()
                .with_name(name())
                .with_partitions(partitions);
            body(
                &DeleteRecordsRequest::default().with_topics(vec![topic]),
                version,
            )
        }
        ApiKey::InitProducerId => body(&InitProducerIdRequest::default(), version),
        ApiKey::DescribeConfigs => {
            let resource = describe_configs_request::DescribeConfigsResource::default()
                .with_resource_name(word())
                .with_configuration_keys(Some(vec![word()]));
            body(
                &DescribeConfigsRequest::default().with_resources(vec![resource]),
                version,
            )
        }
        ApiKey::AlterConfigs => {
            use alter_configs_request::{AlterConfigsResource, AlterableConfig};
            let config = AlterableConfig::default()
                .with_name(word())
                .with_value(Some(word()));
            let resource = AlterConfigsResource::default().with_configs(vec![config]);
            body(
                &AlterConfigsRequest::default().with_resources(vec![resource]),
                version,
            )
        }
        ApiKey::SaslAuthenticate => body(
            &SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(b"token")),
            version,
        ),
        ApiKey::CreatePartitions => {
            use create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
            let assignment =
                CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(1)]);
            let topic = CreatePartitionsTopic::default()
                .with_name(name())
                .with_assignments(Some(vec![assignment]));
            body(
                &CreatePartitionsRequest::default().with_topics(vec![topic]),
                version,
            )
        }
        ApiKey::DeleteGroups => body(
            &DeleteGroupsRequest::default().with_groups_names(vec![GroupId(word())]),
            version,
        ),
        ApiKey::IncrementalAlterConfigs => {
            use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
            let config = AlterableConfig::default()
                .with_name(word())
                .with_value(Some(word()));
            let resource = AlterConfigsResource::default().with_configs(vec![config]);
            body(
                &IncrementalAlterConfigsRequest::default().with_resources(vec![resource]),
                version,
            )
        }
        ApiKey::OffsetDelete => {
            use offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
            let partitions = vec![OffsetDeleteRequestPartition::default()];
            let topic = OffsetDeleteRequestTopic::default()
                .with_name(name())
                .with_partitions(partitions);
            body(
                &OffsetDeleteRequest::default().with_topics(vec![topic]),
                version,
            )
        }
        other => panic!("no request for {other:?}"),
    }
}

fn frame(api: &Api, version: i16, body: &[u8]) -> Bytes {
    let mut out = Vec::new();
    out.extend_from_slice(&(api.key as i16).to_be_bytes());
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&7_i32.to_be_bytes());
    out.extend_from_slice(&2_i16.to_be_bytes());
    out.extend_from_slice(b"me");
    if api.key.request_header_version(version) >= 2 {
        out.push(0);
    }
    out.extend_from_slice(body);
    Bytes::from(out)
}

#[test]
fn every_version_of_every_request_has_its_shape() {
    for api in APIS {
        for version in api.first..=api.last {
            let body = full(api.key, version);
            let request = Request::parse(frame(api, version, &body))
                .unwrap_or_else(|error| panic!("{} {version}: {error}", api.name));
            assert_eq!((request.correlation, request.client_id.as_str()), (7, "me"));
            // Not a byte less; what some clients send behind it is passed over.
            if !body.is_empty() {
                assert!(
                    shape::check(api.key, version, &body[..body.len() - 1]).is_none(),
                    "{} {version}",
                    api.name
                );
            }
            let mut more = body;
            more.push(0);
            let checked = shape::check(api.key, version, &more);
            assert_eq!(checked, Some(()), "{} {version}", api.name);
        }
    }
}

#[test]
fn what_is_not_spoken_is_said() {
    let unknown = [0, 99, 0, 0, 0, 0, 0, 1, 255, 255];
    assert_eq!(
        Request::parse(Bytes::copy_from_slice(&unknown)).err(),
        Some(Malformed::UnknownApi(99))
    );
    let newer = [0, 1, 0, 99, 0, 0, 0, 1, 255, 255];
    assert_eq!(
        Request::parse(Bytes::copy_from_slice(&newer)).err(),
        Some(Malformed::UnsupportedVersion(1, 99))
    );
    let versions = [0, 18, 0, 99, 0, 0, 0, 1];
    assert_eq!(
        Request::parse(Bytes::copy_from_slice(&versions))
            .map(|request| request.version)
            .ok(),
        Some(None)
    );
}

#[test]
fn an_array_that_claims_billions_is_refused_before_it_is_decoded() {
    // Metadata version 1: an array of 2^31 - 1 topics in four bytes.
    assert!(shape::check(ApiKey::Metadata, 1, &i32::MAX.to_be_bytes()).is_none());
    // As many as fit, but more than are allowed.
    let count = i32::try_from(shape::MOST_ELEMENTS + 1).unwrap();
    let mut many = count.to_be_bytes().to_vec();
    many.resize(4 + 2 * (shape::MOST_ELEMENTS + 1), 0);
    assert!(shape::check(ApiKey::DescribeGroups, 0, &many).is_none());
    let allowed = [&(count - 1).to_be_bytes()[..], &many[4..many.len() - 2]].concat();
    assert!(shape::check(ApiKey::DescribeGroups, 0, &allowed).is_some());
}

/// Decodes as the broker would.
fn decode(request: &Request) {
    macro_rules! decode {
        ($($name:ident),* $(,)?) => {
            match request.api.key {
                $(ApiKey::$name => drop(request.decode::<by_key::$name>()),)*
                other => panic!("{other:?} is not decoded"),
            }
        };
    }
    decode!(
        Produce,
        Fetch,
        ListOffsets,
        Metadata,
        OffsetCommit,
        OffsetFetch,
        FindCoordinator,
        JoinGroup,
        Heartbeat,
        LeaveGroup,
        SyncGroup,
        DescribeGroups,
        ListGroups,
        SaslHandshake,
        ApiVersions,
        CreateTopics,
        DeleteTopics,
        DeleteRecords,
        InitProducerId,
        DescribeConfigs,
        AlterConfigs,
        SaslAuthenticate,
        CreatePartitions,
        DeleteGroups,
        IncrementalAlterConfigs,
        OffsetDelete
    );
}

/// The request types under the names of their keys.
mod by_key {
    macro_rules! name {
        ($($key:ident = $request:ident),* $(,)?) => {
            $(pub(super) type $key = kafka_protocol::messages::$request;)*
        };
    }
    name!(
        Produce = ProduceRequest,
        Fetch = FetchRequest,
        ListOffsets = ListOffsetsRequest,
        Metadata = MetadataRequest,
        OffsetCommit = OffsetCommitRequest,
        OffsetFetch = OffsetFetchRequest,
        FindCoordinator = FindCoordinatorRequest,
        JoinGroup = JoinGroupRequest,
        Heartbeat = HeartbeatRequest,
        LeaveGroup = LeaveGroupRequest,
        SyncGroup = SyncGroupRequest,
        DescribeGroups = DescribeGroupsRequest,
        ListGroups = ListGroupsRequest,
        SaslHandshake = SaslHandshakeRequest,
        ApiVersions = ApiVersionsRequest,
        CreateTopics = CreateTopicsRequest,
        DeleteTopics = DeleteTopicsRequest,
        DeleteRecords = DeleteRecordsRequest,
        InitProducerId = InitProducerIdRequest,
        DescribeConfigs = DescribeConfigsRequest,
        AlterConfigs = AlterConfigsRequest,
        SaslAuthenticate = SaslAuthenticateRequest,
        CreatePartitions = CreatePartitionsRequest,
        DeleteGroups = DeleteGroupsRequest,
        IncrementalAlterConfigs = IncrementalAlterConfigsRequest,
        OffsetDelete = OffsetDeleteRequest,
    );
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(request) = Request::parse(Bytes::from(bytes)) {
            decode(&request);
        }
    }

    #[test]
    fn random_bodies_never_panic(
        api in 0..APIS.len(), version in 0_i16..14, body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        if let Ok(request) = Request::parse(frame(&APIS[api], version, &body)) {
            decode(&request);
        }
    }

    #[test]
    fn damaged_requests_never_panic(
        api in 0..APIS.len(), version in 0_i16..14, flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..6),
    ) {
        let api = &APIS[api];
        let version = version.clamp(api.first, api.last);
        let mut body = full(api.key, version);
        if !body.is_empty() {
            for (at, with) in flips {
                let at = at % body.len();
                body[at] = with;
            }
        }
        if let Ok(request) = Request::parse(frame(api, version, &body)) {
            decode(&request);
        }
    }

    #[test]
    fn random_records_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        use crate::log::batch::{Demand, Header, check};
        let bytes = Bytes::from(bytes);
        if let Some(header) = Header::parse(&bytes) {
            let _ = crate::log::records::find(&header, &bytes, 0, |_| false);
        }
        let _ = check(bytes, Demand { max_bytes: 1_000, append_time: Some(1) });
    }
}
