//! What operators see of logins, keys and limits. Labels are from fixed sets: no
//! name, address or key becomes a label.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// The metrics of this crate.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) cache_hits: IntCounter,
    pub(crate) cache_misses: IntCounter,
    pub(crate) refused: IntCounter,
    pub(crate) logins: IntCounterVec,
    pub(crate) registrations: IntCounterVec,
    pub(crate) limited_caller: IntCounter,
    pub(crate) limited: IntCounterVec,
    pub(crate) hashes: IntCounterVec,
    pub(crate) hash_seconds: Histogram,
    pub(crate) hash_queue: IntGauge,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        // Every label is there from the start, at zero.
        let counters = |name: &str,
                        help: &str,
                        label: &str,
                        values: &[&str]|
         -> Result<_, prometheus::Error> {
            let metric = IntCounterVec::new(Opts::new(name, help), &[label])?;
            for value in values {
                metric.with_label_values(&[*value]);
            }
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let checks = counters(
            "weir_auth_checks_total",
            "Credentials checked, by where the answer came from: cache, store, or refused.",
            "result",
            &["cache", "store", "refused"],
        )?;
        let limited = counters(
            "weir_auth_rate_limited_total",
            "Requests refused with 429, by the limit that was reached.",
            "limit",
            &["caller", "register", "token", "failed"],
        )?;
        let hash_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "weir_auth_password_hash_seconds",
                "Time to compute one password hash, without its wait.",
            )
            .buckets(vec![0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28]),
        )?;
        registry.register(Box::new(hash_seconds.clone()))?;
        let hash_queue = IntGauge::new(
            "weir_auth_password_hash_queue",
            "Password hashes running or waiting.",
        )?;
        registry.register(Box::new(hash_queue.clone()))?;
        Ok(Self {
            cache_hits: checks.with_label_values(&["cache"]),
            cache_misses: checks.with_label_values(&["store"]),
            refused: checks.with_label_values(&["refused"]),
            logins: counters(
                "weir_auth_logins_total",
                "Answers to token requests, by result.",
                "result",
                &["ok", "refused", "overloaded", "failed"],
            )?,
            registrations: counters(
                "weir_auth_registrations_total",
                "Answers to registrations, by result.",
                "result",
                &[
                    "created",
                    "closed",
                    "invalid",
                    "taken",
                    "overloaded",
                    "failed",
                ],
            )?,
            limited_caller: limited.with_label_values(&["caller"]),
            limited,
            hashes: counters(
                "weir_auth_password_hashes_total",
                "Password hashes computed, by what for: create or verify.",
                "operation",
                &["create", "verify"],
            )?,
            hash_seconds,
            hash_queue,
        })
    }
}
