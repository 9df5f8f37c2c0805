//! How many rows a CPU-second of the lake stage writes: a measurement, not a test.
//!
//! `cargo test --release --workspace --test it -- --ignored --nocapture rows_per_cpu_second`

use std::time::{Duration, Instant};

use weir_bus::Stage as _;
use weir_sinks::lake::Config;

use crate::support::{assigned, at_once, metric, open, records};

/// CPU seconds of this process, user and system.
fn process_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // Fields 14 and 15, in ticks of 10 ms; the second field, in parentheses, may hold spaces.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// CPU seconds of this thread.
fn thread_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split_whitespace()
        .next()
        .unwrap()
        .parse::<f64>()
        .unwrap()
        / 1e9
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        / 1_024
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn rows_per_cpu_second() {
    let folder = tempfile::tempdir().unwrap();
    for (name, flush, total) in [
        ("flushes of 5,000 rows", 5_000, 500_000),
        ("flushes of 50,000 rows", 50_000, 1_000_000),
    ] {
        let config = Config {
            rows: usize::try_from(flush).unwrap(),
            upkeep: Duration::from_millis(100),
            ..at_once(&folder.path().join(flush.to_string()))
        };
        let (mut writer, registry) = open(&config).await;
        assigned(&mut writer, 0..1).await;
        let (began, mut making, mut wall) = (process_seconds(), 0.0, Duration::ZERO);
        for from in (0..total).step_by(500) {
            // Making the records is the test's own work.
            let before = thread_seconds();
            let batch = records(0, from..from + 500);
            making += thread_seconds() - before;
            let started = Instant::now();
            writer.handle(&batch).await.unwrap();
            wall += started.elapsed();
        }
        writer.finish().await.unwrap();
        let cpu = process_seconds() - began - making;
        let rows = metric(&registry, "weir_lake_rows_total");
        println!(
            "{name}: {rows} rows, {:.0} rows/CPU-s, {:.0} rows/s, {} B/row, {} files merged, peak RSS {} MiB",
            rows / cpu,
            rows / wall.as_secs_f64(),
            (metric(&registry, "weir_lake_bytes_total") / rows) as u64,
            metric(&registry, "weir_lake_files_compacted_total"),
            resident_mib(),
        );
    }
}
