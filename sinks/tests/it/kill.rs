//! SIGKILL in the middle of flushes, merges, checkpoints and clean-ups.
//!
//! The child is this program again. It plays the worker: reads on from the offsets it
//! saved last, sometimes from before them, and saves what the stage settles. The
//! parent kills it at random moments and at the end looks at the table.
//! `WEIR_KILL_ROUNDS` sets how often.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use weir_bus::Stage as _;
use weir_sinks::lake::Config;

use crate::support::{assert_holds, assigned, fences, open, record, rows, table};

const CHILD: &str = "WEIR_KILL_CHILD";
const PARTITIONS: i32 = 3;

/// The source offset of the record at an offset: they differ as they do after dead letters.
fn source(offset: i64) -> i64 {
    offset + offset / 7
}

fn config(folder: &Path) -> Config {
    Config {
        url: folder.join("lake").display().to_string(),
        every: Duration::from_millis(5),
        rows: 150,
        merge_files: 4,
        checkpoint_commits: 10,
        retention: Duration::from_secs(3),
        log_retention: Duration::from_millis(500),
        upkeep: Duration::from_millis(5),
        ..Config::default()
    }
}

fn load(file: &Path) -> BTreeMap<i32, i64> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(partition, offset)| (partition.parse().unwrap(), offset.parse().unwrap()))
        .collect()
}

fn save(file: &Path, offsets: &BTreeMap<i32, i64>) {
    let text: String = offsets
        .iter()
        .map(|(partition, offset)| format!("{partition} {offset}\n"))
        .collect();
    let staged = file.with_extension("new");
    fs::write(&staged, text).unwrap();
    fs::rename(staged, file).unwrap();
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
#[ignore = "the child of rows_survive_sigkill_once_each"]
fn child() {
    let Ok(folder) = std::env::var(CHILD) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(write_for_ever(&PathBuf::from(folder)));
}

/// Writes until the file `stop` is there, then to the end of what has begun.
async fn write_for_ever(folder: &Path) {
    let saved = folder.join("offsets");
    let (mut writer, _) = open(&config(folder)).await;
    assigned(&mut writer, 0..PARTITIONS).await;
    let mut settled = load(&saved);
    let mut random = Random(u64::from(std::process::id()) * 7_919 + 1);
    // At least once: the worker may begin before what it committed.
    let mut next: BTreeMap<i32, i64> = (0..PARTITIONS)
        .map(|partition| {
            let at = settled.get(&partition).copied().unwrap_or(0);
            (
                partition,
                (at - i64::try_from(random.below(40)).unwrap()).max(0),
            )
        })
        .collect();
    loop {
        let stop = folder.join("stop").exists();
        if stop {
            // Past everything that a child killed before its saving may have committed.
            for (partition, from) in &next {
                let rest: Vec<_> = (*from..from + 1_000)
                    .map(|at| record(*partition, at, source(at)))
                    .collect();
                settled.extend(writer.handle(&rest).await.unwrap().done);
            }
        }
        let partition = i32::try_from(random.below(u64::try_from(PARTITIONS).unwrap())).unwrap();
        let from = next[&partition];
        let to = from + 1 + i64::try_from(random.below(60)).unwrap();
        let batch: Vec<_> = (from..to)
            .map(|offset| record(partition, offset, source(offset)))
            .collect();
        let outcome = if stop {
            writer.finish().await.unwrap()
        } else {
            let outcome = writer.handle(&batch).await.unwrap();
            next.insert(partition, to);
            outcome
        };
        assert!(outcome.dead.is_empty());
        settled.extend(outcome.done);
        save(&saved, &settled);
        if stop {
            return;
        }
        tokio::time::sleep(Duration::from_millis(random.below(4))).await;
    }
}

fn spawn(folder: &Path) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::child", "--ignored", "--nocapture"])
        .env(CHILD, folder)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_survive_sigkill_once_each() {
    let rounds: usize =
        std::env::var("WEIR_KILL_ROUNDS").map_or(5, |rounds| rounds.parse().unwrap());
    let root = tempfile::tempdir().unwrap();
    let folder = root.path();
    let seed = u64::try_from(jiff::Timestamp::now().as_microsecond()).unwrap();
    println!("seed {seed}");
    let mut random = Random(seed);
    let mut killed_at_work = 0;
    for _ in 0..rounds {
        let before = load(&folder.join("offsets"));
        let mut child = spawn(folder);
        // From its first settled offsets on, at any moment.
        for _ in 0..2_000 {
            if load(&folder.join("offsets")) != before || child.try_wait().unwrap().is_some() {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        thread::sleep(Duration::from_micros(random.below(1_200_000)));
        assert_eq!(
            child.try_wait().unwrap(),
            None,
            "the child failed by itself"
        );
        child.kill().unwrap();
        child.wait().unwrap();
        killed_at_work += 1;
        check(folder, false).await;
    }
    fs::write(folder.join("stop"), "").unwrap();
    assert!(spawn(folder).wait().unwrap().success());
    check(folder, true).await;
    let table = table(&folder.join("lake")).await;
    println!(
        "{killed_at_work} kills, {} rows, version {:?}, {} files",
        rows(&folder.join("lake")).await.len(),
        table.version(),
        table.snapshot().unwrap().log_data().num_files()
    );
}

/// The table holds every row up to its fences once; and all that was settled, unless
/// the process died between the commit and the saving.
async fn check(folder: &Path, ended: bool) {
    let lake = folder.join("lake");
    let found = rows(&lake).await;
    let fences = fences(&lake, 0..PARTITIONS).await;
    let settled = load(&folder.join("offsets"));
    for partition in 0..PARTITIONS {
        let settled = settled.get(&partition).copied().unwrap_or(0);
        let fence = fences.get(&partition).copied();
        let sources: Vec<i64> = (0..)
            .map(source)
            .take_while(|source| fence.is_some_and(|fence| *source <= fence))
            .collect();
        assert!(
            sources.len() as i64 >= settled,
            "settled {settled}, but the table ends at {fence:?}"
        );
        assert!(
            !ended || sources.len() as i64 == settled,
            "settled {settled}, the table ends at {fence:?}"
        );
        assert_holds(&found, partition, sources.into_iter());
    }
}
