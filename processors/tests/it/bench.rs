//! A broker, a store and a worker of its own for each test.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use prometheus::Registry;
use std::thread::JoinHandle;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use weir_broker::Broker;
use weir_bus::{BoxError, Erased, Outcome, Outgoing, Producer, Record, Stage, Worker};
use weir_processors::Judge;
use weir_records::{DeadLetter, Erasure, Judged, Message, topic};
use weir_store::{History, embedded};

/// Nothing here takes that long.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Bench {
    broker: Broker,
    pub(crate) bus: weir_bus::Config,
    pub(crate) producer: Producer,
    pub(crate) store: Arc<embedded::Store>,
    _data: TempDir,
}

/// A role that runs.
pub(crate) struct Running {
    stop: CancellationToken,
    worker: JoinHandle<Result<(), weir_bus::Error>>,
    pub(crate) registry: Registry,
}

impl Bench {
    pub(crate) async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = weir_broker::Config::new(listen, data.path().join("broker"));
        let broker = Broker::start(config, &Registry::new()).await.unwrap();
        let bus = weir_bus::Config {
            brokers: broker.address().to_string(),
            partitions: 2,
            ..weir_bus::Config::default()
        };
        weir_bus::create_topics(&bus, Duration::from_secs(3_600), None)
            .await
            .unwrap();
        Self {
            producer: Producer::new(&bus, &Registry::new()).unwrap(),
            store: embedded::Store::open(&data.path().join("store")).unwrap(),
            broker,
            bus,
            _data: data,
        }
    }

    /// Ends everything; the store must not be in use any more.
    pub(crate) async fn stop(self) {
        drop(self.producer);
        self.broker.shutdown().await;
    }

    /// Publishes messages into a partition of `weir.messages`; answers the first offset.
    pub(crate) async fn send(&self, partition: i32, messages: &[Message]) -> i64 {
        let payloads = messages
            .iter()
            .map(|m| (topic::key(&m.tenant, &m.channel), m.clone().encode()));
        self.publish(partition, payloads.collect()).await
    }

    pub(crate) async fn erase(&self, erasures: &[Erasure]) {
        let records = erasures.iter().map(|erasure| Outgoing {
            topic: topic::ERASURES,
            partition: None,
            key: Vec::new(),
            payload: erasure.clone().encode(),
        });
        let results = self.producer.send(records.collect()).unwrap().await;
        assert!(results.iter().all(Result::is_ok));
    }

    pub(crate) async fn publish(&self, partition: i32, records: Vec<(Vec<u8>, Vec<u8>)>) -> i64 {
        let records = records.into_iter().map(|(key, payload)| Outgoing {
            topic: topic::MESSAGES,
            partition: Some(partition),
            key,
            payload,
        });
        let results = self.producer.send(records.collect()).unwrap().await;
        results
            .into_iter()
            .map(|result| result.unwrap().offset)
            .min()
            .unwrap()
    }

    /// Starts the role.
    pub(crate) fn process(&self, judge: Judge) -> Running {
        let registry = Registry::new();
        let stage = self.stage(judge, &registry);
        self.run(stage, topic::GROUP_PROCESS, topic::MESSAGES, registry)
    }

    pub(crate) fn stage(&self, judge: Judge, registry: &Registry) -> impl Stage + use<> {
        self.stage_that_knows(Erased::default(), judge, registry)
    }

    pub(crate) fn stage_that_knows(
        &self,
        erased: Erased,
        judge: Judge,
        registry: &Registry,
    ) -> impl Stage + use<> {
        let history: Arc<dyn History> = Arc::clone(&self.store) as _;
        weir_processors::stage(
            judge,
            self.producer.clone(),
            history,
            self.bus.clone(),
            erased,
            registry,
        )
        .unwrap()
    }

    /// Starts what writes verdicts into the history.
    pub(crate) fn history(&self) -> Running {
        let writer = Writer(Arc::clone(&self.store));
        self.run(
            writer,
            topic::GROUP_HISTORY,
            topic::VERDICTS,
            Registry::new(),
        )
    }

    fn run(
        &self,
        stage: impl Stage,
        group: &'static str,
        topic: &'static str,
        registry: Registry,
    ) -> Running {
        let stop = CancellationToken::new();
        let worker = Worker {
            config: self.bus.clone(),
            group,
            topic,
            max_records: 100,
            tick: Duration::from_millis(50),
        };
        let worker = worker
            .spawn(stage, self.producer.clone(), &registry, stop.clone())
            .unwrap();
        Running {
            stop,
            worker,
            registry,
        }
    }

    /// All records of a partition of a topic.
    pub(crate) async fn records(&self, topic: &str, partition: i32) -> Vec<Record> {
        let mut records = Vec::new();
        weir_bus::read_back(&self.bus, topic, partition, 0, &mut |record| {
            records.push(record)
        })
        .await
        .unwrap();
        records
    }

    pub(crate) async fn verdicts(&self, partition: i32) -> Vec<Judged> {
        let records = self.records(topic::VERDICTS, partition).await;
        records
            .iter()
            .map(|record| weir_records::judged(&record.payload).unwrap())
            .collect()
    }

    pub(crate) async fn dead(&self) -> Vec<DeadLetter> {
        let mut dead = Vec::new();
        for partition in 0..self.bus.partitions {
            for record in self.records(topic::DEAD, partition).await {
                dead.push(weir_records::dead_letter(&record.payload).unwrap());
            }
        }
        dead.sort_by_key(|letter| (letter.source.partition, letter.source.offset));
        dead
    }

    /// Waits until a group has committed that offset of a partition.
    pub(crate) async fn wait_committed(
        &self,
        group: &str,
        topic: &str,
        partition: i32,
        offset: i64,
    ) {
        let committed = async {
            loop {
                let offsets: BTreeMap<i32, i64> =
                    weir_bus::committed(&self.bus, group, topic).await.unwrap();
                if offsets.get(&partition) >= Some(&offset) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, committed)
            .await
            .unwrap_or_else(|_| {
                panic!("{group} does not reach offset {offset} of {topic}/{partition}")
            });
    }

    /// Waits until the role has dealt with everything below that offset.
    pub(crate) async fn wait_processed(&self, partition: i32, offset: i64) {
        self.wait_committed(topic::GROUP_PROCESS, topic::MESSAGES, partition, offset)
            .await;
    }
}

