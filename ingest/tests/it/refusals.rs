//! Every refusal of a single message has its status, its code and its field.

use axum::http::{Request, StatusCode, header};
use serde_json::json;
use weir_ingest::Config;

use crate::support::{Setup, Weir};

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_has_its_status_its_code_and_its_field() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    let good = |field: &str, value: serde_json::Value| {
        let mut message = json!({"channel": "c", "text": "t"});
        message[field] = value;
        message.to_string()
    };
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(40), "]".repeat(40));
    for (body, status, code, field) in [
        (String::new(), 400, "invalid_json", None),
        ("{".to_owned(), 400, "invalid_json", None),
        ("{} {}".to_owned(), 400, "invalid_field", Some("channel")),
        ("[]".to_owned(), 400, "invalid_field", None),
        (
            json!([{"channel": "c", "text": "t"}]).to_string(),
            400,
            "invalid_field",
            None,
        ),
        (
            json!({"text": "t"}).to_string(),
            400,
            "invalid_field",
            Some("channel"),
        ),
        (
            json!({"channel": "c"}).to_string(),
            400,
            "invalid_field",
            Some("text"),
        ),
        (
            good("text", json!(null)),
            400,
            "invalid_field",
            Some("text"),
        ),
        (
            good("text", json!(["t"])),
            400,
            "invalid_field",
            Some("text"),
        ),
        (
            good("text", json!(" \n")),
            400,
            "invalid_field",
            Some("text"),
        ),
        (
            good("text", json!("a\u{0}")),
            400,
            "invalid_field",
            Some("text"),
        ),
        (
            good("text", json!("x".repeat(8_193))),
            413,
            "too_large",
            Some("text"),
        ),
        (
            good("channel", json!(7)),
            400,
            "invalid_field",
            Some("channel"),
        ),
        (
            good("channel", json!("")),
            400,
            "invalid_field",
            Some("channel"),
        ),
        (
            good("channel", json!("c".repeat(129))),
            400,
            "invalid_field",
            Some("channel"),
        ),
        (
            good("channel", json!("c\n")),
            400,
            "invalid_field",
            Some("channel"),
        ),
        (
            good("sender", json!("")),
            400,
            "invalid_field",
            Some("sender"),
        ),
        (
            good("sender", json!({"name": "ann"})),
            400,
            "invalid_field",
            Some("sender"),
        ),
        (good("id", json!("a/b")), 400, "invalid_field", Some("id")),
        (good("id", json!(7)), 400, "invalid_field", Some("id")),
        (
            good("sent_at", json!("soon")),
            400,
            "invalid_field",
            Some("sent_at"),
        ),
        (
            good("sent_at", json!(0)),
            400,
            "invalid_field",
            Some("sent_at"),
        ),
        (
            good("sent_at", json!("2999-01-01T00:00:00Z")),
            400,
            "invalid_field",
            Some("sent_at"),
        ),
        (
            good("metadata", json!("{}")),
            400,
            "invalid_field",
            Some("metadata"),
        ),
        (
            good("metadata", json!({"a": "x".repeat(4_096)})),
            413,
            "too_large",
            Some("metadata"),
        ),
        (
            format!(r#"{{"channel":"c","text":"t","metadata":{deep}}}"#),
            400,
            "invalid_field",
            Some("metadata"),
        ),
        (
            good("tenant", json!("other")),
            400,
            "unknown_field",
            Some("tenant"),
        ),
        (
            good("received_at", json!("2026-01-01T00:00:00Z")),
            400,
            "unknown_field",
            Some("received_at"),
        ),
        (
            r#"{"channel":"c","text":"t","text":"u"}"#.to_owned(),
            400,
            "invalid_field",
            Some("text"),
        ),
        (
            good("text", json!("x".repeat(65_536))),
            413,
            "too_large",
            None,
        ),
    ] {
        let answer = weir.call("POST", "/v1/messages", &key, body.clone()).await;
        let shown: String = body.chars().take(80).collect();
        assert_eq!(
            (answer.status.as_u16(), answer.code(), answer.field()),
            (status, code, field),
            "{shown}"
        );
        assert_eq!(
            answer.headers[header::CONTENT_TYPE],
            "application/problem+json"
        );
        assert_eq!(answer.json["status"], status, "{shown}");
    }
    let answer = weir
        .call(
            "POST",
            "/v1/messages",
            &key,
            &b"{\"channel\":\"c\",\"text\":\"\xc3\x28\"}"[..],
        )
        .await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::BAD_REQUEST, "not_utf8")
    );
    assert!(weir.accepted().await.is_empty());
    assert_eq!(weir.metric("weir_messages_accepted_total"), 0.0);
    assert_eq!(weir.metric("weir_messages_refused_total"), 31.0);
    assert_eq!(weir.metric("weir_bodies_bytes"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_body_is_refused_by_its_kind() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    let request = Request::post("/v1/messages")
        .header(header::AUTHORIZATION, format!("Bearer {key}"))
        .header(header::CONTENT_ENCODING, "gzip")
        .body(vec![0x1f, 0x8b].into())
        .unwrap();
    let answer = weir.request(request).await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limits_are_configuration() {
    let ingest = Config {
        text_bytes: 10,
        batch_messages: 2,
        metadata_bytes: 10,
        ..Config::default()
    };
    let weir = Weir::with(Setup {
        ingest,
        ..Setup::default()
    })
    .await;
    let key = weir.full_key("acme").await;
    let message = |text: &str| json!({"channel": "c", "text": text});
    assert_eq!(
        weir.send(&key, message("0123456789")).await.status,
        StatusCode::ACCEPTED
    );
    assert_eq!(
        weir.send(&key, message("0123456789a")).await.field(),
        Some("text")
    );
    let answer = weir
        .send(
            &key,
            json!({"channel": "c", "text": "t", "metadata": {"a": "bcde"}}),
        )
        .await;
    assert_eq!(answer.field(), Some("metadata"));
    let three = json!([message("a"), message("b"), message("c")]);
    assert_eq!(
        weir.batch(&key, three.to_string()).await.code(),
        "too_large"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_do_not_fit_into_memory_together_are_sent_away() {
    let ingest = Config {
        bodies_bytes: 1_000,
        batch_bytes: 1_000,
        message_bytes: 1_000,
        ..Config::default()
    };
    let weir = Weir::with(Setup {
        ingest,
        ..Setup::default()
    })
    .await;
    let key = weir.full_key("acme").await;
    // The first one sends 900 bytes and then takes its time.
    let (more, rest) = futures::channel::mpsc::unbounded();
    let piece = format!("{{\"channel\":\"c\",{}", " ".repeat(880));
    more.unbounded_send(Ok::<_, std::io::Error>(piece)).unwrap();
    let slow = Request::post("/v1/messages")
        .header(header::AUTHORIZATION, format!("Bearer {key}"))
        .body(axum::body::Body::from_stream(rest))
        .unwrap();
    let router = weir.router.clone();
    let slow = tokio::spawn(async move { crate::support::ask(&router, slow).await });
    crate::support::eventually("the first body is being read", || async {
        weir.metric("weir_bodies_bytes") > 800.0
    })
    .await;
    let second = json!({"channel": "c", "text": "x".repeat(200)});
    let answer = weir.send(&key, second.clone()).await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::SERVICE_UNAVAILABLE, "overloaded")
    );
    assert_eq!(answer.retry_after(), Some(1));
    more.unbounded_send(Ok("\"text\":\"t\"}".to_owned()))
        .unwrap();
    drop(more);
    assert_eq!(slow.await.unwrap().status, StatusCode::ACCEPTED);
    assert_eq!(weir.send(&key, second).await.status, StatusCode::ACCEPTED);
}
