//! `POST /v1/score`, through the real router and accounts.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use prometheus::Registry;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;
use weir_auth::{Auth, Scope};
use weir_store::{Accounts, embedded};

use crate::judge;

struct Door {
    router: Router,
    auth: Auth,
    _data: TempDir,
}

impl Door {
    fn open() -> Self {
        let data = tempfile::tempdir().unwrap();
        let store = embedded::Store::open(&data.path().join("store")).unwrap();
        let accounts: Arc<dyn Accounts> = store;
        let auth = Auth::open(
            weir_auth::Config::default(),
            &data.path().join("secrets"),
            accounts,
            &Registry::new(),
        )
        .unwrap();
        let (router, _) = weir_processors::router(judge(), auth.clone()).split_for_parts();
        Self {
            router,
            auth,
            _data: data,
        }
    }

    async fn key(&self, scope: Scope) -> String {
        let (_, secret) = self
            .auth
            .create_key("acme", "test", BTreeSet::from([scope]), None)
            .await
            .unwrap();
        secret.expose_secret().to_owned()
    }

    async fn post(&self, key: &str, body: impl Into<Body>) -> (StatusCode, Value) {
        let request = Request::post("/v1/score")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {key}"))
            .body(body.into())
            .unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn score(&self, key: &str, body: Value) -> (StatusCode, Value) {
        self.post(key, body.to_string()).await
    }
}

#[tokio::test]
async fn texts_come_back_with_verdicts_in_their_order() {
    let door = Door::open();
    let texts = json!({"texts": ["the bus leaves at nine", "  you are a complete idiot and everybody hates you  "]});
    for scope in [Scope::Ingest, Scope::Read] {
        let (status, answer) = door.score(&door.key(scope).await, texts.clone()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let verdicts = answer["verdicts"].as_array().unwrap();
        assert_eq!(verdicts.len(), 2);
        assert_eq!(verdicts[0]["action"], "allow");
        assert_ne!(verdicts[1]["action"], "allow");
        assert!(verdicts[1]["scores"]["identity_attack"].is_number());
        assert!(verdicts[1]["sentiment"]["label"].is_string());
        assert!(verdicts[1]["judged_at"].is_string());
    }
}

#[tokio::test]
async fn callers_without_the_scope_are_turned_away() {
    let door = Door::open();
    let (status, problem) = door.score("weir_x_y", json!({"texts": ["a"]})).await;
    assert_eq!(
        (status, &problem["code"]),
        (StatusCode::UNAUTHORIZED, &json!("unauthorized"))
    );
    let (status, problem) = door
        .score(&door.key(Scope::Sql).await, json!({"texts": ["a"]}))
        .await;
    assert_eq!(
        (status, &problem["code"]),
        (StatusCode::FORBIDDEN, &json!("forbidden"))
    );
}

#[tokio::test]
async fn what_is_not_taken_is_named() {
    let door = Door::open();
    let key = door.key(Scope::Ingest).await;
    let long = "x".repeat(8_193);
    let many: Vec<&str> = vec!["a"; 101];
    for (body, status, code, field) in [
        (json!({"texts": []}), 400, "invalid_field", "texts"),
        (json!({"texts": many}), 400, "invalid_field", "texts"),
        (
            json!({"texts": ["a", "  "]}),
            400,
            "invalid_field",
            "texts[1]",
        ),
        (json!({"texts": ["a", long]}), 413, "too_large", "texts[1]"),
        (
            json!({"texts": ["a"], "text": "b"}),
            400,
            "unknown_field",
            "text",
        ),
        (json!({"texts": [7]}), 400, "invalid_field", "texts[0]"),
    ] {
        let (found, problem) = door.score(&key, body).await;
        assert_eq!(found.as_u16(), status, "{problem}");
        assert_eq!(
            (&problem["code"], &problem["field"]),
            (&json!(code), &json!(field))
        );
    }
    let (status, problem) = door.post(&key, "{\"texts\": [\"a\"").await;
    assert_eq!(
        (status, &problem["code"]),
        (StatusCode::BAD_REQUEST, &json!("invalid_json"))
    );
    let (status, problem) = door.post(&key, b"{\"texts\": [\"\xff\"]}".to_vec()).await;
    assert_eq!(
        (status, &problem["code"]),
        (StatusCode::BAD_REQUEST, &json!("not_utf8"))
    );
    let (status, _) = door.post(&key, vec![b' '; 3 << 20]).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn exactly_what_is_allowed_is_taken() {
    let door = Door::open();
    let texts: Vec<String> = (0..100).map(|n| format!("text number {n}")).collect();
    let (status, answer) = door
        .score(&door.key(Scope::Ingest).await, json!({"texts": texts}))
        .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["verdicts"].as_array().unwrap().len(), 100);
    let (status, _) = door
        .score(
            &door.key(Scope::Ingest).await,
            json!({"texts": ["x".repeat(8_192)]}),
        )
        .await;
    assert_eq!(status, StatusCode::OK);
}
