//! SIGKILL between and in the middle of writes loses nothing that was acknowledged,
//! and a disk that is full for a while stops nothing for good.
//!
//! The test binary runs itself as the process that is killed: [`child`] does nothing
//! unless it is told where to write.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use weir_records::Judged;
use weir_store::embedded::Store;
use weir_store::{Accounts, History, PageRequest, Scope, User};

use crate::rows::{With, row};

const FOLDER: &str = "WEIR_STORE_TEST_FOLDER";
const PARTITIONS: i32 = 2;

/// Writes for ever, and says on standard output what was acknowledged: `ok PARTITION
/// OFFSET` for rows, `user NAME` for accounts, `failed` for a write that was not.
#[tokio::test]
#[ignore = "run by the other tests of this file"]
async fn child() {
    let Ok(folder) = std::env::var(FOLDER) else {
        return;
    };
    let store = Store::open(Path::new(&folder)).unwrap();
    let mut next = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let fence = store.fence(partition).await.unwrap();
        next.insert(partition, fence.map_or(0, |fence| fence + 1));
    }
    let mut out = std::io::stdout();
    let mut users = store.users().await.unwrap().len();
    loop {
        for (partition, next) in &mut next {
            let size = 1 + *next % 40;
            let rows: Vec<Judged> = (*next..*next + size)
                .map(|offset| of(*partition, offset))
                .collect();
            match store.write(*partition, &rows).await {
                Ok(written) => {
                    assert_eq!(written, rows.len());
                    *next += size;
                    writeln!(out, "ok {partition} {}", *next - 1).unwrap();
                }
                Err(error) => {
                    assert!(error.retriable(), "{error}");
                    writeln!(out, "failed").unwrap();
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        if store.create_user(&user(users)).await.is_ok() {
            writeln!(out, "user {}", user(users).username).unwrap();
            users += 1;
        }
    }
}

fn of(partition: i32, offset: i64) -> Judged {
    let mut row = row(&format!("{partition}-{offset}"), offset).on_partition(partition);
    row.message.text = "filler ".repeat(1 + (offset % 200) as usize);
    row
}

fn user(n: usize) -> User {
    User {
        username: format!("user{n}"),
        email: format!("user{n}@example.org"),
        password_hash: String::new(),
        tenant: "acme".into(),
        scopes: [Scope::Ingest].into(),
        created_at: jiff::Timestamp::UNIX_EPOCH,
        disabled: false,
    }
}

/// What the child said.
#[derive(Default, Debug)]
struct Said {
    fences: BTreeMap<i32, i64>,
    users: Vec<String>,
    failed: usize,
}

impl Said {
    fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["ok", partition, offset] => {
                self.fences
                    .insert(partition.parse().unwrap(), offset.parse().unwrap());
            }
            ["user", name] => self.users.push(name.to_owned()),
            ["failed"] => self.failed += 1,
            _ => {}
        }
    }
}

struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(folder: &Path) -> Self {
        // A write beyond the limit of the second test is an error then, not a signal.
        let mut child = Command::new("sh")
            .args(["-c", r#"trap '' XFSZ; exec "$0" "$@""#])
            .arg(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "embedded::kill::child",
                "--ignored",
                "--nocapture",
            ])
            .env(FOLDER, folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Listens until that is true of what was said.
    fn until(&mut self, said: &mut Said, enough: impl Fn(&Said) -> bool) {
        while !enough(said) {
            let line = self
                .lines
                .next()
                .expect("the child has ended by itself")
                .unwrap();
            said.hear(&line);
            assert!(said.failed < 1_000, "it does not recover");
        }
    }

    /// SIGKILL; then whatever was said before it.
    fn kill(mut self, said: &mut Said) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        for line in self.lines.by_ref().map_while(Result::ok) {
            said.hear(&line);
        }
    }
}

/// A test that fails leaves no child behind.
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything acknowledged is there, once, in each place.
async fn verify(folder: &Path, said: &Said) {
    let store = Store::open(folder).unwrap();
    let mut total = 0;
    for (&partition, &acknowledged) in &said.fences {
        let fence = store.fence(partition).await.unwrap().unwrap();
        assert!(
            fence >= acknowledged,
            "partition {partition}: {fence} < {acknowledged}"
        );
        total += fence + 1;
        for offset in 0..=fence {
            let expected = of(partition, offset);
            let found = store.message("acme", &expected.message.id).await.unwrap();
            assert_eq!(found.as_ref(), Some(&expected), "a fence without its row");
            assert_eq!(
                store.source("acme", &expected.message.id).await.unwrap(),
                Some(expected.source)
            );
        }
        assert_eq!(
            store
                .source("acme", &of(partition, fence + 1).message.id)
                .await
                .unwrap(),
            None
        );
    }
    let mut listed = 0;
    let mut cursor = None;
    loop {
        let page = store
            .channel(
                "acme",
                "lobby",
                &PageRequest {
                    limit: 1_000,
                    cursor,
                },
            )
            .await
            .unwrap();
        listed += page.rows.len();
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(i64::try_from(listed).unwrap(), total);
    for name in &said.users {
        assert!(store.user(name).await.unwrap().is_some(), "{name} is gone");
    }
}

#[tokio::test]
async fn sigkill_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut said = Said::default();
    for round in 0..8 {
        let mut running = Running::start(folder.path());
        let before = said.users.len();
        running.until(&mut said, |said| said.users.len() > before + round * 3);
        // Somewhere into the next write.
        std::thread::sleep(Duration::from_micros(137 * round as u64));
        running.kill(&mut said);
        verify(folder.path(), &said).await;
    }
    assert!(
        said.fences.len() == PARTITIONS as usize && said.fences.values().all(|&fence| fence > 100)
    );
}

/// The limit on the size of a file stands in for a disk: beyond it writes fail.
#[tokio::test]
async fn writing_goes_on_once_a_full_disk_has_room_again() {
    let limit = |running: &Running, size: &str| {
        let status = Command::new("prlimit")
            .args([
                "--pid",
                &running.child.id().to_string(),
                &format!("--fsize={size}:unlimited"),
            ])
            .status();
        status.is_ok_and(|status| status.success())
    };
    let folder = tempfile::tempdir().unwrap();
    let mut said = Said::default();
    let mut running = Running::start(folder.path());
    running.until(&mut said, |said| said.users.len() > 3);
    if !limit(&running, "4096") {
        eprintln!("not run: this machine has no prlimit");
        running.kill(&mut said);
        return;
    }
    running.until(&mut said, |said| said.failed > 3);
    let full = said.users.len();
    assert!(limit(&running, "unlimited"));
    running.until(&mut said, |said| said.users.len() > full + 3);
    running.kill(&mut said);
    verify(folder.path(), &said).await;
}
