//! The same with kcat, where it is installed.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::server::Server;

#[test]
fn kcat_sends_and_reads() {
    if Command::new("kcat")
        .arg("-V")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        eprintln!("skipped: kcat is not installed");
        return;
    }
    let server = Server::start();
    let topic = server.topic("kcat", 1, &[]);
    let kcat = |arguments: &[&str]| {
        let mut command = Command::new("kcat");
        // Its own, older library, and not the one that was built for these tests.
        command.env_remove("LD_LIBRARY_PATH");
        command
            .args(["-b", &server.brokers, "-t", &topic])
            .args(arguments);
        command
    };
    let mut sender = kcat(&["-P", "-z", "gzip", "-p", "0"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: String = (0..100).map(|index| format!("line {index}\n")).collect();
    sender
        .stdin
        .take()
        .unwrap()
        .write_all(lines.as_bytes())
        .unwrap();
    assert!(sender.wait().unwrap().success());
    let read = kcat(&["-C", "-e", "-q", "-o", "beginning"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(read.stdout).unwrap(), lines);
    let listed = kcat(&["-L"]).output().unwrap();
    assert!(
        String::from_utf8(listed.stdout)
            .unwrap()
            .contains("1 partitions")
    );
}
