//! Damage on disk is said, never passed over: neither in the log nor in the tables.

use std::fs;
use std::path::{Path, PathBuf};

use weir_store::embedded::Store;
use weir_store::{Error, History, PageRequest};

use crate::rows::row;

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// The engine's log of the newest writes.
fn log(store: &Path) -> PathBuf {
    let mut found = Vec::new();
    files(&store.join("db"), &mut found);
    found.retain(|path| path.extension().is_some_and(|ext| ext == "jnl"));
    found.sort();
    found.pop().unwrap()
}

fn find(bytes: &[u8], what: &str) -> usize {
    bytes
        .windows(what.len())
        .position(|w| w == what.as_bytes())
        .unwrap()
}

async fn fill(folder: &Path) {
    let store = Store::open(folder).unwrap();
    for n in 0..20 {
        store.write(0, &[row(&format!("m{n}"), n)]).await.unwrap();
    }
}

#[tokio::test]
async fn a_torn_tail_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path()).await;
    let log = log(folder.path());
    let mut bytes = fs::read(&log).unwrap();
    // The first bytes of a write that never finished: those of the first one again.
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    let torn = bytes[..100].to_vec();
    bytes.truncate(end);
    bytes.extend(torn);
    fs::write(&log, bytes).unwrap();

    let store = Store::open(folder.path()).unwrap();
    assert_eq!(store.fence(0).await.unwrap(), Some(19));
    assert_eq!(store.write(0, &[row("next", 20)]).await.unwrap(), 1);
}

#[tokio::test]
async fn acknowledged_writes_that_can_not_be_read_back_are_missed() {
    for flipped in ["m5", "words of m7"] {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path()).await;
        let log = log(folder.path());
        let mut bytes = fs::read(&log).unwrap();
        let at = find(&bytes, flipped);
        bytes[at] ^= 0x40;
        fs::write(&log, bytes).unwrap();
        for _ in 0..2 {
            let error = Store::open(folder.path()).unwrap_err();
            assert!(matches!(error, Error::Damaged(_)), "{error}");
        }
    }
}

#[tokio::test]
async fn a_log_cut_short_is_missed() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path()).await;
    let log = log(folder.path());
    let bytes = fs::read(&log).unwrap();
    fs::write(&log, &bytes[..find(&bytes, "m10")]).unwrap();
    for _ in 0..2 {
        let error = Store::open(folder.path()).unwrap_err();
        assert!(matches!(error, Error::Damaged(_)), "{error}");
        assert!(error.to_string().contains("was acknowledged"), "{error}");
    }
    // The operator's way out, as the message says.
    fs::remove_file(folder.path().join("committed")).unwrap();
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(
        store.fence(0).await.unwrap(),
        Some(9),
        "rows and fence are cut at the same place"
    );
    assert!(store.message("acme", "m9").await.unwrap().is_some());
}

#[tokio::test]
async fn a_lost_note_of_the_last_write_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path()).await;
    for note in [&b""[..], b"torn", &[0xFF; 16]] {
        fs::write(folder.path().join("committed"), note).unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.fence(0).await.unwrap(), Some(19));
    }
}

/// A row of 8 KB that does not compress well.
fn long(n: i64) -> weir_records::Judged {
    let mut state = 0x9E37_79B9_u32 ^ n as u32;
    let mut row = row(&format!("m{n}"), n);
    row.message.text = (0..8_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b'!' + (state >> 24) as u8 % 90)
        })
        .collect();
    row
}

#[tokio::test]
async fn damaged_tables_are_reported_when_they_are_read() {
    let folder = tempfile::tempdir().unwrap();
    {
        let store = Store::open(folder.path()).unwrap();
        for start in (0..4_000).step_by(500) {
            let rows: Vec<_> = (start..start + 500).map(long).collect();
            store.write(0, &rows).await.unwrap();
        }
    }
    // Every table file that is there by now, in the middle of each 4 KiB.
    let mut found = Vec::new();
    files(&folder.path().join("db/keyspaces"), &mut found);
    let mut damaged = 0;
    for path in found {
        let mut bytes = fs::read(&path).unwrap();
        if bytes.len() < 100_000 {
            continue;
        }
        let end = bytes.len() / 2;
        for at in (2_048..end).step_by(4_096) {
            bytes[at] ^= 0x55;
        }
        fs::write(&path, bytes).unwrap();
        damaged += 1;
    }
    assert!(
        damaged > 0,
        "nothing was merged yet: the test proves nothing"
    );

    let store = match Store::open(folder.path()) {
        Ok(store) => store,
        Err(error) => return assert!(matches!(error, Error::Damaged(_)), "{error}"),
    };
    let mut errors = 0;
    for n in 0..4_000 {
        match store.message("acme", &format!("m{n}")).await {
            Ok(Some(row)) => assert_eq!(row, long(n)),
            Ok(None) => panic!("message {n} is silently gone"),
            Err(error) => {
                assert!(matches!(error, Error::Damaged(_)), "{error}");
                assert!(!error.to_string().contains("abc"));
                errors += 1;
            }
        }
    }
    assert!(errors > 0);
    let page = PageRequest {
        limit: 1_000,
        cursor: None,
    };
    let mut cursor = None;
    let mut failed = false;
    loop {
        match store
            .channel(
                "acme",
                "lobby",
                &PageRequest {
                    cursor,
                    ..page.clone()
                },
            )
            .await
        {
            Ok(page) => cursor = page.next,
            Err(error) => {
                assert!(matches!(error, Error::Damaged(_)), "{error}");
                failed = true;
                break;
            }
        }
        if cursor.is_none() {
            break;
        }
    }
    assert!(failed, "a list passed over damaged messages");
}
