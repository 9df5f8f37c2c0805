//! Topics, and what can be asked about them.

use weir_bus::{Config, Error};
use weir_records::topic;

use crate::stages::{Running, Shared};
use crate::support::{DAY, Kafka, fill, producer, unique, until};

#[tokio::test(flavor = "multi_thread")]
async fn making_the_topics_can_be_repeated_and_keeps_their_records() {
    let kafka = Kafka::start().await;
    let config = kafka.config();
    weir_bus::create_topics(&config, DAY, None).await.unwrap();
    let producer = producer(&config);
    let before = kafka.watermarks(topic::MESSAGES).await[&0].1;
    fill(&producer, topic::MESSAGES, 0, 0..5).await;

    weir_bus::create_topics(&config, DAY * 2, None)
        .await
        .unwrap();
    for topic in topic::ALL {
        let partitions = if topic == topic::ERASURES { 1 } else { 4 };
        assert_eq!(kafka.watermarks(topic).await.len(), partitions, "{topic}");
    }
    assert_eq!(kafka.watermarks(topic::MESSAGES).await[&0].1, before + 5);
    let kept = [
        (topic::MESSAGES, DAY * 2, DAY / 4),
        (topic::DEAD, DAY * 30, DAY),
    ];
    for (topic, retention, segment) in kept {
        for (name, time) in [("retention.ms", retention), ("segment.ms", segment)] {
            let found = setting(&kafka, topic, name).await;
            assert_eq!(found, time.as_millis().to_string(), "{topic} {name}");
        }
    }
    // Whoever restores an old lake must still know what was erased.
    assert_eq!(setting(&kafka, topic::ERASURES, "retention.ms").await, "-1");
}

async fn setting(kafka: &Kafka, topic: &str, name: &str) -> String {
    use rdkafka::admin::{AdminOptions, ResourceSpecifier};
    let found = kafka
        .admin()
        .describe_configs(&[ResourceSpecifier::Topic(topic)], &AdminOptions::new())
        .await;
    let found = found.unwrap().remove(0).unwrap();
    found.get(name).unwrap().value.clone().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_get_as_many_partitions_as_messages() {
    let Some(kafka) = Kafka::stoppable().await else {
        return;
    };
    let with = |partitions| Config {
        partitions,
        ..kafka.config()
    };
    weir_bus::create_topics(&with(2), DAY, None).await.unwrap();
    let more = rdkafka::admin::NewPartitions::new(topic::MESSAGES, 5);
    kafka
        .admin()
        .create_partitions(&[more], &Default::default())
        .await
        .unwrap();
    until("the new partitions", async || {
        kafka.watermarks(topic::MESSAGES).await.len() == 5
    })
    .await;
    weir_bus::create_topics(&with(2), DAY, None).await.unwrap();
    assert_eq!(kafka.watermarks(topic::VERDICTS).await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn watermarks_and_commits_tell_how_far_a_topic_and_a_group_are() {
    let kafka = Kafka::start().await;
    let topic = kafka.topic(2).await;
    let group = unique("group");
    let producer = producer(&kafka.config());
    fill(&producer, topic, 1, 0..7).await;
    assert_eq!(
        kafka.watermarks(topic).await,
        [(0, (0, 0)), (1, (0, 7))].into()
    );
    assert_eq!(kafka.committed(group, topic).await, [].into());

    let stage = Shared::default();
    let worker = Running::start(&kafka.config(), group, topic, &stage, &producer);
    until("the records", async || stage.count() == 7).await;
    worker.stop().await;
    assert_eq!(kafka.committed(group, topic).await, [(0, 0), (1, 7)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_does_not_exist_is_named() {
    let kafka = Kafka::start().await;
    let topic = unique("absent");
    let refusal = weir_bus::watermarks(&kafka.config(), topic)
        .await
        .unwrap_err();
    assert!(
        matches!(&refusal, Error::UnknownTopic(name) if name == topic),
        "{refusal}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_broker_at_all_is_said_with_the_address() {
    let config = Config {
        brokers: "127.0.0.1:1".to_owned(),
        ..Config::default()
    };
    let refusal = weir_bus::reachable(&config).await.unwrap_err();
    assert!(matches!(refusal, Error::Unreachable { .. }), "{refusal}");
    assert!(refusal.to_string().contains("127.0.0.1:1"), "{refusal}");
    // A start asks again, but not what no broker will ever answer otherwise.
    weir_bus::wait_if_away(refusal).await.unwrap();
    let lost = Error::UnknownTopic("weir.messages".to_owned());
    let refusal = weir_bus::wait_if_away(lost).await.unwrap_err();
    assert!(matches!(refusal, Error::UnknownTopic(_)), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_said_to_be_wrong() {
    let Some(kafka) = Kafka::with_password("weir", "correct horse").await else {
        return;
    };
    weir_bus::reachable(&kafka.config_as("weir", "correct horse"))
        .await
        .unwrap();
    weir_bus::create_topics(&kafka.config_as("weir", "correct horse"), DAY, None)
        .await
        .unwrap();
    for config in [
        kafka.config_as("weir", "battery staple"),
        kafka.config_as("other", "correct horse"),
    ] {
        let asked = weir_bus::reachable(&config).await.unwrap_err();
        let made = weir_bus::create_topics(&config, DAY, None)
            .await
            .unwrap_err();
        for refusal in [asked, made] {
            assert!(matches!(refusal, Error::Authentication { .. }), "{refusal}");
            assert!(!refusal.to_string().contains("staple"), "{refusal}");
        }
    }
}
