//! Measures a store: rows written a second, what a page and an existence check cost with
//! that many rows stored, memory, and the time to open again.
//!
//! `cargo run --release --package weir-store --example store_bench -- [ROWS] [ROWS_IN_A_WRITE] [made]`
//!
//! made: the ids are Weir's, not their producers'.
//!
//! The embedded one in a folder that is removed at the end; with
//! `WEIR_BENCH_CQL=host:port` the one on that database, in a keyspace that is dropped at
//! the end.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use hdrhistogram::Histogram;
use jiff::Timestamp;
use weir_records::{Action, Judged, Message, Scores, Sentiment, Source, Verdict};
use weir_store::{History, PageRequest, cql, embedded};

const PARTITIONS: i32 = 4;
const CHANNELS: i64 = 200;
const SENDERS: i64 = 20_000;
/// Half of all messages are in one channel, so that it grows long.
const BUSY: &str = "channel-0";

fn row(n: i64, id_made: bool) -> Judged {
    // 500 messages a second: ten million rows are about five and a half hours.
    let at = Timestamp::from_microsecond(1_772_323_200_000_000 + n * 2_000).unwrap();
    let mixed = mix(n);
    let channel = if mixed % 2 == 0 {
        0
    } else {
        mixed / 2 % CHANNELS
    };
    Judged {
        message: Message {
            tenant: "default".into(),
            channel: format!("channel-{channel}"),
            sender: Some(format!("sender-{}", mixed % SENDERS)),
            id: id(n),
            text: format!(
                "message {n} says {mixed:x} and {:x} to whom it may concern, at some length",
                mix(mixed)
            ),
            sent_at: at,
            received_at: at,
            by_user: false,
            id_made,
            metadata: None,
        },
        verdict: Verdict {
            action: Action::Allow,
            reasons: Vec::new(),
            scores: Scores([
                0.01,
                0.02,
                0.03,
                0.04,
                0.05,
                (mixed % 1_000) as f32 / 1_000.0,
            ]),
            sentiment: Sentiment::from_probabilities([0.1, 0.8, 0.1]),
            language: "en".into(),
            spans: Vec::new(),
            model: "bench".into(),
            judged_at: at,
        },
        source: Source {
            partition: (n % i64::from(PARTITIONS)) as i32,
            offset: n / i64::from(PARTITIONS),
        },
    }
}

/// Like the ids that ingest makes: time first, then noise.
fn id(n: i64) -> String {
    format!("{:012x}{:016x}", n, mix(n))
}

fn mix(n: i64) -> i64 {
    let mut z = (n as u64).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 1) as i64
}

fn rss_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap_or_default();
    line.split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or(0)
        / 1_024
}

fn size_mib(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fn walk(folder: &Path) -> u64 {
        let entries = std::fs::read_dir(folder).unwrap().flatten();
        let size = entries.map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => walk(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        });
        size.sum()
    }
    walk(folder) / 1_048_576
}

