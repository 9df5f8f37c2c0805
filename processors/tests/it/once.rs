//! One verdict for each message, whatever is read or sent again.

use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use weir_bus::Erased;
use weir_bus::{Outcome, Outgoing, Record, Stage};
use weir_records::{Erasure, Message, Target, topic};

use crate::bench::{Bench, Running, message, metric};
use crate::desk::judged;
use crate::stage::poisoned;
use crate::{judge, judge_on};

async fn offsets(bench: &Bench, partition: i32) -> Vec<i64> {
    bench
        .verdicts(partition)
        .await
        .iter()
        .map(|judged| judged.source.offset)
        .collect()
}

fn hellos(ids: &[&str]) -> Vec<Message> {
    ids.iter()
        .map(|id| message("lobby", id, "hello there"))
        .collect()
}

/// Sends such messages first of all, and answers the role and the writer of the history, at
/// work, once the history has them.
async fn judged_and_stored(bench: &Bench, ids: &[&str]) -> (Running, Running) {
    bench.send(0, &hellos(ids)).await;
    let (role, history) = (bench.process(judge()), bench.history());
    let end = i64::try_from(ids.len()).unwrap();
    bench
        .wait_committed(topic::GROUP_HISTORY, topic::VERDICTS, 0, end)
        .await;
    (role, history)
}

