//! The broker goes and comes back, with its folder and its address.

use crate::stages::{Running, Shared};
use crate::support::{Kafka, fill, producer, record, soon, unique, until};
use weir_bus::{Config, Start, Tail};

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_comes_back_has_everything_and_everyone_goes_on() {
    let Some(mut kafka) = Kafka::stoppable().await else {
        return;
    };
    let topic = kafka.topic(2).await;
    let group = unique("group");
    let config = kafka.config();
    let producer = producer(&config);
    let stage = Shared::default();
    let worker = Running::start(&config, group, topic, &stage, &producer);
    let followed = std::sync::Arc::new(parking_lot::Mutex::new(0));
    let tail = Tail {
        config: config.clone(),
        name: unique("tail"),
        topic,
        start: Start::Earliest,
    };
    let stop = tokio_util::sync::CancellationToken::new();
    let count = std::sync::Arc::clone(&followed);
    let _tail = tail
        .spawn(&prometheus::Registry::new(), stop.clone(), move |records| {
            *count.lock() += records.len()
        })
        .unwrap();
    for round in 0..3_u32 {
        let first = round * 200;
        fill(&producer, topic, 0, first..first + 100).await;
        fill(&producer, topic, 1, first..first + 100).await;
        until("records before", async || {
            stage.distinct() as u32 == 2 * first + 200
        })
        .await;

        kafka.stop().await;
        // Sent into the outage.
        let records = |partition| {
            (first + 100..first + 200).map(move |n| record(topic, partition, n.to_string()))
        };
        let waiting = producer
            .send(records(0).chain(records(1)).collect())
            .unwrap();
        kafka.start_again().await;
        for answer in soon("the acknowledgements", waiting).await {
            answer.unwrap();
        }
        until("records after", async || {
            stage.distinct() as u32 == 2 * first + 400
        })
        .await;
    }
    until("the tail", async || *followed.lock() == 1_200).await;
    worker.stop().await;
    stop.cancel();
    let ends = kafka.watermarks(topic).await;
    assert_eq!(
        ends,
        [(0, (0, 600)), (1, (0, 600))].into(),
        "nothing was written twice"
    );
    // The commit of the last moment may be lost with a broker; records are then repeated.
    for numbers in stage.0.lock().taken.values() {
        let distinct: std::collections::BTreeSet<u32> = numbers.iter().copied().collect();
        assert_eq!(distinct, (0..600).collect());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everyone_may_start_before_the_broker() {
    let Some(mut kafka) = Kafka::stoppable().await else {
        return;
    };
    let topic = kafka.topic(1).await;
    kafka.stop().await;
    let config = kafka.config();
    let producer = producer(&config);
    let waiting = producer.send(vec![record(topic, 0, "0")]).unwrap();
    let stage = Shared::default();
    let worker = Running::start(&config, unique("group"), topic, &stage, &producer);
    let tail = Tail {
        config: config.clone(),
        name: unique("tail"),
        topic,
        start: Start::Earliest,
    };
    let followed = std::sync::Arc::new(parking_lot::Mutex::new(0));
    let count = std::sync::Arc::clone(&followed);
    let stop = tokio_util::sync::CancellationToken::new();
    let tail = tail
        .spawn(&prometheus::Registry::new(), stop.clone(), move |records| {
            *count.lock() += records.len()
        })
        .unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    kafka.start_again().await;
    soon("the acknowledgement", waiting).await[0].unwrap();
    until("the record", async || stage.count() == 1).await;
    soon("the tail", tail.caught_up()).await;
    until("the record in the tail", async || *followed.lock() == 1).await;
    worker.stop().await;
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_stops_while_its_broker_is_gone() {
    let Some(mut kafka) = Kafka::stoppable().await else {
        return;
    };
    let topic = kafka.topic(1).await;
    let config = Config { ..kafka.config() };
    let producer = producer(&config);
    fill(&producer, topic, 0, 0..10).await;
    let stage = Shared::with(|book| book.buffer = true);
    let worker = Running::start(&config, unique("group"), topic, &stage, &producer);
    until("the records", async || stage.count() == 10).await;
    kafka.stop().await;
    soon("the stop", worker.stop()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_a_topic_that_does_not_exist_wait_for_it() {
    let kafka = Kafka::start().await;
    let topic = unique("later");
    let config = Config {
        properties: [("topic.metadata.refresh.interval.ms", "500")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..kafka.config()
    };
    let producer = producer(&config);
    let stage = Shared::default();
    let worker = Running::start(&config, unique("group"), topic, &stage, &producer);
    let tail = Tail {
        config: config.clone(),
        name: unique("tail"),
        topic,
        start: Start::Earliest,
    };
    let followed = std::sync::Arc::new(parking_lot::Mutex::new(0));
    let count = std::sync::Arc::clone(&followed);
    let stop = tokio_util::sync::CancellationToken::new();
    let _tail = tail
        .spawn(&prometheus::Registry::new(), stop.clone(), move |records| {
            *count.lock() += records.len()
        })
        .unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    kafka.make(topic, 2, &[]).await;
    fill(&producer, topic, 1, 0..10).await;
    until("the records", async || stage.count() == 10).await;
    until("the tail", async || *followed.lock() == 10).await;
    worker.stop().await;
    stop.cancel();
}
