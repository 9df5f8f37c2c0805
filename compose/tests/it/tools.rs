//! The commands that ask a running Weir, as a person or a script uses them.

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
