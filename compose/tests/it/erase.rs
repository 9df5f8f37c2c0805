//! The proof that erased is erased: a sender's words are looked for in every file of the
//! data folder, and asked of every door.
//!
//! Files of the lake are compressed so that no piece of a text stands in them as it is;
//! they are decoded, also those that the table does not use any more.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use serde_json::{Value, json};

use crate::dead;
use crate::path::all_stored;
use crate::support::{Weir, eventually, text_of};

const EACH: usize = 60;
/// A packer may take a longer piece apart.
const PIECE: usize = 12;

/// 48 letters that no packer makes shorter, different ones for each name.
fn words(name: &str) -> String {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut state = name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    let next = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(letters[usize::try_from(state % 64).unwrap()])
    });
    next.skip(8).take(48).collect()
}

fn messages(sender: &str) -> Vec<Value> {
    (0..EACH)
        .map(|at| {
            let name = format!("{sender}-{at}");
            json!({
                "id": name, "channel": format!("room-{}", at % 3), "sender": sender,
                "text": format!("{} said {}", sender, words(&name)),
                "metadata": {"note": words(&format!("note of {name}"))},
            })
        })
        .collect()
}

/// All that must be nowhere: texts and metadata.
fn secrets(sender: &str) -> Vec<String> {
    let names = (0..EACH).map(|at| format!("{sender}-{at}"));
    names
        .flat_map(|name| [words(&name), words(&format!("note of {name}"))])
        .collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.push(path);
        }
    }
    files
}

/// The files that hold a piece of any of the secrets.
fn holding(folder: &Path, secrets: &[String]) -> Vec<PathBuf> {
    let pieces: std::collections::HashSet<&[u8]> = secrets
        .iter()
        .flat_map(|secret| secret.as_bytes().windows(PIECE))
        .collect();
    let holds = |bytes: &[u8]| bytes.windows(PIECE).any(|piece| pieces.contains(piece));
    let mut holding = files(folder);
    holding.retain(|path| {
        // What the running Weir deletes meanwhile holds nothing.
        let Ok(bytes) = fs::read(path) else {
            return false;
        };
        holds(&bytes)
            || (path.extension().is_some_and(|name| name == "parquet")
                && holds(decoded(path).as_bytes()))
    });
    holding
}

fn decoded(path: &Path) -> String {
    let reader = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
    let rows = reader.get_row_iter(None).unwrap();
    rows.map(|row| row.unwrap().to_string()).collect()
}

/// Whether some file of that part of the data folder is among them.
fn in_part(files: &[PathBuf], data: &Path, part: &str) -> bool {
    files.iter().any(|file| file.starts_with(data.join(part)))
}

fn count(weir: &Weir, key: &str, sender: &str) -> Value {
    let query = format!("SELECT count(*) FROM messages WHERE sender = '{sender}'");
    weir.sql(key, &query)[0][0].clone()
}

