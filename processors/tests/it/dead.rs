//! Dead letters through the real routes, on a real broker and store: listed, shown,
//! replayed once, discarded, and kept apart by tenant.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use jiff::{Timestamp, ToSpan as _};
use serde_json::{Value, json};
use weir_auth::Scope;
use weir_bus::Outgoing;
use weir_records::{Message, topic};
use weir_store::History as _;

use crate::bench::{Bench, message};
use crate::desk::{DISCARDED, Desk, REPLAYED, judged, letter, open, sent, verdict_letter, write};
use crate::stage::poisoned;
use crate::{judge, judge_on};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_model_refused_is_replayed_on_a_better_one_and_only_once() {
    let bench = Bench::start().await;
    let mut messages = [
        message("lobby", "1", "hello"),
        message("lobby", "2", "zzpoison in here"),
    ];
    messages[1].id_made = true;
    bench.send(0, &messages).await;
    let (_folder, poisoned) = poisoned();
    let role = bench.process(judge_on(poisoned.clone()));
    bench.wait_processed(0, 2).await;
    role.stop().await;

    // The same model still refuses it.
    let same = Desk::open(&bench, judge_on(poisoned)).await;
    let id = same.id("model_refused").await;
    let plan = same.replay(&id, true).await;
    assert_eq!(
        (&plan["outcome"], &plan["because"], &plan["now"]),
        (&json!("fails_again"), &json!("model_refused"), &Value::Null)
    );
    let answer = same.replay(&id, false).await;
    assert_eq!(
        (&answer["done"], &answer["state"]),
        (&json!(false), &json!("open"))
    );
    assert_eq!(sent(&bench).await, 2);

    let desk = Desk::open(&bench, judge()).await;
    let plan = desk.replay(&id, true).await;
    assert_eq!(
        (&plan["outcome"], &plan["done"]),
        (&json!("judged"), &json!(false))
    );
    assert!(plan["then"].is_null() && plan["now"]["action"].is_string());
    assert_eq!(sent(&bench).await, 2, "a dry run does nothing");
    assert_eq!(desk.listed("").await, open(&["model_refused"]));

    // Twice at once, and once more.
    let (one, two) = tokio::join!(desk.replay(&id, false), desk.replay(&id, false));
    let done = [&one, &two].map(|answer| answer["done"] == true);
    assert!(done[0] != done[1], "{one} {two}");
    let third = desk.replay(&id, false).await;
    assert_eq!(
        (&third["outcome"], &third["state"], &third["done"]),
        (&json!("settled"), &json!("replayed"), &json!(false))
    );
    assert_eq!(sent(&bench).await, 3);
    assert_eq!(desk.metric(REPLAYED), 1.0);
    assert!(desk.listed("").await.is_empty());
    assert_eq!(
        desk.listed("?state=replayed").await,
        [("model_refused".to_owned(), "replayed".to_owned())]
    );
    let shown = desk.get(&format!("/{id}")).await;
    assert!(shown["settled_by"].is_string() && shown["settled_at"].is_string());

    // It is the record as it was, but no longer the only one with its id, and gets its verdict.
    messages[1].id_made = false;
    let role = bench.process(judge());
    for partition in 0..2 {
        let end = bench.records(topic::MESSAGES, partition).await.len();
        if end > 0 {
            bench
                .wait_processed(partition, i64::try_from(end).unwrap())
                .await;
        }
    }
    role.stop().await;
    let mut verdicts = bench.verdicts(0).await;
    verdicts.extend(bench.verdicts(1).await);
    let mut got: Vec<Message> = verdicts.into_iter().map(|judged| judged.message).collect();
    got.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(got, messages);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_listed_by_filters_shown_and_discarded_once() {
    let bench = Bench::start().await;
    bench
        .publish(0, vec![(b"key".to_vec(), vec![0xff; 12])])
        .await;
    let mut changed = message("lobby", "a", "something else");
    changed.sender = None;
    bench
        .send(0, &[message("lobby", "a", "hello there"), changed.clone()])
        .await;
    let role = bench.process(judge());
    let history = bench.history();
    bench.wait_processed(0, 3).await;
    bench
        .wait_committed(topic::GROUP_HISTORY, topic::VERDICTS, 0, 1)
        .await;
    role.stop().await;
    history.stop().await;

    let desk = Desk::open(&bench, judge()).await;
    let all = BTreeSet::from(["id_conflict".to_owned(), "malformed_record".to_owned()]);
    let listed = desk.listed("").await;
    assert_eq!(
        listed
            .into_iter()
            .map(|(reason, _)| reason)
            .collect::<BTreeSet<_>>(),
        all
    );
    for (query, reasons) in [
        ("?reason=id_conflict", &["id_conflict"][..]),
        ("?tenant=acme", &["id_conflict"]),
        ("?channel=lobby&tenant=acme", &["id_conflict"]),
        (
            "?stage=process&reason=malformed_record",
            &["malformed_record"],
        ),
        ("?stage=history", &[]),
        ("?tenant=globex", &[]),
        ("?state=discarded", &[]),
    ] {
        assert_eq!(desk.listed(query).await, open(reasons), "{query}");
    }
    let hour = |ago: i64| Timestamp::now().checked_sub(ago.hours()).unwrap();
    assert_eq!(desk.listed(&format!("?since={}", hour(1))).await.len(), 2);
    assert!(
        desk.listed(&format!("?since={}", hour(-1)))
            .await
            .is_empty()
    );
    // Page by page.
    let first = desk.get("?limit=1").await;
    let next = first["next"].as_str().unwrap();
    let second = desk.get(&format!("?limit=1&cursor={next}")).await;
    assert!(second["next"].is_null());
    assert_ne!(first["letters"][0]["id"], second["letters"][0]["id"]);

    // A conflict: what is stored, and why it would fail again.
    let conflict = desk.id("id_conflict").await;
    let shown = desk.get(&format!("/{conflict}")).await;
    assert_eq!(shown["message"]["text"], "something else");
    assert_eq!(shown["message_id"], "a");
    assert!(shown["payload"].is_null());
    let plan = desk.replay(&conflict, false).await;
    assert_eq!(
        (&plan["outcome"], &plan["because"], &plan["done"]),
        (&json!("fails_again"), &json!("id_conflict"), &json!(false))
    );
    assert_eq!(plan["then"]["action"], "allow");
    assert!(plan["now"]["scores"]["toxicity"].is_number());

    // What can't be read is shown as it is.
    let poison = desk.id("malformed_record").await;
    let shown = desk.get(&format!("/{poison}")).await;
    assert_eq!(
        (&shown["payload"], &shown["bytes"]),
        (&json!("////////////////"), &json!(12))
    );
    assert!(shown["message"].is_null() && shown["tenant"].is_null());
    assert!(shown["fault"].as_str().unwrap().contains("Protobuf"));
    let plan = desk.replay(&poison, true).await;
    assert_eq!(
        (&plan["outcome"], &plan["because"]),
        (&json!("fails_again"), &json!("malformed_record"))
    );
    assert_eq!(sent(&bench).await, 3, "nothing is sent to fail again");
    assert_eq!(desk.metric(REPLAYED), 0.0);

    assert_eq!(desk.discard(&poison).await["done"], true);
    assert_eq!(desk.discard(&poison).await["done"], false);
    assert_eq!(desk.replay(&poison, false).await["outcome"], "settled");
    assert_eq!(desk.metric(DISCARDED), 1.0);
    assert_eq!(desk.listed("").await, open(&["id_conflict"]));
    assert_eq!(desk.listed("?state=all").await.len(), 2);
    assert_eq!(
        desk.listed("?state=discarded").await,
        [("malformed_record".to_owned(), "discarded".to_owned())]
    );
    // Another process sees the same.
    let other = Desk::open(&bench, judge()).await;
    assert_eq!(other.listed("").await, open(&["id_conflict"]));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_has_its_verdict_by_now_is_settled_and_not_sent_again() {
    let bench = Bench::start().await;
    let late = message("lobby", "late", "hello there");
    let row = judged(late.clone(), 9).await;
    bench.store.write(0, &[row]).await.unwrap();
    write(&bench, &[letter("verdict_out_of_order", 4, late.encode())]).await;

    let desk = Desk::open(&bench, judge()).await;
    let id = desk.id("verdict_out_of_order").await;
    let plan = desk.replay(&id, true).await;
    assert_eq!(plan["outcome"], "duplicate");
    assert_eq!(plan["then"]["scores"], plan["now"]["scores"]);
    assert_eq!(desk.replay(&id, false).await["done"], true);
    assert_eq!(sent(&bench).await, 0);
    assert!(desk.listed("").await.is_empty());
    assert_eq!(desk.metric(REPLAYED), 1.0);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_history_gave_up_is_written_into_it() {
    let bench = Bench::start().await;
    let mut whole = judged(message("lobby", "whole", "you are a complete idiot"), 3).await;
    whole.verdict.model = "an older model".to_owned();
    // The same with a verdict that is no Protobuf: parts that come again are merged.
    let broken = judged(message("lobby", "broken", "hello there"), 5).await;
    let broken = [broken.encode(), vec![3 << 3 | 2, 3, 0xff, 0xff, 0xff]].concat();
    let huge = judged(message("lobby", &"x".repeat(100_000), "hello"), 6).await;
    write(
        &bench,
        &[
            verdict_letter("history", "refused_by_store", 3, whole.clone().encode()),
            verdict_letter("history", "malformed_record", 5, broken.clone()),
            verdict_letter("lake", "malformed_record", 5, broken),
            verdict_letter("history", "refused_by_store", 6, huge.encode()),
        ],
    )
    .await;
    bench
        .store
        .write(0, &[judged(message("lobby", "z", "later"), 20).await])
        .await
        .unwrap();
    let desk = Desk::open(&bench, judge()).await;
    let page = desk.get("").await;
    let id = |stage: &str, offset: i64| {
        let letters = page["letters"].as_array().unwrap().iter();
        let found: Vec<&Value> = letters
            .filter(|letter| letter["stage"] == stage && letter["offset"] == offset)
            .collect();
        assert_eq!(found.len(), 1, "{page}");
        found[0]["id"].as_str().unwrap().to_owned()
    };

    let plan = desk.replay(&id("history", 3), true).await;
    assert_eq!(plan["outcome"], "stored");
    assert_eq!(
        (&plan["then"]["model"], &plan["now"]["model"]),
        (&json!("an older model"), &json!("weir-small-1"))
    );
    assert_eq!(bench.store.message("acme", "whole").await.unwrap(), None);
    let first = id("history", 3);
    let (one, two) = tokio::join!(desk.replay(&first, false), desk.replay(&first, false));
    assert!((one["done"] == true) != (two["done"] == true));
    assert_eq!(
        bench.store.message("acme", "whole").await.unwrap(),
        Some(whole)
    );

    let plan = desk.replay(&id("history", 5), true).await;
    assert_eq!(plan["outcome"], "stored");
    assert!(plan["then"].is_null() && plan["now"]["action"].is_string());
    assert_eq!(desk.replay(&id("history", 5), false).await["done"], true);
    let row = bench
        .store
        .message("acme", "broken")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (row.source.offset, row.message.text.as_str()),
        (5, "hello there")
    );

    let plan = desk.replay(&id("lake", 5), false).await;
    assert_eq!(
        (&plan["outcome"], &plan["because"], &plan["state"]),
        (
            &json!("impossible"),
            &json!("lake_takes_no_single_rows"),
            &json!("open")
        )
    );
    let answer = desk.replay(&id("history", 6), false).await;
    assert_eq!(
        (&answer["outcome"], &answer["because"], &answer["state"]),
        (
            &json!("fails_again"),
            &json!("refused_by_store"),
            &json!("open")
        )
    );
    assert_eq!(bench.store.fence(0).await.unwrap(), Some(20));
    assert_eq!(desk.metric(REPLAYED), 2.0);
    assert_eq!(sent(&bench).await, 0);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_of_a_tenant_deals_with_its_letters_and_no_others() {
    let bench = Bench::start().await;
    let mut theirs = message("lobby", "t", "from their side");
    theirs.tenant = "globex".to_owned();
    write(
        &bench,
        &[
            letter("model_refused", 1, message("lobby", "o", "ours").encode()),
            letter("verdict_out_of_order", 2, theirs.encode()),
            // The key names our tenant; anybody's bytes could be in it.
            letter("malformed_record", 3, vec![0xff; 9]),
        ],
    )
    .await;
    let desk = Desk::open(&bench, judge()).await;
    let acme = desk.key_of("acme", Scope::Admin).await;
    let (ours, theirs, nobodys) = (
        desk.id("model_refused").await,
        desk.id("verdict_out_of_order").await,
        desk.id("malformed_record").await,
    );
    let ids = |page: &Value| -> Vec<String> {
        let letters = page["letters"].as_array().unwrap().iter();
        letters
            .map(|letter| letter["id"].as_str().unwrap().to_owned())
            .collect()
    };
    for query in ["", "?state=all", "?tenant=acme"] {
        let (_, page) = desk.call(&acme, "GET", query, None).await;
        assert_eq!(ids(&page), std::slice::from_ref(&ours), "{query}");
    }
    let (_, page) = desk.call(&acme, "GET", "?tenant=globex", None).await;
    assert!(ids(&page).is_empty());
    assert_eq!(desk.listed("").await.len(), 3, "an operator sees all");

    for id in [&theirs, &nobodys] {
        for (method, path, body) in [
            ("GET", format!("/{id}"), None),
            (
                "POST",
                format!("/{id}/replay"),
                Some(json!({"dry_run": true})),
            ),
            ("POST", format!("/{id}/replay"), Some(json!({}))),
            ("POST", format!("/{id}/discard"), None),
        ] {
            let (status, problem) = desk.call(&acme, method, &path, body).await;
            assert_eq!(
                (status, &problem["code"]),
                (StatusCode::NOT_FOUND, &json!("not_found")),
                "{method} {path}"
            );
        }
    }
    let path = format!("/{ours}/discard");
    assert_eq!(
        desk.call(&acme, "POST", &path, None).await.0,
        StatusCode::OK
    );
    assert_eq!(desk.listed("").await.len(), 2);

    for scope in [Scope::Ingest, Scope::Read, Scope::Sql] {
        let key = desk.key_of("default", scope).await;
        for (method, path) in [
            ("GET", String::new()),
            ("POST", format!("/{theirs}/discard")),
        ] {
            let (status, _) = desk.call(&key, method, &path, None).await;
            assert_eq!(status, StatusCode::FORBIDDEN);
        }
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_letter_stands_in_nobodys_way_and_twice_is_once() {
    let bench = Bench::start().await;
    let twice = letter("model_refused", 1, message("lobby", "o", "ours").encode());
    write(&bench, std::slice::from_ref(&twice)).await;
    let garbage = Outgoing {
        topic: topic::DEAD,
        partition: Some(1),
        key: Vec::new(),
        payload: vec![0xff; 30],
    };
    let _ = bench.producer.send(vec![garbage]).unwrap().await;
    write(&bench, &[twice]).await;

    let desk = Desk::open(&bench, judge()).await;
    assert_eq!(desk.listed("").await.len(), 2);
    let id = desk.id("unreadable_letter").await;
    let shown = desk.get(&format!("/{id}")).await;
    assert_eq!(
        (&shown["stage"], &shown["topic"], &shown["bytes"]),
        (&json!("unknown"), &json!("weir.dead"), &json!(30))
    );
    assert_eq!(desk.replay(&id, true).await["outcome"], "impossible");
    assert_eq!(desk.discard(&id).await["done"], true);
    assert_eq!(desk.listed("").await, open(&["model_refused"]));
    let id = desk.id("model_refused").await;
    assert_eq!(desk.replay(&id, false).await["done"], true);
    assert!(desk.listed("").await.is_empty(), "both copies are settled");
    bench.stop().await;
}

/// Two processes: neither knows of the other's work before its note is written.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_desks_that_settle_a_letter_at_once_one_counts_it() {
    let bench = Bench::start().await;
    let letters: Vec<_> = (0..6)
        .map(|n| {
            let message = message("lobby", &n.to_string(), "ours");
            letter("model_refused", n, message.encode())
        })
        .collect();
    write(&bench, &letters).await;
    let (one, two) = (
        Desk::open(&bench, judge()).await,
        Desk::open(&bench, judge()).await,
    );
    let page = one.get("?state=all").await;
    for (n, letter) in page["letters"].as_array().unwrap().iter().enumerate() {
        let id = letter["id"].as_str().unwrap();
        let (first, second) = if n % 2 == 0 {
            tokio::join!(one.replay(id, false), two.replay(id, false))
        } else {
            tokio::join!(one.discard(id), two.discard(id))
        };
        let done = [&first, &second].map(|answer| answer["done"] == true);
        assert_ne!(done[0], done[1], "{first} {second}");
        assert_eq!(first["state"], second["state"]);
    }
    let counted = |name| one.metric(name) + two.metric(name);
    assert_eq!((counted(REPLAYED), counted(DISCARDED)), (3.0, 3.0));
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_wrongly_is_named() {
    let bench = Bench::start().await;
    let desk = Desk::open(&bench, judge()).await;
    for (query, code, field) in [
        ("?limit=0", "invalid_field", "limit"),
        ("?limit=1001", "invalid_field", "limit"),
        ("?since=yesterday", "invalid_field", "since"),
        ("?state=lost", "invalid_field", "state"),
        ("?cursor=x", "invalid_field", "cursor"),
        ("?stage=a&stage=b", "invalid_field", "stage"),
        ("?page=2", "unknown_field", "page"),
    ] {
        let (status, problem) = desk.call(&desk.key, "GET", query, None).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(
            (&problem["code"], &problem["field"]),
            (&json!(code), &json!(field)),
            "{query}"
        );
    }
    // No such partition, no such offset, no id at all.
    for id in ["99-0", "0-0", "0-99", "x", "0-0-0"] {
        let (status, _) = desk.call(&desk.key, "GET", &format!("/{id}"), None).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{id}");
    }
    let wrong = Some(json!({"dry": true}));
    let (status, problem) = desk.call(&desk.key, "POST", "/0-0/replay", wrong).await;
    assert_eq!(
        (status, &problem["field"]),
        (StatusCode::BAD_REQUEST, &json!("dry"))
    );
    bench.stop().await;
}
