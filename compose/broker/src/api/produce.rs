//! Produce: batches are checked and handed to the writer threads while the request is read; the answer
//! is given when they are on disk.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::log::batch::{self, Demand};
use crate::log::partition::{Appended, Job, Partition, now_ms};
use crate::net::Shared;
use crate::wire::{EncodeError, Malformed, Request, encode};

enum Outcome {
    Refused(ResponseError),
    Waiting(
        Arc<Partition>,
        oneshot::Receiver<Result<Appended, ResponseError>>,
    ),
    /// The client wants no answer.
    Unanswered,
}

/// A produce request whose batches are under way.
pub(crate) struct Pending {
    version: i16,
    correlation: i32,
    acks: i16,
    topics: Vec<(TopicName, Vec<(i32, Outcome)>)>,
}

/// Starts a produce request.
pub(crate) fn submit(
    shared: &Shared,
    request: &Request,
    permit: OwnedSemaphorePermit,
) -> Result<Pending, Malformed> {
    let decoded: ProduceRequest = request.decode()?;
    let permit = Arc::new(permit);
    let acks = decoded.acks;
    let refusal = if decoded.transactional_id.is_some() {
        Some(ResponseError::TransactionalIdAuthorizationFailed)
    } else if matches!(acks, -1..=1) {
        None
    } else {
        Some(ResponseError::InvalidRequiredAcks)
    };
    let mut topics = Vec::with_capacity(decoded.topic_data.len());
    for topic in decoded.topic_data {
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            let started = match refusal {
                Some(error) => Err(error),
                None => start(shared, &topic.name, data.index, data.records, acks, &permit),
            };
            let outcome = started.unwrap_or_else(|error| {
                shared.metrics.refuse(reason(error));
                Outcome::Refused(error)
            });
            partitions.push((data.index, outcome));
        }
        topics.push((topic.name, partitions));
    }
    let version = request.version.unwrap_or_default();
    Ok(Pending {
        version,
        correlation: request.correlation,
        acks,
        topics,
    })
}

fn start(
    shared: &Shared,
    topic: &TopicName,
    index: i32,
    records: Option<bytes::Bytes>,
    acks: i16,
    permit: &Arc<OwnedSemaphorePermit>,
) -> Result<Outcome, ResponseError> {
    let topic = shared
        .log
        .get(topic)
        .ok_or(ResponseError::UnknownTopicOrPartition)?;
    let partition = topic
        .partition(index)
        .ok_or(ResponseError::UnknownTopicOrPartition)?;
    let settings = topic.settings();
    let demand = Demand {
        max_bytes: settings.max_message_bytes,
        append_time: settings.log_append_time.then(now_ms),
    };
    let batch = batch::check(records.ok_or(ResponseError::InvalidRecord)?, demand)?;
    let permit = Arc::clone(permit);
    let (reply, answer) = if acks == 0 {
        (None, None)
    } else {
        let (send, receive) = oneshot::channel();
        (Some(send), Some(receive))
    };
    shared.log.writers.submit(Job {
        partition: Arc::clone(&partition),
        batch,
        reply,
        permit,
    });
    Ok(answer.map_or(Outcome::Unanswered, |answer| {
        Outcome::Waiting(partition, answer)
    }))
}

fn reason(error: ResponseError) -> &'static str {
    match error {
        ResponseError::MessageTooLarge => "message_too_large",
        ResponseError::UnknownTopicOrPartition => "unknown_topic",
        ResponseError::CorruptMessage => "corrupt",
        _ => "invalid_record",
    }
}

impl Pending {
    pub(crate) fn wants_answer(&self) -> bool {
        self.acks != 0
    }

    /// Whether a batch was refused before it was handed on.
    pub(crate) fn refused(&self) -> bool {
        self.topics
            .iter()
            .flat_map(|(_, partitions)| partitions)
            .any(|(_, outcome)| matches!(outcome, Outcome::Refused(_)))
    }

    /// Waits for the batches and appends the answer.
    pub(crate) async fn finish(self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let mut responses = Vec::with_capacity(self.topics.len());
        for (name, partitions) in self.topics {
            let mut answers = Vec::with_capacity(partitions.len());
            for (index, outcome) in partitions {
                answers.push(answer(index, outcome).await);
            }
            responses.push(
                TopicProduceResponse::default()
                    .with_name(name)
                    .with_partition_responses(answers),
            );
        }
        let response = ProduceResponse::default().with_responses(responses);
        encode(out, self.correlation, self.version, &response)
    }
}

async fn answer(index: i32, outcome: Outcome) -> PartitionProduceResponse {
    let answer = PartitionProduceResponse::default().with_index(index);
    let (result, start) = match outcome {
        Outcome::Refused(error) => (Err(error), -1),
        Outcome::Unanswered => return answer,
        Outcome::Waiting(partition, receiver) => {
            // A writer that is gone has not stored it.
            let result = receiver
                .await
                .unwrap_or(Err(ResponseError::KafkaStorageError));
            (result, partition.start())
        }
    };
    match result {
        Ok(appended) => answer
            .with_base_offset(appended.base_offset)
            .with_log_append_time_ms(appended.append_time)
            .with_log_start_offset(start),
        Err(error) => answer
            .with_error_code(error.code())
            .with_base_offset(-1)
            .with_log_append_time_ms(-1),
    }
}
