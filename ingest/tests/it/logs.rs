//! No text that was sent and no credential is ever in a log.

use std::time::Duration;

use serde_json::json;

use crate::support::{PASSWORD, Setup, Weir, log};

const MARK: &str = "xyzzyingestmark";

#[tokio::test(flavor = "multi_thread")]
async fn logs_hold_no_texts_and_no_credentials() {
    let delivery_timeout = Duration::from_secs(1);
    let mut weir = Weir::with(Setup {
        delivery_timeout,
        ..Setup::default()
    })
    .await;
    let (key, token) = (weir.full_key("acme").await, weir.member("zoe").await);
    let text =
        |n: usize| json!({"channel": "c", "text": format!("{MARK} {n}"), "id": format!("m-{n}")});
    weir.batch(
        &key,
        json!([text(1), text(2), {"channel": "c", "text": MARK, MARK: 1}]).to_string(),
    )
    .await;
    weir.send(&token, text(3)).await;
    // The ways that end in errors.
    for body in [
        json!({"channel": "", "text": MARK}).to_string(),
        json!({"channel": "c", "text": [MARK]}).to_string(),
        format!("{{\"channel\": \"c\", \"text\": \"{MARK}"),
        MARK.to_owned(),
    ] {
        weir.call("POST", "/v1/messages", &key, body.clone()).await;
        weir.batch(&key, body).await;
    }
    weir.send(&format!("{key}0"), text(4)).await;
    weir.get(&format!("/v1/messages/{MARK}?{MARK}={MARK}"), &key)
        .await;
    for (source, message) in weir.accepted().await {
        weir.judge(source, message).await;
    }
    weir.get("/v1/messages/m-1?wait=30", &key).await;
    weir.store_all().await;
    weir.get("/v1/channels/c/messages", &key).await;
    weir.stop_broker().await;
    weir.send(&key, text(5)).await;
    drop(weir);

    let log = log();
    assert!(
        log.contains("tail started"),
        "the log is not the one that was written"
    );
    for secret in [MARK, key.as_str(), token.as_str(), PASSWORD] {
        assert!(
            !log.contains(secret),
            "found {} characters that must not be there",
            secret.len()
        );
    }
}
