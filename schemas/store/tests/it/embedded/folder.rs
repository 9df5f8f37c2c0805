//! The folder: one process at a time, no newer format, private, and made whole.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fjall::{Database, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use jiff::Timestamp;
use weir_records::Judged;
use weir_store::embedded::Store;
use weir_store::{Erase, Error, History, PageRequest, Retention};

use crate::rows::{HOUR, MIDNIGHT, With, row};

const ALL: PageRequest = PageRequest {
    limit: 1_000,
    cursor: None,
};

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
    fs::write(&format, "weir-store 4\n").unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert!(
        matches!(error, Error::NewerFormat { found: 4, known: 3 }),
        "{error}"
    );
    assert_eq!(fs::read_to_string(&format).unwrap(), "weir-store 4\n");
    fs::write(&format, "weir-store 3\n").unwrap();
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
        "weir-store 3\n"
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

/// Makes of a folder what format 2 had: rows under kind, tenant, name, day and position, in
/// the table of the days, which had no parts. `moved`: how many rows an upgrade had moved
/// when it was killed.
fn make_second(folder: &Path, moved: usize) {
    let db = Database::builder(folder.join("db")).open().unwrap();
    let table = |name| db.keyspace(name, KeyspaceCreateOptions::default).unwrap();
    let (rows, lists) = (table("rows"), table("lists"));
    let mut second = Vec::new();
    for entry in rows.iter() {
        let (key, id) = entry.into_inner().unwrap();
        if key.len() == 1 {
            // What a purge leaves behind.
            continue;
        }
        // Day, part, kind, names and position.
        let ((day, names), position) = (key.split_at(4), &key[key.len() - 20..]);
        let day = day.iter().map(|byte| !byte);
        let mut old = names[1..names.len() - 20].to_vec();
        old.extend(day);
        old.extend(position);
        second.push((old, key, id));
    }
    assert!(!second.is_empty());
    second.sort();
    let mut days: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    for tag in [b"C", b"S"] {
        for entry in lists.prefix(tag) {
            let (day, parts) = entry.into_inner().unwrap();
            lists.insert(day.clone(), []).unwrap();
            days.insert(day.to_vec(), parts.to_vec());
        }
    }
    for (n, (old, key, id)) in second.into_iter().enumerate() {
        if n < moved {
            let mut day = old[..old.len() - 20].to_vec();
            day[0] = day[0].to_ascii_uppercase();
            lists.insert(day.clone(), days[&day].clone()).unwrap();
        } else {
            rows.remove(key).unwrap();
            lists.insert(old, id).unwrap();
        }
    }
    db.persist(PersistMode::SyncAll).unwrap();
    drop((db, rows, lists));
    let begun = moved > 0;
    if begun {
        fs::write(folder.join("upgrading"), "").unwrap();
    }
    let format = if begun {
        "weir-store 3\n"
    } else {
        "weir-store 2\n"
    };
    fs::write(folder.join("format"), format).unwrap();
}

/// The same of format 1: records in a table of another name, whose files kept holes, and no
/// index of what runs out.
fn make_first(folder: &Path) {
    make_second(folder, 0);
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
    {
        let store = Store::open(folder.path()).unwrap();
        store.write(0, &rows).await.unwrap();
    }
    make_first(folder.path());
    for time in 0..2 {
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(
            fs::read_to_string(folder.path().join("format")).unwrap(),
            "weir-store 3\n"
        );
        for row in rows.iter().step_by(7) {
            let found = store.message("acme", &row.message.id).await.unwrap();
            assert_eq!(found.as_ref(), Some(row), "time {time}");
        }
        let page = store.sender("acme", "ada", &ALL).await.unwrap();
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

#[tokio::test]
async fn the_lists_of_a_folder_of_the_second_format_are_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    // Over two days and some parts of them, in lists of which one name is the start of another.
    let rows: Vec<Judged> = (0..2_000)
        .map(|n| {
            row(&format!("m{n}"), n)
                .in_channel(["lobby", "lobby2", "l\0"][n as usize % 3])
                .by(Some(["ada", "bob"][n as usize % 2]))
                .at(MIDNIGHT + n * HOUR / 60)
        })
        .collect();
    let before = {
        let store = Store::open(folder.path()).unwrap();
        store.write(0, &rows).await.unwrap();
        // A day whose rows are all erased stays behind.
        let gone = row("gone", 5_000).in_channel("emptied").by(None);
        store.write(0, std::slice::from_ref(&gone)).await.unwrap();
        let message = Erase::Message {
            id: "gone".into(),
            up_to: gone.message.received_at,
        };
        assert_eq!(store.erase("acme", &message).await.unwrap().messages, 1);
        lists(&store).await
    };
    assert_eq!(before.iter().map(Vec::len).sum::<usize>(), 2 * rows.len());
    // Whole, and as the crash of an upgrade left it.
    for moved in [0, 700] {
        make_second(folder.path(), moved);
        let store = Store::open(folder.path()).unwrap();
        assert!(!folder.path().join("upgrading").exists());
        assert_eq!(lists(&store).await, before, "{moved}");
        // Days go on in their parts, and their rows go with them.
        let id = format!("more-{moved}");
        let more = row(&id, 9_000 + moved as i64).at(MIDNIGHT + 1);
        store.write(0, std::slice::from_ref(&more)).await.unwrap();
        let page = store.channel("acme", "lobby", &ALL).await.unwrap();
        assert!(page.rows.contains(&more));
        let message = Erase::Message {
            id,
            up_to: more.message.received_at,
        };
        assert_eq!(store.erase("acme", &message).await.unwrap().messages, 1);
        assert_eq!(lists(&store).await, before, "{moved}");
    }
    let store = Store::open(folder.path()).unwrap();
    let sender = Erase::Sender {
        name: "ada".into(),
        up_to: Timestamp::MAX,
    };
    assert_eq!(store.erase("acme", &sender).await.unwrap().messages, 1_000);
    let left: usize = lists(&store).await.iter().map(Vec::len).sum();
    assert_eq!(left, 2 * 1_000);
    let again = row("again", 9_999).in_channel("emptied");
    store.write(0, std::slice::from_ref(&again)).await.unwrap();
    let page = store.channel("acme", "emptied", &ALL).await.unwrap();
    assert_eq!(page.rows, [again]);
    let expired = store
        .expire(&Retention::of_days(1), Timestamp::now())
        .await
        .unwrap();
    assert_eq!(expired.messages, 1_001);
    assert!(lists(&store).await.iter().all(Vec::is_empty));
}

/// The ids of every list, in their order.
async fn lists(store: &Store) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for (channel, name) in [
        (true, "lobby"),
        (true, "lobby2"),
        (true, "l\0"),
        (false, "ada"),
        (false, "bob"),
    ] {
        let mut ids = Vec::new();
        let mut request = ALL;
        loop {
            let page = if channel {
                store.channel("acme", name, &request).await.unwrap()
            } else {
                store.sender("acme", name, &request).await.unwrap()
            };
            ids.extend(page.rows.into_iter().map(|row| row.message.id));
            request.cursor = page.next;
            if request.cursor.is_none() {
                break;
            }
        }
        all.push(ids);
    }
    all
}
