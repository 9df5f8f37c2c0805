//! Measures what removes and copies: erasing a sender, retention, a backup.
//!
//! `cargo run --release -p weir-store --example upkeep_bench -- [ROWS]`
//!
//! Of so many rows (100,000) a tenth are of one sender. The embedded store in a folder
//! that is removed at the end; with `WEIR_BENCH_CQL=host:port` erasure alone, on that
//! database, in a keyspace that is dropped at the end.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use weir_records::{Action, Judged, Message, Scores, Sentiment, Source, Verdict};
use weir_store::{Erase, History, Retention, cql, embedded};

/// 2026-03-01T00:00:00Z.
const START: i64 = 1_772_323_200;

fn row(n: i64) -> Judged {
    // Ten messages a second: 100,000 are under three hours.
    let at = Timestamp::from_microsecond(START * 1_000_000 + n * 100_000).unwrap();
    let sender = if n % 10 == 0 { 0 } else { 1 + n % 997 };
    let words = (n.unsigned_abs() + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    Judged {
        message: Message {
            tenant: "default".into(),
            channel: format!("channel-{}", n % 50),
            sender: Some(format!("sender-{sender}")),
            id: format!("{words:016x}-{n:012}"),
            text: format!("message {n} says {words:x} to whom it may concern, at some length"),
            sent_at: at,
            received_at: at,
            by_user: false,
            id_made: false,
            metadata: None,
        },
        verdict: Verdict {
            action: Action::Allow,
            reasons: Vec::new(),
            scores: Scores([0.01; 6]),
            sentiment: Sentiment::from_probabilities([0.2, 0.5, 0.3]),
            language: "en".into(),
            spans: Vec::new(),
            model: "bench".into(),
            judged_at: at,
        },
        source: Source {
            partition: 0,
            offset: n,
        },
    }
}

async fn fill(store: &dyn History, rows: i64) {
    for from in (0..rows).step_by(500) {
        let part: Vec<Judged> = (from..rows.min(from + 500)).map(row).collect();
        store.write(0, &part).await.unwrap();
    }
}

async fn erase(store: &dyn History) -> u64 {
    let what = Erase::Sender {
        name: "sender-0".into(),
        up_to: Timestamp::MAX,
    };
    store.erase("default", &what).await.unwrap().messages
}

/// Runs `work` while somebody reads a message every millisecond; prints how long it took
/// and how long the longest read had to wait.
async fn measure<T: std::fmt::Debug>(
    what: &str,
    store: &Arc<embedded::Store>,
    work: impl Future<Output = T>,
) {
    let done = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (store, done) = (Arc::clone(store), Arc::clone(&done));
        let id = row(1).message.id;
        async move {
            let mut longest = Duration::ZERO;
            while !done.load(Ordering::Relaxed) {
                let began = Instant::now();
                store.message("default", &id).await.unwrap();
                longest = longest.max(began.elapsed());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            longest
        }
    });
    let began = Instant::now();
    let answer = work.await;
    let took = began.elapsed();
    done.store(true, Ordering::Relaxed);
    let longest = reader.await.unwrap();
    println!("{what}: {took:.2?}, longest read meanwhile {longest:.0?}: {answer:?}");
}

async fn embedded_store(rows: i64) {
    let folder = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
    let store = embedded::Store::open(&folder.path().join("store")).unwrap();
    fill(&*store, rows).await;
    println!("{rows} rows, {} MiB", size_mib(folder.path()));
    let copy = folder.path().join("copy");
    measure("backup", &store, store.backup(&copy)).await;
    println!("the copy has {} MiB", size_mib(&copy));
    measure("erase a sender", &store, erase(&*store)).await;
    let one = Erase::Message {
        id: row(1).message.id,
        up_to: Timestamp::MAX,
    };
    measure("erase one message", &store, store.erase("default", &one)).await;
    let retention = Retention {
        text_days: 1,
        verdict_days: 2,
        ..Retention::default()
    };
    let day = |day: i64| Timestamp::from_second(START + (day + 1) * 86_400).unwrap();
    let expire = |at| store.expire(&retention, at);
    measure("expire nothing", &store, expire(day(0))).await;
    measure("expire texts", &store, expire(day(1))).await;
    measure("expire rows", &store, expire(day(2))).await;
    println!("{} MiB", size_mib(&folder.path().join("store")));
}

async fn database(nodes: String, rows: i64) {
    let config = cql::Config {
        nodes,
        keyspace: format!("weir_bench_{}", std::process::id()),
        replication: 1,
        ..cql::Config::default()
    };
    cql::migrate(&config).await.unwrap();
    let store = cql::Store::connect(&config).await.unwrap();
    fill(&*store, rows).await;
    let began = Instant::now();
    let erased = erase(&*store).await;
    println!("erase a sender: {:.2?}: {erased}", began.elapsed());
    let session = scylla::client::session_builder::SessionBuilder::new()
        .known_node(&config.nodes)
        .build()
        .await
        .unwrap();
    let text = format!("DROP KEYSPACE {}", config.keyspace);
    session.query_unpaged(text, &[]).await.unwrap();
}

fn size_mib(folder: &Path) -> u64 {
    fn size(path: &Path) -> u64 {
        if path.is_dir() {
            let entries = std::fs::read_dir(path).unwrap();
            return entries.map(|entry| size(&entry.unwrap().path())).sum();
        }
        path.metadata().map_or(0, |file| file.len())
    }
    size(folder) >> 20
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let rows = std::env::args().nth(1);
    let rows = rows.map_or(100_000, |rows| rows.parse().unwrap());
    match std::env::var("WEIR_BENCH_CQL") {
        Ok(nodes) => database(nodes, rows).await,
        Err(_) => embedded_store(rows).await,
    }
}