fn show(what: &str, times: &Histogram<u64>) {
    let at = |quantile| Duration::from_nanos(times.value_at_quantile(quantile));
    println!(
        "{what:<44} p50 {:>9.1?}  p99 {:>9.1?}  max {:>9.1?}",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

fn histogram() -> Histogram<u64> {
    Histogram::new(3).unwrap()
}

async fn measure<F: Future>(times: &mut Histogram<u64>, work: F) -> F::Output {
    let start = Instant::now();
    let answer = work.await;
    times.record(start.elapsed().as_nanos() as u64).unwrap();
    answer
}

/// Where the rows go.
enum Under {
    Embedded(tempfile::TempDir),
    Cql(Box<cql::Config>),
}

impl Under {
    fn chosen() -> Self {
        match std::env::var("WEIR_BENCH_CQL") {
            Ok(nodes) => Self::Cql(Box::new(cql::Config {
                nodes,
                keyspace: format!("weir_bench_{}", std::process::id()),
                replication: 1,
                ..cql::Config::default()
            })),
            Err(_) => {
                Self::Embedded(tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap())
            }
        }
    }

    async fn open(&self) -> Arc<dyn History> {
        match self {
            Self::Embedded(folder) => embedded::Store::open(folder.path()).unwrap(),
            Self::Cql(config) => {
                cql::migrate(config).await.unwrap();
                cql::Store::connect(config).await.unwrap()
            }
        }
    }

    /// The embedded store writes one after the other, and is compared so with what it did
    /// before; a database is there to be asked by many.
    const fn together(&self) -> usize {
        match self {
            Self::Embedded(_) => 1,
            Self::Cql(_) => PARTITIONS as usize,
        }
    }

    fn size(&self) -> String {
        match self {
            Self::Embedded(folder) => format!("{} MiB on disk", size_mib(folder.path())),
            Self::Cql(_) => "on a database".to_owned(),
        }
    }

    async fn remove(self) {
        if let Self::Cql(config) = self {
            let session = scylla::client::session_builder::SessionBuilder::new()
                .known_node(&config.nodes)
                .build()
                .await
                .unwrap();
            let text = format!("DROP KEYSPACE {}", config.keyspace);
            session.query_unpaged(text, &[]).await.unwrap();
        }
    }
}

async fn write(under: &Under, store: &dyn History, rows: i64, batch: i64, made: bool) {
    let mut writes = histogram();
    let mut writing = Duration::ZERO;
    let mut next = 0;
    let (mut report, mut before) = (rows / 10, (0, Duration::ZERO));
    while next < rows {
        let all: Vec<Judged> = (next..(next + batch * i64::from(PARTITIONS)).min(rows))
            .map(|n| row(n, made))
            .collect();
        next += all.len() as i64;
        let parts: Vec<(i32, Vec<Judged>)> = (0..PARTITIONS)
            .map(|partition| {
                let of = |row: &&Judged| row.source.partition == partition;
                (partition, all.iter().filter(of).cloned().collect())
            })
            .collect();
        let start = Instant::now();
        for parts in parts.chunks(under.together()) {
            let done = join_all(parts.iter().map(|(partition, part)| async move {
                let start = Instant::now();
                let written = store.write(*partition, part).await.unwrap();
                assert_eq!(written, part.len());
                start.elapsed()
            }))
            .await;
            for took in done {
                writes.record(took.as_nanos() as u64).unwrap();
            }
        }
        writing += start.elapsed();
        if next >= report {
            let (done, took) = (next - before.0, writing - before.1);
            println!(
                "  {next} rows, the last {done} at {:.0} rows/s, rss {} MiB",
                done as f64 / took.as_secs_f64(),
                rss_mib()
            );
            before = (next, writing);
            report += rows / 10;
        }
    }
    println!(
        "written at {:.0} rows/s, {}",
        rows as f64 / writing.as_secs_f64(),
        under.size()
    );
    show("one write", &writes);
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args()
        .skip(1)
        .filter_map(|arg| arg.parse::<i64>().ok());
    let rows = args.next().unwrap_or(200_000);
    let batch = args.next().unwrap_or(500);
    let made = std::env::args().any(|arg| arg == "made");
    let under = Under::chosen();
    let store = under.open().await;
    println!(
        "{rows} rows, {batch} in a write, rss {} MiB at the start",
        rss_mib()
    );
    write(&under, &*store, rows, batch, made).await;

    let (mut first, mut deep, mut sender) = (histogram(), histogram(), histogram());
    let (mut absent, mut absent_random, mut present) = (histogram(), histogram(), histogram());
    let request = |cursor| PageRequest { limit: 50, cursor };
    let mut cursor = None;
    for n in 0..1_000 {
        let newest = request(None);
        let page = measure(&mut first, store.channel("default", BUSY, &newest))
            .await
            .unwrap();
        assert_eq!(page.rows.len(), 50);
        let page = measure(&mut deep, store.channel("default", BUSY, &request(cursor)))
            .await
            .unwrap();
        cursor = page.next;
        let name = format!("sender-{}", mix(n) % SENDERS);
        measure(&mut sender, store.sender("default", &name, &request(None)))
            .await
            .unwrap();
    }
    for n in 0..20_000 {
        let stored = mix(n) % rows;
        assert!(
            measure(&mut present, store.source("default", &id(stored)))
                .await
                .unwrap()
                .is_some()
        );
        let new = id(rows + n);
        assert!(
            measure(&mut absent, store.source("default", &new))
                .await
                .unwrap()
                .is_none()
        );
        let within = format!("{}-", id(stored));
        assert!(
            measure(&mut absent_random, store.source("default", &within))
                .await
                .unwrap()
                .is_none()
        );
    }
    show("newest page of 50, a busy channel", &first);
    show("following pages of 50, a busy channel", &deep);
    show("newest page of up to 50, random senders", &sender);
    show("source, stored id, at random", &present);
    show("source, a new id", &absent);
    show("source, an id never stored, at random", &absent_random);
    println!("rss {} MiB at the end", rss_mib());

    drop(store);
    let start = Instant::now();
    let store = under.open().await;
    println!(
        "opened again in {:.0?}, rss {} MiB",
        start.elapsed(),
        rss_mib()
    );
    assert_eq!(
        store.fence(0).await.unwrap(),
        Some(row((rows - 1) / 4 * 4, made).source.offset)
    );
    drop(store);
    under.remove().await;
}
