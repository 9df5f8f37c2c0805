//! What has run out is gone, from every answer and from every file, and nothing else.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use weir_records::Judged;
use weir_store::embedded::{Expired, Store};
use weir_store::{Days, Error, History, PageRequest, Retention};

use crate::files::{holding, marker};
use crate::rows::{HOUR, MIDNIGHT, With, row};

const DAY: i64 = 24 * HOUR;
const ALL: PageRequest = PageRequest {
    limit: 1_000,
    cursor: None,
};

/// So many days and hours after the first.
fn time(days: i64, hours: i64) -> Timestamp {
    Timestamp::from_microsecond(MIDNIGHT + days * DAY + hours * HOUR).unwrap()
}

/// Received on that day, with a text that can be found in files.
fn said(day: i64, n: i64) -> Judged {
    let id = format!("day-{day}-{n}");
    let mut row = row(&id, day * 10_000 + n).at(MIDNIGHT + day * DAY + n * 1_000_000);
    row.message.text = format!("{} {}", "words ".repeat(20), marker(&id));
    row
}

fn without_text(row: &Judged) -> Judged {
    let mut row = row.clone();
    row.message.text.clear();
    row.message.metadata = None;
    row
}

fn texts(rows: &[Judged]) -> Vec<String> {
    rows.iter().map(|row| marker(&row.message.id)).collect()
}

fn assert_gone(folder: &Path, rows: &[Judged]) {
    assert_eq!(holding(folder, &texts(rows)), [] as [&Path; 0]);
}

/// Texts two days, verdicts four.
fn short() -> Retention {
    Retention {
        text_days: 2,
        verdict_days: 4,
        ..Retention::default()
    }
}

fn gone(texts: u64, messages: u64) -> Expired {
    Expired { texts, messages }
}

async fn newest(store: &Store, tenant: &str) -> Vec<Judged> {
    let channel = store.channel(tenant, "lobby", &ALL).await.unwrap().rows;
    let sender = store.sender(tenant, "ada", &ALL).await.unwrap().rows;
    assert_eq!(channel, sender);
    channel
}

#[tokio::test]
async fn first_the_texts_go_and_then_the_rows_a_day_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let days: Vec<Vec<Judged>> = (0..3)
        .map(|day| (0..40).map(|n| said(day, n)).collect())
        .collect();
    for day in &days {
        store.write(0, day).await.unwrap();
    }
    assert!(!holding(folder.path(), &texts(&days[0])).is_empty());
    let expire = async |day, hour| store.expire(&short(), time(day, hour)).await.unwrap();

    assert_eq!(expire(2, 23).await, gone(0, 0), "the first day is not over");
    assert_eq!(expire(3, 0).await, gone(40, 0));
    assert_gone(folder.path(), &days[0]);
    let newest_first = |rows: &[Judged]| -> Vec<Judged> { rows.iter().rev().cloned().collect() };
    let bare: Vec<Judged> = days[0].iter().map(without_text).collect();
    let expected = [
        newest_first(&days[2]),
        newest_first(&days[1]),
        newest_first(&bare),
    ];
    assert_eq!(newest(&store, "acme").await, expected.concat());
    let one = store.message("acme", "day-0-7").await.unwrap();
    assert_eq!(one, Some(without_text(&days[0][7])));

    // Nothing to do is nothing done.
    let committed = || fs::read(folder.path().join("committed")).unwrap();
    let before = committed();
    assert_eq!(expire(3, 5).await, gone(0, 0));
    assert_eq!(committed(), before);

    assert_eq!(
        expire(5, 1).await,
        gone(80, 40),
        "one day's rows, two days' texts"
    );
    for day in &days {
        assert_gone(folder.path(), day);
    }
    let bare: Vec<Judged> = days[1..].concat().iter().map(without_text).collect();
    assert_eq!(newest(&store, "acme").await, newest_first(&bare));
    assert_eq!(store.message("acme", "day-0-7").await.unwrap(), None);
    assert_eq!(store.source("acme", "day-0-7").await.unwrap(), None);
    assert_eq!(expire(100, 0).await, gone(0, 80));
    assert!(newest(&store, "acme").await.is_empty());
    assert_eq!(store.fence(0).await.unwrap(), Some(20_039));
    drop(store);

    let db = fjall::Database::builder(folder.path().join("db"))
        .open()
        .unwrap();
    let options = fjall::KeyspaceCreateOptions::default;
    let lists = db.keyspace("lists", options).unwrap();
    let left = lists.iter().map(|entry| entry.key().unwrap());
    // But for the one that only marks.
    assert_eq!(left.filter(|key| **key != [0xFF]).count(), 0);
}

