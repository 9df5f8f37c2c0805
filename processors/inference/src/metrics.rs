//! What operators see of the model.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::ScoreError;

/// The metrics of this crate.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) seconds: Histogram,
    pub(crate) batch: Histogram,
    pub(crate) depth: IntGauge,
    pub(crate) texts: IntCounter,
    pub(crate) tokens: IntCounter,
    pub(crate) padding: IntCounter,
    pub(crate) abandoned: IntCounter,
    failures: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let seconds = Histogram::with_opts(
            HistogramOpts::new(
                "weir_model_seconds",
                "Seconds of one forward pass of the model.",
            )
            .buckets(vec![
                0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024,
            ]),
        )?;
        let batch = Histogram::with_opts(
            HistogramOpts::new(
                "weir_batch_size",
                "Rows of one forward pass; a long text takes several.",
            )
            .buckets(vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]),
        )?;
        let depth = IntGauge::new(
            "weir_model_queue_depth",
            "Texts admitted and not answered yet.",
        )?;
        let texts = IntCounter::new("weir_model_texts_total", "Texts scored.")?;
        let tokens = IntCounter::new("weir_model_tokens_total", "Tokens scored, without padding.")?;
        let padding = IntCounter::new(
            "weir_model_padding_tokens_total",
            "Tokens of padding computed.",
        )?;
        let abandoned = IntCounter::new(
            "weir_model_abandoned_total",
            "Texts skipped because whoever asked had left.",
        )?;
        let failures = IntCounterVec::new(
            Opts::new(
                "weir_model_failures_total",
                "Texts without scores: overloaded, refused, or stopped.",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(batch.clone()))?;
        registry.register(Box::new(depth.clone()))?;
        registry.register(Box::new(texts.clone()))?;
        registry.register(Box::new(tokens.clone()))?;
        registry.register(Box::new(padding.clone()))?;
        registry.register(Box::new(abandoned.clone()))?;
        registry.register(Box::new(failures.clone()))?;
        Ok(Self {
            seconds,
            batch,
            depth,
            texts,
            tokens,
            padding,
            abandoned,
            failures,
        })
    }

    pub(crate) fn failed(&self, error: ScoreError, texts: usize) {
        self.failures
            .with_label_values(&[error.name()])
            .inc_by(texts as u64);
    }
}