impl Running {
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        let worker = tokio::task::spawn_blocking(move || self.worker.join());
        tokio::time::timeout(PATIENCE, worker)
            .await
            .unwrap()
            .unwrap()
            .unwrap()
            .unwrap();
    }

    pub(crate) fn metric(&self, name: &str) -> f64 {
        metric(&self.registry, name)
    }
}

/// A counter's value, or a histogram's count; summed over labels.
pub(crate) fn metric(registry: &Registry, name: &str) -> f64 {
    let families = registry.gather();
    let family = families
        .iter()
        .find(|family| family.name() == name)
        .unwrap();
    let values = family.get_metric().iter();
    values
        .map(|m| m.get_counter().get_value() + m.get_histogram().get_sample_count() as f64)
        .sum()
}

pub(crate) fn message(channel: &str, id: &str, text: &str) -> Message {
    let now = Timestamp::from_microsecond(Timestamp::now().as_microsecond()).unwrap();
    Message {
        tenant: "acme".to_owned(),
        channel: channel.to_owned(),
        sender: Some("ada".to_owned()),
        id: id.to_owned(),
        text: text.to_owned(),
        sent_at: now,
        received_at: now,
        by_user: false,
        id_made: false,
        metadata: None,
    }
}

/// What the sinks do with the history, in a few lines.
struct Writer(Arc<embedded::Store>);

#[async_trait]
impl Stage for Writer {
    fn name(&self) -> &'static str {
        "history"
    }

    async fn handle(&mut self, records: &[Record]) -> Result<Outcome, BoxError> {
        let mut outcome = Outcome::default();
        for record in records {
            let judged = weir_records::judged(&record.payload)?;
            self.0.write(record.partition, &[judged]).await?;
            outcome.done.insert(record.partition, record.offset + 1);
        }
        Ok(outcome)
    }
}
