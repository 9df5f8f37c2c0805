//! A broker for each test, topics and groups of its own, and waiting with a limit.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Once, OnceLock};
use std::time::Duration;

use prometheus::Registry;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use tempfile::TempDir;
use weir_broker::{Auth, Broker};
use weir_bus::{Config, Outgoing, Producer, Record, Security};

pub const DAY: Duration = Duration::from_secs(86_400);
/// Nothing that works takes so long.
const LIMIT: Duration = Duration::from_secs(60);

/// Brokers, ours or others'.
pub struct Kafka {
    brokers: String,
    properties: BTreeMap<String, String>,
    ours: Option<Ours>,
}

struct Ours {
    folder: TempDir,
    broker: Option<Broker>,
    auth: Auth,
}

fn given() -> Option<String> {
    std::env::var("WEIR_TEST_BROKERS")
        .ok()
        .filter(|brokers| !brokers.is_empty())
}

impl Kafka {
    pub async fn start() -> Self {
        logs();
        match given() {
            Some(brokers) => Self {
                brokers,
                properties: BTreeMap::new(),
                ours: None,
            },
            None => Self::embedded(Auth::None).await,
        }
    }

    /// One that can be stopped; `None` where the brokers are others'.
    pub async fn stoppable() -> Option<Self> {
        logs();
        if given().is_some() {
            return None;
        }
        Some(Self::embedded(Auth::None).await)
    }

    pub async fn with_password(username: &str, password: &str) -> Option<Self> {
        logs();
        if given().is_some() {
            return None;
        }
        let auth = Auth::Plain {
            username: username.to_owned(),
            password: password.to_owned().into(),
        };
        Some(Self::embedded(auth).await)
    }

    /// Others' brokers that want TLS and a password, at `WEIR_TEST_SASL_BROKERS`: the user `weir`
    /// with `WEIR_TEST_PASSWORD`. The folder `WEIR_TEST_TLS` holds the certificate of the
    /// authority that signed theirs, and `other-ca.pem`, which did not.
    pub fn secured(properties: &[(&str, &str)]) -> Option<Self> {
        logs();
        static SAID: Once = Once::new();
        let Ok(brokers) = std::env::var("WEIR_TEST_SASL_BROKERS") else {
            SAID.call_once(|| eprintln!("no WEIR_TEST_SASL_BROKERS: nothing is run through TLS"));
            return None;
        };
        let password = std::env::var("WEIR_TEST_PASSWORD").unwrap();
        let folder = std::env::var("WEIR_TEST_TLS").unwrap();
        let mut all = BTreeMap::from(
            [
                ("security.protocol", "SASL_SSL"),
                ("sasl.username", "weir"),
                ("sasl.password", &password),
                ("ssl.ca.location", "ca.pem"),
            ]
            .map(owned),
        );
        all.extend(properties.iter().copied().map(owned));
        if let Some(authority) = all.get_mut("ssl.ca.location") {
            *authority = format!("{folder}/{authority}");
        }
        Some(Self {
            brokers,
            properties: all,
            ours: None,
        })
    }

