//! Making, growing and removing topics.

use std::collections::BTreeSet;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse, TopicName,
};
use uuid::Uuid;

use super::{blocking, configs, text};
use crate::log::Refusal;
use crate::log::settings::Overrides;
use crate::net::Shared;

/// Makes topics; each has its own result.
pub(crate) async fn create_topics(
    shared: &Arc<Shared>,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let work = move |shared: &Shared| {
        let mut seen = BTreeSet::new();
        let topics = request.topics.iter().map(|wanted| {
            let made = if seen.insert(wanted.name.clone()) {
                create(shared, wanted, request.validate_only)
            } else {
                Err((
                    ResponseError::InvalidRequest,
                    "the topic is named twice".to_owned(),
                ))
            };
            created(wanted, made)
        });
        CreateTopicsResponse::default().with_topics(topics.collect())
    };
    blocking(shared, work).await.unwrap_or_default()
}

fn create(
    shared: &Shared,
    wanted: &CreatableTopic,
    dry_run: bool,
) -> Result<(Uuid, i32, Overrides), Refusal> {
    let mut partitions = wanted.num_partitions;
    if wanted.assignments.is_empty() {
        if !matches!(wanted.replication_factor, -1 | 1) {
            let words = "there is one broker: the replication factor can only be 1".to_owned();
            return Err((ResponseError::InvalidReplicationFactor, words));
        }
    } else {
        let here = |replicas: &[kafka_protocol::messages::BrokerId]| {
            replicas.iter().all(|one| one.0 == super::NODE)
        };
        let count = i32::try_from(wanted.assignments.len()).unwrap_or(i32::MAX);
        let indices: BTreeSet<i32> = wanted
            .assignments
            .iter()
            .map(|one| one.partition_index)
            .collect();
        let whole = indices.into_iter().eq(0..count);
        let all_here = wanted
            .assignments
            .iter()
            .all(|one| one.broker_ids.len() == 1 && here(&one.broker_ids));
        if !whole || !all_here {
            let words = format!(
                "every partition's only replica must be broker {}",
                super::NODE
            );
            return Err((ResponseError::InvalidReplicaAssignment, words));
        }
        partitions = count;
    }
    let mut overrides = Overrides::new();
    for setting in &wanted.configs {
        let value = setting.value.as_ref().ok_or_else(|| {
            (
                ResponseError::InvalidConfig,
                format!(
                    "Null value not supported for topic configs: {}",
                    setting.name.as_str()
                ),
            )
        })?;
        overrides.insert(setting.name.to_string(), value.to_string());
    }
    let (id, count) = shared
        .log
        .create(&wanted.name, partitions, overrides.clone(), dry_run)?;
    Ok((id, count, overrides))
}

fn created(
    wanted: &CreatableTopic,
    made: Result<(Uuid, i32, Overrides), Refusal>,
) -> CreatableTopicResult {
    let result = CreatableTopicResult::default().with_name(wanted.name.clone());
    match made {
        Ok((id, count, overrides)) => {
            let settings = configs::shown(&overrides).map(|shown| {
                CreatableTopicConfigs::default()
                    .with_name(text(shown.name))
                    .with_value(Some(text(shown.value)))
                    .with_config_source(shown.source)
            });
            result
                .with_topic_id(id)
                .with_num_partitions(count)
                .with_replication_factor(1)
                .with_configs(Some(settings.collect()))
        }
        Err((error, words)) => result
            .with_error_code(error.code())
            .with_error_message(Some(text(words)))
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_configs(None),
    }
}

/// Removes topics, with the offsets that groups have committed for them.
pub(crate) async fn delete_topics(
    shared: &Arc<Shared>,
    request: DeleteTopicsRequest,
    version: i16,
) -> DeleteTopicsResponse {
    let wanted: Vec<(Option<TopicName>, Uuid)> = if version >= 6 {
        request
            .topics
            .into_iter()
            .map(|topic| (topic.name, topic.topic_id))
            .collect()
    } else {
        request
            .topic_names
            .into_iter()
            .map(|name| (Some(name), Uuid::nil()))
            .collect()
    };
    let work = move |shared: &Shared| {
        let responses = wanted.into_iter().map(|(name, id)| {
            let (name, gone) = match name {
                Some(name) => {
                    let gone = shared.log.delete(&name);
                    (Some(name), gone)
                }
                None => match shared.log.by_id(id) {
                    Some(topic) => (
                        Some(TopicName(text(&*topic.name))),
                        shared.log.delete(&topic.name),
                    ),
                    None => (
                        None,
                        Err((
                            ResponseError::UnknownTopicId,
                            "there is no such topic".to_owned(),
                        )),
                    ),
                },
            };
            if let (Some(name), Ok(())) = (&name, &gone) {
                shared.coordinator.forget_topic(name);
            }
            let result = DeletableTopicResult::default()
                .with_name(name)
                .with_topic_id(id);
            match gone {
                Ok(()) => result,
                Err((error, words)) => result
                    .with_error_code(error.code())
                    .with_error_message(Some(text(words))),
            }
        });
        DeleteTopicsResponse::default().with_responses(responses.collect())
    };
    blocking(shared, work).await.unwrap_or_default()
}

/// Adds partitions to topics.
pub(crate) async fn create_partitions(
    shared: &Arc<Shared>,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let work = move |shared: &Shared| {
        let results = request.topics.into_iter().map(|wanted| {
            let grown = shared
                .log
                .grow(&wanted.name, wanted.count, request.validate_only);
            let result = CreatePartitionsTopicResult::default().with_name(wanted.name);
            match grown {
                Ok(()) => result,
                Err((error, words)) => result
                    .with_error_code(error.code())
                    .with_error_message(Some(text(words))),
            }
        });
        CreatePartitionsResponse::default().with_results(results.collect())
    };
    blocking(shared, work).await.unwrap_or_default()
}
