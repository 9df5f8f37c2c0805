//! An erased message is in no answer, and its erasure disturbs no query.

use std::fs;
use std::path::Path;

use weir_analytics_sql::Config;
use weir_records::Target;

use crate::support::{Lake, config, erasure, number, offer, open, rows, table};

#[tokio::test(flavor = "multi_thread")]
async fn erased_rows_leave_the_tail_and_do_not_come_back() {
    let lake = Lake::new();
    let engine = open(config(&lake)).await;
    // More than a chunk of columns, and some rows that are in none yet.
    offer(&engine, rows("a", 0, 0..5_000)).await;
    offer(&engine, rows("b", 1, 0..100)).await;
    let count = "SELECT count(*) FROM messages";
    let of_sender = "SELECT count(*) FROM messages WHERE sender = 'sender-1'";
    let all = number(&engine, "a", of_sender).await;
    let later = "SELECT count(*) FROM messages WHERE sender = 'sender-1' AND \"offset\" > 4000";
    let kept = number(&engine, "a", later).await;
    assert!(all > kept && kept > 0);

    let sender = Target::Sender("sender-1".to_owned());
    engine.erase(&[
        erasure("a", sender, 4_000),
        erasure("a", Target::Message("a-0-4998".to_owned()), 10_000),
    ]);
    assert_eq!(number(&engine, "a", of_sender).await, kept);
    let left = 5_000 - (all - kept) - 1;
    assert_eq!(number(&engine, "a", count).await, left);
    assert_eq!(number(&engine, "b", count).await, 100, "another tenant");

    // Read again, and for the first time: neither is kept.
    offer(&engine, rows("a", 0, 4_000..5_000)).await;
    offer(&engine, rows("a", 2, 0..10)).await;
    let sender: Vec<i64> = (0..10).filter(|n| n % 3 != 0 && n % 7 == 1).collect();
    let more = 10 - i64::try_from(sender.len()).unwrap();
    assert_eq!(number(&engine, "a", count).await, left + more);
    let ids = table(
        &engine,
        "a",
        "SELECT count(DISTINCT message_id) FROM messages",
    )
    .await;
    assert_eq!(ids, [[(left + more).to_string()]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_goes_on_when_a_file_of_its_snapshot_is_deleted() {
    let mut lake = Lake::new();
    for from in 0..4 {
        lake.commit(&rows("a", 0, from * 50..from * 50 + 50)).await;
    }
    // This one would look again only after hours.
    let engine = open(Config {
        refresh_millis: 3_600_000,
        ..config(&lake)
    })
    .await;
    let old = files(Path::new(&lake.place()));
    lake.compact().await;
    for file in &old {
        fs::remove_file(file).unwrap();
    }
    let count = "SELECT count(*), count(text) FROM messages WHERE text LIKE 'text %'";
    assert_eq!(table(&engine, "a", count).await, [["200", "200"]]);

    // Where the table itself has lost a file, the query fails, and says so.
    for file in files(Path::new(&lake.place())) {
        fs::remove_file(file).unwrap();
    }
    let failed = crate::support::refused(&engine, "a", count).await;
    assert_eq!(failed.code(), "internal");
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|ending| ending == "parquet") {
            found.push(path);
        }
    }
    found
}
