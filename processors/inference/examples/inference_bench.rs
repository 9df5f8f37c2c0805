//! Texts per CPU-second of the model, without anything around it.
//!
//! ```text
//! cargo run --release -p weir-inference --example inference_bench -- \
//!     --model models/weir-small-1 --runtime libonnxruntime.so --texts train.tsv \
//!     [--count 5000] [--sessions 1] [--together 256] [--tokens 512] [--rounds 3]
//! ```
//! `--texts` holds one text per line, up to the first tab. `--together` texts are
//! asked for at once, as the processor does. CPU seconds are of the whole process,
//! system time included, and read from /proc; the texts are sent as they are.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Instant;

use prometheus::Registry;
use weir_inference::{Config, Model};

fn main() {
    let options: BTreeMap<String, String> = std::env::args()
        .skip(1)
        .collect::<Vec<_>>()
        .chunks(2)
        .map(|pair| (pair[0].trim_start_matches("--").to_owned(), pair[1].clone()))
        .collect();
    let number =
        |name: &str, default: usize| options.get(name).map_or(default, |v| v.parse().unwrap());
    let config = Config {
        model: options["model"].clone().into(),
        runtime: options["runtime"].clone().into(),
        sessions: number("sessions", 1),
        batch_tokens: number("tokens", 512),
        queue: 100_000,
    };
    let texts: Vec<String> = std::fs::read_to_string(&options["texts"])
        .unwrap()
        .lines()
        .map(|line| line.split('\t').next().unwrap_or_default().to_owned())
        .take(number("count", 5_000))
        .collect();

    let started = Instant::now();
    let registry = Registry::new();
    let model = Model::load(config, &registry).unwrap_or_else(|e| panic!("{e}"));
    println!(
        "loaded in {:.2} s, RSS {:.1} MiB",
        started.elapsed().as_secs_f64(),
        rss()
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut sum = 0.0;
    for round in 1..=number("rounds", 3) {
        let (cpu, wall) = (cpu_seconds(), Instant::now());
        for part in texts.chunks(number("together", 256)) {
            for result in runtime.block_on(model.score(part.to_vec())) {
                sum += f64::from(result.unwrap().scores[0]);
            }
        }
        let (cpu, wall) = (cpu_seconds() - cpu, wall.elapsed().as_secs_f64());
        println!(
            "round {round}: {:.1} texts per CPU-second, {:.1} texts/s, RSS {:.1} MiB",
            texts.len() as f64 / cpu,
            texts.len() as f64 / wall,
            rss()
        );
    }
    let mut lone: Vec<f64> = texts
        .iter()
        .take(500)
        .map(|text| {
            let started = Instant::now();
            runtime.block_on(model.score(vec![text.clone()]));
            started.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    lone.sort_by(f64::total_cmp);
    let at = |share: f64| lone[((lone.len() - 1) as f64 * share) as usize];
    println!(
        "one text at a time: p50 {:.2} ms, p99 {:.2} ms",
        at(0.5),
        at(0.99)
    );
    println!(
        "mean toxicity {:.5}",
        sum / (texts.len() * number("rounds", 3)) as f64
    );
    for family in registry.gather() {
        if family.name().ends_with("tokens_total") {
            println!(
                "{} {}",
                family.name(),
                family.get_metric()[0].get_counter().get_value()
            );
        }
    }
}

/// User and system time of this process; the kernel counts in hundredths of a second.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// Resident memory in MiB.
fn rss() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<f64>()
        .unwrap()
        / 1024.0
}
