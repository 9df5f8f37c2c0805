//! Following a topic, and reading back a partition.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::Registry;
use tokio_util::sync::{CancellationToken, DropGuard};
use weir_bus::{Erased, Error, Start, Tail, TailHandle};
use weir_records::{Erasure, Target, topic};

use crate::stages::{Running, Shared};
use crate::support::{DAY, Kafka, fill, number, producer, record, soon, unique, until};

/// A tail and what it has brought, as partition and number.
struct Followed {
    handle: TailHandle,
    seen: Arc<Mutex<Vec<(i32, u32)>>>,
    _stop: DropGuard,
}

fn follow(kafka: &Kafka, topic: &'static str, start: Start) -> Followed {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let stop = CancellationToken::new();
    let tail = Tail {
        config: kafka.config(),
        name: unique("tail"),
        topic,
        start,
    };
    let handle = tail
        .spawn(&Registry::new(), stop.clone(), move |records| {
            assert!(!records.is_empty());
            sink.lock().extend(
                records
                    .iter()
                    .map(|record| (record.partition, number(&record.payload))),
            );
        })
        .unwrap();
    Followed {
        handle,
        seen,
        _stop: stop.drop_guard(),
    }
}

impl Followed {
    fn of(&self, partition: i32) -> Vec<u32> {
        let seen = self.seen.lock();
        seen.iter()
            .filter(|(of, _)| *of == partition)
            .map(|(_, number)| *number)
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_catches_up_and_then_follows() {
    let kafka = Kafka::start().await;
    let topic = kafka.topic(3).await;
    let producer = producer(&kafka.config());
    fill(&producer, topic, 0, 0..3_000).await;
    fill(&producer, topic, 2, 0..10).await;
    let followed = follow(&kafka, topic, Start::Earliest);
    soon("catching up", followed.handle.caught_up()).await;
    assert_eq!(followed.of(0), (0..3_000).collect::<Vec<_>>());
    assert_eq!(followed.of(2), (0..10).collect::<Vec<_>>());
    until("no lag", async || followed.handle.lag() == 0).await;
    fill(&producer, topic, 1, 0..5).await;
    fill(&producer, topic, 0, 3_000..3_001).await;
    until("new records", async || followed.seen.lock().len() == 3_016).await;
    assert_eq!(followed.of(1), (0..5).collect::<Vec<_>>());
    soon("still caught up", followed.handle.caught_up()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_begins_where_it_is_told() {
    let kafka = Kafka::start().await;
    let topic = kafka.topic(2).await;
    let group = unique("group");
    let producer = producer(&kafka.config());
    fill(&producer, topic, 0, 0..20).await;
    let stage = Shared::default();
    let worker = Running::start(&kafka.config(), group, topic, &stage, &producer);
    until("the group", async || stage.count() == 20).await;
    worker.stop().await;
    fill(&producer, topic, 0, 20..30).await;
    fill(&producer, topic, 1, 0..5).await;

    let latest = follow(&kafka, topic, Start::Latest);
    let committed = follow(&kafka, topic, Start::Committed { group });
    let offsets = follow(&kafka, topic, Start::Offsets([(0, 28)].into()));
    let all = [&latest, &committed, &offsets];
    for followed in all {
        soon("catching up", followed.handle.caught_up()).await;
    }
    assert_eq!(latest.seen.lock().len(), 0);
    assert_eq!(
        (committed.of(0), committed.of(1)),
        ((20..30).collect(), (0..5).collect())
    );
    assert_eq!(
        (offsets.of(0), offsets.of(1)),
        ((28..30).collect(), (0..5).collect())
    );

    fill(&producer, topic, 0, 30..31).await;
    for followed in all {
        until("the new record", async || {
            followed.of(0).last() == Some(&30)
        })
        .await;
    }
    assert_eq!(latest.seen.lock().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_blocks_holds_up_its_tail_and_loses_nothing() {
    let kafka = Kafka::start().await;
    let topic = kafka.topic(1).await;
    let producer = producer(&kafka.config());
    let (gate, open) = std::sync::mpsc::channel::<()>();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let stop = CancellationToken::new();
    let tail = Tail {
        config: kafka.config(),
        name: unique("tail"),
        topic,
        start: Start::Earliest,
    };
    let handle = tail
        .spawn(&Registry::new(), stop.clone(), move |records| {
            let _ = open.recv();
            sink.lock()
                .extend(records.iter().map(|record| number(&record.payload)));
        })
        .unwrap();
    fill(&producer, topic, 0, 0..5_000).await;
    gate.send(()).unwrap();
    until("a first batch", async || !seen.lock().is_empty()).await;
    assert!(seen.lock().len() < 5_000);
    drop(gate);
    until("all records", async || seen.lock().len() == 5_000).await;
    assert_eq!(*seen.lock(), (0..5_000).collect::<Vec<_>>());
    stop.cancel();
    until("the end", async || handle.is_finished()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_back_ends_at_the_end_of_now() {
    let kafka = Kafka::start().await;
    let topic = kafka.topic(2).await;
    let config = kafka.config();
    let producer = producer(&config);
    fill(&producer, topic, 1, 0..2_000).await;
    for (from, first) in [(0, 0), (1_234, 1_234), (1_999, 1_999)] {
        let mut numbers = Vec::new();
        let end = weir_bus::read_back(&config, topic, 1, from, &mut |record| {
            numbers.push(number(&record.payload))
        })
        .await
        .unwrap();
        assert_eq!(end, 2_000);
        assert_eq!(numbers, (first..2_000).collect::<Vec<_>>());
    }
    for (partition, from, end) in [(1, 2_000, 2_000), (0, 0, 0)] {
        let mut nothing = |_| panic!("nothing is there");
        let read = weir_bus::read_back(&config, topic, partition, from, &mut nothing).await;
        assert_eq!(read.unwrap(), end);
    }
    let absent = weir_bus::read_back(&config, topic, 7, 0, &mut |_| {})
        .await
        .unwrap_err();
    assert!(matches!(absent, Error::UnknownTopic(_)), "{absent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_asks_what_is_erased_keeps_no_list_of_it() {
    let kafka = Kafka::start().await;
    weir_bus::create_topics(&kafka.config(), DAY, None)
        .await
        .unwrap();
    let now = jiff::Timestamp::now();
    let erasure = Erasure {
        tenant: unique("tenant").to_owned(),
        target: Target::Sender("ann".to_owned()),
        up_to: now,
        requested_at: now,
        by: "admin".to_owned(),
    };
    let record = record(topic::ERASURES, 0, erasure.clone().encode());
    let written = producer(&kafka.config()).send(vec![record]).unwrap().await;
    assert!(written[0].is_ok());
    let stop = CancellationToken::new();
    let (config, registry) = (kafka.config(), Registry::new());
    let watched = Erased::watch("watched", &config, &registry, stop.clone()).unwrap();
    let followed = Erased::follow("followed", &config, &registry, stop.clone()).unwrap();
    for erased in [&watched, &followed] {
        until("the erasures", async || erased.is_ready()).await;
        assert!(erased.covered(&erasure.tenant, Some("ann"), "id", now.as_microsecond()));
    }
    assert!(watched.next().is_none());
    assert!(followed.next().is_some());
    stop.cancel();
}