    async fn embedded(auth: Auth) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let broker = broker("127.0.0.1:0", folder.path(), &auth).await;
        Self {
            brokers: broker.address().to_string(),
            properties: BTreeMap::new(),
            ours: Some(Ours {
                folder,
                broker: Some(broker),
                auth,
            }),
        }
    }

    pub async fn stop(&mut self) {
        let ours = self.ours.as_mut().unwrap();
        ours.broker.take().unwrap().shutdown().await;
    }

    /// At the same address, on the same folder.
    pub async fn start_again(&mut self) {
        let ours = self.ours.as_mut().unwrap();
        ours.broker = Some(broker(&self.brokers, ours.folder.path(), &ours.auth).await);
    }

    /// Where our broker keeps its records.
    pub fn folder(&self) -> &Path {
        self.ours.as_ref().unwrap().folder.path()
    }

    pub fn config(&self) -> Config {
        Config {
            brokers: self.brokers.clone(),
            properties: self.properties.clone(),
            ..Config::default()
        }
    }

    pub fn config_as(&self, username: &str, password: &str) -> Config {
        Config {
            security: Security::Plain {
                username: username.to_owned(),
                password: password.to_owned().into(),
            },
            ..self.config()
        }
    }

    /// The test's own client: what the bus does not offer.
    pub fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    pub fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers);
        for (name, value) in &self.properties {
            client.set(name, value);
        }
        client
    }

    /// A topic of this test alone.
    pub async fn topic(&self, partitions: i32) -> &'static str {
        self.topic_with(partitions, &[]).await
    }

    pub async fn topic_with(&self, partitions: i32, settings: &[(&str, &str)]) -> &'static str {
        let topic = unique("test");
        self.make(topic, partitions, settings).await;
        topic
    }

    pub async fn make(&self, topic: &'static str, partitions: i32, settings: &[(&str, &str)]) {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for (name, value) in settings {
            new = new.set(name, value);
        }
        let made = self
            .admin()
            .create_topics(&[new], &AdminOptions::new())
            .await
            .unwrap();
        made.into_iter().for_each(|made| {
            made.unwrap();
        });
        until("the topic to have leaders", async || {
            weir_bus::watermarks(&self.config(), topic)
                .await
                .is_ok_and(|found| found.len() == partitions as usize)
        })
        .await;
    }

    pub async fn watermarks(&self, topic: &str) -> BTreeMap<i32, (i64, i64)> {
        weir_bus::watermarks(&self.config(), topic).await.unwrap()
    }

    pub async fn committed(&self, group: &str, topic: &str) -> BTreeMap<i32, i64> {
        weir_bus::committed(&self.config(), group, topic)
            .await
            .unwrap()
    }

    /// Records of the whole topic, by partition.
    pub async fn read(&self, topic: &str) -> BTreeMap<i32, Vec<Record>> {
        let mut all = BTreeMap::new();
        for partition in self.watermarks(topic).await.into_keys() {
            let mut records = Vec::new();
            weir_bus::read_back(&self.config(), topic, partition, 0, &mut |record| {
                records.push(record)
            })
            .await
            .unwrap();
            all.insert(partition, records);
        }
        all
    }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

async fn broker(address: &str, folder: &Path, auth: &Auth) -> Broker {
    let address: SocketAddr = address.parse().unwrap();
    let mut config = weir_broker::Config::new(address, folder);
    config.auth = auth.clone();
    Broker::start(config, &Registry::new()).await.unwrap()
}

/// A name that no other test and no other run uses.
pub fn unique(prefix: &str) -> &'static str {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let run = std::process::id();
    let started = jiff::Timestamp::now().as_millisecond();
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{started}-{run}-{number}").leak()
}

pub fn producer(config: &Config) -> Producer {
    Producer::new(config, &Registry::new()).unwrap()
}

pub fn record(topic: &'static str, partition: i32, payload: impl Into<Vec<u8>>) -> Outgoing {
    Outgoing {
        topic,
        partition: Some(partition),
        key: Vec::new(),
        payload: payload.into(),
    }
}

/// Numbers, as payloads, into one partition; all acknowledged.
pub async fn fill(
    producer: &Producer,
    topic: &'static str,
    partition: i32,
    numbers: std::ops::Range<u32>,
) {
    let records = numbers
        .map(|number| record(topic, partition, number.to_string()))
        .collect();
    for answer in producer.send(records).unwrap().await {
        answer.unwrap();
    }
}

pub fn number(payload: &[u8]) -> u32 {
    std::str::from_utf8(payload).unwrap().parse().unwrap()
}

/// Waits for what will come true unless something is broken.
pub async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(
        tokio::time::timeout(LIMIT, wait).await.is_ok(),
        "waited too long for {what}"
    );
}

/// Waits for a future that is ready some day unless something is broken.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited too long for {what}"),
    }
}

/// The metric's text lines that start with `name`.
pub fn metric(registry: &Registry, name: &str) -> String {
    let text = prometheus::TextEncoder::new()
        .encode_to_string(&registry.gather())
        .unwrap();
    text.lines()
        .filter(|line| line.starts_with(name))
        .collect::<Vec<_>>()
        .join("\n")
}

/// `WEIR_LOG=debug` shows the logs of failing tests.
fn logs() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let filter = tracing_subscriber::EnvFilter::try_from_env("WEIR_LOG")
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_test_writer()
            .init();
    });
}
