//! The whole of it on the embedded broker: verdicts produced, read back after a
//! restart, moved to the lake.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use weir_analytics_sql::Engine;
use weir_broker::Broker;
use weir_bus::{Outgoing, Producer};
use weir_records::{Judged, Target, topic};

use crate::support::{Lake, PARTITIONS, config, erasure, number, rows};

const GENEROUS: Duration = Duration::from_secs(60);

async fn produce(producer: &Producer, rows: &[Judged]) {
    let records = rows
        .iter()
        .map(|row| Outgoing {
            topic: topic::VERDICTS,
            partition: Some(row.source.partition),
            key: topic::key(&row.message.tenant, &row.message.channel),
            payload: row.clone().encode(),
        })
        .collect();
    let delivered = producer.send(records).unwrap().await;
    assert!(delivered.iter().all(Result::is_ok));
}

async fn start(lake: &Lake, bus: &weir_bus::Config, registry: &Registry) -> Engine {
    let engine = Engine::start(
        config(lake),
        bus.clone(),
        registry,
        CancellationToken::new(),
    )
    .await
    .unwrap();
    let begun = Instant::now();
    while !engine.ready() {
        assert!(begun.elapsed() < GENEROUS, "never ready");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    engine
}

async fn sees(engine: &Engine, rows: i64) {
    let begun = Instant::now();
    loop {
        let all = number(engine, "a", "SELECT count(*) FROM messages").await;
        let ids = number(
            engine,
            "a",
            "SELECT count(DISTINCT message_id) FROM messages",
        )
        .await;
        if all == rows {
            assert_eq!(ids, rows);
            return;
        }
        assert!(all < rows, "{all} rows of {rows}");
        assert!(begun.elapsed() < GENEROUS, "{all} rows of {rows}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn metric(registry: &Registry, name: &str) -> f64 {
    let family = registry
        .gather()
        .into_iter()
        .find(|family| family.name() == name);
    let family = family.unwrap_or_else(|| panic!("no metric {name}"));
    let metric = &family.get_metric()[0];
    // A metric is one of these; the others say zero.
    metric.get_histogram().get_sample_count() as f64
        + metric.get_gauge().get_value()
        + metric.get_counter().get_value()
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_are_seen_once_through_restarts_and_flushes() {
    let folder = tempfile::tempdir().unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let broker = Broker::start(
        weir_broker::Config::new(listen, folder.path()),
        &Registry::new(),
    )
    .await
    .unwrap();
    let bus = weir_bus::Config {
        brokers: broker.address().to_string(),
        partitions: PARTITIONS,
        ..weir_bus::Config::default()
    };
    weir_bus::create_topics(&bus, Duration::from_secs(3600), None)
        .await
        .unwrap();
    let producer = Producer::new(&bus, &Registry::new()).unwrap();
    let mut lake = Lake::new();

    let per = |from, to| {
        (0..PARTITIONS)
            .flat_map(move |p| rows("a", p, from..to))
            .collect::<Vec<_>>()
    };
    produce(&producer, &per(0, 100)).await;
    let registry = Registry::new();
    let engine = start(&lake, &bus, &registry).await;
    assert_eq!(
        number(&engine, "a", "SELECT count(*) FROM messages").await,
        400,
        "ready means read back"
    );

    // A replay repeats some; one record is not a verdict at all, and one names another
    // partition than its own, which must not hide what follows there.
    let elsewhere = rows("a", 1, 1_000..1_001).remove(0).encode();
    let strange = [b"nonsense".to_vec(), elsewhere].map(|payload| Outgoing {
        topic: topic::VERDICTS,
        partition: Some(0),
        key: Vec::new(),
        payload,
    });
    producer.send(strange.into()).unwrap().await;
    let mut fresh = per(80, 150);
    for row in &mut fresh {
        row.message.received_at = Timestamp::now();
    }
    produce(&producer, &fresh).await;
    sees(&engine, 600).await;
    assert_eq!(metric(&registry, "weir_tail_undecodable_total"), 2.0);
    assert_eq!(metric(&registry, "weir_tail_repeated_total"), 80.0);
    assert_eq!(metric(&registry, "weir_accept_to_queryable_seconds"), 200.0);
    assert_eq!(metric(&registry, "weir_tail_rows"), 600.0);

    // The lake takes some; a second engine reads from the beginning again all the same.
    lake.commit(&per(0, 120)).await;
    sees(&engine, 600).await;
    let begun = Instant::now();
    while metric(&registry, "weir_tail_rows") > 120.0 {
        assert!(
            begun.elapsed() < GENEROUS,
            "the tail keeps what the lake holds"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(engine);
    let registry = Registry::new();
    let engine = start(&lake, &bus, &registry).await;
    assert_eq!(
        number(&engine, "a", "SELECT count(*) FROM messages").await,
        600
    );
    assert_eq!(metric(&registry, "weir_tail_rows"), 120.0);
    assert!(metric(&registry, "weir_lake_snapshot_version") >= 0.0);
    produce(&producer, &per(150, 160)).await;
    sees(&engine, 640).await;

    // What is erased goes from the tail at once, and is not read back by the next engine.
    let erased = erasure("a", Target::Message("a-2-155".to_owned()), 10_000);
    let record = Outgoing {
        topic: topic::ERASURES,
        partition: Some(0),
        key: Vec::new(),
        payload: erased.encode(),
    };
    assert!(producer.send(vec![record]).unwrap().await[0].is_ok());
    let begun = Instant::now();
    while number(&engine, "a", "SELECT count(*) FROM messages").await == 640 {
        assert!(begun.elapsed() < GENEROUS, "never erased");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sees(&engine, 639).await;
    drop(engine);
    let engine = start(&lake, &bus, &Registry::new()).await;
    assert_eq!(
        number(&engine, "a", "SELECT count(*) FROM messages").await,
        639
    );
    drop(engine);
    broker.shutdown().await;
}
