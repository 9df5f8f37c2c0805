//! The OpenAPI document says what the routes really do.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use serde_json::{Value, json};
use weir_ingest::door::schema::{Accepted, BatchResults, JudgedMessage, Messages};

use crate::support::Weir;

#[tokio::test(flavor = "multi_thread")]
async fn every_route_is_documented_with_its_refusals() {
    let weir = Weir::start().await;
    let document = serde_json::to_value(&weir.document).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let names: BTreeSet<&str> = paths.keys().map(String::as_str).collect();
    let expected = [
        "/v1/messages",
        "/v1/messages/batch",
        "/v1/messages/{id}",
        "/v1/channels/{channel}/messages",
        "/v1/senders/{sender}/messages",
    ];
    assert_eq!(names, BTreeSet::from(expected));
    for (path, operations) in paths {
        for operation in operations.as_object().unwrap().values() {
            assert!(operation["summary"].is_string(), "{path}");
            for status in ["401", "403", "429", "503"] {
                assert!(
                    operation["responses"][status].is_object(),
                    "{path} {status}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_work_and_the_answers_have_the_documented_shape() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    let document = serde_json::to_value(&weir.document).unwrap();
    let schemas = &document["components"]["schemas"];
    let example = schemas["NewMessage"]["example"].clone();
    let answer = weir.send(&key, example).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let accepted: Accepted = serde_json::from_slice(&answer.bytes).unwrap();
    let batch = &document["paths"]["/v1/messages/batch"]["post"]["requestBody"]["content"];
    let lines = batch["application/x-ndjson"]["example"]
        .as_str()
        .unwrap()
        .to_owned();
    let answer = weir.batch(&key, lines).await;
    let results: BatchResults = serde_json::from_slice(&answer.bytes).unwrap();
    assert_eq!(results.results.len(), 2);

    weir.store_all().await;
    let all = json!({"channel": "full", "text": "t", "sender": "s", "id": "m", "sent_at": jiff::Timestamp::now().as_millisecond(), "metadata": {}});
    weir.send(&key, all).await;
    let (source, message) = weir.accepted_as("acme", "m").await;
    weir.judge(source, message).await;
    let answer = weir.get("/v1/messages/m?wait=30", &key).await;
    let _: JudgedMessage = serde_json::from_slice(&answer.bytes).unwrap();
    let names = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(
        names(&answer.json),
        names(&schemas["JudgedMessage"]["properties"])
    );
    assert_eq!(
        names(&answer.json["verdict"]),
        names(&schemas["Verdict"]["properties"])
    );
    let answer = weir.get("/v1/channels/lobby/messages", &key).await;
    let messages: Messages = serde_json::from_slice(&answer.bytes).unwrap();
    assert!(
        messages
            .messages
            .iter()
            .any(|message| message.id == accepted.id)
    );
    assert_eq!(
        names(&answer.json),
        names(&schemas["Messages"]["properties"])
    );
}
