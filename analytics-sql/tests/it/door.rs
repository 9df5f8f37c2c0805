//! `POST /v1/sql` as a client meets it: every format, every refusal.

use std::collections::BTreeSet;

use arrow::ipc::reader::StreamReader;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use prometheus::Registry;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;
use weir_analytics_sql::{Config, Engine, router};
use weir_auth::{Auth, Scope};
use weir_store::embedded::Store;

use crate::support::{Lake, config, judged, offer, open, query, rows};

struct Door {
    _folder: TempDir,
    engine: Engine,
    auth: Auth,
    router: Router,
}

impl Door {
    async fn open(config: Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = open(config).await;
        let accounts = Store::open(&folder.path().join("store")).unwrap();
        let auth = Auth::open(
            weir_auth::Config::default(),
            &folder.path().join("secrets"),
            accounts,
            &Registry::new(),
        )
        .unwrap();
        let (router, _) = router(engine.clone(), auth.clone()).split_for_parts();
        Self {
            _folder: folder,
            engine,
            auth,
            router,
        }
    }

    async fn key(&self, tenant: &str, scope: Scope) -> String {
        let (_, secret) = self
            .auth
            .create_key(tenant, "test", BTreeSet::from([scope]), None)
            .await
            .unwrap();
        secret.expose_secret().to_owned()
    }

