//! The producer.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus::Registry;
use weir_bus::{Config, Outgoing, Producer, Refused};

use crate::support::{Kafka, fill, metric, producer, record, soon, until};

#[tokio::test(flavor = "multi_thread")]
async fn records_are_acknowledged_with_their_places_in_the_order_sent() {
    let kafka = Kafka::start().await;
    let topic = kafka.topic(3).await;
    let producer = producer(&kafka.config());
    let records: Vec<Outgoing> = (0..3_000)
        .map(|n| record(topic, n % 3, n.to_string()))
        .collect();
    let answers = soon("the acknowledgements", producer.send(records).unwrap()).await;
    assert_eq!(answers.len(), 3_000);
    let read = kafka.read(topic).await;
    for (n, answer) in answers.into_iter().enumerate() {
        let place = answer.unwrap();
        assert_eq!(place.partition, n as i32 % 3);
        assert_eq!(place.offset, n as i64 / 3);
        let found = &read[&place.partition][n / 3];
        assert_eq!(
            (found.offset, &found.payload[..]),
            (place.offset, n.to_string().as_bytes())
        );
    }
    assert_eq!(producer.in_flight(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_chooses_the_partition_that_java_clients_choose() {
    let kafka = Kafka::start().await;
    let topic = kafka.topic(7).await;
    let producer = producer(&kafka.config());
    // Hashes from the tests of Apache Kafka's own `Utils.murmur2`.
    let hashes = [
        ("21", -973_932_308_i32),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("abc", 479_470_107),
    ];
    let records = hashes.map(|(key, _)| Outgoing {
        topic,
        partition: None,
        key: key.as_bytes().to_vec(),
        payload: b"x".to_vec(),
    });
    let answers = producer.send(records.to_vec()).unwrap().await;
    for ((key, hash), answer) in hashes.into_iter().zip(answers) {
        assert_eq!(answer.unwrap().partition, (hash & i32::MAX) % 7, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_at_once_and_recovers() {
    let kafka = Kafka::start().await;
    let topic = kafka.topic(1).await;
    let config = Config {
        queue_messages: 10,
        // Records stay in the queue for a while.
        properties: BTreeMap::from([("linger.ms".to_owned(), "1000".to_owned())]),
        ..kafka.config()
    };
    let registry = Registry::new();
    let producer = Producer::new(&config, &registry).unwrap();
    let some = |count| {
        (0..count)
            .map(|n: u32| record(topic, 0, n.to_string()))
            .collect::<Vec<_>>()
    };
    let eight = producer.send(some(8)).unwrap();
    assert_eq!(producer.send(some(3)).unwrap_err(), Refused::Full);
    assert_eq!(producer.in_flight(), 8, "what was refused holds no room");
    let two = producer.send(some(2)).unwrap();
    assert_eq!(producer.send(some(1)).unwrap_err(), Refused::Full);
    assert!(metric(&registry, "weir_producer_full_total").ends_with(" 2"));

    assert!(
        soon("the first records", eight)
            .await
            .iter()
            .all(Result::is_ok)
    );
    assert!(
        soon("the next records", two)
            .await
            .iter()
            .all(Result::is_ok)
    );
    assert_eq!(producer.in_flight(), 0);
    assert!(
        soon("later records", producer.send(some(10)).unwrap())
            .await
            .iter()
            .all(Result::is_ok)
    );
    assert_eq!(
        kafka.watermarks(topic).await[&0],
        (0, 20),
        "nothing of a refused call was written"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_bounded_too() {
    let config = Config {
        brokers: "127.0.0.1:1".to_owned(),
        queue_bytes: 1_000,
        ..Config::default()
    };
    let producer = producer(&config);
    let _waits = producer.send(vec![record("t", 0, vec![0; 900])]).unwrap();
    assert_eq!(
        producer
            .send(vec![record("t", 0, vec![0; 101])])
            .unwrap_err(),
        Refused::Full
    );
    let _waits = producer.send(vec![record("t", 0, vec![0; 100])]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_large_is_named_and_nothing_is_queued() {
    let kafka = Kafka::start().await;
    let topic = kafka.topic(1).await;
    let producer = producer(&kafka.config());
    let records = vec![
        record(topic, 0, "small"),
        record(topic, 0, vec![b'x'; 1 << 20]),
    ];
    assert_eq!(
        producer.send(records).unwrap_err(),
        Refused::TooLarge { index: 1 }
    );
    assert_eq!(producer.in_flight(), 0);

    let largest = record(topic, 0, vec![b'x'; (1 << 20) - 100]);
    let answers = soon("the largest record", producer.send(vec![largest]).unwrap()).await;
    assert_eq!(answers[0].unwrap().offset, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_does_not_exist_fails_its_record_alone() {
    let kafka = Kafka::start().await;
    let topic = kafka.topic(2).await;
    let producer = producer(&kafka.config());
    let records = vec![
        record(topic, 0, "a"),
        record(topic, 9, "b"),
        record(topic, 1, "c"),
    ];
    let answers = soon("the answers", producer.send(records).unwrap()).await;
    assert!(answers[0].is_ok() && answers[2].is_ok());
    let refused = answers[1].unwrap_err();
    assert_eq!((refused.code, refused.retriable), ("unknown_topic", false));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_call_is_answered_at_once() {
    let producer = producer(&Config {
        brokers: "127.0.0.1:1".to_owned(),
        ..Config::default()
    });
    assert_eq!(
        soon("nothing", producer.send(Vec::new()).unwrap()).await,
        Vec::new()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_records_fail_after_the_delivery_timeout() {
    let config = Config {
        brokers: "127.0.0.1:1".to_owned(),
        delivery_timeout: Duration::from_secs(1),
        ..Config::default()
    };
    let producer = producer(&config);
    let answers = soon(
        "the timeout",
        producer.send(vec![record("t", 0, "x")]).unwrap(),
    )
    .await;
    let failed = answers[0].unwrap_err();
    assert_eq!((failed.code, failed.retriable), ("timed_out", true));
    assert_eq!(producer.in_flight(), 0, "room is given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn flush_waits_for_what_is_queued() {
    let kafka = Kafka::start().await;
    let topic = kafka.topic(1).await;
    let config = Config {
        properties: BTreeMap::from([("linger.ms".to_owned(), "200".to_owned())]),
        ..kafka.config()
    };
    let producer = producer(&config);
    drop(producer.send(vec![record(topic, 0, "x")]).unwrap());
    producer.flush(Duration::from_secs(30)).await;
    assert_eq!(
        kafka.watermarks(topic).await[&0].1,
        1,
        "dropping a delivery takes nothing back"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_can_not_go_on_is_replaced() {
    let kafka = Kafka::start().await;
    let topic = kafka.topic_with(1, &[("max.message.bytes", "2000")]).await;
    let config = Config {
        // With this a record that the broker refuses breaks the sequence for good.
        properties: BTreeMap::from([("enable.gapless.guarantee".to_owned(), "true".to_owned())]),
        ..kafka.config()
    };
    let registry = Registry::new();
    let producer = Producer::new(&config, &registry).unwrap();
    fill(&producer, topic, 0, 0..10).await;
    let large = record(topic, 0, vec![b'x'; 5_000]);
    let answers = soon("the refusal", producer.send(vec![large]).unwrap()).await;
    assert_eq!(answers[0].unwrap_err().code, "too_large");

    let again = || producer.send(vec![record(topic, 0, "11")]).unwrap();
    until("a producer that works", async || again().await[0].is_ok()).await;
    let replaced = metric(&registry, "weir_producer_replaced_total");
    assert!(replaced.ends_with(" 1"), "{replaced}");
    assert_eq!(producer.in_flight(), 0);
}

#[test]
fn settings_are_refused_by_name_and_without_their_value() {
    for (property, value) in [("no.such.setting", "hunter2"), ("linger.ms", "hunter2")] {
        let config = Config {
            properties: BTreeMap::from([(property.to_owned(), value.to_owned())]),
            ..Config::default()
        };
        let refusal = Producer::new(&config, &Registry::new())
            .unwrap_err()
            .to_string();
        assert!(
            refusal.contains(property) && !refusal.contains(value),
            "{refusal}"
        );
    }
}
