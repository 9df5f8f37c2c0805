//! What a client asks before it works: versions, metadata, coordinators, producer ids.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::metadata_request::MetadataRequest;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    ApiVersionsResponse, BrokerId, FindCoordinatorRequest, FindCoordinatorResponse,
    InitProducerIdRequest, InitProducerIdResponse, MetadataResponse, ProducerId, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::{NODE, blocking, text};
use crate::log::topic::{Topic, legal_name};
use crate::net::{Peer, Shared};
use crate::wire::APIS;

const GROUP: i8 = 0;
const NO_TRANSACTIONS: &str = "this broker has no transactions";
/// Authorized operations are not reported.
const UNKNOWN_OPERATIONS: i32 = i32::MIN;

/// The APIs and their versions; `None` is a version of this very request that isn't spoken, and is
/// answered in version 0 with the error that lets the client come down.
pub(crate) fn api_versions(version: Option<i16>) -> ApiVersionsResponse {
    let keys = APIS.iter().map(|api| {
        ApiVersion::default()
            .with_api_key(api.key as i16)
            .with_min_version(api.first)
            .with_max_version(api.last)
    });
    let error = if version.is_none() {
        ResponseError::UnsupportedVersion.code()
    } else {
        0
    };
    ApiVersionsResponse::default()
        .with_error_code(error)
        .with_api_keys(keys.collect())
}

/// Topics and the one broker, at the address on which the client reached it.
pub(crate) fn metadata(
    shared: &Shared,
    peer: &Peer,
    request: &MetadataRequest,
    version: i16,
) -> MetadataResponse {
    let everything = match &request.topics {
        None => true,
        Some(topics) => version == 0 && topics.is_empty(),
    };
    let topics = if everything {
        shared.log.all().iter().map(|topic| found(topic)).collect()
    } else {
        let wanted = request.topics.iter().flatten();
        wanted
            .map(|wanted| match &wanted.name {
                Some(name) if !legal_name(name) => {
                    missing(ResponseError::InvalidTopicException, Some(name.clone()))
                }
                Some(name) => shared.log.get(name).map_or_else(
                    || missing(ResponseError::UnknownTopicOrPartition, Some(name.clone())),
                    |topic| found(&topic),
                ),
                None => shared.log.by_id(wanted.topic_id).map_or_else(
                    || {
                        missing(ResponseError::UnknownTopicId, nameless(version))
                            .with_topic_id(wanted.topic_id)
                    },
                    |topic| found(&topic),
                ),
            })
            .collect()
    };
    let broker = MetadataResponseBroker::default()
        .with_node_id(BrokerId(NODE))
        .with_host(host(peer))
        .with_port(i32::from(peer.local.port()));
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(text(shared.cluster_id.clone())))
        .with_controller_id(BrokerId(NODE))
        .with_cluster_authorized_operations(UNKNOWN_OPERATIONS)
        .with_topics(topics)
}

fn host(peer: &Peer) -> StrBytes {
    text(peer.local.ip().to_string())
}

fn found(topic: &Topic) -> MetadataResponseTopic {
    let partitions = (0..topic.partition_count()).map(|index| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(BrokerId(NODE))
            .with_leader_epoch(0)
            .with_replica_nodes(vec![BrokerId(NODE)])
            .with_isr_nodes(vec![BrokerId(NODE)])
    });
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(text(&*topic.name))))
        .with_topic_id(topic.id)
        .with_topic_authorized_operations(UNKNOWN_OPERATIONS)
        .with_partitions(partitions.collect())
}

/// From version 12 on a topic that isn't known by name may go without one.
fn nameless(version: i16) -> Option<TopicName> {
    (version < 12).then(TopicName::default)
}

fn missing(error: ResponseError, name: Option<TopicName>) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_error_code(error.code())
        .with_name(name)
        .with_topic_authorized_operations(UNKNOWN_OPERATIONS)
}

/// This broker coordinates every group, and no transaction.
pub(crate) fn find_coordinator(
    peer: &Peer,
    request: &FindCoordinatorRequest,
    version: i16,
) -> FindCoordinatorResponse {
    let refused = request.key_type != GROUP;
    let error = if refused {
        ResponseError::TransactionalIdAuthorizationFailed.code()
    } else {
        0
    };
    let words = refused.then(|| StrBytes::from_static_str(NO_TRANSACTIONS));
    let node = BrokerId(if refused { -1 } else { NODE });
    let port = i32::from(peer.local.port());
    if version < 4 {
        return FindCoordinatorResponse::default()
            .with_error_code(error)
            .with_error_message(words)
            .with_node_id(node)
            .with_host(host(peer))
            .with_port(port);
    }
    let coordinators = request.coordinator_keys.iter().map(|key| {
        Coordinator::default()
            .with_key(key.clone())
            .with_error_code(error)
            .with_error_message(words.clone())
            .with_node_id(node)
            .with_host(host(peer))
            .with_port(port)
    });
    FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
}

/// A new producer id, epoch 0.
pub(crate) async fn init_producer_id(
    shared: &Arc<Shared>,
    request: &InitProducerIdRequest,
) -> InitProducerIdResponse {
    let answer = InitProducerIdResponse::default()
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    if request.transactional_id.is_some() {
        return answer.with_error_code(ResponseError::TransactionalIdAuthorizationFailed.code());
    }
    match blocking(shared, |shared| shared.producer_ids.next()).await {
        Ok(Ok(id)) => answer
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(0),
        Ok(Err(error)) => {
            tracing::error!(%error, "can't reserve producer ids");
            answer.with_error_code(ResponseError::KafkaStorageError.code())
        }
        Err(error) => answer.with_error_code(error.code()),
    }
}
