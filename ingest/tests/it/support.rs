//! One Weir with the way in only: what comes after it, the tests do themselves.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use prometheus::Registry;
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use weir_auth::{Auth, Registration, Scope};
use weir_broker::Broker;
use weir_bus::{Outgoing, Producer};
use weir_ingest::{Backends, Config, Ingest};
use weir_records::{
    Action, Attribute, Judged, Message, Reason, Scores, Sentiment, Source, Verdict, topic,
};
use weir_store::embedded::Store;
use weir_store::{Accounts, History};

pub(crate) const PARTITIONS: i32 = 2;
pub(crate) const PASSWORD: &str = "a Quiet lake 7";

/// How a test wants its Weir.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) ingest: Config,
    pub(crate) auth: weir_auth::Config,
    pub(crate) queue_messages: usize,
    pub(crate) delivery_timeout: Duration,
    pub(crate) alone: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            ingest: Config::default(),
            auth: weir_auth::Config::default(),
            queue_messages: 100_000,
            delivery_timeout: Duration::from_secs(30),
            alone: false,
        }
    }
}

pub(crate) struct Weir {
    pub(crate) router: Router,
    pub(crate) auth: Auth,
    pub(crate) store: Arc<Store>,
    pub(crate) producer: Producer,
    pub(crate) bus: weir_bus::Config,
    pub(crate) registry: Registry,
    pub(crate) document: utoipa::openapi::OpenApi,
    setup: Setup,
    broker: Option<Broker>,
    address: SocketAddr,
    pub(crate) stop: CancellationToken,
    folder: TempDir,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
    pub(crate) json: Value,
}

impl Answer {
    pub(crate) fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or_default()
    }

    pub(crate) fn field(&self) -> Option<&str> {
        self.json["field"].as_str()
    }

    pub(crate) fn id(&self) -> String {
        self.json["id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn retry_after(&self) -> Option<u64> {
        self.headers
            .get(header::RETRY_AFTER)?
            .to_str()
            .ok()?
            .parse()
            .ok()
    }

    /// The statuses of a batch's results.
    pub(crate) fn statuses(&self) -> Vec<&str> {
        let results = self.json["results"].as_array().unwrap();
        results
            .iter()
            .map(|result| result["status"].as_str().unwrap())
            .collect()
    }
}

