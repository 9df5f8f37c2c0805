//! A broker to test, and the clients of one test. Every topic and group has a name of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use prometheus::Registry;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Message as _, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use weir_broker::{Broker, Config};

/// Long enough that only something that never comes runs into it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Server {
    pub(crate) brokers: String,
    pub(crate) runtime: Runtime,
    broker: Option<Broker>,
    folder: Option<TempDir>,
    registry: Registry,
}

pub(crate) fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

pub(crate) fn name(stem: &str) -> String {
    format!("{stem}-{}", uuid::Uuid::new_v4().simple())
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

impl Server {
    /// The broker that `WEIR_TEST_BROKERS` names, or an embedded one.
    pub(crate) fn start() -> Self {
        match std::env::var("WEIR_TEST_BROKERS") {
            Ok(brokers) if !brokers.is_empty() => Self {
                brokers,
                runtime: runtime(),
                broker: None,
                folder: None,
                registry: Registry::new(),
            },
            _ => Self::embedded(|_| {}),
        }
    }

    /// An embedded broker on a folder of its own.
    pub(crate) fn embedded(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Self::on(folder.path(), change);
        server.folder = Some(folder);
        server
    }

    /// An embedded broker on a given folder.
    pub(crate) fn on(folder: &Path, change: impl FnOnce(&mut Config)) -> Self {
        let runtime = runtime();
        let registry = Registry::new();
        let mut config = Config::new(any_port(), folder);
        change(&mut config);
        let broker = runtime.block_on(Broker::start(config, &registry)).unwrap();
        Self {
            brokers: broker.address().to_string(),
            runtime,
            broker: Some(broker),
            folder: None,
            registry,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.brokers.parse().unwrap_or_else(|_| {
            use std::net::ToSocketAddrs as _;
            self.brokers.to_socket_addrs().unwrap().next().unwrap()
        })
    }

    /// Stops gracefully, and keeps the folder where it is this server's own.
    pub(crate) fn stop(mut self) -> Option<TempDir> {
        self.runtime
            .block_on(self.broker.take().unwrap().shutdown());
        self.folder.take()
    }

    /// The value of a metric, its labels summed up.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families
            .iter()
            .find(|family| family.name() == name)
            .unwrap();
        // A metric is one of the two; the other says zero.
        let value = |metric: &prometheus::proto::Metric| {
            metric.get_counter().get_value() + metric.get_gauge().get_value()
        };
        family.get_metric().iter().map(value).sum()
    }

    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config.set("broker.address.family", "v4");
        config
    }

    pub(crate) fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    /// Makes a topic, and waits until it can be used.
    pub(crate) fn topic(&self, stem: &str, partitions: i32, settings: &[(&str, &str)]) -> String {
        let name = name(stem);
        let mut topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let made = self
            .runtime
            .block_on(self.admin().create_topics([&topic], &options()))
            .unwrap();
        made.into_iter().next().unwrap().unwrap();
        self.wait_for_topic(&name, partitions);
        name
    }

    /// Kafka makes topics in the background.
    pub(crate) fn wait_for_topic(&self, name: &str, partitions: i32) {
        let consumer: BaseConsumer = self.client().create().unwrap();
        until(&format!("topic {name}"), || {
            let metadata = consumer.fetch_metadata(Some(name), PATIENCE).unwrap();
            let topic = &metadata.topics()[0];
            topic.error().is_none()
                && topic.partitions().len() == usize::try_from(partitions).unwrap()
                && topic
                    .partitions()
                    .iter()
                    .all(|partition| partition.leader() >= 0)
        });
    }

    /// An idempotent producer.
    pub(crate) fn producer(&self, settings: &[(&str, &str)]) -> FutureProducer {
        let mut config = self.client();
        config
            .set("enable.idempotence", "true")
            .set("linger.ms", "0");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        config.create().unwrap()
    }

    /// Sends one record; answers its offset.
    pub(crate) fn send(
        &self,
        producer: &FutureProducer,
        topic: &str,
        partition: i32,
        payload: &[u8],
    ) -> i64 {
        self.try_send(producer, topic, partition, payload).unwrap()
    }

    pub(crate) fn try_send(
        &self,
        producer: &FutureProducer,
        topic: &str,
        partition: i32,
        payload: &[u8],
    ) -> Result<i64, RDKafkaErrorCode> {
        let record = FutureRecord::<(), _>::to(topic)
            .partition(partition)
            .payload(payload);
        let sent = self.runtime.block_on(producer.send(record, PATIENCE));
        sent.map(|delivery| delivery.offset)
            .map_err(|(error, _)| error.rdkafka_error_code().unwrap())
    }

    pub(crate) fn consumer(&self, group: &str, settings: &[(&str, &str)]) -> BaseConsumer {
        let mut config = self.client();
        config
            .set("group.id", group)
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "false")
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "500")
            .set("check.crcs", "true");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        config.create().unwrap()
    }

    /// Reads `count` records of one partition, from an offset on.
    pub(crate) fn read(
        &self,
        topic: &str,
        partition: i32,
        from: Offset,
        count: usize,
    ) -> Vec<OwnedMessage> {
        let consumer = self.consumer(&name("reader"), &[]);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, from).unwrap();
        consumer.assign(&list).unwrap();
        take(&consumer, count)
    }

    pub(crate) fn payloads(&self, topic: &str, partition: i32, count: usize) -> Vec<Vec<u8>> {
        let messages = self.read(topic, partition, Offset::Beginning, count);
        messages
            .iter()
            .map(|message| message.payload().unwrap_or_default().to_vec())
            .collect()
    }

    pub(crate) fn watermarks(&self, topic: &str, partition: i32) -> (i64, i64) {
        let consumer: BaseConsumer = self.client().create().unwrap();
        consumer
            .fetch_watermarks(topic, partition, PATIENCE)
            .unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(broker) = self.broker.take() {
            self.runtime.block_on(broker.shutdown());
        }
    }
}

pub(crate) fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(PATIENCE))
        .operation_timeout(Some(PATIENCE))
}

/// Polls until `count` records have come.
pub(crate) fn take(consumer: &BaseConsumer, count: usize) -> Vec<OwnedMessage> {
    let mut messages = Vec::with_capacity(count);
    let begin = Instant::now();
    while messages.len() < count {
        assert!(
            begin.elapsed() < PATIENCE,
            "only {} of {count} records came",
            messages.len()
        );
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => messages.push(message.detach()),
            Some(Err(error)) => eprintln!("consumer: {error}"),
            None => {}
        }
    }
    messages
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !so() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
