//! Starting and stopping: first run, what can go wrong, and a graceful end.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::json;

use crate::support::{Weir, eventually, sample, signal, text_of, weir};

#[test]
fn the_first_start_makes_an_administrator_that_only_the_owner_can_read() {
    let weir = Weir::start();
    let admin = weir.admin();
    let mode = fs::metadata(weir.data().join("admin.json"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let fields = [
        ("username", &admin["username"]),
        ("password", &admin["password"]),
    ];
    let fields = fields.map(|(name, value)| (name, value.as_str().unwrap()));
    let (status, token) = weir.form("/v1/token", &fields);
    assert_eq!(status, 200, "{token}");
    let (status, me) = weir.call(
        "GET",
        "/v1/me",
        token["access_token"].as_str().unwrap(),
        None,
    );
    assert_eq!((status, &me["username"]), (200, &admin["username"]));
}

#[test]
fn others_can_not_read_what_lies_in_a_folder_that_is_open_to_them() {
    let weir = Weir::start_in(|data| {
        fs::create_dir(data).unwrap();
        fs::set_permissions(data, fs::Permissions::from_mode(0o755)).unwrap();
    });
    let mode = |path: std::path::PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for part in ["broker", "store", "lake", "secrets"] {
        assert_eq!(mode(weir.data().join(part)), 0o700, "{part}");
    }
    assert_eq!(mode(weir.data()), 0o755);
    assert!(
        weir.log().contains("others on this machine"),
        "{}",
        weir.log()
    );
}

#[test]
fn a_restart_keeps_the_administrator() {
    let mut weir = Weir::start();
    let key = weir.admin_key();
    assert!(weir.stop().0.success());
    weir.restart(&[]);
    assert_eq!(weir.admin_key(), key);
    assert_eq!(weir.call("GET", "/v1/me", &key, None).0, 200);
}

#[test]
fn a_graceful_stop_ends_in_time_and_loses_nothing() {
    let mut weir = Weir::start();
    let key = weir.admin_key();
    let messages = sample(300);
    let (status, answer) = weir.call("POST", "/v1/messages/batch", &key, Some(&json!(messages)));
    assert_eq!(status, 202, "{answer}");
    let (ended, took) = weir.stop();
    assert!(ended.success());
    assert!(took < Duration::from_secs(12), "took {took:?}");
    weir.restart(&[]);
    crate::path::all_stored(&weir, &key, &messages);
}

#[test]
fn a_second_signal_ends_it_at_once_and_loses_nothing() {
    let mut weir = Weir::start();
    let key = weir.admin_key();
    let messages = sample(300);
    let (status, answer) = weir.call("POST", "/v1/messages/batch", &key, Some(&json!(messages)));
    assert_eq!(status, 202, "{answer}");
    // A request that never ends keeps the door from closing.
    let address = weir.url().strip_prefix("http://").unwrap();
    let mut request = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: 100\r\n\r\n{{"
    );
    request.write_all(head.as_bytes()).unwrap();
    let ended = weir.stop_twice();
    assert_eq!(ended.code(), Some(130), "{}", weir.log());
    weir.restart(&[]);
    crate::path::all_stored(&weir, &key, &messages);
}

#[test]
fn an_occupied_port_is_one_clear_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let output = weir()
        .args(["up", "--listen", &address, "--data"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = text_of(&output);
    assert!(
        said.contains(&format!("can't listen on {address}")),
        "{said}"
    );
}

#[test]
fn a_second_weir_on_the_same_folder_is_refused() {
    let first = Weir::start();
    let output = weir()
        .args(["up", "--listen", "127.0.0.1:0", "--data"])
        .arg(first.data())
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(text_of(&output).contains("in use by another Weir"));
}

#[test]
fn a_folder_of_a_newer_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("version"), "999\n").unwrap();
    let output = weir()
        .args(["up", "--listen", "127.0.0.1:0", "--data"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(
        text_of(&output).contains("newer Weir"),
        "{}",
        text_of(&output)
    );
}

#[test]
fn a_missing_model_is_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("no-model");
    let output = weir()
        .args(["up", "--listen", "127.0.0.1:0", "--data"])
        .arg(folder.path().join("data"))
        .env("WEIR_MODEL__PATH", &nowhere)
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(
        text_of(&output).contains("no-model"),
        "{}",
        text_of(&output)
    );
}

#[test]
fn a_lone_role_says_which_backend_it_lacks() {
    let refusal = |role: &str, settings: &[(&str, &str)]| {
        let output = weir()
            .arg(role)
            .envs(settings.iter().copied())
            .output()
            .unwrap();
        assert!(!output.status.success());
        text_of(&output)
    };
    let brokers = ("WEIR_BUS__BROKERS", "127.0.0.1:9");
    let store = ("WEIR_STORE", "scylla");
    for role in ["ingest", "process", "sink", "query"] {
        let said = refusal(role, &[]);
        assert!(said.contains("bus.brokers"), "{said}");
        let said = refusal(role, &[brokers]);
        assert!(said.contains("store = \"scylla\""), "{said}");
    }
    for role in ["sink", "query"] {
        let said = refusal(role, &[brokers, store]);
        assert!(said.contains("set `lake`"), "{said}");
    }
}

#[test]
fn a_lone_role_waits_for_brokers_that_are_away_until_it_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut child = weir()
        .arg("ingest")
        .args(["--listen", "127.0.0.1:0"])
        .env("WEIR_BUS__BROKERS", "127.0.0.1:9")
        .env("WEIR_STORE", "scylla")
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let said = || fs::read_to_string(&log).unwrap();
    eventually("it says what it waits for", || {
        said().contains("waiting for Kafka")
    });
    signal(&child, "TERM");
    assert!(child.wait().unwrap().success(), "{}", said());
}

#[test]
fn migrate_has_nothing_to_do_where_all_is_embedded() {
    let output = weir().arg("migrate").output().unwrap();
    assert!(output.status.success());
    assert!(text_of(&output).contains("weir up"));
}

#[test]
fn a_setting_of_the_environment_is_refused_without_showing_it() {
    let refused = weir()
        .args(["config"])
        .env("WEIR_BUS__PROPERTIES", "sasl.password=hunter2")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success());
    assert!(
        told.contains("`bus.properties`") && told.contains("WEIR_") && !told.contains("hunter"),
        "{told}"
    );
}
