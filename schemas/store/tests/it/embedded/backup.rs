//! Copies of a store in use: whole, of one moment, and stores themselves.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use weir_records::Judged;
use weir_store::embedded::Store;
use weir_store::{Accounts, Erase, Error, History, Key, PageRequest, Scope, User};

use crate::files::{holding, marker};
use crate::rows::{With, row};

const PARTITIONS: i32 = 3;

fn said(partition: i32, offset: i64) -> Judged {
    row(&format!("m-{partition}-{offset}"), offset)
        .on_partition(partition)
        .in_channel(&format!("channel-{}", offset % 7))
}

/// Rows of all lists of a store, by partition.
async fn count(store: &Store) -> Vec<usize> {
    let mut counts = vec![0; PARTITIONS as usize];
    for channel in 0..7 {
        let mut cursor = None;
        loop {
            let page = PageRequest {
                limit: 1_000,
                cursor,
            };
            let name = format!("channel-{channel}");
            let page = store.channel("acme", &name, &page).await.unwrap();
            for row in page.rows {
                counts[row.source.partition as usize] += 1;
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_made_while_it_is_written_holds_every_row_up_to_its_fences_and_none_beyond() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    for partition in 0..PARTITIONS {
        for part in 0..20 {
            let rows: Vec<Judged> = (part * 200..(part + 1) * 200)
                .map(|offset| said(partition, offset))
                .collect();
            store.write(partition, &rows).await.unwrap();
        }
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..PARTITIONS)
        .map(|partition| {
            let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut next = 4_000;
                while !stop.load(Ordering::Relaxed) {
                    let rows: Vec<Judged> = (next..next + 7)
                        .map(|offset| said(partition, offset))
                        .collect();
                    store.write(partition, &rows).await.unwrap();
                    next += 7;
                }
                next
            })
        })
        .collect();
    for copy in ["first", "second"] {
        let to = folder.path().join(copy);
        let backed_up = store.backup(&to).await.unwrap();
        let copy = Store::open(&to).unwrap();
        let counts = count(&copy).await;
        assert_eq!(backed_up.messages, counts.iter().sum::<usize>() as u64);
        for (partition, rows) in (0..PARTITIONS).zip(counts) {
            let fence = copy.fence(partition).await.unwrap().unwrap();
            assert!(fence >= 3_999);
            assert_eq!(rows as i64, fence + 1);
            for offset in (0..=fence).step_by(61).chain([fence]) {
                let row = said(partition, offset);
                let found = copy.message("acme", &row.message.id).await.unwrap();
                assert_eq!(found, Some(row.clone()));
                let source = copy.source("acme", &row.message.id).await.unwrap();
                assert_eq!(source, Some(row.source));
            }
            let beyond = said(partition, fence + 1);
            let id = &beyond.message.id;
            assert_eq!(copy.message("acme", id).await.unwrap(), None);
            assert_eq!(copy.source("acme", id).await.unwrap(), None);
            // And it goes on from there.
            assert_eq!(copy.write(partition, &[beyond]).await.unwrap(), 1);
        }
    }
    stop.store(true, Ordering::Relaxed);
    for (partition, writer) in (0..PARTITIONS).zip(writers) {
        let next = writer.await.unwrap();
        assert!(next > 4_000, "they wrote meanwhile");
        assert_eq!(store.fence(partition).await.unwrap(), Some(next - 1));
    }
}

#[tokio::test]
async fn accounts_are_in_it_and_it_can_be_copied_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let at = Timestamp::from_second(1_772_323_200).unwrap();
    let user = User {
        username: "Ada".into(),
        email: "ada@example.org".into(),
        password_hash: "hash".into(),
        tenant: "acme".into(),
        scopes: [Scope::Read].into(),
        disabled: false,
        created_at: at,
    };
    store.create_user(&user).await.unwrap();
    let key = Key {
        id: "k1".into(),
        hash: [7; 32],
        tenant: "acme".into(),
        label: "bot".into(),
        scopes: [Scope::Ingest].into(),
        created_at: at,
        expires_at: None,
        revoked_at: None,
    };
    store.put_key(&key).await.unwrap();
    store.write(0, &[row("m", 1)]).await.unwrap();

    let (copy, back) = (folder.path().join("copy"), folder.path().join("back"));
    store.backup(&copy).await.unwrap();
    Store::open(&copy).unwrap().backup(&back).await.unwrap();
    let back = Store::open(&back).unwrap();
    assert_eq!(back.user("ada").await.unwrap(), Some(user));
    assert_eq!(back.keys(Some("acme")).await.unwrap(), [key]);
    assert_eq!(back.message("acme", "m").await.unwrap(), Some(row("m", 1)));
    assert_eq!(back.fence(0).await.unwrap(), Some(1));
}

#[tokio::test]
async fn nothing_is_copied_over_a_store_and_what_a_crash_left_is_no_hindrance() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let store = Store::open(&one).unwrap();
    store.write(0, &[row("m", 1)]).await.unwrap();
    fs::create_dir_all(two.join("db.part")).unwrap();
    fs::write(two.join("db.part/0.jnl"), b"").unwrap();
    assert_eq!(store.backup(&two).await.unwrap().messages, 1);
    for there in [&one, &two] {
        let error = store.backup(there).await.unwrap_err();
        assert!(matches!(error, Error::Folder { .. }), "{error}");
    }
    assert!(store.message("acme", "m").await.unwrap().is_some());
}

#[tokio::test]
async fn what_was_erased_before_is_in_no_file_of_a_copy() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let rows: Vec<Judged> = (0..300)
        .map(|n| {
            let mut row = row(&format!("m{n}"), n);
            row.message.text = marker(&row.message.id).repeat(4);
            row
        })
        .collect();
    store.write(0, &rows).await.unwrap();
    let what = Erase::Message {
        id: "m100".into(),
        up_to: jiff::Timestamp::MAX,
    };
    store.erase("acme", &what).await.unwrap();
    let copy = folder.path().join("copy");
    assert_eq!(store.backup(&copy).await.unwrap().messages, 299);
    assert!(holding(&copy, &[marker("m100")]).is_empty());
    assert!(!holding(&copy, &[marker("m101")]).is_empty());
}
