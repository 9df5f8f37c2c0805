//! Where dead letters are dealt with, as the tests ask it, and letters to deal with.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use prometheus::Registry;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;
use weir_auth::{Auth, Scope};
use weir_bus::Outgoing;
use weir_processors::Judge;
use weir_processors::dead::{Letters, router};
use weir_records::{DeadLetter, Judged, Message, Source, topic};
use weir_store::{Accounts, History, embedded};

use crate::bench::{Bench, metric};
use crate::judge;

const PATH: &str = "/v1/admin/dead-letters";
pub(crate) const REPLAYED: &str = "weir_dead_letters_replayed_total";
pub(crate) const DISCARDED: &str = "weir_dead_letters_discarded_total";

/// The routes over a bench, with accounts of their own.
pub(crate) struct Desk {
    router: Router,
    auth: Auth,
    registry: Registry,
    pub(crate) key: String,
    _data: TempDir,
}

impl Desk {
    pub(crate) async fn open(bench: &Bench, judge: Judge) -> Self {
        let data = tempfile::tempdir().unwrap();
        let accounts: Arc<dyn Accounts> =
            embedded::Store::open(&data.path().join("store")).unwrap();
        let secrets = data.path().join("secrets");
        let config = weir_auth::Config::default();
        let auth = Auth::open(config, &secrets, accounts, &Registry::new()).unwrap();
        let registry = Registry::new();
        let history: Arc<dyn History> = Arc::clone(&bench.store) as _;
        let letters = Letters::new(
            judge,
            bench.producer.clone(),
            history,
            bench.bus.clone(),
            &registry,
        )
        .unwrap();
        let mut desk = Self {
            router: router(letters, auth.clone()).split_for_parts().0,
            auth,
            registry,
            key: String::new(),
            _data: data,
        };
        desk.key = desk.key_of("default", Scope::Admin).await;
        desk
    }

    pub(crate) async fn key_of(&self, tenant: &str, scope: Scope) -> String {
        let made = self
            .auth
            .create_key(tenant, "test", BTreeSet::from([scope]), None);
        made.await.unwrap().1.expose_secret().to_owned()
    }

    pub(crate) async fn call(
        &self,
        key: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let request = Request::builder()
            .method(method)
            .uri(format!("{PATH}{path}"))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {key}"))
            .body(body.map_or_else(Body::empty, |body| Body::from(body.to_string())))
            .unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.call(&self.key, "GET", path, None).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    }

    /// `(reason, state)` of each letter that a query lists.
    pub(crate) async fn listed(&self, query: &str) -> Vec<(String, String)> {
        let page = self.get(query).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let letters = page["letters"].as_array().unwrap().iter();
        letters
            .map(|letter| (text(&letter["reason"]), text(&letter["state"])))
            .collect()
    }

    /// The id of the only letter with that reason.
    pub(crate) async fn id(&self, reason: &str) -> String {
        let page = self.get(&format!("?state=all&reason={reason}")).await;
        assert_eq!(page["letters"].as_array().unwrap().len(), 1, "{page}");
        page["letters"][0]["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn replay(&self, id: &str, dry_run: bool) -> Value {
        let path = format!("/{id}/replay");
        let how = json!({ "dry_run": dry_run });
        let (status, answer) = self.call(&self.key, "POST", &path, Some(how)).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    }

    pub(crate) async fn discard(&self, id: &str) -> Value {
        let path = format!("/{id}/discard");
        let (status, answer) = self.call(&self.key, "POST", &path, None).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    }

    pub(crate) fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        if families.iter().any(|family| family.name() == name) {
            metric(&self.registry, name)
        } else {
            // No label has been seen yet.
            0.0
        }
    }
}

/// A letter of the stage `process`, as the worker writes them.
pub(crate) fn letter(reason: &str, offset: i64, payload: Vec<u8>) -> DeadLetter {
    DeadLetter {
        stage: "process".to_owned(),
        reason: reason.to_owned(),
        topic: topic::MESSAGES.to_owned(),
        source: Source {
            partition: 0,
            offset,
        },
        key: Bytes::from(topic::key("acme", "lobby")),
        payload: Bytes::from(payload),
        failed_at: Timestamp::from_microsecond(Timestamp::now().as_microsecond()).unwrap(),
        resolution: None,
    }
}

/// A letter of a stage that reads `weir.verdicts`.
pub(crate) fn verdict_letter(
    stage: &str,
    reason: &str,
    offset: i64,
    payload: Vec<u8>,
) -> DeadLetter {
    DeadLetter {
        stage: stage.to_owned(),
        topic: topic::VERDICTS.to_owned(),
        ..letter(reason, offset, payload)
    }
}

pub(crate) async fn write(bench: &Bench, letters: &[DeadLetter]) {
    let records = letters.iter().map(|letter| Outgoing {
        topic: topic::DEAD,
        partition: None,
        key: letter.key.to_vec(),
        payload: letter.clone().encode(),
    });
    let written = bench.producer.send(records.collect()).unwrap().await;
    assert!(written.iter().all(Result::is_ok));
}

pub(crate) async fn judged(message: Message, offset: i64) -> Judged {
    let verdict = judge().judge(&[&message.text]).await.remove(0).unwrap();
    Judged {
        message,
        verdict,
        source: Source {
            partition: 0,
            offset,
        },
    }
}

pub(crate) async fn sent(bench: &Bench) -> usize {
    let mut records = 0;
    for partition in 0..bench.bus.partitions {
        records += bench.records(topic::MESSAGES, partition).await.len();
    }
    records
}

pub(crate) fn open(reasons: &[&str]) -> Vec<(String, String)> {
    let open = |reason: &&str| ((*reason).to_owned(), "open".to_owned());
    reasons.iter().map(open).collect()
}