#[test]
fn what_a_sender_said_is_in_no_file_and_behind_no_door() {
    let mut weir = Weir::start();
    let admin = weir.admin_key();
    let made = weir.tool(&[
        "key",
        "create",
        "--tenant",
        "globex",
        "--scopes",
        "ingest,read,sql",
    ]);
    let globex = text_of(&made).trim().to_owned();
    let [ann, bob] = ["ann", "bob"].map(messages);
    for (key, batch) in [(&admin, &ann), (&admin, &bob), (&globex, &ann)] {
        let body = Value::from(batch.clone());
        let (status, answer) = weir.call("POST", "/v1/messages/batch", key, Some(&body));
        assert_eq!(status, 202, "{answer}");
    }
    all_stored(&weir, &admin, &[ann.clone(), bob.clone()].concat());
    all_stored(&weir, &globex, &ann);
    // What is looked for can be found, in each of the three.
    let (gone, stays) = (secrets("ann"), secrets("bob"));
    eventually("the lake holds it", || {
        in_part(&holding(&weir.data(), &gone), &weir.data(), "lake")
    });
    let before = holding(&weir.data(), &gone);
    for part in ["broker", "store", "lake"] {
        assert!(in_part(&before, &weir.data(), part), "{part}: {before:?}");
    }

    // Of another tenant, whose words are the same: first the whole of it, so that no file
    // may hold them for its sake.
    for tenant in ["globex", "default"] {
        let args = [
            "erase",
            "--tenant",
            tenant,
            "--sender",
            "ann",
            "--cut-log",
            "--yes",
        ];
        let done = weir.tool(&args);
        assert!(done.status.success(), "{}", text_of(&done));
        if tenant == "globex" {
            assert_eq!(count(&weir, &admin, "ann"), json!(EACH));
            assert_eq!(count(&weir, &globex, "ann"), json!(0));
            let (status, _) = weir.call("GET", "/v1/messages/ann-7", &admin, None);
            assert_eq!(status, 200);
        }
    }
    let still = holding(&weir.data(), &gone);
    assert!(still.is_empty(), "{still:?}");
    assert!(in_part(
        &holding(&weir.data(), &stays),
        &weir.data(),
        "store"
    ));
    let nowhere = |weir: &Weir| {
        assert_eq!(count(weir, &admin, "ann"), json!(0));
        assert_eq!(count(weir, &admin, "bob"), json!(EACH));
        for at in 0..EACH {
            let path = format!("/v1/messages/ann-{at}");
            let (status, _) = weir.call("GET", &path, &admin, None);
            assert_eq!(status, 404, "{path}");
        }
        let (_, said) = weir.call("GET", "/v1/senders/ann/messages", &admin, None);
        assert_eq!(said["messages"], json!([]));
        let (_, room) = weir.call(
            "GET",
            "/v1/channels/room-1/messages?limit=200",
            &admin,
            None,
        );
        let senders = room["messages"].as_array().unwrap().iter();
        let senders: Vec<_> = senders.map(|message| &message["sender"]).collect();
        assert_eq!(senders, vec!["bob"; EACH / 3]);
    };
    nowhere(&weir);

    // Killed and started again it does not come back; and the id is free.
    weir.kill();
    weir.restart(&[]);
    nowhere(&weir);
    let still = holding(&weir.data(), &gone);
    assert!(still.is_empty(), "{still:?}");
    let again = json!({"id": "ann-7", "channel": "room-1", "sender": "ann", "text": "hello again"});
    let (status, _) = weir.call("POST", "/v1/messages", &admin, Some(&again));
    assert_eq!(status, 202);
    let (_, judged) = weir.call("GET", "/v1/messages/ann-7?wait=30", &admin, None);
    assert_eq!(judged["status"], "judged", "{judged}");
    eventually("SQL shows what was said since", || {
        count(&weir, &admin, "ann") == json!(1)
    });
}

#[test]
fn a_dead_letter_of_a_sender_is_behind_no_door_and_only_where_it_was_said_to_stay() {
    let mut weir = Weir::start();
    weir.stop();
    let [ann, bob] = ["ann", "bob"].map(|sender| {
        let mut message = dead::message("default", &format!("{sender}-0"), &words(sender));
        message.sender = Some(sender.to_owned());
        message
    });
    let gone = [ann.text.clone()];
    let letters = vec![dead::letter(ann, 1_000_000), dead::letter(bob, 1_000_001)];
    dead::write(&weir.data(), letters);
    weir.restart(&[]);
    let letters = dead::listed(&weir, &[]);
    let of = |sender: &str| {
        let ids = letters.iter().map(|letter| letter["id"].as_str().unwrap());
        let holds = |id: &&str| text_of(&weir.tool(&["dead", "show", id])).contains(&words(sender));
        ids.filter(holds).collect::<Vec<_>>()
    };
    let (anns, bobs) = (of("ann"), of("bob"));
    assert_eq!((anns.len(), bobs.len()), (1, 1));

    let done = weir.tool(&["erase", "--sender", "ann", "--cut-log", "--yes"]);
    assert!(done.status.success(), "{}", text_of(&done));
    assert_eq!((of("ann").len(), of("bob")), (0, bobs));
    assert_eq!(dead::listed(&weir, &["--state", "all"]).len(), 1);
    for args in [
        &["dead", "replay", anns[0], "--yes"][..],
        &["dead", "replay", "--all", "--yes"],
    ] {
        let said = text_of(&weir.tool(args));
        assert!(!said.contains(&gone[0]), "{said}");
    }
    let admin = weir.admin_key();
    eventually("the other one is replayed", || {
        count(&weir, &admin, "bob") == json!(1)
    });
    assert_eq!(count(&weir, &admin, "ann"), json!(0));
    let topic = weir.data().join("broker/topics/weir.dead");
    let still = holding(&weir.data(), &gone);
    assert!(
        still.iter().all(|file| file.starts_with(&topic)),
        "{still:?}"
    );
}

