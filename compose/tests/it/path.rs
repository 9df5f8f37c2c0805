//! The whole way of a message: accepted, judged, stored once in each place.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{Weir, eventually, sample, text_of, weir};

/// Every message has one row in `messages`, one in the history, and one verdict.
pub(crate) fn all_stored(weir: &Weir, key: &str, messages: &[Value]) {
    let count = || {
        let rows = weir.sql(
            key,
            "SELECT count(*), count(DISTINCT message_id) FROM messages",
        );
        (rows[0][0].as_u64().unwrap(), rows[0][1].as_u64().unwrap())
    };
    let expected = messages.len() as u64;
    // However many there are, there must be more of them all the time.
    let mut rows = 0;
    while rows < expected {
        eventually("there are more rows", || count().1 > rows);
        rows = count().1;
    }
    assert_eq!(count(), (expected, expected), "(rows, ids)");
    for message in messages {
        let id = message["id"].as_str().unwrap();
        let (status, found) = weir.call("GET", &format!("/v1/messages/{id}?wait=30"), key, None);
        assert_eq!((status, &found["status"]), (200, &json!("judged")), "{id}");
        assert_eq!(
            found["text"].as_str().unwrap(),
            message["text"].as_str().unwrap().trim()
        );
    }
    eventually("the history has each message once", || {
        history_rows(weir, key, messages) >= messages.len()
    });
    assert_eq!(history_rows(weir, key, messages), messages.len());
}

/// Rows of all channels, page by page.
fn history_rows(weir: &Weir, key: &str, messages: &[Value]) -> usize {
    let channels: std::collections::BTreeSet<&str> = messages
        .iter()
        .map(|m| m["channel"].as_str().unwrap())
        .collect();
    let mut rows = 0;
    for channel in channels {
        let mut cursor = String::new();
        loop {
            let path = format!("/v1/channels/{channel}/messages?limit=200{cursor}");
            let (status, page) = weir.call("GET", &path, key, None);
            assert_eq!(status, 200, "{page}");
            rows += page["messages"].as_array().unwrap().len();
            let Some(next) = page["next"].as_str() else {
                break;
            };
            cursor = format!("&cursor={next}");
        }
    }
    rows
}

#[test]
fn a_message_is_accepted_judged_kept_and_queryable() {
    let weir = Weir::start();
    let key = weir.admin_key();
    let message = json!({"channel": "lobby", "sender": "ann", "id": "m-1", "text": "  you are a stupid idiot  "});
    let (status, accepted) = weir.call("POST", "/v1/messages", &key, Some(&message));
    assert_eq!(
        (status, accepted),
        (202, json!({"id": "m-1", "status": "accepted"}))
    );

    let (status, judged) = weir.call("GET", "/v1/messages/m-1?wait=30", &key, None);
    assert_eq!((status, &judged["status"]), (200, &json!("judged")));
    assert_eq!(judged["text"], "you are a stupid idiot");
    let verdict = &judged["verdict"];
    assert_ne!(verdict["action"], "allow", "{verdict}");
    assert!(
        verdict["scores"]["toxicity"].as_f64().unwrap() > 0.5,
        "{verdict}"
    );
    let reason = &verdict["reasons"][0];
    assert!(
        reason["score"].as_f64().unwrap() >= reason["threshold"].as_f64().unwrap(),
        "{verdict}"
    );

    // Whoever waits for a verdict and SQL read the topic each for themselves.
    eventually("SQL has it", || {
        let rows = weir.sql(
            &key,
            "SELECT channel, sender, action FROM messages WHERE message_id = 'm-1'",
        );
        rows == [json!(["lobby", "ann", verdict["action"]])]
    });
    eventually("the history has it", || {
        let (_, page) = weir.call("GET", "/v1/senders/ann/messages", &key, None);
        page["messages"]
            .as_array()
            .is_some_and(|rows| rows.len() == 1)
    });
}

#[test]
fn a_retry_with_the_same_id_is_one_message_also_after_a_restart() {
    let mut weir = Weir::start();
    let key = weir.admin_key();
    let messages = sample(20);
    for _ in 0..2 {
        for _ in 0..2 {
            let (status, _) = weir.call("POST", "/v1/messages/batch", &key, Some(&json!(messages)));
            assert_eq!(status, 202);
        }
        all_stored(&weir, &key, &messages);
        weir.stop();
        weir.restart(&[]);
    }
    all_stored(&weir, &key, &messages);
    let (_, again) = weir.call("POST", "/v1/messages/batch", &key, Some(&json!(messages)));
    for (message, result) in messages.iter().zip(again["results"].as_array().unwrap()) {
        let id = message["id"].as_str().unwrap();
        let (_, found) = weir.call("GET", &format!("/v1/messages/{id}"), &key, None);
        let expected = json!({"id": id, "status": "judged", "verdict": found["verdict"]});
        assert_eq!(*result, expected);
    }
}

#[test]
fn replay_sends_a_file_and_proves_what_became_of_it() {
    let weir = Weir::start();
    let file = weir.data().join("some.jsonl");
    let lines: Vec<String> = sample(400).iter().map(Value::to_string).collect();
    fs::write(&file, lines.join("\n")).unwrap();
    let output = weir.tool(&["replay", file.to_str().unwrap(), "--verify"]);
    let said = text_of(&output);
    assert!(output.status.success(), "{said}");
    for line in [
        "accepted       400",
        "judged         400",
        "stored         400",
        "verified",
        "p50",
        "p99",
    ] {
        assert!(said.contains(line), "no `{line}` in: {said}");
    }
}

#[test]
fn the_sql_tool_prints_tables_and_quotes_the_place_of_an_error() {
    let weir = Weir::start();
    let output = weir.tool(&["sql", "SELECT 40 + 2 AS answer"]);
    assert!(text_of(&output).contains("42"), "{}", text_of(&output));
    let output = weir.tool(&["sql", "SELECT actoin FROM messages"]);
    assert!(!output.status.success());
    assert!(text_of(&output).contains("actoin"), "{}", text_of(&output));
}

#[test]
fn score_judges_without_a_server() {
    let mut child = weir()
        .arg("score")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"what a lovely day, thank you\nyou stupid fucking idiot\n")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let lines: Vec<Value> = output
        .stdout
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["action"], "allow");
    assert_ne!(lines[1]["action"], "allow");
    assert_eq!(lines[0]["sentiment"]["label"], "positive");
}
