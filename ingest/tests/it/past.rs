//! What the history does not have: it has not come so far, or its time is over there.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use weir_bus::Outgoing;
use weir_ingest::Config;
use weir_records::{Target, topic};
use weir_store::{History as _, Retention};

use crate::erase::erase;
use crate::support::{Answer, Setup, Weir, ask, eventually, judged};

fn message(id: &str, text: &str) -> Value {
    json!({"channel": "c", "text": text, "id": id})
}

/// One that keeps no verdict: what it knows of a judged message is its id.
fn nothing_fresh() -> Setup {
    Setup {
        ingest: Config {
            recent_verdict_bytes: 0,
            ..Config::default()
        },
        ..Setup::default()
    }
}

/// Judges the message, and returns when its verdict has come.
async fn judge(weir: &Weir, id: &str) {
    let verdicts = || weir.metric("weir_accept_to_verdict_seconds");
    let before = verdicts();
    let (source, message) = weir.accepted_as("acme", id).await;
    weir.judge(source, message).await;
    eventually("the verdict has come", || async { verdicts() > before }).await;
}

/// Lets run out in the history what a retention of a day leaves.
async fn expire(weir: &Weir, retention: Retention) {
    let later = Timestamp::now() + SignedDuration::from_hours(72);
    weir.store.expire(&retention, later).await.unwrap();
}

async fn published(weir: &Weir) -> i64 {
    let ends = weir_bus::watermarks(&weir.bus, topic::MESSAGES).await;
    ends.unwrap().values().map(|(_, end)| end).sum()
}

async fn call(router: &Router, method: &str, path: &str, key: &str, body: String) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {key}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body))
        .unwrap();
    ask(router, request).await
}

async fn send(router: &Router, key: &str, message: Value) -> Answer {
    call(router, "POST", "/v1/messages", key, message.to_string()).await
}

