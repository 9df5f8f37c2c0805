//! One run of the broker's benchmark, with rdkafka as the client, on loopback, and of Apache
//! Kafka's beside it:
//!
//! `cargo run --release -p weir-broker --example broker_bench -- [--records N] [--gigabytes N] [--beside compose/servers] [--data DIR]`
//!
//! Each broker is a process of its own, so that its memory and processor time are its own, and
//! runs while the other does not. Records have 200 bytes, `acks=all`; Weir's are acknowledged after
//! fdatasync. A hop is from a producer through one topic, a forwarder and a second topic to a
//! consumer, at 2,000 a second, after a second of warm-up. At the end the log is filled up to the
//! gigabytes, and the broker is killed and started again on it. Prints a table, then JSON.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::expect_used,
    clippy::unwrap_used
)]

mod clients;
mod server;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;

use self::clients::{RECORD, consume, create, hop, produce};
use self::server::{SERVE, Server, serve};

type Outcome<T> = Result<T, Box<dyn Error>>;

struct Options {
    records: u64,
    gigabytes: u64,
    beside: Option<PathBuf>,
    data: Option<PathBuf>,
}

fn options() -> Outcome<Options> {
    let mut options = Options {
        records: 10_000_000,
        gigabytes: 5,
        beside: None,
        data: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments
            .next()
            .ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--records" => options.records = value.parse()?,
            "--gigabytes" => options.gigabytes = value.parse()?,
            "--beside" => options.beside = Some(value.into()),
            "--data" => options.data = Some(value.into()),
            _ => return Err(format!("{name} is not known").into()),
        }
    }
    Ok(options)
}

fn main() -> Outcome<()> {
    if let Ok(folder) = std::env::var(SERVE) {
        return serve(folder.into());
    }
    let options = options()?;
    let scratch = options
        .data
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("bench-{}", std::process::id())));
    let mut columns = vec![("Weir", measure(Server::weir(&scratch)?, &options)?)];
    if let Some(servers) = &options.beside {
        columns.push(("Apache Kafka", measure(Server::kafka(servers)?, &options)?));
    }
    print(&columns);
    Ok(())
}

fn measure(mut server: Server, options: &Options) -> Outcome<Results> {
    let topics = ["bench", "hop", "out"].map(|name| format!("{name}-{}", std::process::id()));
    create(&server.address, &topics)?;
    let millions = options.records as f64 / 1e6;
    let mut results = Results::default();

    let before = server.cpu_seconds();
    let produced = produce(&server.address, &topics[0], options.records)?;
    results.add("produced a second", produced);
    let between = server.cpu_seconds();
    let consumed = consume(&server.address, &topics[0], options.records)?;
    results.add("consumed a second", consumed);
    results.add(
        "CPU seconds for a million produced",
        (between - before) / millions,
    );
    results.add(
        "CPU seconds for a million consumed",
        (server.cpu_seconds() - between) / millions,
    );
    let hops = hop(&server.address, &topics[1], &topics[2])?;
    for (name, quantile) in [
        ("hop ms p50", 0.5),
        ("hop ms p90", 0.9),
        ("hop ms p99", 0.99),
        ("hop ms p99.9", 0.999),
    ] {
        results.add(name, hops.value_at_quantile(quantile) as f64 / 1e3);
    }
    results.add("RSS MB", server.status_mb("VmRSS:"));
    results.add("RSS MB at most", server.status_mb("VmHWM:"));
    let records = (options.gigabytes << 30) / (RECORD as u64 + 10);
    produce(
        &server.address,
        &topics[0],
        records.saturating_sub(options.records),
    )?;
    results.add("start seconds after SIGKILL", server.restart(&topics[0])?);
    results.add("RSS MB after start", server.status_mb("VmRSS:"));
    server.stop()?;
    Ok(results)
}

#[derive(Default)]
struct Results(Vec<(&'static str, f64)>);

impl Results {
    fn add(&mut self, name: &'static str, value: f64) {
        eprintln!("{name}: {value:.3}");
        self.0.push((name, value));
    }
}

/// A row for each measure, and the first column over the second where there are two.
fn print(columns: &[(&str, Results)]) {
    let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
    let ratio = if columns.len() > 1 { " ratio |" } else { "" };
    println!("| measure | {} |{ratio}", names.join(" | "));
    println!(
        "|{}",
        "---|".repeat(names.len() + 1 + usize::from(!ratio.is_empty()))
    );
    for (row, (measure, first)) in columns[0].1.0.iter().enumerate() {
        let mut line = format!("| {measure} |");
        for (_, results) in columns {
            let value = results.0[row].1;
            let digits = if value >= 1_000.0 { 0 } else { 3 };
            line += &format!(" {value:.digits$} |");
        }
        if let Some((_, second)) = columns.get(1) {
            line += &format!(" {:.2} |", first / second.0[row].1);
        }
        println!("{line}");
    }
    for (name, results) in columns {
        let json: BTreeMap<_, _> = results.0.iter().copied().collect();
        println!(
            "{name} {}",
            serde_json::to_string(&json).unwrap_or_default()
        );
    }
}