#[tokio::test]
async fn each_tenant_has_its_own_retention_and_a_changed_one_counts_for_all_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    // Names that begin alike, or with what keys escape.
    let tenants = ["a", "a\0", "a\0b", "ab", "b"];
    for (partition, tenant) in (0..).zip(tenants) {
        let row = said(0, 1).in_tenant(tenant).on_partition(partition);
        store.write(partition, &[row]).await.unwrap();
    }
    let for_good = Days {
        text_days: Some(0),
        verdict_days: Some(0),
    };
    let texts_only = Days {
        verdict_days: Some(0),
        ..Days::default()
    };
    let mut retention = short();
    retention.tenants = [("a\0".to_owned(), for_good), ("ab".to_owned(), texts_only)].into();
    let expired = store.expire(&retention, time(400, 0)).await.unwrap();
    assert_eq!(expired, gone(1, 3));
    for tenant in tenants {
        let left = store.message(tenant, "day-0-1").await.unwrap();
        let text = left.map(|row| row.message.text.is_empty());
        let expected = match tenant {
            "a\0" => Some(false),
            "ab" => Some(true),
            _ => None,
        };
        assert_eq!(text, expected, "{tenant:?}");
    }
    let expired = store.expire(&short(), time(400, 0)).await.unwrap();
    assert_eq!(expired, gone(0, 2));
    let wrong = Retention {
        text_days: 5,
        ..short()
    };
    let error = store.expire(&wrong, time(400, 0)).await.unwrap_err();
    assert!(matches!(error, Error::Setting { .. }), "{error}");
}

#[tokio::test]
async fn what_comes_late_goes_with_the_next_call() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    store.write(0, &[said(0, 1)]).await.unwrap();
    let expire = async |day| store.expire(&short(), time(day, 0)).await.unwrap();
    assert_eq!(expire(3).await, gone(1, 0));
    let late = said(0, 2);
    store.write(0, std::slice::from_ref(&late)).await.unwrap();
    assert_eq!(
        store.message("acme", "day-0-2").await.unwrap().as_ref(),
        Some(&late)
    );
    assert_eq!(expire(3).await, gone(1, 0));
    assert_gone(folder.path(), &[late]);
    assert_eq!(expire(5).await, gone(0, 2));
    let late = said(0, 3);
    store.write(0, std::slice::from_ref(&late)).await.unwrap();
    assert_eq!(newest(&store, "acme").await, std::slice::from_ref(&late));
    assert_eq!(expire(5).await, gone(0, 1));
    assert_gone(folder.path(), &[late]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_come_into_a_day_while_it_goes_are_not_missed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    // Several steps for one day of one channel.
    let old: Vec<Judged> = (0..4_000).map(|n| said(0, 2 * n)).collect();
    for part in old.chunks(500) {
        store.write(0, part).await.unwrap();
    }
    let late = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            for n in 0..200 {
                // Between the others, and behind where a step may be.
                let row = said(0, 2 * (n * 19 % 4_000) + 1).on_partition(1);
                let row = Judged {
                    source: weir_records::Source {
                        partition: 1,
                        offset: n,
                    },
                    ..row
                };
                store.write(1, &[row]).await.unwrap();
            }
        }
    });
    let mut texts = 0;
    while !late.is_finished() {
        texts += store.expire(&short(), time(3, 0)).await.unwrap().texts;
    }
    late.await.unwrap();
    texts += store.expire(&short(), time(3, 0)).await.unwrap().texts;
    assert_eq!(texts, 4_200);
    assert_gone(folder.path(), &old);
    let mut cursor = None;
    let mut seen = 0;
    loop {
        let page = PageRequest { cursor, ..ALL };
        let page = store.channel("acme", "lobby", &page).await.unwrap();
        seen += page.rows.len();
        assert!(page.rows.iter().all(|row| row.message.text.is_empty()));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, 4_200);
    let rest = store.expire(&short(), time(5, 0)).await.unwrap();
    assert_eq!(rest, gone(0, 4_200));
}
