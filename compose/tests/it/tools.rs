//! The commands that ask a running Weir, as a person or a script uses them.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};

use crate::support::{Weir, text_of, weir};

/// Runs a tool whose reader has left.
fn into_nothing(on: &Weir, args: &[&str]) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut tool = weir();
    tool.env("WEIR_DATA", on.data()).args(args);
    tool.stdout(writer).stderr(Stdio::piped());
    tool.spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn a_command_whose_reader_left_ends_without_a_word() {
    let weir = Weir::start();
    weir.sql(&weir.admin_key(), "SELECT 1");
    let commands: [&[&str]; 6] = [
        &["config", "--print"],
        &["sql", "--format", "csv", "SELECT 1"],
        &["sql", "--format", "parquet", "SELECT 1"],
        &["dead", "list"],
        &["user", "list"],
        &["check"],
    ];
    for command in commands {
        let output = into_nothing(&weir, command);
        let said = text_of(&output);
        assert_eq!(
            (output.status.code(), said.as_str()),
            (Some(141), ""),
            "{command:?}"
        );
    }
}

#[test]
fn the_data_folder_is_the_one_of_the_settings_unless_another_is_named() {
    let running = Weir::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weir.toml");
    fs::write(&file, format!("data = {:?}\n", running.data())).unwrap();
    let keys = |config: &Path, name: &str, value: &str| {
        let mut tool = weir();
        tool.args(["key", "list"]).env("WEIR_CONFIG", config);
        tool.env(name, value).output().unwrap()
    };
    let output = keys(&file, "WEIR_LOG", "warn");
    assert!(output.status.success(), "{}", text_of(&output));
    let output = keys(&file, "WEIR_DATA", "elsewhere");
    let said = text_of(&output);
    assert!(
        !output.status.success() && said.contains("elsewhere/admin.json"),
        "{said}"
    );
    let output = keys(&folder.path().join("none.toml"), "WEIR_LOG", "warn");
    let said = text_of(&output);
    assert!(
        !output.status.success() && said.contains("none.toml does not exist"),
        "{said}"
    );
}

#[test]
fn a_tool_says_what_it_lacks_and_check_needs_no_key() {
    let mut running = Weir::start();
    let nowhere = tempfile::tempdir().unwrap();
    let said = |args: &[&str]| {
        let mut tool = weir();
        let output = tool.args(args).current_dir(&nowhere).output().unwrap();
        (output.status.success(), text_of(&output))
    };
    let (_, told) = said(&["key", "list", "--url", running.url()]);
    assert!(told.contains("no key: give --key or WEIR_KEY"), "{told}");
    let (_, told) = said(&["key", "list", "--key", "x"]);
    assert!(
        told.contains("no address: give --url or WEIR_URL"),
        "{told}"
    );
    let (_, told) = said(&["check"]);
    assert!(told.contains("no address: start `weir up` first"), "{told}");
    let (_, told) = said(&["check", "--url", "http://127.0.0.1:9"]);
    assert!(told.contains("is Weir running there?"), "{told}");

    running.sql(&running.admin_key(), "SELECT 1");
    let (well, told) = said(&["check", "--url", running.url()]);
    assert!(well && told.contains("/v1/sql"), "{told}");
    running.stop();
    running.restart_as("ingest");
    let (well, told) = said(&["check", "--url", running.url()]);
    assert!(
        well && told.contains("/docs") && !told.contains("/v1/sql"),
        "{told}"
    );
}
