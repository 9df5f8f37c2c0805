//! Without a broker, or with one that is too slow: 503, and nothing is forgotten.

use std::time::Duration;

use axum::http::{Request, StatusCode, header};
use serde_json::{Value, json};
use weir_ingest::Config;
use weir_store::History as _;

use crate::support::{Setup, Weir, ask, eventually, judged};

fn batch(count: usize) -> String {
    let messages = (0..count).map(|n| json!({"channel": "c", "text": "t", "id": format!("m-{n}")}));
    Value::from(messages.collect::<Vec<_>>()).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_it_is_503_and_afterwards_the_same_message_is_accepted() {
    let delivery_timeout = Duration::from_secs(2);
    let mut weir = Weir::with(Setup {
        delivery_timeout,
        ..Setup::default()
    })
    .await;
    let key = weir.full_key("acme").await;
    let message = json!({"channel": "c", "text": "hello", "id": "m"});
    weir.stop_broker().await;
    let answer = weir.send(&key, message.clone()).await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
    );
    assert!(answer.retry_after().is_some());
    let answer = weir.batch(&key, batch(3)).await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
    );
    assert_eq!(answer.statuses(), ["failed", "failed", "failed"]);
    assert_eq!(answer.json["results"][1]["id"], "m-1");
    assert_eq!(
        weir.get("/v1/messages/m", &key).await.status,
        StatusCode::NOT_FOUND,
        "it was not accepted"
    );
    weir.restart_broker().await;
    eventually("the message is accepted", || async {
        weir.send(&key, message.clone()).await.status == StatusCode::ACCEPTED
    })
    .await;
    assert_eq!(
        weir.get("/v1/messages/m", &key).await.status,
        StatusCode::OK
    );
    assert!(
        weir.accepted()
            .await
            .iter()
            .any(|(_, message)| message.id == "m")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_503_at_once_and_takes_none_of_a_batch() {
    let mut weir = Weir::with(Setup {
        queue_messages: 10,
        ..Setup::default()
    })
    .await;
    let key = weir.full_key("acme").await;
    let answer = weir.batch(&key, batch(11)).await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::SERVICE_UNAVAILABLE, "overloaded")
    );
    assert_eq!(answer.retry_after(), Some(1));
    assert!(weir.accepted().await.is_empty());
    // What was refused was not kept as known.
    assert_eq!(
        weir.batch(&key, batch(10)).await.status,
        StatusCode::ACCEPTED
    );
    assert_eq!(weir.accepted().await.len(), 10);

    weir.stop_broker().await;
    let request = |id: &str| {
        let body = json!({"channel": "c", "text": "t", "id": id}).to_string();
        let request =
            Request::post("/v1/messages").header(header::AUTHORIZATION, format!("Bearer {key}"));
        request.body(body.into()).unwrap()
    };
    let waiting: Vec<_> = (0..10)
        .map(|n| {
            let (router, request) = (weir.router.clone(), request(&format!("late-{n}")));
            tokio::spawn(async move { ask(&router, request).await })
        })
        .collect();
    eventually("the queue is full", || async {
        weir.producer.in_flight() == 10
    })
    .await;
    // Well before the broker's silence is noticed.
    let answer = tokio::time::timeout(Duration::from_secs(5), weir.request(request("one-more")))
        .await
        .unwrap();
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::SERVICE_UNAVAILABLE, "overloaded")
    );
    assert!(weir.metric("weir_messages_refused_total") >= 2.0);
    // Those that wait get through when the broker is back.
    weir.restart_broker().await;
    for answer in futures::future::join_all(waiting).await {
        assert_eq!(answer.unwrap().status, StatusCode::ACCEPTED);
    }
    assert_eq!(weir.accepted().await.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_joins_what_is_still_on_its_way() {
    let ingest = Config {
        ack_seconds: 1,
        ..Config::default()
    };
    let mut weir = Weir::with(Setup {
        ingest,
        ..Setup::default()
    })
    .await;
    let key = weir.full_key("acme").await;
    weir.stop_broker().await;
    let message = json!({"channel": "c", "text": "hello", "id": "m"});
    for _ in 0..2 {
        let answer = weir.send(&key, message.clone()).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
        );
        assert_eq!(answer.retry_after(), Some(1));
        assert_eq!(
            weir.producer.in_flight(),
            1,
            "the second send is the first one"
        );
    }
    let other = json!({"channel": "c", "text": "other", "id": "m"});
    assert_eq!(weir.send(&key, other).await.status, StatusCode::CONFLICT);
    weir.restart_broker().await;
    eventually("it is accepted", || async {
        weir.send(&key, message.clone()).await.status == StatusCode::ACCEPTED
    })
    .await;
    assert_eq!(weir.accepted_as("acme", "m").await.1.text, "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_takes_nothing_back() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    let body = json!({"channel": "c", "text": "hello", "id": "m"}).to_string();
    let mut sending = Box::pin(weir.call("POST", "/v1/messages", &key, body));
    // Up to where it waits for the broker, and then it is gone.
    while weir.producer.in_flight() == 0 && weir.metric("weir_records_produced_total") == 0.0 {
        assert!(futures::poll!(&mut sending).is_pending());
        tokio::task::yield_now().await;
    }
    drop(sending);
    eventually("the message is known", || async {
        weir.get("/v1/messages/m", &key).await.json["status"] == "pending"
    })
    .await;
    weir.accepted_as("acme", "m").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_instance_can_not_register_its_metrics_twice_and_bad_settings_are_named() {
    let weir = Weir::start().await;
    let start = |config: Config| {
        let on = weir.backends();
        let stop = tokio_util::sync::CancellationToken::new();
        weir_ingest::Ingest::start(config, on, &weir.registry, stop)
    };
    let Err(error) = start(Config::default()).await else {
        panic!("two of the same")
    };
    assert!(error.to_string().contains("metric"), "{error}");
    let Err(error) = start(Config {
        batch_messages: 0,
        ..Config::default()
    })
    .await
    else {
        panic!("no messages")
    };
    assert!(
        error.to_string().contains("ingest.batch_messages"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_its_history_is_ahead_of_takes_no_message() {
    let weir = Weir::start().await;
    let key = weir.full_key("acme").await;
    weir.send(&key, json!({"channel": "c", "text": "hello", "id": "m"}))
        .await;
    weir.store_all().await;
    let start = || {
        let on = weir.backends();
        let registry = prometheus::Registry::new();
        let stop = weir.stop.clone();
        async move { weir_ingest::Ingest::start(Config::default(), on, &registry, stop).await }
    };
    assert!(start().await.is_ok(), "all of the log is judged");

    let (mut source, message) = weir.accepted_as("acme", "m").await;
    source.offset += 1;
    let of_another_log = judged(source, message);
    weir.store
        .write(source.partition, &[of_another_log])
        .await
        .unwrap();
    let Err(error) = start().await else {
        panic!("the next message would be taken for judged")
    };
    let words = error.to_string();
    assert!(
        words.contains("weir.messages ends at offset 1") && words.contains("cql.keyspace"),
        "{words}"
    );
}
