//! An erased message is answered neither from memory nor from what is read again.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use weir_bus::Outgoing;
use weir_records::{Erasure, Target, topic};

use crate::support::{Weir, ask, eventually};

pub async fn erase(weir: &Weir, tenant: &str, target: Target) {
    erase_up_to(weir, tenant, target, Timestamp::now()).await;
}

async fn erase_up_to(weir: &Weir, tenant: &str, target: Target, up_to: Timestamp) {
    let erasure = Erasure {
        tenant: tenant.to_owned(),
        target,
        up_to,
        requested_at: Timestamp::now(),
        by: "test".to_owned(),
    };
    let record = Outgoing {
        topic: topic::ERASURES,
        partition: Some(0),
        key: Vec::new(),
        payload: erasure.encode(),
    };
    let answers = weir.producer.send(vec![record]).unwrap().await;
    assert!(answers[0].is_ok());
}

async fn status(router: &Router, key: &str, id: &str) -> StatusCode {
    let request = Request::builder()
        .uri(format!("/v1/messages/{id}"))
        .header(header::AUTHORIZATION, format!("Bearer {key}"))
        .body(Body::empty())
        .unwrap();
    ask(router, request).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_message_is_not_found_judged_or_pending_here_or_after_a_restart() {
    let weir = Weir::start().await;
    let (key, other) = (weir.full_key("acme").await, weir.full_key("other").await);
    let message = |id: &str, sender: &str| json!({"channel": "c", "text": "hello", "id": id, "sender": sender});
    for (id, sender) in [
        ("ann-judged", "ann"),
        ("bob-judged", "bob"),
        ("ann-pending", "ann"),
        ("bob-pending", "bob"),
    ] {
        weir.send(&key, message(id, sender)).await;
        weir.send(&other, message(id, sender)).await;
    }
    for id in ["ann-judged", "bob-judged"] {
        for tenant in ["acme", "other"] {
            let (source, message) = weir.accepted_as(tenant, id).await;
            weir.judge(source, message).await;
        }
    }
    for key in [&key, &other] {
        for id in ["ann-judged", "bob-judged"] {
            let path = format!("/v1/messages/{id}?wait=30");
            assert_eq!(weir.get(&path, key).await.json["status"], "judged");
        }
    }
    assert_eq!(weir.metric("weir_recent_verdicts"), 4.0);

    erase(&weir, "acme", Target::Sender("ann".to_owned())).await;
    erase(&weir, "acme", Target::Message("bob-pending".to_owned())).await;
    let gone = ["ann-judged", "ann-pending", "bob-pending"];
    for id in gone {
        eventually("it is forgotten", || async {
            status(&weir.router, &key, id).await == StatusCode::NOT_FOUND
        })
        .await;
    }
    assert_eq!(weir.metric("weir_recent_verdicts"), 3.0, "not only hidden");
    assert_eq!(weir.metric("weir_recent_ids"), 5.0);
    // What waited to be judged is judged all the same; that is no way back.
    let (source, message) = weir.accepted_as("acme", "ann-pending").await;
    weir.judge(source, message).await;
    let (again, _) = weir.another().await;
    for router in [&weir.router, &again] {
        for id in gone {
            let found = status(router, &key, id).await;
            assert_eq!(found, StatusCode::NOT_FOUND, "{id}");
        }
        assert_eq!(status(router, &key, "bob-judged").await, StatusCode::OK);
        for id in ["ann-judged", "ann-pending", "bob-pending"] {
            assert_eq!(status(router, &other, id).await, StatusCode::OK, "{id}");
        }
    }

    // The sender may go on, and is answered.
    let later = json!({"channel": "c", "text": "hello", "id": "ann-later", "sender": "ann"});
    weir.send(&key, later).await;
    assert_eq!(
        status(&weir.router, &key, "ann-later").await,
        StatusCode::OK
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_after_an_erasure_is_received_after_it_whatever_the_clock_says() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    let message = |id: &str| json!({"channel": "c", "text": "hello", "id": id, "sender": "ann"});
    // Asked for at a machine whose clock is ahead.
    let up_to = Timestamp::now() + SignedDuration::from_hours(1);
    weir.send(&key, message("before")).await;
    erase_up_to(&weir, "acme", Target::Sender("ann".to_owned()), up_to).await;
    eventually("it is forgotten", || async {
        status(&weir.router, &key, "before").await == StatusCode::NOT_FOUND
    })
    .await;
    weir.send(&key, message("here")).await;
    let (_, here) = weir.accepted_as("acme", "here").await;
    assert!(here.received_at > up_to, "{}", here.received_at);
    assert_eq!(status(&weir.router, &key, "here").await, StatusCode::OK);

    let (again, _) = weir.another().await;
    let request = Request::post("/v1/messages")
        .header(header::AUTHORIZATION, format!("Bearer {key}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(message("there").to_string()))
        .unwrap();
    assert_eq!(ask(&again, request).await.status, StatusCode::ACCEPTED);
    let (_, there) = weir.accepted_as("acme", "there").await;
    assert!(there.received_at > up_to, "{}", there.received_at);
}
