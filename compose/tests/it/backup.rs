//! A copy is made while messages come in, and what is made of it is a whole Weir.

use std::fs::{self, File};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::path::all_stored;
use crate::support::{Weir, sample, text_of, weir};

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
    drop(held);
    assert_eq!(weir.call("POST", "/v1/admin/log/cut", &key, None).0, 200);

    // What one left that was killed goes with the next start.
    let left = weir.data().join("store-copy");
    fs::create_dir(&left).unwrap();
    weir.stop();
    weir.restart(&[]);
    assert!(!left.exists());
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
