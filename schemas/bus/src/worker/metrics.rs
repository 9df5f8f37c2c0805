//! A worker's metrics; its group and stage are fixed labels.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::error::Error;

const STAGE_BUCKETS: [f64; 13] = [
    0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.5, 2.0, 8.0, 32.0,
];

pub(super) struct Metrics {
    pub(super) consumed: IntCounter,
    pub(super) retries: IntCounter,
    pub(super) dead: IntCounterVec,
    pub(super) lag: IntGaugeVec,
    running: IntGauge,
    pub(super) stage_seconds: Histogram,
}

impl Metrics {
    pub(super) fn register(registry: &Registry, group: &str, stage: &str) -> Result<Self, Error> {
        let of_group = |name: &str, help: &str| Opts::new(name, help).const_label("group", group);
        let of_stage = |name: &str, help: &str| Opts::new(name, help).const_label("stage", stage);
        let metrics = Self {
            consumed: IntCounter::with_opts(of_group(
                "weir_records_consumed_total",
                "Records that the group's stage has taken.",
            ))?,
            retries: IntCounter::with_opts(of_stage(
                "weir_stage_retries_total",
                "Calls of a stage that failed and were repeated.",
            ))?,
            dead: IntCounterVec::new(
                of_stage(
                    "weir_dead_letters_total",
                    "Records given up and written to weir.dead.",
                ),
                &["reason"],
            )?,
            lag: IntGaugeVec::new(
                of_group(
                    "weir_consumer_lag",
                    "Records of a partition that the group has not done yet.",
                ),
                &["partition"],
            )?,
            running: IntGauge::with_opts(of_group(
                "weir_worker_running",
                "1 while the group's worker runs in this process, 0 after it has ended.",
            ))?,
            stage_seconds: Histogram::with_opts(
                HistogramOpts::new("weir_stage_seconds", "Duration of one call of a stage.")
                    .const_label("stage", stage)
                    .buckets(STAGE_BUCKETS.to_vec()),
            )?,
        };
        registry.register(Box::new(metrics.consumed.clone()))?;
        registry.register(Box::new(metrics.retries.clone()))?;
        registry.register(Box::new(metrics.dead.clone()))?;
        registry.register(Box::new(metrics.lag.clone()))?;
        registry.register(Box::new(metrics.running.clone()))?;
        registry.register(Box::new(metrics.stage_seconds.clone()))?;
        Ok(metrics)
    }

    /// Shows the worker as running for as long as the answer lives.
    pub(super) fn running(&self) -> Running {
        self.running.set(1);
        Running(self.running.clone())
    }

    pub(super) fn set_lag(&self, partition: i32, lag: i64) {
        self.lag
            .with_label_values(&[partition.to_string()])
            .set(lag);
    }

    /// The partition is someone else's to report.
    pub(super) fn forget(&self, partition: i32) {
        // Fails only where it was never set.
        let _ = self.lag.remove_label_values(&[partition.to_string()]);
    }
}

/// Also when the thread panics.
pub(super) struct Running(IntGauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.set(0);
    }
}
