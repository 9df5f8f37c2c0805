//! The broker's Prometheus metrics, all in one place.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// Cheap to clone: every metric is a handle.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) connections: IntGauge,
    pub(crate) requests: IntCounterVec,
    pub(crate) refused: IntCounterVec,
    pub(crate) produced_bytes: IntCounter,
    pub(crate) produced_records: IntCounter,
    pub(crate) fetched_bytes: IntCounter,
    pub(crate) sync_seconds: Histogram,
    pub(crate) log_bytes: IntGaugeVec,
    pub(crate) partitions: IntGauge,
    pub(crate) groups: IntGauge,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            connections: IntGauge::new("weir_broker_connections", "Open client connections")?,
            requests: IntCounterVec::new(
                Opts::new("weir_broker_requests_total", "Requests read, by API"),
                &["api"],
            )?,
            refused: IntCounterVec::new(
                Opts::new(
                    "weir_broker_refused_total",
                    "Requests and connections refused, by reason",
                ),
                &["reason"],
            )?,
            produced_bytes: IntCounter::new(
                "weir_broker_produced_bytes_total",
                "Bytes of record batches appended and synced",
            )?,
            produced_records: IntCounter::new(
                "weir_broker_produced_records_total",
                "Records appended and synced",
            )?,
            fetched_bytes: IntCounter::new(
                "weir_broker_fetched_bytes_total",
                "Bytes of record batches handed out",
            )?,
            sync_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "weir_broker_sync_seconds",
                    "Time of one fdatasync of a segment",
                )
                .buckets(vec![
                    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5,
                    1.0,
                ]),
            )?,
            log_bytes: IntGaugeVec::new(
                Opts::new(
                    "weir_broker_log_bytes",
                    "Bytes of segments on disk, by topic",
                ),
                &["topic"],
            )?,
            partitions: IntGauge::new("weir_broker_partitions", "Partitions of all topics")?,
            groups: IntGauge::new("weir_broker_groups", "Consumer groups known")?,
        };
        registry.register(Box::new(metrics.connections.clone()))?;
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        registry.register(Box::new(metrics.produced_bytes.clone()))?;
        registry.register(Box::new(metrics.produced_records.clone()))?;
        registry.register(Box::new(metrics.fetched_bytes.clone()))?;
        registry.register(Box::new(metrics.sync_seconds.clone()))?;
        registry.register(Box::new(metrics.log_bytes.clone()))?;
        registry.register(Box::new(metrics.partitions.clone()))?;
        registry.register(Box::new(metrics.groups.clone()))?;
        Ok(metrics)
    }

    /// Counts one refusal. `reason` is one of a small fixed set.
    pub(crate) fn refuse(&self, reason: &'static str) {
        self.refused.with_label_values(&[reason]).inc();
    }
}
