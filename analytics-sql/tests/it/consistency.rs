//! Every row is there once, wherever it is, while it moves from the tail to the lake.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use crate::support::{Lake, PARTITIONS, config, number, offer, open, rows, run, table};

const COUNTS: &str = "SELECT count(*), count(DISTINCT message_id), count(DISTINCT partition * 1000000 + \"offset\") \
                      FROM messages";

async fn counts(engine: &weir_analytics_sql::Engine) -> (i64, i64, i64) {
    let row = table(engine, "a", COUNTS).await.remove(0);
    let cell = |i: usize| row[i].parse().unwrap();
    (cell(0), cell(1), cell(2))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tail_alone_answers_before_there_is_a_lake() {
    let mut lake = Lake::new();
    let engine = open(config(&lake)).await;
    assert_eq!(counts(&engine).await, (0, 0, 0));
    offer(&engine, rows("a", 0, 0..100)).await;
    assert_eq!(counts(&engine).await, (100, 100, 100));

    // The writer makes the table with the first 60 of them.
    lake.commit(&rows("a", 0, 0..60)).await;
    for _ in 0..50 {
        assert_eq!(counts(&engine).await, (100, 100, 100));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_counted_once_while_they_come_and_move_to_the_lake() {
    const EACH: i64 = 20;
    const ROUNDS: i64 = 30;
    let mut lake = Lake::new();
    let engine = open(config(&lake)).await;
    let offered = Arc::new(AtomicI64::new(0));
    let visible = Arc::new(AtomicI64::new(0));
    let done = Arc::new(AtomicBool::new(false));

    // Rows come in, each part of them a second time, as after a replay.
    let feeder = {
        let (engine, offered, visible) =
            (engine.clone(), Arc::clone(&offered), Arc::clone(&visible));
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                for partition in 0..PARTITIONS {
                    offered.fetch_add(EACH, Ordering::SeqCst);
                    let from = (round * EACH - EACH / 2).max(0);
                    offer(&engine, rows("a", partition, from..(round + 1) * EACH)).await;
                    visible.fetch_add(EACH, Ordering::SeqCst);
                }
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        })
    };
    // The writer moves them, some partitions further than others, and sometimes compacts.
    let writer = {
        let (visible, done) = (Arc::clone(&visible), Arc::clone(&done));
        tokio::spawn(async move {
            let mut next = [0_i64; PARTITIONS as usize];
            let mut commits = 0;
            for flush in 0_i64.. {
                // Only whole rounds: every partition has these rows.
                let complete =
                    visible.load(Ordering::SeqCst) / (EACH * i64::from(PARTITIONS)) * EACH;
                let mut moved = Vec::new();
                for partition in 0..PARTITIONS {
                    let at = &mut next[usize::try_from(partition).unwrap()];
                    let until = complete.min(*at + 15 + 7 * i64::from(partition) + flush);
                    moved.extend(rows("a", partition, *at..until));
                    *at = until;
                }
                if !moved.is_empty() {
                    lake.commit(&moved).await;
                    commits += 1;
                    if commits % 6 == 5 {
                        lake.compact().await;
                    }
                } else if next.iter().all(|&n| n == EACH * ROUNDS) {
                    break;
                } else {
                    // Nothing new has come: leave the processor to whoever brings it.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            done.store(true, Ordering::SeqCst);
            lake
        })
    };

    let mut looks = 0;
    while !done.load(Ordering::SeqCst) {
        let least = visible.load(Ordering::SeqCst);
        let (all, ids, places) = counts(&engine).await;
        let most = offered.load(Ordering::SeqCst);
        assert_eq!((all, all), (ids, places), "some row is there twice");
        assert!(
            (least..=most).contains(&all),
            "{all} rows, {least} to {most} were sent"
        );
        looks += 1;
    }
    feeder.await.unwrap();
    let _lake = writer.await.unwrap();
    let total = EACH * ROUNDS * i64::from(PARTITIONS);
    assert_eq!(counts(&engine).await, (total, total, total));
    assert!(looks >= 10, "only {looks} queries ran beside the writer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_between_the_commit_of_rows_and_of_offsets_changes_nothing() {
    let mut lake = Lake::new();
    let first = open(config(&lake)).await;
    for partition in 0..PARTITIONS {
        offer(&first, rows("a", partition, 0..200)).await;
    }
    let sent: Vec<_> = (0..PARTITIONS).flat_map(|p| rows("a", p, 0..120)).collect();
    lake.commit(&sent).await;
    drop(first);

    // The offsets of the last commit were lost: the tail comes again from further back.
    let second = open(config(&lake)).await;
    for partition in 0..PARTITIONS {
        offer(&second, rows("a", partition, 50..200)).await;
    }
    let total = 200 * i64::from(PARTITIONS);
    assert_eq!(counts(&second).await, (total, total, total));

    // And one that comes up after everything is in the lake needs no tail at all.
    let rest: Vec<_> = (0..PARTITIONS)
        .flat_map(|p| rows("a", p, 120..200))
        .collect();
    lake.commit(&rest).await;
    assert_eq!(counts(&second).await, (total, total, total));
    let third = open(config(&lake)).await;
    assert_eq!(counts(&third).await, (total, total, total));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_nobody_announced_is_not_doubled() {
    let mut lake = Lake::new();
    lake.commit(&rows("a", 9, 0..50)).await;
    let engine = open(config(&lake)).await;
    assert_eq!(counts(&engine).await, (50, 50, 50));
    offer(&engine, rows("a", 9, 20..80)).await;
    assert_eq!(counts(&engine).await, (80, 80, 80));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_tail_holds_its_feeder_back_until_the_lake_has_the_rows() {
    let mut lake = Lake::new();
    let mut config = config(&lake);
    config.tail_rows = 100;
    let engine = open(config).await;
    let feeder = {
        let engine = engine.clone();
        tokio::task::spawn_blocking(move || {
            for from in 0..10 {
                engine.offer(rows("a", 0, from * 30..(from + 1) * 30));
            }
        })
    };
    // It takes what it may hold and no more, for as long as nothing is flushed.
    loop {
        let (all, ids, _) = counts(&engine).await;
        assert_eq!(all, ids);
        assert!(all <= 100, "{all} rows in a tail of 100");
        if all == 100 {
            break;
        }
    }
    assert!(!feeder.is_finished());

    for from in 0..10 {
        lake.commit(&rows("a", 0, from * 30..(from + 1) * 30)).await;
        let (all, ids, _) = counts(&engine).await;
        assert_eq!(all, ids);
    }
    feeder.await.unwrap();
    // Its last rows may be in the lake only; then the next look at it shows them.
    while counts(&engine).await.0 < 300 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(counts(&engine).await, (300, 300, 300));
}

#[tokio::test(flavor = "multi_thread")]
async fn lake_and_tail_agree_on_every_column() {
    let mut lake = Lake::new();
    let engine = open(config(&lake)).await;
    offer(&engine, rows("a", 1, 0..300)).await;
    let sql = "SELECT * FROM messages ORDER BY partition, \"offset\"";
    let tail = run(&engine, "a", sql).await.unwrap();
    let before = crate::support::cells(&tail);
    assert_eq!(before.len(), 300);
    lake.commit(&rows("a", 1, 0..299)).await;

    let other = open(config(&lake)).await;
    offer(&other, rows("a", 1, 0..300)).await;
    let both = run(&other, "a", sql).await.unwrap();
    assert_eq!(tail[0].schema(), both[0].schema());
    assert_eq!(crate::support::cells(&both), before);
    // Filters go down to the files and still mean the same there.
    for filter in [
        "date = '2026-09-21'",
        "date >= DATE '2026-09-21' AND \"offset\" BETWEEN 10 AND 20",
        "received_at < '2026-09-21T14:15:00Z'",
        "sender IS NULL",
        "action IN ('flag', 'block') AND NOT (\"offset\" > 150)",
        "text LIKE '%9 of a' OR channel = 'channel-3'",
        "insult > 0.9 AND toxicity < 0.5",
    ] {
        let sql = format!("SELECT count(*) FROM messages WHERE {filter}");
        let wanted = number(&engine, "a", &sql).await;
        assert_eq!(number(&other, "a", &sql).await, wanted, "{filter}");
        assert!(wanted > 0, "{filter} tests nothing");
    }
}