async fn get(router: &Router, key: &str, id: &str) -> Answer {
    let path = format!("/v1/messages/{id}");
    call(router, "GET", &path, key, String::new()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_free_again_when_the_history_has_dropped_its_message() {
    let weir = Weir::with(nothing_fresh()).await;
    let key = weir.full_key("acme").await;
    let ids = ["read", "same", "other"];
    for id in ids {
        weir.send(&key, message(id, "once")).await;
        judge(&weir, id).await;
    }
    for id in ids {
        let pending = json!({"id": id, "status": "pending"});
        assert_eq!(
            get(&weir.router, &key, id).await.json,
            pending,
            "the history is behind"
        );
        assert_eq!(weir.send(&key, message(id, "once")).await.json, pending);
        let twice = weir.send(&key, message(id, "twice")).await;
        assert_eq!(twice.status, StatusCode::CONFLICT);
    }
    weir.store_all().await;
    for id in ids {
        let stored = get(&weir.router, &key, id).await;
        assert_eq!(stored.json["status"], "judged");
    }
    assert_eq!(published(&weir).await, 3);

    expire(&weir, Retention::of_days(1)).await;
    assert_eq!(
        get(&weir.router, &key, "read").await.status,
        StatusCode::NOT_FOUND
    );
    for (id, text) in [("read", "once"), ("same", "once"), ("other", "twice")] {
        let accepted = json!({"id": id, "status": "accepted"});
        assert_eq!(weir.send(&key, message(id, text)).await.json, accepted);
        let pending = json!({"id": id, "status": "pending"});
        assert_eq!(get(&weir.router, &key, id).await.json, pending);
        assert_eq!(weir.send(&key, message(id, text)).await.json, pending);
    }
    assert_eq!(published(&weir).await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_to_be_judged_is_pending_however_far_the_history_is() {
    let weir = Weir::with(nothing_fresh()).await;
    let key = weir.full_key("acme").await;
    for id in ["waits", "behind"] {
        weir.send(&key, message(id, "once")).await;
    }
    judge(&weir, "behind").await;
    let (source, behind) = weir.accepted_as("acme", "behind").await;
    let row = [judged(source, behind)];
    weir.store.write(source.partition, &row).await.unwrap();
    expire(&weir, Retention::of_days(1)).await;
    assert_eq!(
        get(&weir.router, &key, "behind").await.status,
        StatusCode::NOT_FOUND
    );
    let pending = json!({"id": "waits", "status": "pending"});
    assert_eq!(get(&weir.router, &key, "waits").await.json, pending);
    assert_eq!(
        weir.send(&key, message("waits", "once")).await.json,
        pending
    );
    let other = weir.send(&key, message("waits", "twice")).await;
    assert_eq!(other.status, StatusCode::CONFLICT);
    assert_eq!(published(&weir).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_history_has_dropped_is_not_known_either_to_one_that_started_while_it_had_it() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    weir.send(&key, message("m", "once")).await;
    weir.store_all().await;
    // The log holds the message, and nothing says how far the processor is.
    let (another, _) = weir.another().await;
    assert_eq!(get(&another, &key, "m").await.json["status"], "judged");
    expire(&weir, Retention::of_days(1)).await;
    assert_eq!(get(&another, &key, "m").await.status, StatusCode::NOT_FOUND);
    let new = send(&another, &key, message("m", "twice")).await;
    assert_eq!(new.json, json!({"id": "m", "status": "accepted"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_judged_before_a_start_is_known_before_the_history_has_it() {
    for alone in [false, true] {
        let weir = Weir::with(Setup {
            alone,
            ..nothing_fresh()
        })
        .await;
        let key = weir.full_key("acme").await;
        for id in ["m", "erased"] {
            weir.send(&key, message(id, "once")).await;
            judge(&weir, id).await;
        }
        erase(&weir, "acme", Target::Message("erased".to_owned())).await;
        // The processor is past them: what is read back at a start does not hold them.
        let ends = weir_bus::watermarks(&weir.bus, topic::MESSAGES)
            .await
            .unwrap();
        let ends = ends.into_iter().map(|(at, (_, end))| (at, end)).collect();
        weir_bus::delete_records(&weir.bus, topic::MESSAGES, ends)
            .await
            .unwrap();

        let (another, _) = weir.another().await;
        let pending = json!({"id": "m", "status": "pending"});
        assert_eq!(get(&another, &key, "m").await.json, pending);
        let again = send(&another, &key, message("m", "once")).await;
        assert_eq!(again.json, pending, "alone: {alone}");
        let other = send(&another, &key, message("m", "twice")).await;
        assert_eq!(other.status, StatusCode::CONFLICT);
        assert_eq!(
            get(&another, &key, "erased").await.status,
            StatusCode::NOT_FOUND
        );
        assert_eq!(published(&weir).await, 2);
        let new = send(&another, &key, message("erased", "twice")).await;
        assert_eq!(new.json, json!({"id": "erased", "status": "accepted"}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_at_a_start_stays_known_beside_more_verdicts_than_are_remembered() {
    let mut setup = nothing_fresh();
    setup.ingest.recent_ids = 3_200;
    let weir = Weir::with(setup).await;
    let key = weir.full_key("acme").await;
    let batch = |of: &str, count: usize| {
        let messages = (0..count).map(|n| message(&format!("{of}-{n}"), "once"));
        Value::from(messages.collect::<Vec<_>>()).to_string()
    };
    for part in 0..5 {
        weir.batch(&key, batch(&format!("judged-{part}"), 1_000))
            .await;
    }
    let verdicts = weir.accepted().await.into_iter().map(|(source, message)| {
        let key = topic::key(&message.tenant, &message.channel);
        Outgoing {
            topic: topic::VERDICTS,
            partition: Some(source.partition),
            key,
            payload: judged(source, message).encode(),
        }
    });
    let sent = weir.producer.send(verdicts.collect()).unwrap().await;
    assert!(sent.iter().all(Result::is_ok));
    let waiting = batch("waits", 400);
    weir.batch(&key, waiting.clone()).await;

    let (another, _) = weir.another().await;
    let answer = call(&another, "POST", "/v1/messages/batch", &key, waiting).await;
    assert_eq!(answer.statuses(), ["pending"; 400]);
    assert_eq!(published(&weir).await, 5_400);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_whose_text_has_run_out_is_no_other_texts() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    weir.send(&key, message("m", "once")).await;
    weir.store_all().await;
    let texts = Retention {
        text_days: 1,
        ..Retention::of_days(0)
    };
    expire(&weir, texts).await;
    let stored = weir.store.message("acme", "m").await.unwrap().unwrap();
    assert_eq!(stored.message.text, "");
    let again = weir.send(&key, message("m", "once")).await;
    let expected = json!({"id": "m", "status": "judged", "verdict": stored.verdict});
    assert_eq!((again.status, again.json), (StatusCode::OK, expected));
    let other = weir.send(&key, message("m", "twice")).await;
    assert_eq!(other.status, StatusCode::CONFLICT);
    assert!(other.json.get("verdict").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_of_a_batch_is_compared_with_what_its_id_was_judged_for() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    weir.send(&key, message("m", "once")).await;
    let stored = weir.store_all().await;
    let batch = json!([
        message("m", "twice"),
        message("m", "once"),
        message("new", "once"),
        message("m", "once"),
    ]);
    let answer = weir.batch(&key, batch.to_string()).await;
    assert_eq!(
        answer.statuses(),
        ["rejected", "judged", "accepted", "judged"]
    );
    for n in [1, 3] {
        assert_eq!(
            answer.json["results"][n]["verdict"],
            json!(stored[0].verdict)
        );
    }
    assert_eq!(published(&weir).await, 2);
}
