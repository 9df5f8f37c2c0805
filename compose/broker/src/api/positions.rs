//! Where a log begins and ends, which offset a time has, and moving the beginning.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{
    DeleteRecordsRequest, DeleteRecordsResponse, ListOffsetsRequest, ListOffsetsResponse,
};

use super::blocking;
use crate::net::Shared;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const NEWEST: i64 = -3;

/// Offsets for times, and for the ends.
pub(crate) async fn list_offsets(
    shared: &Arc<Shared>,
    request: ListOffsetsRequest,
    version: i16,
) -> ListOffsetsResponse {
    let work = move |shared: &Shared| {
        let topics = request.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|wanted| {
                let index = wanted.partition_index;
                position(shared, &topic.name, index, wanted.timestamp, version)
                    .unwrap_or_else(|error| {
                        ListOffsetsPartitionResponse::default()
                            .with_error_code(error.code())
                            .with_timestamp(-1)
                            .with_offset(-1)
                            .with_leader_epoch(-1)
                    })
                    .with_partition_index(index)
            });
            let partitions = partitions.collect();
            ListOffsetsTopicResponse::default()
                .with_name(topic.name)
                .with_partitions(partitions)
        });
        ListOffsetsResponse::default().with_topics(topics.collect())
    };
    blocking(shared, work).await.unwrap_or_default()
}

fn position(
    shared: &Shared,
    topic: &str,
    index: i32,
    timestamp: i64,
    version: i16,
) -> Result<ListOffsetsPartitionResponse, ResponseError> {
    let partition = shared.log.partition(topic, index)?;
    let found = match timestamp {
        LATEST => Some((partition.end(), -1)),
        EARLIEST => Some((partition.start(), -1)),
        NEWEST => partition.newest()?,
        ..0 => return Err(ResponseError::UnsupportedVersion),
        at => partition.by_time(at)?,
    };
    let (offset, timestamp) = found.unwrap_or((-1, -1));
    Ok(ListOffsetsPartitionResponse::default()
        .with_offset(offset)
        .with_timestamp(timestamp)
        // Older versions have no place for it.
        .with_leader_epoch(if offset < 0 || version < 4 { -1 } else { 0 }))
}

/// Removes the records before an offset.
pub(crate) async fn delete_records(
    shared: &Arc<Shared>,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let work = move |shared: &Shared| {
        let topics = request.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|wanted| {
                let moved = shared
                    .log
                    .partition(&topic.name, wanted.partition_index)
                    .and_then(|partition| partition.delete_records(wanted.offset));
                DeleteRecordsPartitionResult::default()
                    .with_partition_index(wanted.partition_index)
                    .with_error_code(super::code(&moved))
                    .with_low_watermark(moved.unwrap_or(-1))
            });
            let partitions = partitions.collect();
            DeleteRecordsTopicResult::default()
                .with_name(topic.name)
                .with_partitions(partitions)
        });
        DeleteRecordsResponse::default().with_topics(topics.collect())
    };
    blocking(shared, work).await.unwrap_or_default()
}
