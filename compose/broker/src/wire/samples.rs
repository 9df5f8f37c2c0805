//! For tests: a request of every API and version, with an element in each of its arrays.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, StrBytes};
use uuid::Uuid;

use super::Api;

/// The group that the version's JoinGroup request names.
pub(crate) fn group(version: i16) -> GroupId {
    GroupId(StrBytes::from_string(format!("group-{version}")))
}

fn body<T: Encodable>(message: &T, version: i16) -> Vec<u8> {
    let mut out = BytesMut::new();
    message
        .encode(&mut out, version)
        .unwrap_or_else(|error| panic!("version {version}: {error}"));
    out.to_vec()
}

/// A request with an element in each of its arrays.
pub(crate) fn full(key: ApiKey, version: i16) -> Vec<u8> {
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
                &OffsetCommitRequest::default()
                    .with_group_id(GroupId(word()))
                    .with_generation_id_or_member_epoch(-1)
                    .with_topics(vec![topic]),
                version,
            )
        }
        ApiKey::OffsetFetch => {
            use offset_fetch_request::{
                OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
            };
            let request = OffsetFetchRequest::default();
            let id = GroupId(word());
            if version < 8 {
                let topic = OffsetFetchRequestTopic::default()
                    .with_name(name())
                    .with_partition_indexes(vec![1, 2]);
                return body(
                    &request.with_group_id(id).with_topics(Some(vec![topic])),
                    version,
                );
            }
            let topic = OffsetFetchRequestTopics::default()
                .with_name(name())
                .with_partition_indexes(vec![1, 2]);
            let group = OffsetFetchRequestGroup::default()
                .with_group_id(id)
                .with_topics(Some(vec![topic]));
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
                &JoinGroupRequest::default()
                    .with_group_id(group(version))
                    .with_session_timeout_ms(10_000)
                    .with_protocol_type(word())
                    .with_group_instance_id((version >= 5).then(word))
                    .with_protocols(vec![protocol.clone(), protocol]),
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
            &DescribeGroupsRequest::default().with_groups(vec![group(7), GroupId(word())]),
            version,
        ),
        ApiKey::ListGroups => {
            let states = if version >= 4 {
                vec![StrBytes::from_static_str("CompletingRebalance")]
            } else {
                Vec::new()
            };
            let types = if version >= 5 {
                vec![StrBytes::from_static_str("classic")]
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
                .with_name(StrBytes::from_static_str("retention.ms"))
                .with_value(Some(StrBytes::from_static_str("100000")));
            let topic = CreatableTopic::default()
                .with_name(TopicName(StrBytes::from_string(format!("made-{version}"))))
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
                .with_resource_type(2)
                .with_resource_name(name().0)
                .with_configuration_keys(Some(vec![StrBytes::from_static_str("retention.ms")]));
            body(
                &DescribeConfigsRequest::default().with_resources(vec![resource]),
                version,
            )
        }
        ApiKey::AlterConfigs => {
            use alter_configs_request::{AlterConfigsResource, AlterableConfig};
            let config = AlterableConfig::default()
                .with_name(StrBytes::from_static_str("retention.ms"))
                .with_value(Some(StrBytes::from_static_str("100000")));
            let resource = AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(name().0)
                .with_configs(vec![config]);
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
                .with_name(StrBytes::from_static_str("retention.ms"))
                .with_value(Some(StrBytes::from_static_str("100000")));
            let resource = AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(name().0)
                .with_configs(vec![config]);
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

pub(crate) fn frame(api: &Api, version: i16, body: &[u8]) -> Bytes {
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
