//! Whatever is sent, it is the sender's fault or it is accepted.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::support::Weir;

/// A batch with an id twice knows it the second time.
const TAKEN: [&str; 2] = ["accepted", "pending"];

/// JSON that is near to a message.
fn near() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        Just("channel".to_owned()),
        Just("text".to_owned()),
        Just("sender".to_owned()),
        Just("id".to_owned()),
        Just("sent_at".to_owned()),
        Just("metadata".to_owned()),
        ".{0,12}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        "[a-z0-9]{1,8}".prop_map(Value::from),
        Just(json!({"a": [1, {"b": null}]})),
        Just(json!("2026-01-31T12:00:00Z")),
    ];
    let object = proptest::collection::vec((name, leaf.clone()), 0..6)
        .prop_map(|fields| Value::Object(fields.into_iter().collect()));
    let good = ("[a-z]{1,4}", "\\PC{1,30}")
        .prop_map(|(channel, text)| json!({"channel": channel, "text": text}));
    prop_oneof![3 => object, 3 => good, 1 => leaf]
}

/// A batch, whole or with some of its bytes changed, or nothing of the kind.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let array = proptest::collection::vec(near(), 0..8)
        .prop_map(|all| Value::from(all).to_string().into_bytes());
    let lines = proptest::collection::vec(near(), 0..8).prop_map(|all| {
        all.iter()
            .map(Value::to_string)
            .collect::<Vec<_>>()
            .join("\n")
            .into_bytes()
    });
    let one = near().prop_map(|one| one.to_string().into_bytes());
    let json = prop_oneof![array, lines, one];
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let broken = (json, changes).prop_map(|(mut bytes, changes)| {
        for (at, byte) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        bytes
    });
    let brackets = "[\\[\\]{}\",:\\\\ a1]{0,40}".prop_map(String::into_bytes);
    prop_oneof![6 => broken, 2 => brackets, 1 => proptest::collection::vec(any::<u8>(), 0..200)]
}

#[test]
fn no_body_is_ever_the_servers_fault() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let weir = runtime.block_on(Weir::start());
    let key = runtime.block_on(weir.full_key("acme"));
    let mut runner = TestRunner::new(Config {
        cases: 400,
        failure_persistence: None,
        ..Config::default()
    });
    let (mut accepted, mut refused) = (0_u32, 0_u32);
    let counts = std::cell::RefCell::new((&mut accepted, &mut refused));
    runner
        .run(&body(), |body| {
            for path in ["/v1/messages", "/v1/messages/batch"] {
                let answer = runtime.block_on(weir.call("POST", path, &key, body.clone()));
                let status = answer.status.as_u16();
                prop_assert!(
                    status == 202 || (400..500).contains(&status),
                    "{status} for {body:?}"
                );
                if status == 202 {
                    *counts.borrow_mut().0 += 1;
                } else {
                    *counts.borrow_mut().1 += 1;
                    prop_assert!(!answer.code().is_empty());
                }
                if let Some(results) = answer.json["results"].as_array() {
                    let any = results
                        .iter()
                        .any(|result| TAKEN.iter().any(|taken| result["status"] == *taken));
                    prop_assert_eq!(any, status == 202);
                }
            }
            Ok(())
        })
        .unwrap();
    assert!(
        accepted > 50 && refused > 50,
        "{accepted} and {refused}: the bodies are too much alike"
    );
    let stored = runtime.block_on(weir.accepted());
    assert_eq!(
        stored.len() as f64,
        weir.metric("weir_messages_accepted_total") - weir.metric("weir_messages_repeated_total")
    );
    runtime.block_on(async { drop(weir) });
}
