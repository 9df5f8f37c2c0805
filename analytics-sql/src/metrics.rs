//! What operators see of queries, of the tail and of the lake's snapshot.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    exponential_buckets,
};

/// Seconds from accepted to queryable; closest around the second that is promised.
const FRESHNESS: [f64; 15] = [
    0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
];

/// Handles of this crate's metrics.
pub(crate) struct Metrics {
    pub(crate) accept_to_queryable: Histogram,
    pub(crate) query_seconds: Histogram,
    pub(crate) rows_returned: IntCounter,
    pub(crate) refused: IntCounterVec,
    pub(crate) running: IntGauge,
    pub(crate) tail_rows: IntGauge,
    pub(crate) tail_bytes: IntGauge,
    pub(crate) tail_full: IntGauge,
    pub(crate) tail_lag: IntGauge,
    pub(crate) tail_repeated: IntCounter,
    pub(crate) tail_undecodable: IntCounter,
    pub(crate) lake_version: IntGauge,
    pub(crate) lake_refreshed: IntGauge,
    pub(crate) lake_refresh_failures: IntCounter,
}

impl Metrics {
    /// # Errors
    /// A metric of that name is there already.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let histogram = |name: &str, help: &str, buckets| {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        let refused = IntCounterVec::new(
            Opts::new(
                "weir_query_refused_total",
                "Queries that were not answered, by error code.",
            ),
            &["code"],
        )?;
        registry.register(Box::new(refused.clone()))?;
        Ok(Self {
            accept_to_queryable: histogram(
                "weir_accept_to_queryable_seconds",
                "From the accept of a message until SQL sees its verdict; messages accepted since this process started.",
                FRESHNESS.to_vec(),
            )?,
            query_seconds: histogram(
                "weir_query_seconds",
                "From the start of a query until its answer is complete or given up.",
                exponential_buckets(0.001, 2.0, 16)?,
            )?,
            rows_returned: counter("weir_query_rows_total", "Rows that queries answered.")?,
            refused,
            running: gauge("weir_query_running", "Queries that run now.")?,
            tail_rows: gauge(
                "weir_tail_rows",
                "Rows that SQL sees and the lake does not hold yet.",
            )?,
            tail_bytes: gauge("weir_tail_bytes", "Memory of these rows.")?,
            tail_full: gauge(
                "weir_tail_full",
                "1 while the tail is at its bound and waits for the lake; newer rows are not visible then.",
            )?,
            tail_lag: gauge(
                "weir_tail_lag",
                "Records of weir.verdicts that the tail has not read yet.",
            )?,
            tail_repeated: counter(
                "weir_tail_repeated_total",
                "Records of weir.verdicts dropped because their message was held already.",
            )?,
            tail_undecodable: counter(
                "weir_tail_undecodable_total",
                "Records of weir.verdicts that are no verdicts of their partition; the sinks put them among the dead letters.",
            )?,
            lake_version: gauge(
                "weir_lake_snapshot_version",
                "Version of the lake that queries read; -1 before there is one.",
            )?,
            lake_refreshed: gauge(
                "weir_lake_snapshot_checked_timestamp_seconds",
                "When the lake was last looked at with success, in Unix time.",
            )?,
            lake_refresh_failures: counter(
                "weir_lake_refresh_failures_total",
                "Looks at the lake that failed.",
            )?,
        })
    }
}
