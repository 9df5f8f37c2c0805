//! What was erased is in no file any more.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use weir_records::Judged;
use weir_store::embedded::Store;
use weir_store::{Erase, History, PageRequest};

use crate::files::{holding, marker};
use crate::rows::{With, row};

const ALL: PageRequest = PageRequest {
    limit: 1_000,
    cursor: None,
};

/// With a text and metadata that can be found in files, and some that packs well.
fn said(by: &str, n: i64) -> Judged {
    let id = format!("{by}-{n}");
    let mut row = row(&id, n)
        .by(Some(by))
        .in_channel(["lobby", "games"][usize::from(n % 7 == 0)]);
    row.message.text = format!("{} {}", "words ".repeat(20), marker(&id));
    row.message.metadata = Some(format!(
        r#"{{"quote":"{}"}}"#,
        marker(&format!("{id}/meta"))
    ));
    row
}

/// What of those rows must not be in any file.
fn secrets(rows: &[Judged]) -> Vec<String> {
    let of = |row: &Judged| {
        let id = &row.message.id;
        [marker(id), marker(&format!("{id}/meta"))]
    };
    rows.iter().flat_map(of).collect()
}

fn sender(name: &str) -> Erase {
    Erase::Sender {
        name: name.into(),
        up_to: Timestamp::MAX,
    }
}

async fn write(store: &Arc<Store>, rows: &[Judged]) {
    for part in rows.chunks(100) {
        store.write(0, part).await.unwrap();
    }
}

fn assert_gone(folder: &Path, rows: &[Judged]) {
    assert_eq!(holding(folder, &secrets(rows)), [] as [&Path; 0]);
}

/// A name that can be found in files.
fn name() -> String {
    format!("eve-{}", marker("eve"))
}

/// Every third by eve, from that number on.
fn mixed(from: i64, to: i64) -> (Vec<Judged>, Vec<Judged>) {
    let eve = name();
    let all: Vec<Judged> = (from..to)
        .map(|n| said(if n % 3 == 0 { &eve } else { "ada" }, n))
        .collect();
    let eve = all.iter().filter(|row| row.message.id.starts_with("eve"));
    (all.clone(), eve.cloned().collect())
}

#[tokio::test]
async fn what_was_erased_is_in_no_file_wherever_it_was_before() {
    let folder = tempfile::tempdir().unwrap();
    // Fresh, in the log alone; then merged; and a second time, over what was purged.
    let mut kept = Vec::new();
    for round in 0..3 {
        let store = Store::open(folder.path()).unwrap();
        let (all, eve) = mixed(round * 3_000, round * 3_000 + 2_000);
        write(&store, &all).await;
        kept.extend(all.iter().filter(|row| !eve.contains(row)).cloned());
        assert!(
            !holding(folder.path(), &secrets(&eve[..1])).is_empty(),
            "the test can find it: round {round}"
        );
        let erased = store.erase("acme", &sender(&name())).await.unwrap();
        assert_eq!(erased.messages, eve.len() as u64);
        assert_gone(folder.path(), &eve);
        // The name too, and the ids, which are parts of keys.
        assert_eq!(holding(folder.path(), &[marker("eve")]), [] as [&Path; 0]);

        for row in kept.iter().step_by(31) {
            let found = store.message("acme", &row.message.id).await.unwrap();
            assert_eq!(found.as_ref(), Some(row));
        }
        let page = store.sender("acme", "ada", &ALL).await.unwrap();
        let newest: Vec<Judged> = kept.iter().rev().take(ALL.limit).cloned().collect();
        assert_eq!(page.rows, newest);
        drop(store);
        assert_gone(folder.path(), &eve);
    }
}

#[tokio::test]
async fn a_single_message_is_purged_too() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (all, _) = mixed(0, 500);
    write(&store, &all).await;
    // So that it lies in files of values, and not only in the log.
    let other = Erase::Message {
        id: all[7].message.id.clone(),
        up_to: Timestamp::MAX,
    };
    store.erase("acme", &other).await.unwrap();
    let one = &all[250..251];
    let holds = holding(folder.path(), &secrets(one));
    assert!(
        holds
            .iter()
            .any(|file| file.to_string_lossy().contains("blobs")),
        "{holds:?}"
    );
    let what = Erase::Message {
        id: one[0].message.id.clone(),
        up_to: Timestamp::MAX,
    };
    assert_eq!(store.erase("acme", &what).await.unwrap().messages, 1);
    assert_gone(folder.path(), one);
    assert!(!holding(folder.path(), &secrets(&all[251..252])).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_and_reads_go_on_while_it_is_erased() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (all, eve) = mixed(0, 3_000);
    write(&store, &all).await;
    let others = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            let rows: Vec<Judged> = (0..1_000).map(|n| said("bob", n).on_partition(1)).collect();
            for row in rows.chunks(10) {
                assert_eq!(store.write(1, row).await.unwrap(), 10);
                let page = store.sender("acme", "bob", &ALL).await.unwrap();
                assert!(page.rows.len() >= 10);
            }
        }
    });
    for id in (0..5).map(|n| n * 3) {
        let what = Erase::Message {
            id: format!("{}-{id}", name()),
            up_to: Timestamp::MAX,
        };
        assert_eq!(store.erase("acme", &what).await.unwrap().messages, 1);
    }
    let rest = store.erase("acme", &sender(&name())).await.unwrap();
    assert_eq!(rest.messages, eve.len() as u64 - 5);
    others.await.unwrap();
    assert_gone(folder.path(), &eve);
    let page = store.sender("acme", "bob", &ALL).await.unwrap();
    assert_eq!(page.rows.len(), 1_000);
}
