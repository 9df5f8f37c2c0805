//! Topics: making, changing, growing, emptying, removing.

use kafka_protocol::messages::IncrementalAlterConfigsRequest;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use rdkafka::admin::{AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::raw::{Raw, text};
use crate::server::{Server, name, options, until};

fn create(server: &Server, topic: &NewTopic<'_>) -> Result<(), RDKafkaErrorCode> {
    let made = server
        .runtime
        .block_on(server.admin().create_topics([topic], &options()))
        .unwrap();
    made.into_iter()
        .next()
        .unwrap()
        .map(drop)
        .map_err(|(_, error)| error)
}

fn setting(server: &Server, topic: &str, key: &str) -> (String, bool) {
    let resource = ResourceSpecifier::Topic(topic);
    let described = server
        .runtime
        .block_on(server.admin().describe_configs([&resource], &options()))
        .unwrap();
    let config = described.into_iter().next().unwrap().unwrap();
    let entry = config.get(key).unwrap();
    (entry.value.clone().unwrap(), entry.is_default)
}

#[test]
fn what_can_not_be_a_topic_is_refused() {
    let server = Server::start();
    let existing = server.topic("existing", 1, &[]);
    let fresh = name("fresh");
    for (topic, error) in [
        (
            NewTopic::new(&existing, 1, TopicReplication::Fixed(1)),
            RDKafkaErrorCode::TopicAlreadyExists,
        ),
        (
            NewTopic::new("../escape", 1, TopicReplication::Fixed(1)),
            RDKafkaErrorCode::InvalidTopic,
        ),
        (
            NewTopic::new("..", 1, TopicReplication::Fixed(1)),
            RDKafkaErrorCode::InvalidTopic,
        ),
        (
            NewTopic::new("with space", 1, TopicReplication::Fixed(1)),
            RDKafkaErrorCode::InvalidTopic,
        ),
        (
            NewTopic::new(&fresh, 1, TopicReplication::Fixed(3)),
            RDKafkaErrorCode::InvalidReplicationFactor,
        ),
        (
            NewTopic::new(&fresh, 1, TopicReplication::Fixed(1)).set("retention.ms", "soon"),
            RDKafkaErrorCode::InvalidConfig,
        ),
        (
            NewTopic::new(&fresh, 1, TopicReplication::Fixed(1)).set("no.such.setting", "1"),
            RDKafkaErrorCode::InvalidConfig,
        ),
    ] {
        assert_eq!(create(&server, &topic), Err(error), "{}", topic.name);
    }
    let checked = server.runtime.block_on(server.admin().create_topics(
        [&NewTopic::new(&fresh, 1, TopicReplication::Fixed(1))],
        &options().validate_only(true),
    ));
    checked.unwrap()[0].as_ref().unwrap();
    assert_eq!(
        create(
            &server,
            &NewTopic::new(&fresh, 1, TopicReplication::Fixed(1))
        ),
        Ok(())
    );
}

#[test]
fn a_topic_is_not_made_by_using_it() {
    let server = Server::start();
    let producer = server.producer(&[("message.timeout.ms", "3000")]);
    let topic = name("unmade");
    let sent = server.try_send(&producer, &topic, 0, b"x");
    assert!(
        matches!(
            sent,
            Err(RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::MessageTimedOut)
        ),
        "{sent:?}"
    );
}

#[test]
fn settings_are_shown_and_changed() {
    let server = Server::start();
    let topic = server.topic("settings", 1, &[("retention.ms", "60000")]);
    assert_eq!(
        setting(&server, &topic, "retention.ms"),
        ("60000".to_owned(), false)
    );
    assert_eq!(
        setting(&server, &topic, "max.message.bytes"),
        ("1048588".to_owned(), true)
    );
    let alter =
        AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("max.message.bytes", "2000000");
    server
        .runtime
        .block_on(server.admin().alter_configs([&alter], &options()))
        .unwrap()[0]
        .as_ref()
        .unwrap();
    until("the settings are replaced", || {
        setting(&server, &topic, "max.message.bytes").0 == "2000000"
    });
    assert!(
        setting(&server, &topic, "retention.ms").1,
        "the old way of altering replaces all"
    );
    let producer = server.producer(&[("message.max.bytes", "3000000")]);
    server.send(&producer, &topic, 0, &vec![1; 1_500_000]);
}

#[test]
fn single_settings_are_changed() {
    let server = Server::start();
    let topic = server.topic(
        "single",
        1,
        &[("retention.ms", "60000"), ("segment.bytes", "5000000")],
    );
    let mut raw = Raw::connect(server.address());
    let mut alter = |operation: i8, key: &str, value: Option<&str>| {
        let config = AlterableConfig::default()
            .with_name(text(key))
            .with_config_operation(operation)
            .with_value(value.map(text));
        let resource = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text(&topic))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        raw.call(&request, 1).responses[0].error_code
    };
    assert_eq!(alter(0, "retention.ms", Some("70000")), 0);
    assert_eq!(
        alter(0, "retention.ms", Some("never")),
        40,
        "INVALID_CONFIG"
    );
    assert_eq!(alter(1, "segment.bytes", None), 0);
    until("the setting is changed", || {
        setting(&server, &topic, "retention.ms").0 == "70000"
    });
    until("the setting is reset", || {
        setting(&server, &topic, "segment.bytes").1
    });
}

