//! No text that was sent and no secret is ever in a log.

use serde_json::json;

use crate::support::{Weir, eventually, sample};

/// In every text that a door, the model or SQL gets to see here.
const MARK: &str = "xyzzymark";

#[test]
fn logs_hold_no_texts_and_no_secrets() {
    let mut weir = Weir::start();
    weir.stop();
    weir.restart(&[("WEIR_LOG", "debug")]);
    let key = weir.admin_key();
    let mut messages = sample(50);
    for (at, message) in messages.iter_mut().enumerate() {
        message["id"] = json!(format!("logged-{at}"));
        message["text"] = json!(format!("{MARK} {}", message["text"].as_str().unwrap()));
    }
    assert_eq!(
        weir.call("POST", "/v1/messages/batch", &key, Some(&json!(messages)))
            .0,
        202
    );
    // Also on the ways that end in errors.
    weir.call(
        "POST",
        "/v1/messages",
        &key,
        Some(&json!({"channel": "", "text": MARK})),
    );
    weir.call(
        "POST",
        "/v1/messages",
        &key,
        Some(&json!({"channel": "c", "text": MARK, MARK: 1})),
    );
    weir.call(
        "POST",
        "/v1/score",
        &key,
        Some(&json!({"texts": [MARK, ""]})),
    );
    weir.call(
        "POST",
        "/v1/sql",
        &key,
        Some(&json!({"query": format!("SELECT '{MARK}' FROM nowhere")})),
    );
    weir.call("GET", "/v1/me", &format!("{key}0"), None);
    let password = "a Quiet lake 7";
    let account = json!({"username": "bob", "email": "bob@example.org", "password": password});
    weir.call("POST", "/v1/register", "", Some(&account));
    let (_, token) = weir.form(
        "/v1/token",
        &[("username", "bob"), ("password", "a+Quiet+lake+7")],
    );
    eventually("all are judged", || {
        weir.sql(&key, "SELECT count(*) FROM messages")[0][0]
            .as_u64()
            .unwrap()
            >= messages.len() as u64
    });
    weir.stop();

    let log = weir.log();
    assert!(
        log.contains("ready"),
        "the log is not the one that was written"
    );
    let admin = weir.admin();
    let secrets = [
        MARK,
        &key,
        password,
        admin["password"].as_str().unwrap(),
        token["access_token"].as_str().unwrap(),
    ];
    for secret in secrets {
        assert!(
            !log.contains(secret),
            "found {} characters that must not be there",
            secret.len()
        );
    }
    let broker = std::fs::read_to_string(weir.data().join("secrets/broker")).unwrap();
    assert!(!log.contains(broker.trim()));
}