impl Weir {
    pub(crate) async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        capture_logs();
        let folder = tempfile::tempdir().unwrap();
        let (broker, address) = broker(&folder, "127.0.0.1:0".parse().unwrap()).await;
        let bus = weir_bus::Config {
            brokers: address.to_string(),
            partitions: PARTITIONS,
            queue_messages: setup.queue_messages,
            delivery_timeout: setup.delivery_timeout,
            ..weir_bus::Config::default()
        };
        weir_bus::create_topics(&bus, Duration::from_secs(86_400), None)
            .await
            .unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let accounts: Arc<dyn Accounts> = Arc::clone(&store) as _;
        let registry = Registry::new();
        let auth = Auth::open(
            setup.auth.clone(),
            &folder.path().join("secrets"),
            accounts,
            &registry,
        )
        .unwrap();
        let producer = Producer::new(&bus, &registry).unwrap();
        let stop = CancellationToken::new();
        let ingest = ingest(&setup, &bus, &producer, &store, &registry, &stop).await;
        let (router, document) =
            weir_ingest::router(ingest.clone(), auth.clone()).split_for_parts();
        Self {
            router,
            auth,
            store,
            producer,
            bus,
            registry,
            document,
            setup,
            broker: Some(broker),
            address,
            stop,
            folder,
        }
    }

    /// What one more process of the role would work on.
    pub(crate) fn backends(&self) -> Backends {
        Backends {
            bus: self.bus.clone(),
            producer: self.producer.clone(),
            history: Arc::clone(&self.store) as _,
            alone: self.setup.alone,
        }
    }

    /// Another process of the role, on the same broker and store.
    pub(crate) async fn another(&self) -> (Router, Ingest) {
        let registry = Registry::new();
        let ingest = ingest(
            &self.setup,
            &self.bus,
            &self.producer,
            &self.store,
            &registry,
            &self.stop,
        )
        .await;
        let router = weir_ingest::router(ingest.clone(), self.auth.clone())
            .split_for_parts()
            .0;
        (router, ingest)
    }

    pub(crate) async fn stop_broker(&mut self) {
        self.broker.take().unwrap().shutdown().await;
    }

    pub(crate) async fn restart_broker(&mut self) {
        self.broker = Some(broker(&self.folder, self.address).await.0);
    }

    pub(crate) async fn key(&self, tenant: &str, scopes: &[Scope]) -> String {
        let scopes = scopes.iter().copied().collect();
        let (_, secret) = self
            .auth
            .create_key(tenant, "test", scopes, None)
            .await
            .unwrap();
        secret.expose_secret().to_owned()
    }

    /// A key that may do everything of this crate.
    pub(crate) async fn full_key(&self, tenant: &str) -> String {
        self.key(tenant, &[Scope::Ingest, Scope::Read]).await
    }

    /// An account in the tenant `default`, and its token.
    pub(crate) async fn member(&self, username: &str) -> String {
        let registration = Registration {
            username: username.to_owned(),
            email: format!("{username}@example.org"),
            password: PASSWORD.into(),
        };
        self.auth.register(registration).await.unwrap();
        let token = self.auth.token(username, &PASSWORD.into()).await.unwrap();
        token.access_token.expose_secret().to_owned()
    }

    pub(crate) async fn get(&self, path: &str, key: &str) -> Answer {
        self.call("GET", path, key, Body::empty()).await
    }

    pub(crate) async fn send(&self, key: &str, message: Value) -> Answer {
        self.call("POST", "/v1/messages", key, message.to_string())
            .await
    }

    pub(crate) async fn batch(&self, key: &str, body: impl Into<Body>) -> Answer {
        self.call("POST", "/v1/messages/batch", key, body).await
    }

    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        key: &str,
        body: impl Into<Body>,
    ) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {key}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.into())
            .unwrap();
        self.request(request).await
    }

    pub(crate) async fn request(&self, request: Request<Body>) -> Answer {
        ask(&self.router, request).await
    }

    /// What the topic `weir.messages` holds, by partition and offset.
    pub(crate) async fn accepted(&self) -> Vec<(Source, Message)> {
        let mut messages = Vec::new();
        for partition in 0..PARTITIONS {
            let mut take = |record: weir_bus::Record| {
                let source = Source {
                    partition: record.partition,
                    offset: record.offset,
                };
                let message = weir_records::decode_message(&record.payload).unwrap();
                assert_eq!(record.key, topic::key(&message.tenant, &message.channel));
                messages.push((source, message));
            };
            weir_bus::read_back(&self.bus, topic::MESSAGES, partition, 0, &mut take)
                .await
                .unwrap();
        }
        messages
    }

    /// The accepted message of that id.
    pub(crate) async fn accepted_as(&self, tenant: &str, id: &str) -> (Source, Message) {
        let mut all = self.accepted().await;
        all.retain(|(_, message)| message.tenant == tenant && message.id == id);
        assert_eq!(all.len(), 1, "records of {tenant}, {id}");
        all.remove(0)
    }

    /// Does the processor's work for one message.
    pub(crate) async fn judge(&self, source: Source, message: Message) -> Judged {
        let judged = judged(source, message);
        let record = Outgoing {
            topic: topic::VERDICTS,
            partition: Some(source.partition),
            key: topic::key(&judged.message.tenant, &judged.message.channel),
            payload: judged.clone().encode(),
        };
        let answers = self.producer.send(vec![record]).unwrap().await;
        assert!(answers[0].is_ok());
        judged
    }

    /// Does the history sink's work for all that was accepted; answers them in order.
    pub(crate) async fn store_all(&self) -> Vec<Judged> {
        let all: Vec<Judged> = self
            .accepted()
            .await
            .into_iter()
            .map(|(source, message)| judged(source, message))
            .collect();
        for partition in 0..PARTITIONS {
            let rows: Vec<Judged> = all
                .iter()
                .filter(|row| row.source.partition == partition)
                .cloned()
                .collect();
            self.store.write(partition, &rows).await.unwrap();
        }
        all
    }

    /// The value of a counter, a gauge, or the count of a histogram; all labels together.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        self.labelled(name, None)
    }

    pub(crate) fn labelled(&self, name: &str, label: Option<&str>) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.map(|family| family.get_metric()).unwrap_or_default();
        metrics
            .iter()
            .filter(|metric| {
                label.is_none_or(|label| metric.get_label().iter().any(|its| its.value() == label))
            })
            .map(|metric| {
                metric.get_counter().get_value()
                    + metric.get_gauge().get_value()
                    + metric.get_histogram().get_sample_count() as f64
            })
            .sum()
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) async fn ask(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Answer {
        status: parts.status,
        headers: parts.headers,
        json: serde_json::from_slice(&bytes).unwrap_or_default(),
        bytes,
    }
}

async fn broker(folder: &TempDir, listen: SocketAddr) -> (Broker, SocketAddr) {
    let config = weir_broker::Config::new(listen, folder.path().join("broker"));
    let broker = Broker::start(config, &Registry::new()).await.unwrap();
    let address = broker.address();
    (broker, address)
}

async fn ingest(
    setup: &Setup,
    bus: &weir_bus::Config,
    producer: &Producer,
    store: &Arc<Store>,
    registry: &Registry,
    stop: &CancellationToken,
) -> Ingest {
    let history: Arc<dyn History> = Arc::clone(store) as _;
    let on = Backends {
        bus: bus.clone(),
        producer: producer.clone(),
        history,
        alone: setup.alone,
    };
    Ingest::start(setup.ingest.clone(), on, registry, stop.clone())
        .await
        .unwrap()
}

/// A verdict that follows from its message.
pub(crate) fn judged(source: Source, message: Message) -> Judged {
    Judged {
        verdict: Verdict {
            action: Action::Flag,
            reasons: vec![Reason {
                attribute: Attribute::Insult,
                score: 0.75,
                threshold: 0.5,
            }],
            scores: Scores([0.5, 0.0, 0.75, 0.0, 0.0, 0.25]),
            sentiment: Sentiment::from_probabilities([0.75, 0.25, 0.0]),
            language: "en".to_owned(),
            spans: Vec::new(),
            model: "test".to_owned(),
            judged_at: Timestamp::from_microsecond(Timestamp::now().as_microsecond()).unwrap(),
        },
        message,
        source,
    }
}

/// Tries again until it holds; a test that waits in vain is stopped after a minute.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let tries = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(60), tries).await;
    assert!(done.is_ok(), "never: {what}");
}

static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Every log line of this process so far.
pub(crate) fn log() -> String {
    String::from_utf8_lossy(&LOG.lock().unwrap()).into_owned()
}

fn capture_logs() {
    struct Captured;

    impl std::io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            LOG.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(|| Captured)
            .init();
    });
}
