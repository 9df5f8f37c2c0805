//! The folder: one process at a time, no newer format, private, and made whole.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fjall::{Database, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use weir_records::Judged;
use weir_store::embedded::Store;
use weir_store::{Error, History, PageRequest};

use crate::rows::{With, row};

#[test]
fn a_second_opener_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let first = Store::open(folder.path()).unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    assert!(error.to_string().contains("in use by another process"));
    drop(first);
    Store::open(folder.path()).unwrap();
}

#[test]
fn a_folder_of_a_newer_version_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(folder.path()).unwrap());
    let format = folder.path().join("format");
    fs::write(&format, "weir-store 3\n").unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert!(
        matches!(error, Error::NewerFormat { found: 3, known: 2 }),
        "{error}"
    );
    assert_eq!(fs::read_to_string(&format).unwrap(), "weir-store 3\n");
    fs::write(&format, "weir-store 2\n").unwrap();
    Store::open(folder.path()).unwrap();
}

#[test]
fn a_format_that_can_not_be_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(folder.path()).unwrap());
    for text in ["", "weir-store", "weir-store one", "something else 1"] {
        fs::write(folder.path().join("format"), text).unwrap();
        let error = Store::open(folder.path()).unwrap_err();
        assert!(matches!(error, Error::Damaged(_)), "{error}");
    }
}

#[test]
fn a_folder_whose_making_was_interrupted_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    // As left by a crash in the middle of the engine's own first steps.
    fs::create_dir_all(folder.path().join("db.part/keyspaces")).unwrap();
    fs::write(folder.path().join("db.part/0.jnl"), b"").unwrap();
    drop(Store::open(folder.path()).unwrap());
    // As left by a crash between the two last steps.
    fs::remove_file(folder.path().join("format")).unwrap();
    drop(Store::open(folder.path()).unwrap());
    assert_eq!(
        fs::read_to_string(folder.path().join("format")).unwrap(),
        "weir-store 2\n"
    );
}

#[test]
fn missing_data_is_not_taken_for_a_new_store() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(folder.path()).unwrap());
    fs::remove_dir_all(folder.path().join("db")).unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::Damaged(_)), "{error}");
}

#[test]
fn a_folder_that_can_not_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = Store::open(&file.join("store")).unwrap_err();
    assert!(matches!(error, Error::Folder { .. }), "{error}");
    assert!(error.to_string().contains("file/store"), "{error}");
}

#[test]
fn other_users_can_not_look_into_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data/store");
    drop(Store::open(&path).unwrap());
    assert_eq!(
        fs::metadata(path).unwrap().permissions().mode() & 0o777,
        0o700
    );
}

/// Makes of a folder what format 1 had: records in a table of another name, whose files
/// kept holes, and no index of what runs out.
fn make_first(folder: &Path) {
    let db = Database::builder(folder.join("db")).open().unwrap();
    let options = KeyspaceCreateOptions::default;
    let old = || {
        let records = KvSeparationOptions::default().separation_threshold(128);
        options().with_kv_separation(Some(records))
    };
    let first = db.keyspace("messages", old).unwrap();
    let records = db.keyspace("records", options).unwrap();
    for entry in records.iter() {
        let (key, value) = entry.into_inner().unwrap();
        first.insert(key, value).unwrap();
    }
    db.delete_keyspace(records).unwrap();
    let lists = db.keyspace("lists", options).unwrap();
    let mut index = 0;
    for tag in [b"V", b"T"] {
        for entry in lists.prefix(tag) {
            lists.remove(entry.key().unwrap()).unwrap();
            index += 1;
        }
    }
    assert_ne!(index, 0);
    db.persist(PersistMode::SyncAll).unwrap();
    drop((db, first, lists));
    fs::write(folder.join("format"), "weir-store 1\n").unwrap();
}

#[tokio::test]
async fn a_folder_of_the_first_format_is_upgraded_with_all_that_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<Judged> = (0..3_000)
        .map(|n| row(&format!("m{n}"), n).in_channel(&format!("channel-{}", n % 1_500)))
        .collect();
    let all = PageRequest {
        limit: 1_000,
        cursor: None,
    };
    {
        let store = Store::open(folder.path()).unwrap();
        store.write(0, &rows).await.unwrap();
    }
    make_first(folder.path());
    for time in 0..2 {
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(
            fs::read_to_string(folder.path().join("format")).unwrap(),
            "weir-store 2\n"
        );
        for row in rows.iter().step_by(7) {
            let found = store.message("acme", &row.message.id).await.unwrap();
            assert_eq!(found.as_ref(), Some(row), "time {time}");
        }
        let page = store.sender("acme", "ada", &all).await.unwrap();
        assert_eq!(page.rows.len(), 1_000);
        assert_eq!(store.fence(0).await.unwrap(), Some(2_999));
    }
    // The index of days is there: 1,500 channels, each in both.
    let db = Database::builder(folder.path().join("db")).open().unwrap();
    let lists = db
        .keyspace("lists", KeyspaceCreateOptions::default)
        .unwrap();
    assert_eq!(
        [lists.prefix("V").count(), lists.prefix("T").count()],
        [1_500; 2]
    );
    assert!(!db.keyspace_exists("messages"));
}
