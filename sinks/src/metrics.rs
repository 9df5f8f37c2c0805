//! What operators see of the sinks. Labels are from fixed sets.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Metrics of the history stage.
#[derive(Debug, Clone)]
pub(crate) struct HistoryMetrics {
    pub(crate) rows: IntCounter,
    pub(crate) replays: IntCounter,
    pub(crate) erased: IntCounter,
    pub(crate) dead: IntCounterVec,
    pub(crate) write_seconds: Histogram,
}

impl HistoryMetrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            rows: counter(
                registry,
                "weir_history_rows_total",
                "Rows written into the history.",
            )?,
            replays: counter(
                registry,
                "weir_history_replays_total",
                "Verdicts that the history held already and that were dropped.",
            )?,
            erased: counter(
                registry,
                "weir_history_erased_total",
                "Verdicts that the stage left out, or took out again, because they were erased.",
            )?,
            dead: counters(
                registry,
                "weir_history_dead_total",
                "Verdicts given up as dead letters, by reason.",
                "reason",
            )?,
            write_seconds: seconds(
                registry,
                "weir_history_write_seconds",
                "Time of one write of rows of one partition.",
            )?,
        })
    }
}

/// Metrics of the lake stage.
#[derive(Debug, Clone)]
pub(crate) struct LakeMetrics {
    pub(crate) commits: IntCounter,
    pub(crate) conflicts: IntCounter,
    pub(crate) commit_seconds: Histogram,
    pub(crate) rows: IntCounter,
    pub(crate) bytes: IntCounter,
    pub(crate) replays: IntCounter,
    pub(crate) dead: IntCounterVec,
    pub(crate) failures: IntCounterVec,
    pub(crate) buffered: IntGauge,
    pub(crate) files: IntGauge,
    pub(crate) merged: IntCounter,
    pub(crate) removed: IntCounter,
    pub(crate) checkpoints: IntCounter,
    pub(crate) erased: IntCounter,
    pub(crate) expired: IntCounter,
}

impl LakeMetrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let count = |name: &str, help: &str| counter(registry, name, help);
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let failures = counters(
            registry,
            "weir_lake_failures_total",
            "Attempts that failed and are made again: flush or upkeep.",
            "attempt",
        )?;
        for attempt in ["flush", "upkeep"] {
            failures.with_label_values(&[attempt]);
        }
        Ok(Self {
            commits: count("weir_lake_commits_total", "Commits of rows to the lake.")?,
            conflicts: count(
                "weir_lake_conflicts_total",
                "Commits that met another writer's and were checked again.",
            )?,
            commit_seconds: seconds(
                registry,
                "weir_lake_commit_seconds",
                "Time from the first byte of a flush to its commit.",
            )?,
            rows: count("weir_lake_rows_total", "Rows committed to the lake.")?,
            bytes: count(
                "weir_lake_bytes_total",
                "Bytes of data files committed to the lake.",
            )?,
            replays: count(
                "weir_lake_replays_total",
                "Verdicts that the lake held already and that were dropped.",
            )?,
            dead: counters(
                registry,
                "weir_lake_dead_total",
                "Verdicts given up as dead letters, by reason.",
                "reason",
            )?,
            failures,
            buffered: gauge(
                "weir_lake_buffered_rows",
                "Rows waiting for the next commit.",
            )?,
            files: gauge(
                "weir_lake_files",
                "Data files of the table's current version.",
            )?,
            merged: count(
                "weir_lake_files_compacted_total",
                "Small files merged into larger ones.",
            )?,
            removed: count(
                "weir_lake_files_removed_total",
                "Files deleted because no reader can hold them any more.",
            )?,
            erased: count(
                "weir_lake_erased_rows_total",
                "Rows left out or taken out of the lake because of an erasure.",
            )?,
            expired: count(
                "weir_lake_expired_rows_total",
                "Rows taken out of the lake, or left without their text, by retention.",
            )?,
            checkpoints: count(
                "weir_lake_checkpoints_total",
                "Checkpoints of the table's log.",
            )?,
        })
    }
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    let metric = IntCounter::new(name, help)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    label: &str,
) -> Result<IntCounterVec, prometheus::Error> {
    let metric = IntCounterVec::new(Opts::new(name, help), &[label])?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn seconds(registry: &Registry, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
    let buckets = vec![
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    ];
    let metric = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