#[test]
fn one_message_is_erased_without_its_neighbours_and_only_by_its_administrator() {
    let mut weir = Weir::start();
    let admin = weir.admin_key();
    let ann = messages("ann");
    let body = Value::from(ann.clone());
    let (status, answer) = weir.call("POST", "/v1/messages/batch", &admin, Some(&body));
    assert_eq!(status, 202, "{answer}");
    all_stored(&weir, &admin, &ann);
    let made = weir.tool(&["key", "create", "--tenant", "globex", "--scopes", "admin"]);
    let stranger = text_of(&made).trim().to_owned();
    let erase =
        |key: &str, wanted: &Value| weir.call("POST", "/v1/admin/erasures", key, Some(wanted));
    let (status, _) = erase(&stranger, &json!({"tenant": "default", "message": "ann-7"}));
    assert_eq!(status, 403);
    let (status, _) = weir.call("POST", "/v1/admin/log/cut", &stranger, None);
    assert_eq!(status, 403);
    // Its own tenant has no such message.
    let (status, done) = erase(&stranger, &json!({"message": "ann-7"}));
    assert_eq!((status, &done["history_messages"]), (200, &json!(0)));
    for wrong in [
        json!({}),
        json!({"message": "", "tenant": "default"}),
        json!({"message": "a", "sender": "b"}),
    ] {
        let (status, problem) = erase(&admin, &wrong);
        assert_eq!((status, &problem["code"]), (400, &json!("invalid_field")));
    }
    let done = weir.tool(&["erase", "--message", "ann-7"]);
    assert!(
        text_of(&done).contains("nothing was done"),
        "{}",
        text_of(&done)
    );

    let done = weir.tool(&["erase", "--message", "ann-7", "--yes"]);
    assert!(done.status.success(), "{}", text_of(&done));
    assert!(text_of(&done).contains("history  1 messages"));
    assert_eq!(count(&weir, &admin, "ann"), json!(EACH - 1));
    let (status, _) = weir.call("GET", "/v1/messages/ann-7", &admin, None);
    assert_eq!(status, 404);
    // It was said that the log keeps it.
    let gone = [words("ann-7")];
    let still = holding(&weir.data(), &gone);
    assert!(
        !still.is_empty()
            && still
                .iter()
                .all(|file| file.starts_with(weir.data().join("broker")))
    );

    // The id may be used again. The sinks go through all erasures again after a start,
    // before they write: the new message stays.
    let mut ann = ann;
    ann[7] =
        json!({"id": "ann-7", "channel": "room-1", "sender": "ann", "text": "ann said it again"});
    let send = |weir: &Weir, message: &Value| {
        let (status, answer) = weir.call("POST", "/v1/messages", &admin, Some(message));
        assert_eq!(status, 202, "{answer}");
    };
    send(&weir, &ann[7]);
    all_stored(&weir, &admin, &ann);
    weir.stop();
    weir.restart(&[]);
    ann.push(
        json!({"id": "ann-60", "channel": "room-0", "sender": "ann", "text": "ann said more"}),
    );
    send(&weir, &ann[60]);
    all_stored(&weir, &admin, &ann);
}
