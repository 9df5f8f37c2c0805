//! A copy is made while messages come in, and what is made of it is a whole Weir.

use std::fs::{self, File};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::path::all_stored;
use crate::support::{Weir, eventually, sample, text_of, weir};

const BATCH: usize = 20;

fn send(weir: &Weir, key: &str, batch: &[Value]) {
    let body = Value::from(batch.to_vec());
    let (status, answer) = weir.call("POST", "/v1/messages/batch", key, Some(&body));
    assert_eq!(status, 202, "{answer}");
}

fn messages(name: &str, number: usize) -> Vec<Value> {
    let mut messages = sample(number);
    for (at, message) in messages.iter_mut().enumerate() {
        message["id"] = json!(format!("{name}-{at:05}"));
    }
    messages
}

#[test]
fn a_copy_made_under_load_holds_what_was_accepted_before_and_goes_on_without_doubles() {
    let mut running = Weir::start();
    let key = running.admin_key();
    let before = messages("before", 200);
    for batch in before.chunks(BATCH) {
        send(&running, &key, batch);
    }
    let meanwhile = messages("meanwhile", 4_000);
    let copy = running.data().with_file_name("copy");
    let made = AtomicBool::new(false);
    let sent = std::thread::scope(|threads| {
        let sender = threads.spawn(|| {
            let mut batches = meanwhile.chunks(BATCH);
            let sent = batches.by_ref().take_while(|batch| {
                send(&running, &key, batch);
                !made.load(Ordering::Relaxed)
            });
            // The last one sent is not among those taken.
            (sent.count() + 1) * BATCH
        });
        let output = running.tool(&["backup", "--to", copy.to_str().unwrap()]);
        made.store(true, Ordering::Relaxed);
        assert!(output.status.success(), "{}", text_of(&output));
        sender.join().unwrap()
    });
    let meanwhile = &meanwhile[..sent.min(meanwhile.len())];
    let again = running.tool(&["backup", "--to", copy.to_str().unwrap()]);
    assert!(text_of(&again).contains("exists already"));
    assert!(!running.data().join("store-copy").exists());

    running.kill();
    let restore = |from: &std::path::Path| {
        weir()
            .arg("restore")
            .arg(from)
            .arg("--data")
            .arg(running.data())
            .output()
            .unwrap()
    };
    assert!(text_of(&restore(&copy)).contains("exists already"));
    fs::remove_dir_all(running.data()).unwrap();
    let output = restore(&copy);
    assert!(output.status.success(), "{}", text_of(&output));
    running.restart(&[]);

    // The same administrator, and everything from before without sending it again.
    for message in &before {
        let id = message["id"].as_str().unwrap();
        let (status, found) =
            running.call("GET", &format!("/v1/messages/{id}?wait=30"), &key, None);
        assert_eq!((status, &found["status"]), (200, &json!("judged")), "{id}");
    }
    // A producer that sends all of it again makes it whole, and nothing double.
    let all = [&before, meanwhile].concat();
    for batch in all.chunks(BATCH) {
        send(&running, &key, batch);
    }
    all_stored(&running, &key, &all);
}

#[test]
fn the_log_is_not_cut_under_a_backup_and_there_is_one_at_a_time() {
    let mut weir = Weir::start();
    let key = weir.admin_key();
    // As a backup that runs.
    let held = File::create(weir.data().join("log-lock")).unwrap();
    held.lock().unwrap();
    let (status, answer) = weir.call("POST", "/v1/admin/log/cut", &key, None);
    assert_eq!(status, 409, "{answer}");
    let copy = weir.data().with_file_name("copy");
    let second = weir.tool(&["backup", "--to", copy.to_str().unwrap()]);
    assert!(
        text_of(&second).contains("another backup"),
        "{}",
        text_of(&second)
    );
    assert!(!copy.exists());

    // What one left that was killed goes with the next erasure, and with the next start.
    let left = weir.data().join("store-copy");
    fs::create_dir(&left).unwrap();
    let erase = || {
        let erased = weir.tool(&["erase", "--sender", "ann", "--yes"]);
        assert!(erased.status.success(), "{}", text_of(&erased));
    };
    erase();
    assert!(left.exists(), "a backup may still want it");
    drop(held);
    erase();
    assert!(!left.exists());
    assert_eq!(weir.call("POST", "/v1/admin/log/cut", &key, None).0, 200);
    fs::create_dir(&left).unwrap();
    weir.stop();
    weir.restart(&[]);
    assert!(!left.exists());
}

#[test]
fn a_lake_that_is_ahead_of_a_restored_log_is_refused_and_a_new_one_taken() {
    let mut running = Weir::start();
    let key = running.admin_key();
    let lake = running.data().with_file_name("lake");
    let outside = [("WEIR_LAKE", lake.to_str().unwrap())];
    running.stop();
    fs::remove_dir_all(running.data().join("lake")).unwrap();
    running.restart(&outside);

    let before = messages("before", BATCH);
    send(&running, &key, &before);
    all_stored(&running, &key, &before);
    let copy = running.data().with_file_name("copy");
    let output = running.tool(&["backup", "--to", copy.to_str().unwrap()]);
    assert!(
        text_of(&output).contains("The lake is not in"),
        "{}",
        text_of(&output)
    );
    let lost = messages("lost", 5 * BATCH);
    for batch in lost.chunks(BATCH) {
        send(&running, &key, batch);
    }
    let all = [before.as_slice(), &lost].concat();
    all_stored(&running, &key, &all);
    // The lake has them when the process has stopped.
    running.stop();

    fs::remove_dir_all(running.data()).unwrap();
    let output = weir()
        .arg("restore")
        .arg(&copy)
        .arg("--data")
        .arg(running.data())
        .output()
        .unwrap();
    assert!(
        text_of(&output).contains("name a new folder"),
        "{}",
        text_of(&output)
    );
    running.launch(&outside);
    eventually("it is refused", || {
        running.log().contains("was written from another log")
    });
    running.kill();
    assert!(running.log().contains(lake.to_str().unwrap()));

    let lake = running.data().with_file_name("new-lake");
    running.restart(&[("WEIR_LAKE", lake.to_str().unwrap())]);
    let after = messages("after", BATCH);
    send(&running, &key, &after);
    let ids = "SELECT count(DISTINCT message_id) FROM messages WHERE message_id LIKE 'after-%'";
    eventually("what is new is there", || {
        running.sql(&key, ids)[0][0] == json!(BATCH)
    });
}

#[test]
fn half_a_copy_is_no_backup() {
    let folder = tempfile::tempdir().unwrap();
    let output = weir()
        .arg("restore")
        .arg(folder.path())
        .arg("--data")
        .arg(folder.path().join("data"))
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(text_of(&output).contains("no whole backup"));
    assert!(!folder.path().join("data").exists());
}