#[test]
fn a_topic_grows_and_never_shrinks() {
    let server = Server::start();
    let topic = server.topic("grows", 2, &[]);
    let grow = |count| {
        let wanted = NewPartitions::new(&topic, count);
        let grown = server
            .runtime
            .block_on(server.admin().create_partitions([&wanted], &options()))
            .unwrap();
        grown
            .into_iter()
            .next()
            .unwrap()
            .map(drop)
            .map_err(|(_, error)| error)
    };
    assert_eq!(grow(4), Ok(()));
    server.wait_for_topic(&topic, 4);
    assert_eq!(grow(3), Err(RDKafkaErrorCode::InvalidPartitions));
    let producer = server.producer(&[]);
    assert_eq!(server.send(&producer, &topic, 3, b"new"), 0);
}

#[test]
fn a_deleted_topic_is_gone_and_comes_back_empty() {
    let server = Server::start();
    let topic = server.topic("phoenix", 1, &[]);
    let producer = server.producer(&[]);
    server.send(&producer, &topic, 0, b"old");
    let delete = || {
        let deleted = server
            .runtime
            .block_on(server.admin().delete_topics(&[&topic], &options()))
            .unwrap();
        deleted
            .into_iter()
            .next()
            .unwrap()
            .map(drop)
            .map_err(|(_, error)| error)
    };
    assert_eq!(delete(), Ok(()));
    until("the topic is gone", || {
        delete() == Err(RDKafkaErrorCode::UnknownTopicOrPartition)
    });
    until("the topic is back", || {
        create(
            &server,
            &NewTopic::new(&topic, 1, TopicReplication::Fixed(1)),
        )
        .is_ok()
    });
    server.wait_for_topic(&topic, 1);
    assert_eq!(server.watermarks(&topic, 0), (0, 0));
}

#[test]
fn records_before_an_offset_are_deleted() {
    let server = Server::start();
    let topic = server.topic("emptied", 1, &[]);
    let producer = server.producer(&[]);
    for index in 0..10_u8 {
        server.send(&producer, &topic, 0, &[index]);
    }
    let mut before = TopicPartitionList::new();
    before
        .add_partition_offset(&topic, 0, Offset::Offset(6))
        .unwrap();
    let deleted = server
        .runtime
        .block_on(server.admin().delete_records(&before, &options()))
        .unwrap();
    assert_eq!(deleted.elements()[0].offset(), Offset::Offset(6));
    assert_eq!(server.watermarks(&topic, 0), (6, 10));
    assert_eq!(server.payloads(&topic, 0, 4), [[6], [7], [8], [9]]);
    assert_eq!(
        Raw::connect(server.address())
            .fetch(&topic, 0, 5, 0, 1_000)
            .0,
        1,
        "OFFSET_OUT_OF_RANGE"
    );
}
