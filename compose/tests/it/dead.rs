//! `weir dead`: poison goes into the log, and comes out of it by hand.

use std::path::Path;
use std::time::Duration;

use prometheus::Registry;
use serde_json::{Value, json};
use weir_broker::Broker;
use weir_bus::{Outgoing, Producer};
use weir_records::{DeadLetter, Message, Source, topic};

use crate::support::{Weir, eventually, text_of};

/// Writes records into the broker's folder, while no Weir runs on it.
pub(crate) fn write(data: &Path, records: Vec<Outgoing>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let config = weir_broker::Config::new("127.0.0.1:0".parse().unwrap(), data.join("broker"));
        let broker = Broker::start(config, &Registry::new()).await.unwrap();
        let bus = weir_bus::Config {
            brokers: broker.address().to_string(),
            ..weir_bus::Config::default()
        };
        let producer = Producer::new(&bus, &Registry::new()).unwrap();
        let written = producer.send(records).unwrap().await;
        assert!(written.iter().all(Result::is_ok), "{written:?}");
        producer.flush(Duration::from_secs(5)).await;
        drop(producer);
        broker.shutdown().await;
    });
}

pub(crate) fn message(tenant: &str, id: &str, text: &str) -> Message {
    let now = jiff::Timestamp::now();
    Message {
        tenant: tenant.to_owned(),
        channel: "lobby".to_owned(),
        sender: Some("ann".to_owned()),
        id: id.to_owned(),
        text: text.to_owned(),
        sent_at: now,
        received_at: now,
        by_user: false,
        id_made: false,
        metadata: None,
    }
}

fn record(topic: &'static str, payload: Vec<u8>) -> Outgoing {
    Outgoing {
        topic,
        partition: None,
        key: topic::key("default", "lobby"),
        payload,
    }
}

/// The letter of a message on which an older model failed; today's does not.
pub(crate) fn letter(refused: Message, offset: i64) -> Outgoing {
    let letter = DeadLetter {
        stage: "process".to_owned(),
        reason: "model_refused".to_owned(),
        topic: topic::MESSAGES.to_owned(),
        source: Source {
            partition: 0,
            offset,
        },
        key: topic::key("default", "lobby").into(),
        payload: refused.encode().into(),
        failed_at: jiff::Timestamp::now(),
        resolution: None,
    };
    record(topic::DEAD, letter.encode())
}

/// The letters that `weir dead list` prints as JSON.
pub(crate) fn listed(weir: &Weir, args: &[&str]) -> Vec<Value> {
    let args = [&["dead", "list", "--format", "json"], args].concat();
    let output = weir.tool(&args);
    assert!(output.status.success(), "{}", text_of(&output));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn metric(weir: &Weir, series: &str) -> Option<String> {
    let (_, metrics) = weir.get("/metrics");
    let mut lines = metrics.lines();
    lines.find_map(|line| {
        line.strip_prefix(series)
            .map(|value| value.trim().to_owned())
    })
}

/// Messages of the channel in the history.
fn stored(weir: &Weir, key: &str) -> usize {
    let (_, page) = weir.call("GET", "/v1/channels/lobby/messages", key, None);
    page["messages"].as_array().map_or(0, Vec::len)
}

#[test]
fn poison_is_listed_replayed_once_and_discarded_from_the_command_line() {
    let mut weir = Weir::start();
    let key = weir.admin_key();
    let first = json!({"channel": "lobby", "sender": "ann", "id": "m-1", "text": "hello there"});
    assert_eq!(weir.call("POST", "/v1/messages", &key, Some(&first)).0, 202);
    eventually("the history has the message", || stored(&weir, &key) == 1);
    weir.stop();

    let refused = message("default", "m-2", "you are a complete idiot");
    write(
        &weir.data(),
        vec![
            record(topic::MESSAGES, vec![0xff; 12]),
            record(
                topic::MESSAGES,
                message("default", "m-1", "quite another text").encode(),
            ),
            letter(refused, 1_000_000),
        ],
    );
    weir.restart(&[]);
    eventually("all letters are listed", || listed(&weir, &[]).len() == 3);
    assert_eq!(listed(&weir, &["--reason", "id_conflict"]).len(), 1);
    assert_eq!(listed(&weir, &["--tenant", "default"]).len(), 2);
    assert_eq!(listed(&weir, &["--stage", "history"]).len(), 0);
    assert_eq!(listed(&weir, &["--since", "2h", "--limit", "2"]).len(), 2);
    let output = weir.tool(&["dead", "list"]);
    let table = text_of(&output);
    assert!(
        table.contains("malformed_record") && !table.contains("another text"),
        "{table}"
    );
    let id = |reason: &str| {
        let letters = listed(&weir, &["--state", "all", "--reason", reason]);
        letters[0]["id"].as_str().unwrap().to_owned()
    };

    let conflict = id("id_conflict");
    let shown = weir.tool(&["dead", "show", &conflict]);
    assert!(text_of(&shown).contains("quite another text"));

    // Without --yes and without a terminal: the plan, and nothing else.
    let output = weir.tool(&["dead", "replay", "--all"]);
    let said = text_of(&output);
    assert!(!output.status.success());
    assert!(
        said.contains("nothing was done") && said.contains("--yes"),
        "{said}"
    );
    for row in ["judged", "fails_again", "id_conflict", "malformed_record"] {
        assert!(said.contains(row), "no `{row}` in: {said}");
    }
    assert_eq!(listed(&weir, &[]).len(), 3);

    let refused = id("model_refused");
    let output = weir.tool(&["dead", "replay", &refused, "--yes"]);
    assert!(output.status.success(), "{}", text_of(&output));
    assert!(text_of(&output).contains("1 letter replayed"));
    eventually("the message has its verdict in the history", || {
        stored(&weir, &key) == 2
    });
    let output = weir.tool(&["dead", "replay", &refused, "--yes"]);
    assert!(output.status.success(), "{}", text_of(&output));
    assert!(text_of(&output).contains("nothing was done"));
    assert_eq!(
        metric(&weir, "weir_dead_letters_replayed_total{stage=\"process\"}").as_deref(),
        Some("1")
    );

    // What would fail again stays, and says so.
    let output = weir.tool(&["dead", "replay", "--all", "--yes"]);
    assert_eq!(output.status.code(), Some(1), "{}", text_of(&output));
    let output = weir.tool(&[
        "dead",
        "discard",
        "--all",
        "--reason",
        "id_conflict",
        "--yes",
    ]);
    assert!(
        text_of(&output).contains("1 letter discarded"),
        "{}",
        text_of(&output)
    );
    let left = listed(&weir, &[]);
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0]["reason"], "malformed_record");
    for args in [
        &["dead", "show", "0-999999"][..],
        &["dead", "show", "../keys"],
        &["dead", "replay"],
        &["dead", "replay", "0-1", "--reason", "x"],
        &["dead", "list", "--since", "yesterday"],
    ] {
        assert!(!weir.tool(args).status.success(), "{args:?}");
    }

    // The notes last.
    weir.stop();
    weir.restart(&[]);
    assert_eq!(listed(&weir, &[]).len(), 1);
    assert_eq!(listed(&weir, &["--state", "all"]).len(), 3);
    let log = weir.log();
    for text in ["quite another text", "complete idiot"] {
        assert!(!log.contains(text), "a text is in the log");
    }
}