/// Hands records to a stage as a worker does.
async fn handle(stage: &mut impl Stage, records: &[Record]) -> Outcome {
    stage.handle(records).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_sent_again_is_dropped_also_after_a_restart() {
    let bench = Bench::start().await;
    bench.send(0, &hellos(&["a", "b", "a", "c"])).await;
    let role = bench.process(judge());
    bench.wait_processed(0, 4).await;
    bench.send(0, &hellos(&["b", "d"])).await;
    bench.wait_processed(0, 6).await;
    assert_eq!(role.metric("weir_duplicates_dropped_total"), 2.0);
    role.stop().await;
    assert_eq!(offsets(&bench, 0).await, [0, 1, 3, 5]);

    // No history yet: what was judged is read back from the verdicts.
    let role = bench.process(judge());
    bench.send(0, &hellos(&["a", "d", "e"])).await;
    bench.wait_processed(0, 9).await;
    assert_eq!(role.metric("weir_duplicates_dropped_total"), 2.0);
    role.stop().await;
    assert_eq!(offsets(&bench, 0).await, [0, 1, 3, 5, 8]);
    assert!(bench.dead().await.is_empty());
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_history_holds_is_not_judged_again() {
    let bench = Bench::start().await;
    let (role, history) = judged_and_stored(&bench, &["a", "b"]).await;
    bench.wait_processed(0, 2).await;
    role.stop().await;
    history.stop().await;

    // Nothing is left to read back; another partition, the same message.
    let role = bench.process(judge());
    bench.send(1, &hellos(&["b", "x"])).await;
    bench.send(0, &hellos(&["a"])).await;
    bench.wait_processed(1, 2).await;
    bench.wait_processed(0, 3).await;
    assert_eq!(role.metric("weir_duplicates_dropped_total"), 2.0);
    role.stop().await;
    assert_eq!(offsets(&bench, 0).await, [0, 1]);
    assert_eq!(offsets(&bench, 1).await, [1]);
    assert!(bench.dead().await.is_empty());
    bench.stop().await;
}

/// A door named a message and heard late from the broker; its client has sent it again under
/// that name by way of another door, and this one's record lies before the first one's.
#[tokio::test(flavor = "multi_thread")]
async fn a_made_id_that_was_sent_again_before_its_own_record_is_one_message() {
    let bench = Bench::start().await;
    let (role, history) = judged_and_stored(&bench, &["a"]).await;
    role.stop().await;
    history.stop().await;

    let role = bench.process(judge());
    let mut first = hellos(&["a", "b"]);
    for message in &mut first {
        message.id_made = true;
    }
    bench.send(0, &first).await;
    bench.wait_processed(0, 3).await;
    assert_eq!(role.metric("weir_duplicates_dropped_total"), 1.0);
    role.stop().await;
    assert_eq!(offsets(&bench, 0).await, [0, 2]);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_id_of_a_message_whose_time_is_over_is_free_again() {
    let bench = Bench::start().await;
    let (role, history) = judged_and_stored(&bench, &["a"]).await;
    let later = jiff::Timestamp::now() + std::time::Duration::from_hours(72);
    let retention = weir_store::Retention::of_days(1);
    let expired = bench.store.expire(&retention, later).await.unwrap();
    assert_eq!(expired.messages, 1);

    bench
        .send(0, &[message("lobby", "a", "something else")])
        .await;
    bench.wait_processed(0, 2).await;
    assert!(bench.dead().await.is_empty());
    assert_eq!(offsets(&bench, 0).await, [0, 1]);
    // From then on it is that message's.
    bench.send(0, &hellos(&["a"])).await;
    bench.wait_processed(0, 3).await;
    assert_eq!(bench.dead().await.len(), 1);
    role.stop().await;
    history.stop().await;
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_used_for_another_message_is_not_lost_without_a_trace() {
    let bench = Bench::start().await;
    let changed = |id: &str| {
        let mut message = hellos(&[id]).remove(0);
        message.text = "something else".to_owned();
        message
    };
    // Within a batch, among those judged lately, and as the history knows them.
    let mut first = hellos(&["a", "b"]);
    first.push(changed("a"));
    bench.send(0, &first).await;
    let role = bench.process(judge());
    let history = bench.history();
    bench.wait_processed(0, 3).await;
    bench.send(0, &[changed("b")]).await;
    bench.wait_processed(0, 4).await;
    bench
        .wait_committed(topic::GROUP_HISTORY, topic::VERDICTS, 0, 2)
        .await;
    bench.send(1, &[changed("b")]).await;
    bench.wait_processed(1, 1).await;
    role.stop().await;
    history.stop().await;
    assert_eq!(offsets(&bench, 0).await, [0, 1]);
    assert!(offsets(&bench, 1).await.is_empty());
    let reasons: Vec<_> = bench
        .dead()
        .await
        .into_iter()
        .map(|dead| dead.reason)
        .collect();
    assert_eq!(reasons, ["id_conflict"; 3]);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_message_with_the_same_id_is_another_message() {
    let bench = Bench::start().await;
    let mut messages = hellos(&["a", "a"]);
    messages[1].tenant = "globex".to_owned();
    bench.send(0, &messages).await;
    let role = bench.process(judge());
    bench.wait_processed(0, 2).await;
    role.stop().await;
    assert_eq!(offsets(&bench, 0).await, [0, 1]);
    bench.stop().await;
}

/// What a crash between the verdicts and the commit leaves: the same records come to a
/// new stage, with or without the history having written them.
#[tokio::test(flavor = "multi_thread")]
async fn records_read_again_after_a_crash_are_not_judged_again() {
    let bench = Bench::start().await;
    let mut messages = hellos(&["a", "b", "c"]);
    messages[1].id_made = true;
    bench.send(0, &messages).await;
    let records = bench.records(topic::MESSAGES, 0).await;

    let mut first = bench.stage(judge(), &Registry::new());
    assert_eq!(first.assigned(&[0]).await.unwrap(), [].into());
    let outcome = handle(&mut first, &records).await;
    assert_eq!(outcome.done.get(&0), Some(&3));
    drop(first);

    let registry = Registry::new();
    let mut second = bench.stage(judge(), &registry);
    assert_eq!(
        second.assigned(&[0]).await.unwrap(),
        [(0, 3)].into(),
        "nothing is committed: go on behind the verdicts"
    );
    let outcome = handle(&mut second, &records).await;
    assert_eq!((outcome.done.get(&0), outcome.dead.len()), (Some(&3), 0));
    assert_eq!(metric(&registry, "weir_replays_skipped_total"), 3.0);
    drop(second);

    let history = bench.history();
    bench
        .wait_committed(topic::GROUP_HISTORY, topic::VERDICTS, 0, 3)
        .await;
    history.stop().await;
    let registry = Registry::new();
    let mut third = bench.stage(judge(), &registry);
    assert_eq!(
        third.assigned(&[0]).await.unwrap(),
        [(0, 3)].into(),
        "the history's fence says the same"
    );
    handle(&mut third, &records).await;
    assert_eq!(metric(&registry, "weir_replays_skipped_total"), 3.0);
    assert_eq!(metric(&registry, "weir_duplicates_dropped_total"), 0.0);
    drop(third);

    assert_eq!(offsets(&bench, 0).await, [0, 1, 2]);
    bench.stop().await;
}

/// What is erased before it is judged gets no verdict, and an erased id is free again.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_erased_is_not_judged_and_its_id_may_be_used_again() {
    let bench = Bench::start().await;
    bench.send(0, &hellos(&["a", "b"])).await;
    let before = bench.records(topic::MESSAGES, 0).await;
    let (registry, stop) = (Registry::new(), CancellationToken::new());
    let erased = Erased::watch("test", &bench.bus, &registry, stop.clone()).unwrap();
    while !erased.is_ready() {
        tokio::task::yield_now().await;
    }
    let mut stage = bench.stage_that_knows(erased, judge(), &registry);
    stage.assigned(&[0]).await.unwrap();
    handle(&mut stage, &before[..1]).await;

    let up_to = jiff::Timestamp::now();
    let erasure = |id: &str| Erasure {
        tenant: "acme".to_owned(),
        target: Target::Message(id.to_owned()),
        up_to,
        requested_at: up_to,
        by: "admin".to_owned(),
    };
    bench.erase(&["a", "b"].map(erasure)).await;
    let outcome = loop {
        // Until the stage has heard of it, it would judge: "b" comes alone, and again.
        let outcome = handle(&mut stage, &before[1..]).await;
        if metric(&registry, "weir_process_erased_total") > 0.0 {
            break outcome;
        }
    };
    assert_eq!(outcome.done.get(&0), Some(&2));
    bench.send(0, &hellos(&["a"])).await;
    let after = bench.records(topic::MESSAGES, 0).await;
    let outcome = handle(&mut stage, &after[2..]).await;
    assert!(outcome.dead.is_empty());
    assert_eq!(metric(&registry, "weir_duplicates_dropped_total"), 0.0);
    let judged = offsets(&bench, 0).await;
    assert_eq!((judged.first(), judged.last()), (Some(&0), Some(&2)));
    // The first record of the id once more: it is neither judged nor given up.
    let outcome = handle(&mut stage, &before[..1]).await;
    assert!(outcome.dead.is_empty());
    assert_eq!(offsets(&bench, 0).await, judged);
    drop(stage);
    stop.cancel();
    bench.stop().await;
}

/// Readers drop a verdict whose source lies below what they hold, so it must not be
/// published as if it counted.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_overtaken_by_later_verdicts_is_given_up_and_not_lost() {
    let bench = Bench::start().await;
    bench.send(0, &hellos(&["a", "b", "c"])).await;
    let records = bench.records(topic::MESSAGES, 0).await;
    let mut stage = bench.stage(judge(), &Registry::new());
    stage.assigned(&[0]).await.unwrap();
    handle(&mut stage, &[records[0].clone(), records[2].clone()]).await;
    let outcome = handle(&mut stage, &records).await;
    assert_eq!(outcome.dead.len(), 1);
    assert_eq!(
        (outcome.dead[0].reason, outcome.dead[0].offset),
        ("verdict_out_of_order", 1)
    );
    assert_eq!(offsets(&bench, 0).await, [0, 2]);
    drop(stage);
    bench.stop().await;
}

/// Such a record is the history's to report; here it must not stand for a topic made anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_that_names_another_partition_says_nothing_of_its_own() {
    let bench = Bench::start().await;
    bench.send(0, &hellos(&["a"])).await;
    let elsewhere = judged(hellos(&["x"]).remove(0), 1_000).await;
    let record = Outgoing {
        topic: topic::VERDICTS,
        partition: Some(1),
        key: Vec::new(),
        payload: elsewhere.encode(),
    };
    assert!(bench.producer.send(vec![record]).unwrap().await[0].is_ok());
    let mut stage = bench.stage(judge(), &Registry::new());
    assert_eq!(stage.assigned(&[0, 1]).await.unwrap(), [].into());
    drop(stage);
    bench.stop().await;
}

/// What a crash leaves between the verdict of a record and the letter of one before it.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_given_up_and_read_again_is_given_up_for_the_same_reason() {
    let bench = Bench::start().await;
    let mut messages = hellos(&["a", "b", "c"]);
    messages[0].text = "zzpoison in here".to_owned();
    // Its record is as large as one may be, so that there is no room for a verdict.
    let key = topic::key("acme", "lobby").len();
    let room =
        |message: &Message| bench.bus.max_record_bytes() - key - message.clone().encode().len();
    messages[1].metadata = Some(String::new());
    let text = room(&messages[1]) - 8;
    messages[1].metadata = Some("x".repeat(text));
    bench.send(0, &messages).await;
    let records = bench.records(topic::MESSAGES, 0).await;
    let (_folder, model) = poisoned();
    let reasons = |outcome: Outcome| {
        let dead = outcome.dead.iter();
        let mut dead: Vec<_> = dead.map(|dead| (dead.offset, dead.reason)).collect();
        dead.sort_unstable();
        dead
    };
    let expected = [(0, "model_refused"), (1, "verdict_too_large")];

    let mut first = bench.stage(judge_on(model.clone()), &Registry::new());
    first.assigned(&[0]).await.unwrap();
    assert_eq!(reasons(handle(&mut first, &records).await), expected);
    assert_eq!(reasons(handle(&mut first, &records).await), expected);
    drop(first);

    let mut second = bench.stage(judge_on(model), &Registry::new());
    second.assigned(&[0]).await.unwrap();
    assert_eq!(reasons(handle(&mut second, &records).await), expected);
    drop(second);
    assert_eq!(offsets(&bench, 0).await, [2]);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_under_an_old_store_is_refused() {
    let bench = Bench::start().await;
    bench.send(0, &hellos(&["a", "b", "c"])).await;
    let role = bench.process(judge());
    let history = bench.history();
    bench
        .wait_committed(topic::GROUP_HISTORY, topic::VERDICTS, 0, 3)
        .await;
    role.stop().await;
    history.stop().await;

    let anew = Bench::start().await;
    let old: std::sync::Arc<dyn weir_store::History> = std::sync::Arc::clone(&bench.store) as _;
    let mut stage = weir_processors::stage(
        judge(),
        anew.producer.clone(),
        old,
        anew.bus.clone(),
        weir_bus::Erased::default(),
        &Registry::new(),
    )
    .unwrap();
    let error = stage.assigned(&[0]).await.unwrap_err().to_string();
    assert!(error.contains("made anew"), "{error}");
    assert!(
        error.contains("`cql.keyspace`"),
        "it says what to do: {error}"
    );
    assert!(
        stage.assigned(&[1]).await.is_ok(),
        "nothing is stored of the other partition"
    );
    drop(stage);
    anew.stop().await;
    bench.stop().await;
}
