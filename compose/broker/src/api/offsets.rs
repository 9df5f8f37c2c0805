//! Committed offsets on the wire.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
    OffsetFetchRequest, OffsetFetchResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::{code, groups, text};
use crate::groups::commits::{Change, Committed};
use crate::groups::{change, settled};
use crate::log::partition::now_ms;
use crate::net::Shared;

/// Bytes of metadata that may go with an offset.
const MOST_METADATA: usize = 4_096;

/// Commits offsets; the answer comes when they are on disk.
pub(crate) async fn commit(
    shared: &Arc<Shared>,
    request: &OffsetCommitRequest,
) -> OffsetCommitResponse {
    let instance = request.group_instance_id.as_ref().map(StrBytes::as_str);
    let allowed = shared.coordinator.may_commit(
        &request.group_id,
        request.generation_id_or_member_epoch,
        &request.member_id,
        instance,
    );
    let mut changes = Vec::new();
    let mut outcomes: Vec<Vec<Result<(), ResponseError>>> =
        Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let each = topic.partitions.iter().map(|partition| {
            allowed?;
            changes.push(wanted(shared, &request.group_id, &topic.name, partition)?);
            Ok(())
        });
        outcomes.push(each.collect());
    }
    let stored = settled(shared.coordinator.commits.change(changes)).await;
    let topics = request
        .topics
        .iter()
        .zip(outcomes)
        .map(|(topic, outcomes)| {
            let partitions = topic
                .partitions
                .iter()
                .zip(outcomes)
                .map(|(partition, outcome)| {
                    OffsetCommitResponsePartition::default()
                        .with_partition_index(partition.partition_index)
                        .with_error_code(code(&outcome.and(stored)))
                });
            let partitions = partitions.collect();
            OffsetCommitResponseTopic::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions)
        });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

fn wanted(
    shared: &Shared,
    group: &str,
    topic: &str,
    partition: &OffsetCommitRequestPartition,
) -> Result<Change, ResponseError> {
    shared.log.partition(topic, partition.partition_index)?;
    let metadata = partition
        .committed_metadata
        .as_ref()
        .map(ToString::to_string);
    if metadata
        .as_ref()
        .is_some_and(|metadata| metadata.len() > MOST_METADATA)
    {
        return Err(ResponseError::OffsetMetadataTooLarge);
    }
    let committed = Committed {
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch,
        metadata,
        at: now_ms(),
    };
    Ok(change(
        group,
        topic,
        partition.partition_index,
        Some(committed),
    ))
}

/// Committed offsets of one group (to version 7), or of several.
pub(crate) fn fetch(
    shared: &Shared,
    request: &OffsetFetchRequest,
    version: i16,
) -> OffsetFetchResponse {
    if version < 8 {
        let topics = request.topics.as_ref().map(|topics| {
            topics
                .iter()
                .map(|topic| (topic.name.clone(), topic.partition_indexes.clone()))
                .collect()
        });
        let found =
            found(shared, &request.group_id, topics)
                .into_iter()
                .map(|(name, partitions)| {
                    let partitions = partitions.into_iter().map(|(index, committed)| {
                        let committed = committed.unwrap_or_else(nothing);
                        OffsetFetchResponsePartition::default()
                            .with_partition_index(index)
                            .with_committed_offset(committed.offset)
                            .with_committed_leader_epoch(committed.leader_epoch)
                            .with_metadata(Some(text(committed.metadata.unwrap_or_default())))
                    });
                    OffsetFetchResponseTopic::default()
                        .with_name(name)
                        .with_partitions(partitions.collect())
                });
        return OffsetFetchResponse::default().with_topics(found.collect());
    }
    let groups = request.groups.iter().map(|group| {
        let topics = group.topics.as_ref().map(|topics| {
            topics
                .iter()
                .map(|topic| (topic.name.clone(), topic.partition_indexes.clone()))
                .collect()
        });
        let found = found(shared, &group.group_id, topics)
            .into_iter()
            .map(|(name, partitions)| {
                let partitions = partitions.into_iter().map(|(index, committed)| {
                    let committed = committed.unwrap_or_else(nothing);
                    OffsetFetchResponsePartitions::default()
                        .with_partition_index(index)
                        .with_committed_offset(committed.offset)
                        .with_committed_leader_epoch(committed.leader_epoch)
                        .with_metadata(Some(text(committed.metadata.unwrap_or_default())))
                });
                OffsetFetchResponseTopics::default()
                    .with_name(name)
                    .with_partitions(partitions.collect())
            });
        OffsetFetchResponseGroup::default()
            .with_group_id(group.group_id.clone())
            .with_topics(found.collect())
    });
    OffsetFetchResponse::default().with_groups(groups.collect())
}

fn nothing() -> Committed {
    Committed {
        offset: -1,
        leader_epoch: -1,
        metadata: None,
        at: 0,
    }
}

type Found = Vec<(TopicName, Vec<(i32, Option<Committed>)>)>;

/// What is asked for, or everything.
fn found(shared: &Shared, group: &str, topics: Option<Vec<(TopicName, Vec<i32>)>>) -> Found {
    let commits = &shared.coordinator.commits;
    let Some(topics) = topics else {
        let mut all: BTreeMap<String, Vec<(i32, Option<Committed>)>> = BTreeMap::new();
        for ((topic, partition), committed) in commits.group(group).unwrap_or_default() {
            all.entry(topic)
                .or_default()
                .push((partition, Some(committed)));
        }
        return all
            .into_iter()
            .map(|(topic, partitions)| (TopicName(text(topic)), partitions))
            .collect();
    };
    topics
        .into_iter()
        .map(|(name, indices)| {
            let each = indices
                .into_iter()
                .map(|index| (index, commits.get(group, &name, index)));
            let each = each.collect();
            (name, each)
        })
        .collect()
}

/// Removes committed offsets of topics that no member of the group reads.
pub(crate) async fn delete(
    shared: &Arc<Shared>,
    request: &OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let known = shared
        .coordinator
        .names()
        .iter()
        .any(|name| *name == **request.group_id);
    if !known {
        return OffsetDeleteResponse::default()
            .with_error_code(ResponseError::GroupIdNotFound.code());
    }
    let mut changes = Vec::new();
    let mut outcomes = Vec::new();
    for topic in &request.topics {
        let read = groups::subscribed(shared, &request.group_id, &topic.name);
        for partition in &topic.partitions {
            let outcome = if read {
                Err(ResponseError::GroupSubscribedToTopic)
            } else {
                shared
                    .log
                    .partition(&topic.name, partition.partition_index)
                    .map(|_| {
                        changes.push(change(
                            &request.group_id,
                            &topic.name,
                            partition.partition_index,
                            None,
                        ));
                    })
            };
            outcomes.push(outcome);
        }
    }
    let stored = settled(shared.coordinator.commits.change(changes)).await;
    let mut outcomes = outcomes.into_iter();
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic
            .partitions
            .iter()
            .zip(&mut outcomes)
            .map(|(partition, outcome)| {
                OffsetDeleteResponsePartition::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(code(&outcome.and(stored)))
            });
        let partitions = partitions.collect();
        OffsetDeleteResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions)
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}
