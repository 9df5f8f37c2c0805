//! The producer's metrics.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::error::Error;

/// From a quarter of a millisecond to the delivery timeout.
const ACK_BUCKETS: [f64; 14] = [
    0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.5, 2.0, 8.0, 32.0,
];

#[derive(Clone)]
pub(super) struct Metrics {
    pub(super) produced: IntCounter,
    pub(super) failed: IntCounterVec,
    pub(super) refused: IntCounter,
    pub(super) waiting: IntGauge,
    pub(super) ack_seconds: Histogram,
    pub(super) replaced: IntCounter,
}

impl Metrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, Error> {
        let metrics = Self {
            produced: IntCounter::new(
                "weir_records_produced_total",
                "Records that Kafka has acknowledged.",
            )?,
            failed: IntCounterVec::new(
                Opts::new(
                    "weir_records_not_delivered_total",
                    "Queued records that Kafka has not acknowledged, by reason.",
                ),
                &["code"],
            )?,
            refused: IntCounter::new(
                "weir_producer_full_total",
                "Calls refused at once because the producer's queue was full.",
            )?,
            waiting: IntGauge::new(
                "weir_producer_waiting_records",
                "Records that wait for Kafka's acknowledgement.",
            )?,
            ack_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "weir_producer_ack_seconds",
                    "From queueing records to the acknowledgement of the last of a call.",
                )
                .buckets(ACK_BUCKETS.to_vec()),
            )?,
            replaced: IntCounter::new(
                "weir_producer_replaced_total",
                "Producers replaced after a fatal error.",
            )?,
        };
        registry.register(Box::new(metrics.produced.clone()))?;
        registry.register(Box::new(metrics.failed.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        registry.register(Box::new(metrics.waiting.clone()))?;
        registry.register(Box::new(metrics.ack_seconds.clone()))?;
        registry.register(Box::new(metrics.replaced.clone()))?;
        Ok(metrics)
    }
}
