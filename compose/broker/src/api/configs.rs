//! Showing and changing the settings of topics, and showing the little there is of the broker's.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse as Incremented;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::{NODE, blocking, text};
use crate::log::Refusal;
use crate::log::settings::{ALL, Overrides, Setting};
use crate::net::Shared;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SET_FOR_TOPIC: i8 = 1;
const DEFAULT: i8 = 5;
const SET: i8 = 0;
const DELETE: i8 = 1;

/// A setting with its value.
pub(crate) struct Shown {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) source: i8,
    setting: &'static Setting,
}

/// All settings of a topic that has these overrides.
pub(crate) fn shown(overrides: &Overrides) -> impl Iterator<Item = Shown> {
    ALL.iter().map(|setting| {
        let set = overrides.get(setting.name);
        Shown {
            name: setting.name,
            value: set.cloned().unwrap_or_else(|| setting.default.to_owned()),
            source: if set.is_some() {
                SET_FOR_TOPIC
            } else {
                DEFAULT
            },
            setting,
        }
    })
}

/// Shows settings.
pub(crate) fn describe(
    shared: &Shared,
    request: &DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let results = request.resources.iter().map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match described(shared, request, resource) {
            Ok(configs) => result.with_configs(configs),
            Err((error, words)) => result
                .with_error_code(error.code())
                .with_error_message(Some(text(words))),
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn described(
    shared: &Shared,
    request: &DescribeConfigsRequest,
    resource: &DescribeConfigsResource,
) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
    match resource.resource_type {
        TOPIC => {}
        // The broker is set up by its program, not over the wire.
        BROKER if resource.resource_name.parse() == Ok(NODE) => return Ok(Vec::new()),
        _ => {
            return Err((
                ResponseError::InvalidRequest,
                "there is no such resource".to_owned(),
            ));
        }
    }
    let topic = shared.log.get(&resource.resource_name).ok_or_else(|| {
        (
            ResponseError::UnknownTopicOrPartition,
            "there is no such topic".to_owned(),
        )
    })?;
    let overrides = topic.overrides.read().clone();
    let wanted = |name: &str| match &resource.configuration_keys {
        None => true,
        Some(keys) => keys.iter().any(|key| key.as_str() == name),
    };
    let configs = shown(&overrides)
        .filter(|shown| wanted(shown.name))
        .map(|shown| {
            let synonym = |value: &str, source| {
                DescribeConfigsSynonym::default()
                    .with_name(StrBytes::from_static_str(shown.name))
                    .with_value(Some(text(value)))
                    .with_source(source)
            };
            let mut synonyms = Vec::new();
            if request.include_synonyms {
                if shown.source == SET_FOR_TOPIC {
                    synonyms.push(synonym(&shown.value, SET_FOR_TOPIC));
                }
                synonyms.push(synonym(shown.setting.default, DEFAULT));
            }
            DescribeConfigsResourceResult::default()
                .with_name(StrBytes::from_static_str(shown.name))
                .with_config_source(shown.source)
                .with_synonyms(synonyms)
                .with_config_type(shown.setting.kind as i8)
                .with_documentation(
                    request
                        .include_documentation
                        .then(|| StrBytes::from_static_str(shown.setting.documentation)),
                )
                .with_value(Some(text(shown.value)))
        });
    Ok(configs.collect())
}

/// Replaces all settings of topics.
pub(crate) async fn alter(
    shared: &Arc<Shared>,
    request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let work = move |shared: &Shared| {
        let responses = request.resources.into_iter().map(|resource| {
            let replaced: Overrides = resource
                .configs
                .iter()
                .filter_map(|one| Some((one.name.to_string(), one.value.as_ref()?.to_string())))
                .collect();
            let change = |overrides: &mut Overrides| {
                *overrides = replaced;
                Ok(())
            };
            let (error, words) = outcome(change_topic(
                shared,
                resource.resource_type,
                &resource.resource_name,
                request.validate_only,
                change,
            ));
            AlterConfigsResourceResponse::default()
                .with_error_code(error)
                .with_error_message(words)
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name)
        });
        AlterConfigsResponse::default().with_responses(responses.collect())
    };
    blocking(shared, work).await.unwrap_or_default()
}

/// Changes single settings of topics.
pub(crate) async fn alter_incrementally(
    shared: &Arc<Shared>,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let work = move |shared: &Shared| {
        let responses = request.resources.into_iter().map(|resource| {
            let change = |overrides: &mut Overrides| {
                for one in &resource.configs {
                    match (one.config_operation, &one.value) {
                        (SET, Some(value)) => {
                            overrides.insert(one.name.to_string(), value.to_string());
                        }
                        (DELETE, _) => {
                            if !ALL.iter().any(|setting| setting.name == one.name.as_str()) {
                                let words =
                                    format!("Unknown topic config name: {}", one.name.as_str());
                                return Err((ResponseError::InvalidConfig, words));
                            }
                            overrides.remove(one.name.as_str());
                        }
                        _ => {
                            let words =
                                format!("{} is not a list, and has one value", one.name.as_str());
                            return Err((ResponseError::InvalidConfig, words));
                        }
                    }
                }
                Ok(())
            };
            let changed = change_topic(
                shared,
                resource.resource_type,
                &resource.resource_name,
                request.validate_only,
                change,
            );
            let (error, words) = outcome(changed);
            Incremented::default()
                .with_error_code(error)
                .with_error_message(words)
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name)
        });
        IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
    };
    blocking(shared, work).await.unwrap_or_default()
}

fn change_topic(
    shared: &Shared,
    resource_type: i8,
    name: &str,
    dry_run: bool,
    change: impl FnOnce(&mut Overrides) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    if resource_type != TOPIC {
        let words = "only the settings of topics can be changed here".to_owned();
        return Err((ResponseError::InvalidRequest, words));
    }
    shared.log.configure(name, dry_run, change)
}

fn outcome(changed: Result<(), Refusal>) -> (i16, Option<StrBytes>) {
    match changed {
        Ok(()) => (0, None),
        Err((error, words)) => (error.code(), Some(text(words))),
    }
}