    async fn send(
        &self,
        key: &str,
        kind: &str,
        accept: &str,
        body: impl Into<Body>,
    ) -> Response<Body> {
        let mut request =
            Request::post("/v1/sql").header(header::AUTHORIZATION, format!("Bearer {key}"));
        if !kind.is_empty() {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        if !accept.is_empty() {
            request = request.header(header::ACCEPT, accept);
        }
        self.router
            .clone()
            .oneshot(request.body(body.into()).unwrap())
            .await
            .unwrap()
    }

    async fn json(&self, key: &str, body: Value) -> (StatusCode, Value) {
        let response = self
            .send(key, "application/json", "", body.to_string())
            .await;
        let status = response.status();
        (
            status,
            serde_json::from_slice(&bytes(response).await).unwrap(),
        )
    }
}

async fn bytes(response: Response<Body>) -> Vec<u8> {
    response
        .into_body()
        .collect()
        .await
        .unwrap()
        .to_bytes()
        .to_vec()
}

fn media_type(response: &Response<Body>) -> &str {
    response.headers()[header::CONTENT_TYPE].to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn json_has_columns_rows_and_counts() {
    let lake = Lake::new();
    let door = Door::open(config(&lake)).await;
    let key = door.key("a", Scope::Sql).await;
    offer(&door.engine, vec![judged("a", 0, 0, "say \"hi\"\n🦀")]).await;

    let sql = "SELECT text, sender, received_at, date, insult, \"offset\", insult > 0.5 AS bad, 'NaN'::double AS nan, \
               [1, 2] AS list, named_struct('x', 1) AS struct FROM messages";
    let (status, answer) = door.json(&key, json!({"query": sql})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(
        answer["columns"],
        json!([
            {"name": "text", "type": "string"},
            {"name": "sender", "type": "string"},
            {"name": "received_at", "type": "timestamp"},
            {"name": "date", "type": "date"},
            {"name": "insult", "type": "float32"},
            {"name": "offset", "type": "int64"},
            {"name": "bad", "type": "boolean"},
            {"name": "nan", "type": "float64"},
            {"name": "list", "type": answer["columns"][8]["type"]},
            {"name": "struct", "type": answer["columns"][9]["type"]},
        ])
    );
    let row = json!([
        "say \"hi\"\n🦀", null, "2026-09-21T14:13:20Z", "2026-09-21", 0.93, 0, true, null, [1, 2], {"x": 1}
    ]);
    assert_eq!(answer["rows"], json!([row]));
    assert_eq!(answer["row_count"], json!(1));
    assert_eq!(answer["truncated"], json!(false));
    assert!(answer["elapsed_ms"].as_f64().unwrap() > 0.0);

    offer(&door.engine, rows("a", 1, 0..20_000)).await;
    let ordered = "SELECT \"offset\" FROM messages WHERE partition = 1 ORDER BY \"offset\"";
    let (_, answer) = door.json(&key, json!({"query": ordered})).await;
    assert_eq!(answer["row_count"], json!(20_000));
    let wanted: Vec<Value> = (0..20_000).map(|n| json!([n])).collect();
    assert_eq!(
        answer["rows"].as_array(),
        Some(&wanted),
        "rows over many batches stay in order"
    );

    let (_, answer) = door.json(&key, json!({"query": ordered, "limit": 3})).await;
    assert_eq!(answer["rows"], json!([[0], [1], [2]]));
    assert_eq!(
        (&answer["row_count"], &answer["truncated"]),
        (&json!(3), &json!(true))
    );

    let (_, answer) = door
        .json(
            &key,
            json!({"query": "SELECT text FROM messages WHERE false"}),
        )
        .await;
    assert_eq!(answer["rows"], json!([]));
    assert_eq!(
        (&answer["columns"][0]["name"], &answer["row_count"]),
        (&json!("text"), &json!(0))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_and_arrow_carry_the_same_rows() {
    let lake = Lake::new();
    let door = Door::open(config(&lake)).await;
    let key = door.key("a", Scope::Sql).await;
    offer(
        &door.engine,
        vec![judged("a", 0, 0, "a, \"b\"\nc"), judged("a", 0, 1, "d")],
    )
    .await;
    let sql = "SELECT text, sender, received_at, insult FROM messages ORDER BY \"offset\"";

    let response = door.send(&key, "application/sql", "text/csv", sql).await;
    assert!(media_type(&response).starts_with("text/csv"));
    assert_eq!(
        String::from_utf8(bytes(response).await).unwrap(),
        "text,sender,received_at,insult\n\"a, \"\"b\"\"\nc\",,2026-09-21T14:13:20Z,0.93\n\
         d,sender-1,2026-09-21T14:13:21Z,0.93\n"
    );
    let none = door
        .send(
            &key,
            "text/plain",
            "text/csv",
            "SELECT text FROM messages WHERE false",
        )
        .await;
    assert_eq!(bytes(none).await, b"text\n");
    let nested = door
        .send(&key, "text/plain", "text/csv", "SELECT [1, 2] AS pair")
        .await;
    assert_eq!(nested.status(), StatusCode::BAD_REQUEST);

    let arrow = "application/vnd.apache.arrow.stream";
    for (sql, rows) in [(sql, 2), ("SELECT text FROM messages WHERE false", 0)] {
        let response = door
            .send(&key, "text/plain; charset=utf-8", arrow, sql)
            .await;
        assert_eq!(media_type(&response), arrow);
        let body = bytes(response).await;
        let reader = StreamReader::try_new(body.as_slice(), None).unwrap();
        assert_eq!(reader.schema().field(0).name(), "text");
        let total: usize = reader.map(|batch| batch.unwrap().num_rows()).sum();
        assert_eq!(total, rows);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_after_the_answer_has_begun_breaks_it_off() {
    let lake = Lake::new();
    let door = Door::open(config(&lake)).await;
    let key = door.key("a", Scope::Sql).await;
    let failing = "SELECT value, 10 / (900000 - value) FROM generate_series(1, 1000000)";
    for accept in [
        "application/json",
        "text/csv",
        "application/vnd.apache.arrow.stream",
    ] {
        let response = door.send(&key, "text/plain", accept, failing).await;
        assert_eq!(response.status(), StatusCode::OK, "{accept}: it had begun");
        assert!(
            response.into_body().collect().await.is_err(),
            "{accept}: a part looked whole"
        );
    }
    // One that fails at once is a problem document.
    let soon = "SELECT 10 / (5 - value) FROM generate_series(1, 10)";
    let response = door.send(&key, "text/plain", "text/csv", soon).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(media_type(&response), "application/problem+json");
    // And a large one that goes well arrives whole.
    let large = "SELECT value FROM generate_series(1, 900000)";
    let response = door.send(&key, "text/plain", "text/csv", large).await;
    let body = String::from_utf8(bytes(response).await).unwrap();
    assert_eq!(body.lines().count(), 900_001);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_wrong_say_how() {
    let lake = Lake::new();
    let door = Door::open(config(&lake)).await;
    let key = door.key("a", Scope::Sql).await;

    let (status, problem) = door
        .json(&key, json!({"query": "SELECT chanel\nFROM messages"}))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(problem["code"], json!("query_invalid"));
    assert_eq!(problem["position"], json!({"line": 1, "column": 8}));
    assert_eq!(problem["field"], json!("query"));
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("did you mean `channel`?"), "{detail}");
    assert!(detail.ends_with("SELECT chanel\n       ^"), "{detail}");

    for (body, status, code, field) in [
        (
            json!({"query": "SELECT 1", "limt": 1}),
            400,
            "unknown_field",
            "limt",
        ),
        (json!({"query": 1}), 400, "invalid_field", "query"),
        (json!({}), 400, "invalid_field", "query"),
        (
            json!({"query": "SELECT 1", "limit": 0}),
            400,
            "invalid_field",
            "limit",
        ),
        (
            json!({"query": "SELECT 1", "limit": -1}),
            400,
            "invalid_field",
            "limit",
        ),
        (
            json!({"query": "DROP TABLE messages"}),
            400,
            "query_invalid",
            "query",
        ),
    ] {
        let (found, problem) = door.json(&key, body.clone()).await;
        assert_eq!(found.as_u16(), status, "{body}: {problem}");
        assert_eq!(
            (&problem["code"], &problem["field"]),
            (&json!(code), &json!(field)),
            "{body}"
        );
    }
    for (kind, accept, body, status) in [
        ("application/json", "", b"{".to_vec(), 400),
        ("text/plain", "", vec![b'\'', 0xff], 400),
        ("application/xml", "", b"<a/>".to_vec(), 415),
        ("text/plain", "image/png", b"SELECT 1".to_vec(), 406),
        ("text/plain", "", vec![b'x'; 1 << 20], 413),
        (
            "text/plain",
            "",
            format!("SELECT '{}'", "x".repeat(70_000)).into_bytes(),
            422,
        ),
    ] {
        let response = door.send(&key, kind, accept, body).await;
        assert_eq!(response.status().as_u16(), status, "{kind} {accept}");
        assert_eq!(media_type(&response), "application/problem+json");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_scope_sql_opens_it_and_only_for_its_tenant() {
    let lake = Lake::new();
    let door = Door::open(config(&lake)).await;
    offer(&door.engine, rows("a", 0, 0..7)).await;
    offer(&door.engine, rows("b", 1, 0..5)).await;
    let count = || json!({"query": "SELECT count(*) FROM messages"});
    for (tenant, rows) in [("a", 7), ("b", 5), ("c", 0)] {
        let key = door.key(tenant, Scope::Sql).await;
        let (_, answer) = door.json(&key, count()).await;
        assert_eq!(answer["rows"], json!([[rows]]), "{tenant}");
    }
    for scope in [Scope::Ingest, Scope::Read] {
        let (status, problem) = door.json(&door.key("a", scope).await, count()).await;
        assert_eq!(
            (status, &problem["code"]),
            (StatusCode::FORBIDDEN, &json!("forbidden"))
        );
    }
    let (status, _) = door.json("weir_no_key", count()).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_house_and_a_slow_query_are_told_apart() {
    let lake = Lake::new();
    let mut config = config(&lake);
    config.concurrent_queries = 1;
    config.timeout_seconds = 2;
    let door = Door::open(config).await;
    let key = door.key("a", Scope::Sql).await;
    let endless =
        "SELECT a.value FROM generate_series(1, 1000) a, generate_series(1, 1000000000) b";
    let held = door.engine.query(query("a", endless)).await.unwrap();
    let response = door.send(&key, "text/plain", "", "SELECT 1").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    drop(held);

    let counting =
        "SELECT count(*) FROM generate_series(1, 1000) a, generate_series(1, 1000000000) b";
    let status = loop {
        let response = door.send(&key, "text/plain", "", counting).await;
        if response.status() != StatusCode::SERVICE_UNAVAILABLE {
            break response.status();
        }
    };
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documentation_names_every_format() {
    let lake = Lake::new();
    let door = Door::open(config(&lake)).await;
    let (_, api) = router(door.engine.clone(), door.auth.clone()).split_for_parts();
    let api = serde_json::to_value(&api).unwrap();
    let post = &api["paths"]["/v1/sql"]["post"];
    let keys = |value: &Value| -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    let set = |all: &[&str]| -> BTreeSet<String> { all.iter().map(ToString::to_string).collect() };
    assert_eq!(
        keys(&post["responses"]["200"]["content"]),
        set(&[
            "application/json",
            "text/csv",
            "application/vnd.apache.arrow.stream"
        ])
    );
    assert_eq!(
        keys(&post["requestBody"]["content"]),
        set(&["application/json", "application/sql", "text/plain"])
    );
    assert!(api["components"]["schemas"]["SqlRequest"]["properties"]["query"].is_object());
}
