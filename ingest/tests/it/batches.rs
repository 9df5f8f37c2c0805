//! Batches: each message has its own result, in order.

use axum::http::{Request, StatusCode, header};
use serde_json::{Value, json};
use weir_auth::Scope;

use crate::support::{Setup, Weir};

fn message(n: usize) -> Value {
    json!({"channel": format!("c{}", n % 5), "text": format!("text {n}"), "id": format!("m-{n}")})
}

fn array(count: usize) -> String {
    Value::from((0..count).map(message).collect::<Vec<_>>()).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_messages_are_accepted_in_order_and_one_more_is_too_many() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    let answer = weir.batch(&key, array(1_001)).await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::PAYLOAD_TOO_LARGE, "too_large")
    );
    assert!(weir.accepted().await.is_empty(), "none of them");
    let answer = weir.batch(&key, array(1_000)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let results = answer.json["results"].as_array().unwrap();
    for (n, result) in results.iter().enumerate() {
        assert_eq!(
            *result,
            json!({"id": format!("m-{n}"), "status": "accepted"})
        );
    }
    assert_eq!((results.len(), weir.accepted().await.len()), (1_000, 1_000));
    assert_eq!(weir.metric("weir_messages_accepted_total"), 1_000.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_messages_cost_no_other() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    let mut body = br#"[{"channel":"c","text":"first"},"#.to_vec();
    for bad in [
        &br#"{"channel":"c"}"#[..],
        br#"{"channel":"c","text":7}"#,
        br#"{"channel":"c","text":"t","colour":"red"}"#,
        br#"{"channel":"c","text":"  "}"#,
        b"{\"channel\":\"c\",\"text\":\"\xff\"}",
        br#"{"channel":"c","text":}"#,
        br#"{"channel":"c","text":"t","id":"a b"}"#,
        br#"{"channel":"c","text":"t","sent_at":"1999-01-01T00:00:00Z","id":"old"}"#,
        b"7",
    ] {
        body.extend_from_slice(bad);
        body.push(b',');
    }
    body.extend_from_slice(br#"{"channel":"c","text":"last","id":"last"}]"#);
    let answer = weir.batch(&key, body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let results = answer.json["results"].as_array().unwrap();
    assert_eq!(
        (&results[0]["status"], &results[10]),
        (
            &json!("accepted"),
            &json!({"id": "last", "status": "accepted"})
        )
    );
    let found: Vec<(u64, &str, Option<&str>)> = results[1..10]
        .iter()
        .map(|result| {
            assert_eq!(result["status"], "rejected");
            let problem = &result["problem"];
            assert!(!problem["detail"].as_str().unwrap().is_empty());
            let (index, code) = (
                result["index"].as_u64().unwrap(),
                problem["code"].as_str().unwrap(),
            );
            (index, code, problem["field"].as_str())
        })
        .collect();
    assert_eq!(
        found,
        [
            (1, "invalid_field", Some("text")),
            (2, "invalid_field", Some("text")),
            (3, "unknown_field", Some("colour")),
            (4, "invalid_field", Some("text")),
            (5, "not_utf8", None),
            (6, "invalid_json", None),
            (7, "invalid_field", Some("id")),
            (8, "invalid_field", Some("sent_at")),
            (9, "invalid_field", None),
        ]
    );
    let texts: Vec<String> = weir
        .accepted()
        .await
        .into_iter()
        .map(|(_, message)| message.text)
        .collect();
    assert_eq!(texts, ["first", "last"]);
    assert_eq!(weir.metric("weir_messages_refused_total"), 9.0);
    assert_eq!(
        weir.labelled("weir_messages_refused_total", Some("not_utf8")),
        1.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_without_a_usable_message_answers_the_first_problem_and_all_results() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    let long = "x".repeat(8_193);
    let answer = weir
        .batch(
            &key,
            json!([{"channel": "c", "text": long}, {"channel": "c"}]).to_string(),
        )
        .await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::PAYLOAD_TOO_LARGE, "too_large")
    );
    assert_eq!(answer.field(), Some("[0].text"));
    assert_eq!(
        answer.headers[header::CONTENT_TYPE],
        "application/problem+json"
    );
    assert_eq!(answer.statuses(), ["rejected", "rejected"]);
    assert_eq!(answer.json["results"][1]["problem"]["field"], "text");
}

#[tokio::test(flavor = "multi_thread")]
async fn ndjson_is_known_by_its_type_and_by_its_first_character() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    let body = format!("{}\r\n\n{}\nno json\n", message(1), message(2));
    let answer = weir.batch(&key, body.clone()).await;
    assert_eq!(answer.statuses(), ["accepted", "accepted", "rejected"]);
    let request = Request::post("/v1/messages/batch")
        .header(header::AUTHORIZATION, format!("Bearer {key}"))
        .header(header::CONTENT_TYPE, "application/x-ndjson")
        .body(format!("no json\n{}\n{}", message(3), message(4)).into())
        .unwrap();
    let answer = weir.request(request).await;
    assert_eq!(answer.statuses(), ["rejected", "accepted", "accepted"]);
    assert_eq!(weir.accepted().await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_mebibytes_are_taken_and_one_byte_more_is_not() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    let full =
        |id: usize| json!({"channel": "c", "text": "é".repeat(4_096), "id": format!("m-{id}")});
    let mut body = Value::from((0..900).map(full).collect::<Vec<_>>()).to_string();
    body.extend(std::iter::repeat_n(' ', (8 << 20) - body.len()));
    let answer = weir.batch(&key, format!("{body} ")).await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::PAYLOAD_TOO_LARGE, "too_large")
    );
    assert!(weir.accepted().await.is_empty());
    let answer = weir.batch(&key, body).await;
    assert_eq!(
        (answer.status, answer.statuses().len()),
        (StatusCode::ACCEPTED, 900)
    );
    assert_eq!(weir.accepted().await.len(), 900);
    assert_eq!(weir.metric("weir_bodies_bytes"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_batch_is_refused_as_a_whole() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    for (body, code) in [
        ("", "invalid_field"),
        ("[]", "invalid_field"),
        ("true", "invalid_json"),
        ("\"text\"", "invalid_json"),
        ("[{\"channel\":\"c\",\"text\":\"t\"}", "invalid_json"),
        ("[{\"channel\":\"c\",\"text\":\"t\"}]]", "invalid_json"),
    ] {
        let answer = weir.batch(&key, body).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::BAD_REQUEST, code),
            "{body}"
        );
        assert!(answer.json.get("results").is_none());
    }
    assert!(weir.accepted().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_of_a_batch_counts_against_the_limit() {
    let auth = weir_auth::Config {
        caller_per_second: 1,
        caller_burst: 10,
        ..weir_auth::Config::default()
    };
    let weir = Weir::with(Setup {
        auth,
        ..Setup::default()
    })
    .await;
    let key = weir.key("acme", &[Scope::Ingest]).await;
    let answer = weir.batch(&key, array(10)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let other = weir.key("acme", &[Scope::Ingest]).await;
    let answer = weir.batch(&other, array(11)).await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::TOO_MANY_REQUESTS, "rate_limited")
    );
    assert_eq!(weir.accepted().await.len(), 10);
}
