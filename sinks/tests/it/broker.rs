//! Both stages behind their workers, over the embedded broker: replays and rebalances.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use weir_broker::Broker;
use weir_bus::{BoxError, Outcome, Outgoing, Producer, Record, Stage, Worker};
use weir_records::topic;
use weir_sinks::lake::{Config, Writer};
use weir_store::History as _;
use weir_store::embedded::Store;

use crate::support::{assert_holds, fences, metric, open, record, rows};

const PARTITIONS: i32 = 2;

/// A stage that reads every partition from its beginning, whatever its group has committed.
struct FromTheBeginning<S>(S);

#[async_trait]
impl<S: Stage> Stage for FromTheBeginning<S> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    async fn assigned(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, i64>, BoxError> {
        self.0.assigned(partitions).await?;
        Ok(partitions.iter().map(|partition| (*partition, 0)).collect())
    }

    async fn revoked(&mut self, partition: i32) {
        self.0.revoked(partition).await;
    }

    async fn handle(&mut self, records: &[Record]) -> Result<Outcome, BoxError> {
        self.0.handle(records).await
    }

    async fn tick(&mut self) -> Result<Outcome, BoxError> {
        self.0.tick().await
    }

    async fn finish(&mut self) -> Result<Outcome, BoxError> {
        self.0.finish().await
    }
}

/// A worker that runs until it is dropped or stopped.
struct Running {
    stop: CancellationToken,
    thread: Option<JoinHandle<Result<(), weir_bus::Error>>>,
    registry: Registry,
}

impl Running {
    fn start(
        config: &weir_bus::Config,
        group: &'static str,
        stage: impl Stage,
        registry: Registry,
    ) -> Self {
        let worker = Worker {
            config: config.clone(),
            group,
            topic: topic::VERDICTS,
            max_records: 300,
            tick: Duration::from_millis(20),
        };
        let stop = CancellationToken::new();
        let letters = Producer::new(config, &registry).unwrap();
        let thread = worker
            .spawn(stage, letters, &registry, stop.clone())
            .unwrap();
        Self {
            stop,
            thread: Some(thread),
            registry,
        }
    }

    async fn stop(mut self) {
        self.stop.cancel();
        let thread = self.thread.take().unwrap();
        tokio::task::spawn_blocking(|| thread.join().unwrap().unwrap())
            .await
            .unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn lake_config(folder: &Path) -> Config {
    Config {
        url: folder.join("lake").display().to_string(),
        every: Duration::from_millis(50),
        rows: 400,
        ..Config::default()
    }
}

async fn lake(folder: &Path) -> (Writer, Registry) {
    open(&lake_config(folder)).await
}

async fn publish(producer: &Producer, offsets: std::ops::Range<i64>) {
    let mut batch: Vec<Outgoing> = Vec::new();
    for partition in 0..PARTITIONS {
        batch.extend(offsets.clone().map(|offset| Outgoing {
            topic: topic::VERDICTS,
            partition: Some(partition),
            key: b"key".to_vec(),
            payload: record(partition, offset, offset).payload.to_vec(),
        }));
    }
    for acknowledged in producer.send(batch).unwrap().await {
        acknowledged.unwrap();
    }
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1_500 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    panic!("{what} did not come to pass");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sinks_hold_every_verdict_once_through_rebalances_and_replays() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path();
    let broker = Broker::start(
        weir_broker::Config::new(([127, 0, 0, 1], 0).into(), folder.join("bus")),
        &Registry::new(),
    )
    .await
    .unwrap();
    let config = weir_bus::Config {
        brokers: broker.address().to_string(),
        partitions: PARTITIONS,
        ..weir_bus::Config::default()
    };
    weir_bus::create_topics(&config, Duration::from_hours(1), None)
        .await
        .unwrap();
    let producer = Producer::new(&config, &Registry::new()).unwrap();

    let store = Store::open(&folder.join("store")).unwrap();
    let registry = Registry::new();
    let stage = weir_sinks::history(Arc::clone(&store) as _, &registry).unwrap();
    let history = Running::start(&config, topic::GROUP_HISTORY, stage, registry);
    let (stage, registry) = lake(folder).await;
    let first = Running::start(&config, topic::GROUP_LAKE, stage, registry);

    publish(&producer, 0..700).await;
    let broken = Outgoing {
        topic: topic::VERDICTS,
        partition: Some(0),
        key: b"key".to_vec(),
        payload: b"\xff".to_vec(),
    };
    producer
        .send(vec![broken])
        .unwrap()
        .await
        .remove(0)
        .unwrap();

    // A second member takes partitions while records flow.
    let (stage, registry) = lake(folder).await;
    let second = Running::start(&config, topic::GROUP_LAKE, stage, registry);
    publish(&producer, 700..1_400).await;
    let mut ends = BTreeMap::new();
    for (partition, (_, end)) in weir_bus::watermarks(&config, topic::VERDICTS)
        .await
        .unwrap()
    {
        ends.insert(partition, end);
    }
    for group in [topic::GROUP_HISTORY, topic::GROUP_LAKE] {
        eventually("all is committed", async || {
            weir_bus::committed(&config, group, topic::VERDICTS)
                .await
                .unwrap()
                == ends
        })
        .await;
    }
    let found = rows(&folder.join("lake")).await;
    for partition in 0..PARTITIONS {
        assert_holds(&found, partition, 0..1_400);
        assert_eq!(store.fence(partition).await.unwrap(), Some(1_399));
    }
    assert_eq!(
        metric(&history.registry, "weir_history_rows_total") as i64,
        2_800
    );

    // All members go; a new one reads everything again.
    first.stop().await;
    second.stop().await;
    history.stop().await;
    let (stage, registry) = lake(folder).await;
    let lake_again = Running::start(
        &config,
        topic::GROUP_LAKE,
        FromTheBeginning(stage),
        registry,
    );
    let registry = Registry::new();
    let stage = weir_sinks::history(Arc::clone(&store) as _, &registry).unwrap();
    let history_again = Running::start(
        &config,
        topic::GROUP_HISTORY,
        FromTheBeginning(stage),
        registry,
    );
    publish(&producer, 1_400..1_500).await;
    eventually("the new verdicts are in", async || {
        fences(&folder.join("lake"), 0..PARTITIONS).await == [(0, 1_499), (1, 1_499)].into()
            && store.fence(0).await.unwrap() == Some(1_499)
            && store.fence(1).await.unwrap() == Some(1_499)
    })
    .await;
    let found = rows(&folder.join("lake")).await;
    for partition in 0..PARTITIONS {
        assert_holds(&found, partition, 0..1_500);
    }
    assert_eq!(
        metric(&lake_again.registry, "weir_lake_rows_total") as i64,
        200
    );
    assert_eq!(
        metric(&lake_again.registry, "weir_lake_replays_total") as i64,
        2_800
    );
    assert_eq!(
        metric(&history_again.registry, "weir_history_rows_total") as i64,
        200
    );
    lake_again.stop().await;
    history_again.stop().await;

    // The broken record was given up by both stages; a replay may give it up again.
    let mut stages = Vec::new();
    for partition in 0..PARTITIONS {
        weir_bus::read_back(&config, topic::DEAD, partition, 0, &mut |record| {
            let letter = weir_records::dead_letter(&record.payload).unwrap();
            assert_eq!(
                (letter.reason.as_str(), letter.source.offset),
                ("malformed_record", 700)
            );
            stages.push(letter.stage);
        })
        .await
        .unwrap();
    }
    stages.sort_unstable();
    stages.dedup();
    assert_eq!(stages, ["history", "lake"]);
    broker.shutdown().await;
}
