//! The worker around a stage.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::admin::AdminOptions;
use rdkafka::{Offset, TopicPartitionList};
use weir_bus::{Config, Producer};
use weir_records::{DeadLetter, topic};

use crate::stages::{Running, Shared};
use crate::support::{DAY, Kafka, fill, metric, producer, soon, unique, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_fails_now_and_then_loses_nothing_and_keeps_order() {
    let kafka = Kafka::start().await;
    let topic = kafka.topic(3).await;
    let group = unique("group");
    let producer = producer(&kafka.config());
    let stage = Shared::with(|book| book.fail_every = Some(3));
    let worker = Running::start(&kafka.config(), group, topic, &stage, &producer);
    for partition in 0..3 {
        fill(&producer, topic, partition, 0..500).await;
    }
    until("all records", async || stage.count() >= 1_500).await;
    let failures = stage.0.lock().failures;
    assert!(failures > 0);
    let retries = metric(&worker.registry, "weir_stage_retries_total");
    assert_eq!(
        retries,
        format!("weir_stage_retries_total{{stage=\"test\"}} {failures}")
    );
    let consumed = metric(&worker.registry, "weir_records_consumed_total");
    worker.stop().await;
    assert_eq!(stage.count(), 1_500);
    stage.assert_once_in_order();
    assert!(consumed.ends_with(" 1500"), "{consumed}");
    assert_eq!(
        kafka.committed(group, topic).await,
        [(0, 500), (1, 500), (2, 500)].into()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_committed_while_a_stage_fails() {
    let kafka = Kafka::start().await;
    let topic = kafka.topic(1).await;
    let group = unique("group");
    let producer = producer(&kafka.config());
    fill(&producer, topic, 0, 0..10).await;
    let stage = Shared::with(|book| book.broken = true);
    let worker = Running::start(&kafka.config(), group, topic, &stage, &producer);
    until("some failures", async || stage.0.lock().failures > 2).await;
    // More records come while the stage fails.
    fill(&producer, topic, 0, 10..20).await;
    assert_eq!(kafka.committed(group, topic).await, [(0, 0)].into());
    stage.0.lock().broken = false;
    until("all records", async || stage.count() == 20).await;
    worker.stop().await;
    stage.assert_once_in_order();
    assert_eq!(kafka.committed(group, topic).await, [(0, 20)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stage_leaves_comes_again_in_order() {
    let kafka = Kafka::start().await;
    let topic = kafka.topic(3).await;
    let group = unique("group");
    let producer = producer(&kafka.config());
    let stage = Shared::with(|book| {
        book.take = Some(7);
        book.fail_every = Some(5);
    });
    let worker = Running::start(&kafka.config(), group, topic, &stage, &producer);
    for partition in 0..3 {
        fill(&producer, topic, partition, 0..200).await;
    }
    until("all records", async || stage.count() >= 600).await;
    let consumed = metric(&worker.registry, "weir_records_consumed_total");
    worker.stop().await;
    assert_eq!(stage.count(), 600);
    stage.assert_once_in_order();
    assert!(consumed.ends_with(" 600"), "{consumed}");
    assert_eq!(
        kafka.committed(group, topic).await,
        [(0, 200), (1, 200), (2, 200)].into()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_behind_the_commit() {
    let kafka = Kafka::start().await;
    let topic = kafka.topic(2).await;
    let group = unique("group");
    let producer = producer(&kafka.config());
    for (from, to) in [(0, 30), (30, 45), (45, 100)] {
        fill(&producer, topic, 0, from..to).await;
        fill(&producer, topic, 1, from..to).await;
        let stage = Shared::default();
        let worker = Running::start(&kafka.config(), group, topic, &stage, &producer);
        until("the new records", async || {
            stage.count() as u32 == 2 * (to - from)
        })
        .await;
        worker.stop().await;
        stage.assert_once_in_order();
        let book = stage.0.lock();
        assert_eq!(
            book.first,
            [(0, i64::from(from)), (1, i64::from(from))].into()
        );
        assert_eq!(book.count() as u32, 2 * (to - from));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_says_where_its_partitions_begin() {
    let kafka = Kafka::start().await;
    let topic = kafka.topic(2).await;
    let group = unique("group");
    let producer = producer(&kafka.config());
    fill(&producer, topic, 0, 0..50).await;
    fill(&producer, topic, 1, 0..50).await;
    let first = Shared::default();
    let worker = Running::start(&kafka.config(), group, topic, &first, &producer);
    until("all records", async || first.count() == 100).await;
    worker.stop().await;

    // Behind the commit in one partition, where it was in the other.
    let stage = Shared::with(|book| {
        book.starts.insert(0, 20);
        book.unready = 3;
    });
    let worker = Running::start(&kafka.config(), group, topic, &stage, &producer);
    until("records again", async || stage.count() == 30).await;
    fill(&producer, topic, 1, 50..51).await;
    until("a new record", async || stage.count() == 31).await;
    worker.stop().await;
    let book = stage.0.lock();
    assert_eq!(book.first, [(0, 20), (1, 50)].into());
    assert_eq!(book.unready, 0, "it was asked until it answered");
    assert_eq!(book.assigned.iter().collect::<BTreeSet<_>>().len(), 2);
}

pub async fn dead_letters(kafka: &Kafka, of: &str) -> Vec<DeadLetter> {
    let mut letters: Vec<DeadLetter> = kafka
        .read(topic::DEAD)
        .await
        .into_values()
        .flatten()
        .map(|record| weir_records::dead_letter(&record.payload).unwrap())
        .filter(|letter| letter.topic == of)
        .collect();
    letters.sort_by_key(|letter| letter.source);
    letters
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stage_gives_up_becomes_a_dead_letter() {
    let kafka = Kafka::start().await;
    weir_bus::create_topics(&kafka.config(), DAY, None)
        .await
        .unwrap();
    let topic = kafka.topic(1).await;
    let group = unique("group");
    let producer = producer(&kafka.config());
    fill(&producer, topic, 0, 0..100).await;
    let stage = Shared::with(|book| book.give_up = [7, 42].into());
    let worker = Running::start(&kafka.config(), group, topic, &stage, &producer);
    until("the commit", async || {
        kafka.committed(group, topic).await == [(0, 100)].into()
    })
    .await;

    // The commit is there, so the letters are.
    let letters = dead_letters(&kafka, topic).await;
    assert_eq!(
        letters
            .iter()
            .map(|letter| letter.source.offset)
            .collect::<Vec<_>>(),
        [7, 42]
    );
    assert_eq!(
        (letters[1].stage.as_str(), letters[1].reason.as_str()),
        ("test", "told_to")
    );
    assert_eq!(&letters[1].payload[..], b"42");
    let counted = metric(&worker.registry, "weir_dead_letters_total");
    assert_eq!(
        counted,
        "weir_dead_letters_total{reason=\"told_to\",stage=\"test\"} 2"
    );
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_committed_before_its_dead_letter_is_acknowledged() {
    let kafka = Kafka::start().await;
    weir_bus::create_topics(&kafka.config(), DAY, None)
        .await
        .unwrap();
    let topic = kafka.topic(1).await;
    let group = unique("group");
    fill(&producer(&kafka.config()), topic, 0, 0..10).await;

    let nowhere = Config {
        brokers: "127.0.0.1:1".to_owned(),
        delivery_timeout: Duration::from_millis(500),
        ..kafka.config()
    };
    let registry = prometheus::Registry::new();
    let lost = Producer::new(&nowhere, &registry).unwrap();
    let stage = Shared::with(|book| {
        book.give_up = [5].into();
        book.take = Some(6);
    });
    let worker = Running::start(&kafka.config(), group, topic, &stage, &lost);
    let failed = "weir_records_not_delivered_total{code=\"timed_out\"}";
    until("tries", async || {
        !["", "0", "1"].contains(&metric(&registry, failed).trim_start_matches(failed).trim())
    })
    .await;
    assert_eq!(stage.count(), 6, "what it has left does not come yet");
    // Where it began, so that whoever is asked later knows that the rest waits for the letter.
    assert_eq!(kafka.committed(group, topic).await, [(0, 0)].into());
    worker.stop().await;
    assert_eq!(kafka.committed(group, topic).await, [(0, 0)].into());

    let stage = Shared::with(|book| book.give_up = [5].into());
    let worker = Running::start(
        &kafka.config(),
        group,
        topic,
        &stage,
        &producer(&kafka.config()),
    );
    until("the commit", async || {
        kafka.committed(group, topic).await == [(0, 10)].into()
    })
    .await;
    assert_eq!(dead_letters(&kafka, topic).await.len(), 1);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_is_too_large_is_written_without_its_payload() {
    let kafka = Kafka::start().await;
    weir_bus::create_topics(&kafka.config(), DAY, None)
        .await
        .unwrap();
    let topic = kafka.topic(1).await;
    let group = unique("group");
    let producer = producer(&kafka.config());
    let largest = "0".repeat((1 << 20) - 101) + "5";
    producer
        .send(vec![crate::support::record(topic, 0, largest)])
        .unwrap()
        .await[0]
        .unwrap();
    let stage = Shared::with(|book| book.give_up = [5].into());
    let worker = Running::start(&kafka.config(), group, topic, &stage, &producer);
    until("the commit", async || {
        kafka.committed(group, topic).await == [(0, 1)].into()
    })
    .await;
    let letters = dead_letters(&kafka, topic).await;
    assert_eq!(
        (
            letters.len(),
            letters[0].payload.len(),
            letters[0].source.offset
        ),
        (1, 0, 0)
    );
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_buffered_is_finished_and_committed_at_the_stop() {
    let kafka = Kafka::start().await;
    let topic = kafka.topic(1).await;
    let group = unique("group");
    let producer = producer(&kafka.config());
    fill(&producer, topic, 0, 0..25).await;
    let stage = Shared::with(|book| book.buffer = true);
    let worker = Running::start(&kafka.config(), group, topic, &stage, &producer);
    until("the records", async || stage.count() == 25).await;
    assert_eq!(kafka.committed(group, topic).await, [(0, 0)].into());
    worker.stop().await;
    assert_eq!(kafka.committed(group, topic).await, [(0, 25)].into());
    let book = stage.0.lock();
    assert_eq!((book.finished, &book.revoked), (1, &vec![0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_deleted_before_they_were_read_are_counted() {
    let kafka = Kafka::start().await;
    let topic = kafka.topic(1).await;
    let group = unique("group");
    let producer = producer(&kafka.config());
    fill(&producer, topic, 0, 0..10).await;
    let stage = Shared::default();
    let worker = Running::start(&kafka.config(), group, topic, &stage, &producer);
    until("the first records", async || stage.count() == 10).await;
    worker.stop().await;

    fill(&producer, topic, 0, 10..40).await;
    let mut before = TopicPartitionList::new();
    before
        .add_partition_offset(topic, 0, Offset::Offset(25))
        .unwrap();
    kafka
        .admin()
        .delete_records(&before, &AdminOptions::new())
        .await
        .unwrap();
    let stage = Shared::default();
    let worker = Running::start(&kafka.config(), group, topic, &stage, &producer);
    until("what is left", async || stage.count() == 15).await;
    let lost = metric(&worker.registry, "weir_records_lost_total");
    assert_eq!(
        lost,
        format!("weir_records_lost_total{{group=\"{group}\"}} 15")
    );
    worker.stop().await;
}

/// Returns when the metrics show that lag of partition 0.
async fn lag(worker: &Running, group: &str, lag: u32) {
    let shown = format!("weir_consumer_lag{{group=\"{group}\",partition=\"0\"}} {lag}");
    until("the lag", async || {
        metric(&worker.registry, "weir_consumer_lag") == shown
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lag_is_shown_while_a_stage_fails_and_after_it_goes_on() {
    let kafka = Kafka::start().await;
    let topic = kafka.topic(1).await;
    let group = unique("group");
    let producer = producer(&kafka.config());
    fill(&producer, topic, 0, 0..10).await;
    let stage = Shared::with(|book| book.broken = true);
    let worker = Running::start(&kafka.config(), group, topic, &stage, &producer);
    lag(&worker, group, 10).await;
    fill(&producer, topic, 0, 10..30).await;
    lag(&worker, group, 30).await;
    stage.0.lock().broken = false;
    lag(&worker, group, 0).await;
    let running = "weir_worker_running";
    assert!(metric(&worker.registry, running).ends_with(" 1"));
    let registry = worker.registry.clone();
    worker.stop().await;
    assert!(metric(&registry, running).ends_with(" 0"));
    assert_eq!(metric(&registry, "weir_consumer_lag"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lag_is_shown_while_a_stage_is_not_ready_for_its_partitions() {
    let kafka = Kafka::start().await;
    let topic = kafka.topic(1).await;
    let group = unique("group");
    let producer = producer(&kafka.config());
    fill(&producer, topic, 0, 0..10).await;
    let stage = Shared::with(|book| book.unready = u32::MAX);
    let worker = Running::start(&kafka.config(), group, topic, &stage, &producer);
    lag(&worker, group, 10).await;
    fill(&producer, topic, 0, 10..30).await;
    lag(&worker, group, 30).await;
    assert!(stage.0.lock().assigned.is_empty());
    stage.0.lock().unready = 0;
    until("all records", async || stage.count() == 30).await;
    worker.stop().await;
    stage.assert_once_in_order();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_stops_without_any_broker() {
    let config = Config {
        brokers: "127.0.0.1:1".to_owned(),
        ..Config::default()
    };
    let stage = Shared::default();
    let worker = Running::start(
        &config,
        unique("group"),
        "topic",
        &stage,
        &producer(&config),
    );
    tokio::time::sleep(Duration::from_millis(200)).await;
    soon("the stop", worker.stop()).await;
}

#[test]
fn a_worker_runs_without_a_runtime_of_its_caller() {
    let stage = Shared::default();
    let config = Config {
        brokers: "127.0.0.1:1".to_owned(),
        ..Config::default()
    };
    let worker = Running::start(
        &config,
        unique("group"),
        "topic",
        &stage,
        &producer(&config),
    );
    drop(worker);
}
