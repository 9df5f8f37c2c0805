//! An id is a message: sent again it is not published again.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{Request, StatusCode, header};
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use weir_auth::Scope;
use weir_ingest::Config;
use weir_store::{History as _, Retention};

use crate::support::{Setup, Weir, ask};

fn message(id: &str, text: &str) -> Value {
    json!({"channel": "c", "text": text, "id": id})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_message_again_is_pending_and_not_published_again() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    for status in ["accepted", "pending", "pending"] {
        let answer = weir.send(&key, message("m", "once")).await;
        assert_eq!(
            (answer.status, answer.json),
            (StatusCode::ACCEPTED, json!({"id": "m", "status": status}))
        );
    }
    // The spaces around a text are not part of it.
    assert_eq!(
        weir.send(&key, message("m", " once ")).await.status,
        StatusCode::ACCEPTED
    );
    assert_eq!(weir.accepted().await.len(), 1);
    assert_eq!(weir.metric("weir_messages_repeated_total"), 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_message_again_is_answered_with_its_verdict_fresh_or_stored() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    let all: Vec<Value> = (0..100).map(|n| message(&format!("m-{n}"), "a")).collect();
    let body = Value::from(all).to_string();
    weir.batch(&key, body.clone()).await;
    let (source, accepted) = weir.accepted_as("acme", "m-7").await;
    let fresh = weir.judge(source, accepted).await;
    assert_eq!(
        weir.get("/v1/messages/m-7?wait=30", &key).await.json["status"],
        "judged"
    );
    let expected = json!({"id": "m-7", "status": "judged", "verdict": fresh.verdict});
    let again = weir.send(&key, message("m-7", "a")).await;
    assert_eq!(
        (again.status, again.json),
        (StatusCode::OK, expected.clone())
    );
    let other = weir.send(&key, message("m-7", "b")).await;
    assert_eq!(other.status, StatusCode::CONFLICT);

    // In a batch each has its own, also when none of it is new.
    let answer = weir.batch(&key, body.clone()).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.json["results"][7], expected);
    assert_eq!(
        answer.json["results"][8],
        json!({"id": "m-8", "status": "pending"})
    );
    // All are known still, and only the history has their verdicts.
    let stored = weir.store_all().await;
    let answer = weir.batch(&key, body).await;
    for (n, result) in answer.json["results"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
    {
        let id = format!("m-{n}");
        let row = stored.iter().find(|row| row.message.id == id).unwrap();
        let verdict = if n == 7 { &fresh.verdict } else { &row.verdict };
        assert_eq!(
            *result,
            json!({"id": id, "status": "judged", "verdict": verdict})
        );
    }
    assert_eq!(weir.accepted().await.len(), 100);
    assert_eq!(weir.metric("weir_messages_repeated_total"), 201.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_the_verdict_of_a_message_that_is_not_the_same() {
    let weir = Weir::start().await;
    let (ann, bea) = (weir.member("ann").await, weir.member("bea").await);
    let key = weir.key("default", &[Scope::Ingest]).await;
    weir.send(&ann, message("m", "hello")).await;
    for step in ["pending", "fresh", "stored"] {
        if step == "fresh" {
            let (source, accepted) = weir.accepted_as("default", "m").await;
            weir.judge(source, accepted).await;
            let path = "/v1/messages/m?wait=30";
            assert_eq!(weir.get(path, &ann).await.json["status"], "judged");
        } else if step == "stored" {
            weir.store_all().await;
        }
        let named = json!({"channel": "c", "text": "hello", "id": "m", "sender": "ann"});
        for answer in [
            weir.send(&bea, message("m", "hello")).await,
            weir.send(&key, named).await,
            weir.send(&ann, message("m", "guessed")).await,
        ] {
            assert_eq!(answer.status, StatusCode::CONFLICT, "{step}");
            assert!(answer.json.get("verdict").is_none());
        }
    }
    assert_eq!(
        weir.send(&ann, message("m", "hello")).await.status,
        StatusCode::OK
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_with_another_text_or_channel_is_a_conflict() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    weir.send(&key, message("m", "once")).await;
    for other in [
        message("m", "twice"),
        json!({"channel": "d", "text": "once", "id": "m"}),
    ] {
        let answer = weir.send(&key, other).await;
        assert_eq!(
            (answer.status, answer.code(), answer.field()),
            (StatusCode::CONFLICT, "conflict", Some("id"))
        );
    }
    assert_eq!(weir.accepted_as("acme", "m").await.1.text, "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_was_judged_before_a_restart_keeps_its_message() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    weir.send(&key, message("m", "once")).await;
    let (source, accepted) = weir.accepted_as("acme", "m").await;
    let judged = weir.judge(source, accepted).await;
    let row = [judged.clone()];
    weir.store.write(source.partition, &row).await.unwrap();

    // One that remembers nothing, and whose tail has read nothing yet.
    let (router, _another) = weir.another().await;
    let send = async |body: Value| {
        let request = Request::post("/v1/messages")
            .header(header::AUTHORIZATION, format!("Bearer {key}"))
            .header(header::CONTENT_TYPE, "application/json");
        ask(&router, request.body(body.to_string().into()).unwrap()).await
    };
    assert_eq!(
        send(message("m", "twice")).await.status,
        StatusCode::CONFLICT
    );
    let again = send(message("m", "once")).await;
    let expected = json!({"id": "m", "status": "judged", "verdict": judged.verdict});
    assert_eq!((again.status, &again.json), (StatusCode::OK, &expected));
    assert_eq!(weir.accepted().await.len(), 1, "published again");

    // Its text may be gone by now: a repeat is no other message for that.
    let later = Timestamp::now() + SignedDuration::from_hours(72);
    let texts = Retention {
        text_days: 1,
        ..Retention::of_days(0)
    };
    weir.store.expire(&texts, later).await.unwrap();
    let (router, _another) = weir.another().await;
    let send = async |body: Value| {
        let request = Request::post("/v1/messages")
            .header(header::AUTHORIZATION, format!("Bearer {key}"))
            .header(header::CONTENT_TYPE, "application/json");
        ask(&router, request.body(body.to_string().into()).unwrap()).await
    };
    let stored = weir.store.message("acme", "m").await.unwrap().unwrap();
    assert_eq!(stored.message.text, "");
    let again = send(message("m", "once")).await;
    assert_eq!((again.status, &again.json), (StatusCode::OK, &expected));
    let moved = json!({"channel": "d", "text": "once", "id": "m"});
    assert_eq!(send(moved).await.status, StatusCode::CONFLICT);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_its_senders_and_a_name_that_a_key_gives_is_no_user() {
    let weir = Weir::start().await;
    let key = weir.key("default", &[Scope::Ingest]).await;
    let ann = weir.member("ann").await;
    let named = json!({"channel": "c", "text": "once", "id": "m", "sender": "ann"});
    assert_eq!(weir.send(&key, named).await.status, StatusCode::ACCEPTED);
    // Ann did not send it: she can neither take its id nor read it.
    let answer = weir.send(&ann, message("m", "once")).await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::CONFLICT, "conflict")
    );
    assert_eq!(
        weir.get("/v1/messages/m", &ann).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        weir.send(&ann, message("own", "twice")).await.status,
        StatusCode::ACCEPTED
    );
    for id in ["m", "own"] {
        let (source, accepted) = weir.accepted_as("default", id).await;
        weir.judge(source, accepted).await;
    }
    weir.store_all().await;
    assert_eq!(
        weir.get("/v1/messages/m", &ann).await.status,
        StatusCode::NOT_FOUND
    );
    let page = weir.get("/v1/senders/ann/messages", &ann).await.json;
    let ids: Vec<_> = page["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["id"])
        .collect();
    assert_eq!(ids, ["own"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_keeps_the_same_rule_within_itself_and_with_what_was_before() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    weir.send(&key, message("known", "a")).await;
    let batch = json!([
        message("new", "b"),
        message("new", "b"),
        message("new", "other"),
        message("known", "a"),
        message("known", "other"),
    ]);
    let answer = weir.batch(&key, batch.to_string()).await;
    assert_eq!(
        answer.statuses(),
        ["accepted", "pending", "rejected", "pending", "rejected"]
    );
    assert_eq!(answer.json["results"][2]["problem"]["code"], "conflict");
    assert_eq!(answer.json["results"][2]["id"], "new");
    assert_eq!(weir.accepted().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_senders_of_one_id_at_once_publish_it_once() {
    // Nobody gets on by running out of time.
    let ingest = Config {
        ack_seconds: 3_600,
        ..Config::default()
    };
    let setup = Setup {
        ingest,
        ..Setup::default()
    };
    let weir = Arc::new(Weir::with(setup).await);
    let key = weir.full_key("acme").await;
    let tasks = (0..64).map(|n| {
        let (weir, key) = (Arc::clone(&weir), key.clone());
        tokio::spawn(async move {
            let id = format!("m-{}", n % 4);
            let batch = json!([message(&id, "same"), message(&format!("own-{n}"), "own")]);
            weir.batch(&key, batch.to_string()).await
        })
    });
    let answers = tokio::time::timeout(Duration::from_secs(60), join_all(tasks)).await;
    let mut first = 0;
    for answer in answers.unwrap() {
        let answer = answer.unwrap();
        let [shared, "accepted"] = answer.statuses()[..] else {
            panic!("{}", answer.json)
        };
        assert!(["accepted", "pending"].contains(&shared));
        first += usize::from(shared == "accepted");
    }
    assert_eq!(first, 4, "each was new to one of them");
    assert_eq!(weir.accepted().await.len(), 64 + 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_of_two_tenants_is_two_messages() {
    let weir = Weir::start().await;
    let (ours, theirs) = (weir.full_key("ours").await, weir.full_key("theirs").await);
    assert_eq!(
        weir.send(&ours, message("m", "our words")).await.status,
        StatusCode::ACCEPTED
    );
    assert_eq!(
        weir.send(&theirs, message("m", "their words")).await.status,
        StatusCode::ACCEPTED
    );
    assert_eq!(weir.accepted_as("ours", "m").await.1.text, "our words");
    assert_eq!(weir.accepted_as("theirs", "m").await.1.text, "their words");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_the_ids_that_wait_to_be_judged_are_known() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    let batch: Vec<Value> = (0..200).map(|n| message(&format!("m-{n}"), "a")).collect();
    let body = Value::from(batch).to_string();
    assert_eq!(
        weir.batch(&key, body.clone()).await.status,
        StatusCode::ACCEPTED
    );
    let (router, _another) = weir.another().await;
    let again = |path: &str, body: String| {
        Request::post(path)
            .header(header::AUTHORIZATION, format!("Bearer {key}"))
            .body(body.into())
            .unwrap()
    };
    let answer = ask(&router, again("/v1/messages/batch", body)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let answer = ask(
        &router,
        again("/v1/messages", message("m-7", "other").to_string()),
    )
    .await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    let read =
        Request::get("/v1/messages/m-7").header(header::AUTHORIZATION, format!("Bearer {key}"));
    let answer = ask(&router, read.body(axum::body::Body::empty()).unwrap()).await;
    assert_eq!(answer.json, json!({"id": "m-7", "status": "pending"}));
    assert_eq!(weir.accepted().await.len(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_with_the_clock_set_back_messages_stay_in_the_order_of_the_log() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    weir.send(&key, message("first", "a")).await;
    let (source, mut ahead) = weir.accepted_as("acme", "first").await;
    // Accepted by a process whose clock was an hour ahead of what ours says now.
    ahead.received_at += jiff::SignedDuration::from_hours(1);
    ahead.id = "ahead".to_owned();
    let record = weir_bus::Outgoing {
        topic: weir_records::topic::MESSAGES,
        partition: Some(source.partition),
        key: weir_records::topic::key("acme", "c"),
        payload: ahead.clone().encode(),
    };
    let sent = weir.producer.send(vec![record]).unwrap().await;
    assert!(sent[0].is_ok());

    let (router, _another) = weir.another().await;
    let request = Request::post("/v1/messages")
        .header(header::AUTHORIZATION, format!("Bearer {key}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(json!({"channel": "c", "text": "b"}).to_string().into())
        .unwrap();
    let answer = ask(&router, request).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let (_, last) = weir.accepted_as("acme", &answer.id()).await;
    assert!(last.received_at > ahead.received_at);
    assert!(answer.id() > weir_id(ahead.received_at - jiff::SignedDuration::from_millis(1)));

    weir.store_all().await;
    let page = weir.get("/v1/channels/c/messages", &key).await;
    let ids: Vec<&str> = page.json["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, [answer.id().as_str(), "ahead", "first"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_and_the_ids_that_they_are_given_stay_in_order_while_the_clock_stands_still() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    weir.send(&key, message("first", "a")).await;
    let (source, mut ahead) = weir.accepted_as("acme", "first").await;
    ahead.received_at += SignedDuration::from_hours(1);
    weir.judge(source, ahead).await;
    let answer = weir.get("/v1/messages/first?wait=30", &key).await;
    assert_eq!(answer.json["status"], "judged");

    // From here on the clock is an hour behind.
    let new = json!({"channel": "c", "text": "again"});
    let mut ids = Vec::new();
    for count in [1, 300, 1, 2, 1_000, 1] {
        if count == 1 {
            ids.push(weir.send(&key, new.clone()).await.id());
            continue;
        }
        let answer = weir
            .batch(&key, Value::from(vec![new.clone(); count]).to_string())
            .await;
        let results = answer.json["results"].as_array().unwrap();
        ids.extend(
            results
                .iter()
                .map(|result| result["id"].as_str().unwrap().to_owned()),
        );
    }
    assert_eq!(ids.len(), 1_305);
    assert!(ids.is_sorted_by(|a, b| a < b));
    let mut accepted = weir.accepted().await;
    accepted.retain(|(_, message)| message.id != "first");
    assert!(accepted.iter().map(|(_, message)| &message.id).eq(&ids));
    assert!(accepted.is_sorted_by(|(_, a), (_, b)| a.received_at < b.received_at));

    weir.store_all().await;
    let (mut listed, mut cursor) = (Vec::new(), String::new());
    while listed.len() < ids.len() {
        let path = format!("/v1/channels/c/messages?limit=200{cursor}");
        let page = weir.get(&path, &key).await.json;
        let rows = page["messages"].as_array().unwrap();
        listed.extend(
            rows.iter()
                .map(|row| row["id"].as_str().unwrap().to_owned()),
        );
        cursor = format!("&cursor={}", page["next"].as_str().unwrap_or_default());
    }
    listed.truncate(ids.len());
    listed.reverse();
    assert_eq!(listed, ids);
}

/// The least id that Weir makes at that time.
fn weir_id(at: jiff::Timestamp) -> String {
    let millis = u64::try_from(at.as_millisecond()).unwrap();
    uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10])
        .into_uuid()
        .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_received_with_a_clock_ahead_is_not_received_before() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    weir.send(&key, message("first", "a")).await;
    let (source, mut ahead) = weir.accepted_as("acme", "first").await;
    ahead.received_at += jiff::SignedDuration::from_mins(50);
    weir.judge(source, ahead.clone()).await;
    let answer = weir.get("/v1/messages/first?wait=30", &key).await;
    assert_eq!(answer.json["status"], "judged");
    weir.send(&key, message("second", "b")).await;
    let (_, second) = weir.accepted_as("acme", "second").await;
    assert!(second.received_at > ahead.received_at);
}
