//! Pages of history.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::Weir;

async fn pages(weir: &Weir, key: &str, path: &str, limit: usize) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut cursor = String::new();
    loop {
        let answer = weir
            .get(&format!("{path}?limit={limit}{cursor}"), key)
            .await;
        assert_eq!(answer.status, StatusCode::OK);
        let messages = answer.json["messages"].as_array().unwrap();
        assert!(messages.iter().all(|message| message["status"] == "judged"));
        pages.push(
            messages
                .iter()
                .map(|message| message["id"].as_str().unwrap().to_owned())
                .collect(),
        );
        match answer.json["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return pages,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_every_message_once_newest_first() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    for n in 0..25 {
        let channel = if n % 5 == 0 { "other" } else { "a b/ü" };
        let message =
            json!({"channel": channel, "text": "t", "sender": "ann", "id": format!("m-{n}")});
        assert_eq!(weir.send(&key, message).await.status, StatusCode::ACCEPTED);
    }
    weir.store_all().await;
    let path = "/v1/channels/a%20b%2F%C3%BC/messages";
    let expected: Vec<String> = (0..25)
        .rev()
        .filter(|n| n % 5 != 0)
        .map(|n| format!("m-{n}"))
        .collect();
    let found = pages(&weir, &key, path, 7).await;
    assert_eq!(found.concat(), expected);
    assert_eq!(found[0].len(), 7);
    let answer = weir.get(path, &key).await;
    assert_eq!(answer.json["messages"].as_array().unwrap().len(), 20);
    assert_eq!(answer.json["next"], Value::Null);
    let all: Vec<String> = (0..25).rev().map(|n| format!("m-{n}")).collect();
    assert_eq!(
        pages(&weir, &key, "/v1/senders/ann/messages", 10)
            .await
            .concat(),
        all
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_parameter_is_named() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    for n in 0..3 {
        weir.send(
            &key,
            json!({"channel": format!("c{}", n % 2), "text": "t", "id": format!("m-{n}")}),
        )
        .await;
    }
    weir.store_all().await;
    let next = weir
        .get("/v1/channels/c0/messages?limit=1", &key)
        .await
        .json["next"]
        .as_str()
        .unwrap()
        .to_owned();
    for (path, code, field) in [
        (
            "/v1/channels/c0/messages?limit=0".to_owned(),
            "invalid_field",
            "limit",
        ),
        (
            "/v1/channels/c0/messages?limit=201".to_owned(),
            "invalid_field",
            "limit",
        ),
        (
            "/v1/channels/c0/messages?cursor=x".to_owned(),
            "invalid_field",
            "cursor",
        ),
        (
            format!("/v1/channels/c1/messages?cursor={next}"),
            "invalid_field",
            "cursor",
        ),
        (
            format!("/v1/senders/c0/messages?cursor={next}"),
            "invalid_field",
            "cursor",
        ),
        (
            "/v1/senders/ann/messages?page=2".to_owned(),
            "unknown_field",
            "page",
        ),
    ] {
        let answer = weir.get(&path, &key).await;
        assert_eq!(
            (answer.code(), answer.field()),
            (code, Some(field)),
            "{path}"
        );
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    }
}
