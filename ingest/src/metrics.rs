//! What operators see of the way in.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};
use weir_auth::door::Problem;

/// From a quarter of a millisecond to longer than any wait.
const REQUEST_BUCKETS: [f64; 14] = [
    0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.5, 2.0, 8.0, 32.0,
];
/// Fine where the aims lie, up to a backlog of ten minutes.
const VERDICT_BUCKETS: [f64; 16] = [
    0.001, 0.002, 0.004, 0.006, 0.008, 0.012, 0.016, 0.032, 0.064, 0.128, 0.5, 1.0, 5.0, 30.0,
    120.0, 600.0,
];

/// The metrics of this crate.
pub(crate) struct Metrics {
    pub(crate) accepted: IntCounter,
    pub(crate) repeated: IntCounter,
    refused: IntCounterVec,
    pub(crate) send_seconds: Histogram,
    pub(crate) batch_seconds: Histogram,
    pub(crate) read_seconds: Histogram,
    pub(crate) channel_seconds: Histogram,
    pub(crate) sender_seconds: Histogram,
    pub(crate) body_bytes: IntCounter,
    pub(crate) bodies: IntGauge,
    pub(crate) recent_ids: IntGauge,
    pub(crate) recent_verdicts: IntGauge,
    pub(crate) waiters: IntGauge,
    pub(crate) verdict_seconds: Histogram,
    pub(crate) unreadable: IntCounter,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = HistogramVec::new(
            HistogramOpts::new(
                "weir_request_seconds",
                "From the credential's check to the answer, by route.",
            )
            .buckets(REQUEST_BUCKETS.to_vec()),
            &["route"],
        )?;
        let metrics = Self {
            accepted: IntCounter::new(
                "weir_messages_accepted_total",
                "Messages that the broker has, as their senders were told.",
            )?,
            repeated: IntCounter::new(
                "weir_messages_repeated_total",
                "Of these, messages that were not published again: their id is known.",
            )?,
            refused: IntCounterVec::new(
                Opts::new(
                    "weir_messages_refused_total",
                    "Messages, or whole requests, that were not accepted, by reason.",
                ),
                &["reason"],
            )?,
            send_seconds: requests.with_label_values(&["/v1/messages"]),
            batch_seconds: requests.with_label_values(&["/v1/messages/batch"]),
            read_seconds: requests.with_label_values(&["/v1/messages/{id}"]),
            channel_seconds: requests.with_label_values(&["/v1/channels/{channel}/messages"]),
            sender_seconds: requests.with_label_values(&["/v1/senders/{sender}/messages"]),
            body_bytes: IntCounter::new("weir_body_bytes_total", "Bytes of bodies read.")?,
            bodies: IntGauge::new("weir_bodies_bytes", "Bytes of bodies in memory.")?,
            recent_ids: IntGauge::new("weir_recent_ids", "Ids of accepted messages remembered.")?,
            recent_verdicts: IntGauge::new("weir_recent_verdicts", "Fresh verdicts in memory.")?,
            waiters: IntGauge::new("weir_verdict_waiters", "Requests that wait for a verdict.")?,
            verdict_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "weir_accept_to_verdict_seconds",
                    "From receiving a message to its verdict's arrival here.",
                )
                .buckets(VERDICT_BUCKETS.to_vec()),
            )?,
            unreadable: IntCounter::new(
                "weir_verdicts_unreadable_total",
                "Records of weir.verdicts that are no verdicts of their partition.",
            )?,
        };
        registry.register(Box::new(requests))?;
        registry.register(Box::new(metrics.accepted.clone()))?;
        registry.register(Box::new(metrics.repeated.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        registry.register(Box::new(metrics.body_bytes.clone()))?;
        registry.register(Box::new(metrics.bodies.clone()))?;
        registry.register(Box::new(metrics.recent_ids.clone()))?;
        registry.register(Box::new(metrics.recent_verdicts.clone()))?;
        registry.register(Box::new(metrics.waiters.clone()))?;
        registry.register(Box::new(metrics.verdict_seconds.clone()))?;
        registry.register(Box::new(metrics.unreadable.clone()))?;
        Ok(metrics)
    }

    /// Counts a message, or a whole request, that was not accepted.
    pub(crate) fn refuse(&self, problem: &Problem) {
        self.refused
            .with_label_values(&[problem.code().as_str()])
            .inc();
    }
}
