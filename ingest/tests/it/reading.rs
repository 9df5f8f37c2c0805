//! A message and its verdict, for those who may see it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use serde_json::{Value, json};
use weir_auth::Scope;
use weir_ingest::Config;
use weir_records::Source;
use weir_store::History as _;

use crate::support::{PARTITIONS, Setup, Weir, ask, eventually, judged};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_pending_until_it_is_judged() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    let metadata = json!({"level": 7});
    let message =
        json!({"channel": "c", "text": "hello", "id": "m", "sender": "ann", "metadata": metadata});
    weir.send(&key, message).await;
    let answer = weir.get("/v1/messages/m", &key).await;
    assert_eq!(
        (answer.status, answer.json),
        (StatusCode::OK, json!({"id": "m", "status": "pending"}))
    );
    let (source, message) = weir.accepted_as("acme", "m").await;
    let judged = weir.judge(source, message.clone()).await;
    // Long enough for any machine; it comes back as soon as the verdict is there.
    let answer = weir.get("/v1/messages/m?wait=30", &key).await;
    assert_eq!(answer.status, StatusCode::OK);
    let verdict = serde_json::to_value(&judged.verdict).unwrap();
    assert_eq!(
        answer.json,
        json!({"id": "m", "status": "judged", "tenant": "acme", "channel": "c", "sender": "ann",
               "by_user": false, "text": "hello", "sent_at": message.sent_at.to_string(),
               "received_at": message.received_at.to_string(), "metadata": metadata, "verdict": verdict,
               "partition": source.partition, "offset": source.offset})
    );
    assert_eq!(weir.metric("weir_accept_to_verdict_seconds"), 1.0);
    assert_eq!(weir.metric("weir_recent_verdicts"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_answered_when_the_verdict_comes() {
    let weir = Arc::new(Weir::start().await);
    let key = weir.full_key("acme").await;
    weir.send(&key, json!({"channel": "c", "text": "hello", "id": "m"}))
        .await;
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let (weir, key) = (Arc::clone(&weir), key.clone());
            tokio::spawn(async move { weir.get("/v1/messages/m?wait=30", &key).await })
        })
        .collect();
    eventually("three wait", || async {
        weir.metric("weir_verdict_waiters") == 3.0
    })
    .await;
    let (source, message) = weir.accepted_as("acme", "m").await;
    weir.judge(source, message).await;
    for answer in futures::future::join_all(waiting).await {
        assert_eq!(answer.unwrap().json["status"], "judged");
    }
    assert_eq!(weir.metric("weir_verdict_waiters"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_with_its_time_or_when_the_server_stops() {
    let weir = Arc::new(Weir::start().await);
    let key = weir.full_key("acme").await;
    weir.send(&key, json!({"channel": "c", "text": "hello", "id": "m"}))
        .await;
    assert_eq!(
        weir.get("/v1/messages/m?wait=1", &key).await.json["status"],
        "pending"
    );
    let waiting = {
        let (weir, key) = (Arc::clone(&weir), key.clone());
        tokio::spawn(async move { weir.get("/v1/messages/m?wait=30", &key).await })
    };
    eventually("one waits", || async {
        weir.metric("weir_verdict_waiters") == 1.0
    })
    .await;
    weir.stop.cancel();
    assert_eq!(waiting.await.unwrap().json["status"], "pending");
    for bad in ["wait=31", "wait=-1", "wait=soon", "wait=1&wait=1"] {
        let answer = weir.get(&format!("/v1/messages/m?{bad}"), &key).await;
        assert_eq!(
            (answer.status, answer.field()),
            (StatusCode::BAD_REQUEST, Some("wait")),
            "{bad}"
        );
    }
    let answer = weir.get("/v1/messages/m?weit=1", &key).await;
    assert_eq!(
        (answer.code(), answer.field()),
        ("unknown_field", Some("weit"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_may_wait() {
    let ingest = Config {
        waiters: 1,
        ..Config::default()
    };
    let weir = Arc::new(
        Weir::with(Setup {
            ingest,
            ..Setup::default()
        })
        .await,
    );
    let key = weir.full_key("acme").await;
    weir.send(&key, json!({"channel": "c", "text": "hello", "id": "m"}))
        .await;
    let first = {
        let (weir, key) = (Arc::clone(&weir), key.clone());
        tokio::spawn(async move { weir.get("/v1/messages/m?wait=30", &key).await })
    };
    eventually("one waits", || async {
        weir.metric("weir_verdict_waiters") == 1.0
    })
    .await;
    let answer = weir.get("/v1/messages/m?wait=30", &key).await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::SERVICE_UNAVAILABLE, "overloaded")
    );
    assert_eq!(answer.retry_after(), Some(1));
    first.abort();
    eventually("who leaves makes room", || async {
        weir.metric("weir_verdict_waiters") == 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_message_is_found_and_its_first_verdict_stays() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    weir.send(&key, json!({"channel": "c", "text": "hello", "id": "m"}))
        .await;
    let stored = weir.store_all().await;
    let answer = weir.get("/v1/messages/m", &key).await;
    assert_eq!(
        (answer.json["status"].as_str(), answer.json["text"].as_str()),
        (Some("judged"), Some("hello"))
    );
    // Two verdicts on the topic: the first counts, here as in the history.
    weir.send(&key, json!({"channel": "c", "text": "again", "id": "n"}))
        .await;
    let (source, message) = weir.accepted_as("acme", "n").await;
    let first = weir.judge(source, message.clone()).await;
    let second = weir.judge(source, message).await;
    assert_ne!(first.verdict.judged_at, second.verdict.judged_at);
    behind(&weir, &key, "c").await;
    let answer = weir.get("/v1/messages/n", &key).await;
    assert_eq!(
        answer.json["verdict"]["judged_at"],
        json!(first.verdict.judged_at)
    );
    assert_eq!(stored.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_fresh_any_more_is_shown_as_the_history_has_it() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    weir.send(&key, json!({"channel": "c", "text": "hello", "id": "m"}))
        .await;
    let (source, mut message) = weir.accepted_as("acme", "m").await;
    message.received_at -= jiff::SignedDuration::from_hours(25);
    let mut judged = weir.judge(source, message).await;
    behind(&weir, &key, "c").await;
    // What a retention leaves of it, say.
    judged.message.text = "what is left".to_owned();
    weir.store.write(source.partition, &[judged]).await.unwrap();
    let answer = weir.get("/v1/messages/m", &key).await;
    assert_eq!(answer.json["status"], "judged");
    assert_eq!(answer.json["text"], "what is left");
}

/// Returns when every verdict has come that was there before for the channel's partition.
async fn behind(weir: &Weir, key: &str, channel: &str) {
    let message = json!({"channel": channel, "text": "the last"});
    let id = weir.send(key, message).await.id();
    let (source, message) = weir.accepted_as("acme", &id).await;
    weir.judge(source, message).await;
    let answer = weir.get(&format!("/v1/messages/{id}?wait=30"), key).await;
    assert_eq!(answer.json["status"], "judged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_that_comes_late_changes_no_answer() {
    // Room for a few of these verdicts.
    let ingest = Config {
        recent_verdict_bytes: 32 * 600,
        ..Config::default()
    };
    let weir = Weir::with(Setup {
        ingest,
        ..Setup::default()
    })
    .await;
    let key = weir.full_key("acme").await;
    let all = (0..200).map(|n| json!({"channel": "c", "text": "t", "id": format!("m-{n}")}));
    let all = Value::from(all.collect::<Vec<_>>());
    weir.batch(&key, all.to_string()).await;
    let mut judged = Vec::new();
    for (source, message) in weir.accepted().await {
        judged.push(weir.judge(source, message).await);
    }
    let first = judged[0].clone();
    weir.store
        .write(first.source.partition, &judged)
        .await
        .unwrap();
    behind(&weir, &key, "c").await;
    let shown = || async {
        let answer = weir.get("/v1/messages/m-0", &key).await;
        answer.json["verdict"]["judged_at"].clone()
    };
    assert!(
        weir.metric("weir_recent_verdicts") < 100.0,
        "the oldest have left the cache"
    );
    assert_eq!(shown().await, json!(first.verdict.judged_at));

    let late = weir.judge(first.source, first.message.clone()).await;
    assert_ne!(late.verdict.judged_at, first.verdict.judged_at);
    behind(&weir, &key, "c").await;
    assert_eq!(shown().await, json!(first.verdict.judged_at));
    assert_eq!(weir.metric("weir_accept_to_verdict_seconds"), 202.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_that_comes_late_changes_no_answer_of_one_that_was_started_since() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    weir.send(&key, json!({"channel": "c", "text": "hello", "id": "m"}))
        .await;
    let (source, message) = weir.accepted_as("acme", "m").await;
    let first = weir.judge(source, message.clone()).await;
    weir.store
        .write(source.partition, std::slice::from_ref(&first))
        .await
        .unwrap();
    // The topic does not hold it any more, as the one that is started does not read it.
    let verdicts = weir_records::topic::VERDICTS;
    let ends = weir_bus::watermarks(&weir.bus, verdicts).await.unwrap();
    let ends = ends
        .into_iter()
        .map(|(partition, (_, end))| (partition, end));
    weir_bus::delete_records(&weir.bus, verdicts, ends.collect())
        .await
        .unwrap();
    let (router, _another) = weir.another().await;
    weir.judge(source, message).await;
    let get = async |id: &str| {
        let request = Request::get(format!("/v1/messages/{id}?wait=30"))
            .header(header::AUTHORIZATION, format!("Bearer {key}"));
        ask(&router, request.body(Body::empty()).unwrap())
            .await
            .json
    };
    weir.send(&key, json!({"channel": "c", "text": "hello", "id": "next"}))
        .await;
    let (source, message) = weir.accepted_as("acme", "next").await;
    weir.judge(source, message).await;
    eventually("what came behind it is there", || async {
        get("next").await["status"] == "judged"
    })
    .await;
    assert_eq!(
        get("m").await["verdict"]["judged_at"],
        json!(first.verdict.judged_at)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_do_not_see_each_other() {
    let weir = Weir::start().await;
    let (ours, theirs) = (weir.full_key("ours").await, weir.full_key("theirs").await);
    for (key, text) in [(&ours, "our words"), (&theirs, "their words")] {
        let message = json!({"channel": "c", "text": text, "id": "both", "sender": "ann"});
        assert_eq!(weir.send(key, message).await.status, StatusCode::ACCEPTED);
    }
    weir.send(
        &ours,
        json!({"channel": "c", "text": "only ours", "id": "one"}),
    )
    .await;
    assert_eq!(
        weir.get("/v1/messages/one", &theirs).await.status,
        StatusCode::NOT_FOUND,
        "pending"
    );
    for tenant in ["ours", "theirs"] {
        let (source, message) = weir.accepted_as(tenant, "both").await;
        weir.judge(source, message).await;
    }
    let text = |answer: &Value| answer["text"].as_str().unwrap_or_default().to_owned();
    let fresh = |key: String| {
        let weir = &weir;
        async move { weir.get("/v1/messages/both?wait=30", &key).await.json }
    };
    assert_eq!(text(&fresh(ours.clone()).await), "our words");
    assert_eq!(text(&fresh(theirs.clone()).await), "their words");
    weir.store_all().await;
    assert_eq!(
        weir.get("/v1/messages/one", &theirs).await.status,
        StatusCode::NOT_FOUND,
        "stored"
    );
    for path in ["/v1/channels/c/messages", "/v1/senders/ann/messages"] {
        let answer = weir.get(path, &theirs).await;
        let messages = answer.json["messages"].as_array().unwrap();
        assert_eq!(
            messages.iter().map(text).collect::<Vec<_>>(),
            ["their words"],
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_sees_its_own_messages_only() {
    let weir = Weir::start().await;
    let (ann, bea) = (weir.member("ann").await, weir.member("bea").await);
    let (sender, reader) = (
        weir.key("default", &[Scope::Ingest]).await,
        weir.key("default", &[Scope::Read]).await,
    );
    weir.send(&ann, json!({"channel": "c", "text": "mine", "id": "m"}))
        .await;
    // Pending, fresh and stored answer alike.
    for step in ["pending", "fresh", "stored"] {
        if step == "fresh" {
            let (source, message) = weir.accepted_as("default", "m").await;
            weir.judge(source, message).await;
            assert_eq!(
                weir.get("/v1/messages/m?wait=30", &ann).await.json["status"],
                "judged"
            );
        } else if step == "stored" {
            weir.store_all().await;
        }
        let status = |key: &str| {
            let (weir, key) = (&weir, key.to_owned());
            async move { weir.get("/v1/messages/m", &key).await.status }
        };
        assert_eq!(status(&ann).await, StatusCode::OK, "{step}");
        assert_eq!(status(&bea).await, StatusCode::NOT_FOUND, "{step}");
        assert_eq!(status(&reader).await, StatusCode::OK, "{step}");
        assert_eq!(status(&sender).await, StatusCode::FORBIDDEN, "{step}");
    }
    for (path, key, expected) in [
        ("/v1/senders/ann/messages", &ann, 200),
        ("/v1/senders/ann/messages", &bea, 403),
        ("/v1/senders/ann/messages", &reader, 200),
        ("/v1/senders/ann/messages", &sender, 403),
        ("/v1/channels/c/messages", &ann, 403),
        ("/v1/channels/c/messages", &reader, 200),
        ("/v1/channels/c/messages", &sender, 403),
    ] {
        let answer = weir.get(path, key).await;
        assert_eq!(answer.status.as_u16(), expected, "{path}");
        if expected == 200 {
            assert_eq!(answer.json["messages"][0]["id"], "m");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_message_is_not_found_at_once_even_when_waited_for() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    let asked = weir.get("/v1/messages/nobody?wait=30", &key);
    let answer = tokio::time::timeout(Duration::from_secs(20), asked)
        .await
        .unwrap();
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::NOT_FOUND, "not_found")
    );
    assert_eq!(
        weir.get("/v1/messages/%FF", &key).await.status,
        StatusCode::BAD_REQUEST
    );
    assert!(
        weir.store
            .message("acme", "nobody")
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_verdict_is_counted_and_passed_over() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    weir.send(&key, json!({"channel": "c", "text": "hello", "id": "m"}))
        .await;
    let (source, message) = weir.accepted_as("acme", "m").await;
    let junk = weir_bus::Outgoing {
        topic: weir_records::topic::VERDICTS,
        partition: Some(source.partition),
        key: Vec::new(),
        payload: b"no record".to_vec(),
    };
    assert!(weir.producer.send(vec![junk]).unwrap().await[0].is_ok());
    // A verdict far beyond, from another partition than it says.
    let strange = Source {
        offset: source.offset + 100,
        ..source
    };
    let elsewhere = weir_bus::Outgoing {
        topic: weir_records::topic::VERDICTS,
        partition: Some((source.partition + 1) % PARTITIONS),
        key: Vec::new(),
        payload: judged(strange, message.clone()).encode(),
    };
    assert!(weir.producer.send(vec![elsewhere]).unwrap().await[0].is_ok());
    eventually("both are passed over", || async {
        weir.metric("weir_verdicts_unreadable_total") == 2.0
    })
    .await;
    weir.judge(source, message).await;
    assert_eq!(
        weir.get("/v1/messages/m?wait=30", &key).await.json["status"],
        "judged"
    );
}
