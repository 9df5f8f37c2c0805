//! The account routes on a store in a folder of their own, and requests to them.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use prometheus::Registry;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;
use weir_auth::{Auth, Config, Error, Scope};
use weir_store::embedded::Store;

pub(crate) const PASSWORD: &str = "Correct-Horse-7";
const SOMEWHERE: &str = "192.0.2.1:40000";

pub(crate) struct App {
    pub(crate) auth: Auth,
    pub(crate) store: Arc<Store>,
    pub(crate) registry: Registry,
    pub(crate) router: Router,
    folder: TempDir,
}

/// Everything that the tests of this binary have logged, at every level.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

static LOGGING: LazyLock<()> = LazyLock::new(|| {
    let log = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(|| Log)
        .finish();
    tracing::subscriber::set_global_default(log).unwrap();
});

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What was logged so far, by every test.
pub(crate) fn logged() -> String {
    String::from_utf8(LOG.lock().unwrap().clone()).unwrap()
}

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: header::HeaderName) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Seconds of `Retry-After`, the same in header and body.
    pub(crate) fn retry_after(&self) -> u64 {
        let seconds = self
            .header(header::RETRY_AFTER)
            .parse()
            .expect("no Retry-After");
        assert_eq!(self.body["retry_after"], seconds);
        seconds
    }
}

impl App {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// Without address limits, which only some tests are about, unless `change` sets them.
    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        LazyLock::force(&LOGGING);
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let mut config = Config {
            address_per_minute: 0,
            ..Config::default()
        };
        change(&mut config);
        let registry = Registry::new();
        let auth = Auth::open(
            config,
            &folder.path().join("secrets"),
            store.clone(),
            &registry,
        )
        .unwrap();
        let (router, _) = weir_auth::door::router(auth.clone()).split_for_parts();
        Self {
            auth,
            store,
            registry,
            router,
            folder,
        }
    }

    pub(crate) fn secrets(&self) -> PathBuf {
        self.folder.path().join("secrets")
    }

    pub(crate) async fn send(&self, address: &str, mut request: Request<Body>) -> Answer {
        let address: SocketAddr = address.parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(address));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        if parts.status.as_u16() >= 400 {
            assert_eq!(
                parts.headers[header::CONTENT_TYPE],
                "application/problem+json"
            );
        }
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: serde_json::from_slice(&body).expect("the answer is not JSON"),
        }
    }

    pub(crate) async fn register_raw(&self, body: impl Into<Body>) -> Answer {
        self.send(SOMEWHERE, register_request(body)).await
    }

    /// The administrator of a first start: password and key.
    pub(crate) async fn first_admin(&self) -> (SecretString, SecretString) {
        let mut kept = None;
        let keep = |name: &str, password: &SecretString, key: &SecretString| {
            assert_eq!(name, "admin");
            kept = Some((password.clone(), key.clone()));
            Ok::<_, Error>(())
        };
        assert!(self.auth.ensure_admin("admin", keep).await.unwrap());
        kept.unwrap()
    }

    pub(crate) async fn register(&self, name: &str) -> Answer {
        let email = format!("{name}@example.org");
        let body = json!({"username": name, "email": email, "password": PASSWORD});
        self.register_raw(body.to_string()).await
    }

    pub(crate) async fn token(&self, name: &str, password: &str) -> Answer {
        self.token_from(SOMEWHERE, name, password).await
    }

    pub(crate) async fn token_from(&self, address: &str, name: &str, password: &str) -> Answer {
        self.send(
            address,
            token_request(&form(&[("username", name), ("password", password)])),
        )
        .await
    }

    /// A user and its token.
    pub(crate) async fn user(&self, name: &str) -> String {
        assert_eq!(self.register(name).await.status, StatusCode::CREATED);
        let answer = self.token(name, PASSWORD).await;
        answer.body["access_token"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn key(
        &self,
        tenant: &str,
        scopes: impl Into<BTreeSet<Scope>>,
    ) -> (String, String) {
        let (key, secret) = self
            .auth
            .create_key(tenant, "bot", scopes.into(), None)
            .await
            .unwrap();
        (key.id, secret.expose_secret().to_owned())
    }

    pub(crate) async fn me(&self, bearer: &str) -> Answer {
        self.me_from(SOMEWHERE, bearer).await
    }

    pub(crate) async fn me_from(&self, address: &str, bearer: &str) -> Answer {
        self.send(address, me_request(bearer)).await
    }

    /// The value of a counter with that label.
    pub(crate) fn counted(&self, name: &str, label: &str) -> u64 {
        let families = self.registry.gather();
        let family = families
            .iter()
            .find(|family| family.name() == name)
            .expect("no such metric");
        let metric = family
            .get_metric()
            .iter()
            .find(|metric| metric.get_label().iter().any(|pair| pair.value() == label));
        metric.map_or(0, |metric| metric.get_counter().get_value() as u64)
    }

    pub(crate) fn verifications(&self) -> u64 {
        self.counted("weir_auth_password_hashes_total", "verify")
    }
}

pub(crate) fn register_request(body: impl Into<Body>) -> Request<Body> {
    Request::post("/v1/register")
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into())
        .unwrap()
}

pub(crate) fn token_request(form: &str) -> Request<Body> {
    Request::post("/v1/token")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(form.to_owned()))
        .unwrap()
}

pub(crate) fn me_request(bearer: &str) -> Request<Body> {
    Request::get("/v1/me")
        .header(header::AUTHORIZATION, format!("Bearer {bearer}"))
        .body(Body::empty())
        .unwrap()
}

/// `application/x-www-form-urlencoded`, every byte but letters and digits escaped.
pub(crate) fn form(fields: &[(&str, &str)]) -> String {
    let escape = |text: &str| -> String {
        text.bytes()
            .map(|b| {
                if b.is_ascii_alphanumeric() {
                    char::from(b).to_string()
                } else {
                    format!("%{b:02X}")
                }
            })
            .collect()
    };
    let pairs: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{name}={}", escape(value)))
        .collect();
    pairs.join("&")
}
