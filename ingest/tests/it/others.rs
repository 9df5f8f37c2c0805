//! Several processes accept messages: what one has accepted the others know before it is
//! judged.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use serde_json::{Value, json};
use weir_records::Target;

use crate::erase::erase;
use crate::support::{Answer, Weir, ask, eventually};

async fn send(router: &Router, key: &str, message: Value) -> Answer {
    let request = Request::post("/v1/messages")
        .header(header::AUTHORIZATION, format!("Bearer {key}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(message.to_string()));
    ask(router, request.unwrap()).await
}

async fn get(router: &Router, key: &str, path: &str) -> Answer {
    let request = Request::get(format!("/v1/messages/{path}"))
        .header(header::AUTHORIZATION, format!("Bearer {key}"))
        .body(Body::empty());
    ask(router, request.unwrap()).await
}

fn message(channel: &str, text: &str) -> Value {
    json!({"channel": channel, "text": text, "id": "m"})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_process_accepted_another_one_knows_before_it_is_judged() {
    let weir = Weir::start().await;
    let (ours, key) = (weir.full_key("ours").await, weir.full_key("acme").await);
    let (another, _ingest) = weir.another().await;
    let accepted = weir.send(&key, message("c", "once")).await;
    assert_eq!(accepted.json["status"], "accepted");
    eventually("the other one knows it", || async {
        get(&another, &key, "m").await.status == StatusCode::OK
    })
    .await;
    let pending = json!({"id": "m", "status": "pending"});
    assert_eq!(get(&another, &key, "m").await.json, pending);
    let again = send(&another, &key, message("c", "once")).await;
    assert_eq!((again.status, again.json), (StatusCode::ACCEPTED, pending));
    for other in [message("c", "twice"), message("d", "once")] {
        let answer = send(&another, &key, other).await;
        assert_eq!(
            (answer.status, answer.code(), answer.field()),
            (StatusCode::CONFLICT, "conflict", Some("id"))
        );
    }
    assert_eq!(
        get(&another, &ours, "m").await.status,
        StatusCode::NOT_FOUND,
        "another tenant"
    );
    let (source, message_m) = weir.accepted_as("acme", "m").await;
    let judged = weir.judge(source, message_m).await;
    let shown = get(&another, &key, "m?wait=30").await;
    assert_eq!(
        shown.json["verdict"]["judged_at"],
        json!(judged.verdict.judged_at)
    );
    let again = send(&another, &key, message("c", "once")).await;
    assert_eq!(
        (again.status, &again.json["verdict"]),
        (StatusCode::OK, &shown.json["verdict"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_was_erased_is_new_at_every_process() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    let (another, _ingest) = weir.another().await;
    weir.send(&key, message("c", "once")).await;
    eventually("the other one knows it", || async {
        get(&another, &key, "m").await.status == StatusCode::OK
    })
    .await;
    erase(&weir, "acme", Target::Message("m".to_owned())).await;
    for router in [&weir.router, &another] {
        eventually("it is forgotten", || async {
            get(router, &key, "m").await.status == StatusCode::NOT_FOUND
        })
        .await;
    }
    // One that starts now reads the erased message, and does not know it.
    let (third, _ingest) = weir.another().await;
    assert_eq!(get(&third, &key, "m").await.status, StatusCode::NOT_FOUND);
    let new = send(&another, &key, message("c", "twice")).await;
    assert_eq!(new.json, json!({"id": "m", "status": "accepted"}));
    for router in [&weir.router, &third] {
        eventually("the new one is known", || async {
            get(router, &key, "m").await.status == StatusCode::OK
        })
        .await;
        let old = send(router, &key, message("c", "once")).await;
        assert_eq!(old.status, StatusCode::CONFLICT);
    }
    assert_eq!(weir.accepted().await.len(), 2);
}
