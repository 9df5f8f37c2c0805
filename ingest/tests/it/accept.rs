//! A single message: 202 means that the broker has it.

use axum::http::{Request, StatusCode, header};
use jiff::{Timestamp, ToSpan as _};
use serde_json::json;
use weir_auth::Scope;

use crate::support::{Weir, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_message_is_in_the_topic_as_it_was_sent() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    let before = Timestamp::now();
    let sent_at = before - 1.hour();
    let answer = weir
        .send(
            &key,
            json!({"channel": "Lobby é", "text": " great game 👍 ", "sender": "ann", "id": "m-1",
                   "sent_at": sent_at.to_string(), "metadata": {"level": 7, "tags": ["a", "b"]}}),
        )
        .await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.json, json!({"id": "m-1", "status": "accepted"}));
    let (_, message) = weir.accepted_as("acme", "m-1").await;
    assert_eq!(
        (message.tenant.as_str(), message.channel.as_str()),
        ("acme", "Lobby é")
    );
    assert_eq!(
        (message.text.as_str(), message.sender.as_deref()),
        ("great game 👍", Some("ann"))
    );
    assert_eq!(message.sent_at.as_microsecond(), sent_at.as_microsecond());
    assert!(message.received_at.as_microsecond() >= before.as_microsecond());
    assert!(message.received_at <= Timestamp::now());
    assert!(!message.id_made);
    assert_eq!(
        message.metadata.as_deref(),
        Some(r#"{"level":7,"tags":["a","b"]}"#)
    );
    assert_eq!(weir.metric("weir_messages_accepted_total"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_an_id_gets_a_uuid_of_its_time() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    let message = json!({"channel": "c", "text": "the same words"});
    let (first, second) = (
        weir.send(&key, message.clone()).await,
        weir.send(&key, message).await,
    );
    assert_eq!(
        (first.status, second.status),
        (StatusCode::ACCEPTED, StatusCode::ACCEPTED)
    );
    assert_ne!(first.id(), second.id(), "two messages");
    for answer in [first, second] {
        let id: uuid::Uuid = answer.id().parse().unwrap();
        assert_eq!(id.get_version_num(), 7);
        let (_, message) = weir.accepted_as("acme", &answer.id()).await;
        let (seconds, nanos) = id.get_timestamp().unwrap().to_unix();
        let millis = seconds * 1_000 + u64::from(nanos) / 1_000_000;
        assert_eq!(
            i64::try_from(millis).unwrap(),
            message.received_at.as_millisecond()
        );
        assert_eq!(message.sent_at, message.received_at);
        assert!(message.id_made);
        assert_eq!((message.sender, message.metadata), (None, None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_keeps_its_order() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    for n in 0..20 {
        let answer = weir
            .send(
                &key,
                json!({"channel": format!("c{}", n % 3), "text": n.to_string()}),
            )
            .await;
        assert_eq!(answer.status, StatusCode::ACCEPTED);
    }
    let accepted = weir.accepted().await;
    for channel in ["c0", "c1", "c2"] {
        let of_it = || {
            accepted
                .iter()
                .filter(|(_, message)| message.channel == channel)
        };
        let texts: Vec<u32> = of_it()
            .map(|(_, message)| message.text.parse().unwrap())
            .collect();
        assert!(texts.is_sorted() && texts.len() >= 6, "{texts:?}");
        let partitions = of_it().map(|(source, _)| source.partition);
        assert_eq!(
            partitions.collect::<std::collections::BTreeSet<_>>().len(),
            1
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_sends_as_itself_and_a_key_as_anyone() {
    let weir = Weir::start().await;
    let (member, key) = (
        weir.member("ann").await,
        weir.key("default", &[Scope::Ingest]).await,
    );
    let own = weir
        .send(&member, json!({"channel": "c", "text": "mine"}))
        .await;
    assert_eq!(own.status, StatusCode::ACCEPTED);
    assert_eq!(
        weir.accepted_as("default", &own.id())
            .await
            .1
            .sender
            .as_deref(),
        Some("ann")
    );
    let other = weir
        .send(
            &member,
            json!({"channel": "c", "text": "hers", "sender": "bea"}),
        )
        .await;
    assert_eq!(
        (other.status, other.code(), other.field()),
        (StatusCode::FORBIDDEN, "forbidden", Some("sender"))
    );
    let named = weir
        .send(
            &key,
            json!({"channel": "c", "text": "hers", "sender": "bea"}),
        )
        .await;
    assert_eq!(named.status, StatusCode::ACCEPTED);
    assert_eq!(
        weir.accepted_as("default", &named.id())
            .await
            .1
            .sender
            .as_deref(),
        Some("bea")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_scope_or_a_credential_nothing_comes_in() {
    let weir = Weir::start().await;
    let reader = weir
        .key("acme", &[Scope::Read, Scope::Sql, Scope::Admin])
        .await;
    let message = json!({"channel": "c", "text": "t"});
    for path in ["/v1/messages", "/v1/messages/batch"] {
        let answer = weir.call("POST", path, &reader, message.to_string()).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::FORBIDDEN, "forbidden")
        );
        let answer = weir
            .call("POST", path, "weir_nobody_nothing", message.to_string())
            .await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::UNAUTHORIZED, "unauthorized")
        );
        assert!(answer.headers.contains_key(header::WWW_AUTHENTICATE));
    }
    assert!(weir.accepted().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_pieces_is_read_whole_and_leaves_no_trace_in_the_room() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    let pieces = [&br#"{"channel":"c","#[..], br#""text":"in "#, br#"three"}"#];
    let stream = futures::stream::iter(pieces.map(Ok::<_, std::io::Error>));
    let request = Request::post("/v1/messages")
        .header(header::AUTHORIZATION, format!("Bearer {key}"))
        .body(axum::body::Body::from_stream(stream))
        .unwrap();
    let answer = weir.request(request).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(
        weir.accepted_as("acme", &answer.id()).await.1.text,
        "in three"
    );
    assert_eq!(weir.metric("weir_bodies_bytes"), 0.0);
    eventually("the bytes are counted", || async {
        weir.metric("weir_body_bytes_total") > 0.0
    })
    .await;
}
