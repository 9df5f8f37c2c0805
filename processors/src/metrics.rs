//! What operators see of the processors.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
};
use weir_records::Action;

/// How long each state of a batch takes.
#[derive(Debug, Clone)]
pub(crate) struct Stages {
    pub(crate) normalise: Histogram,
    pub(crate) score: Histogram,
    pub(crate) decide: Histogram,
    pub(crate) publish: Histogram,
}

impl Stages {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let seconds = HistogramVec::new(
            HistogramOpts::new(
                "weir_judge_seconds",
                "Seconds that a batch of texts takes in one state: normalise, score, decide, publish.",
            )
            .buckets(vec![
                0.000_05, 0.000_2, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 4.096,
            ]),
            &["state"],
        )?;
        registry.register(Box::new(seconds.clone()))?;
        let state = |name: &str| seconds.with_label_values(&[name]);
        Ok(Self {
            normalise: state("normalise"),
            score: state("score"),
            decide: state("decide"),
            publish: state("publish"),
        })
    }
}

/// What becomes of dead letters by hand.
#[derive(Debug, Clone)]
pub(crate) struct Letters {
    pub(crate) replayed: IntCounterVec,
    pub(crate) discarded: IntCounterVec,
}

impl Letters {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let by_stage = |name: &str, help: &str| {
            let counter = IntCounterVec::new(Opts::new(name, help), &["stage"])?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        Ok(Self {
            replayed: by_stage(
                "weir_dead_letters_replayed_total",
                "Dead letters settled by a replay, by the stage that had given up.",
            )?,
            discarded: by_stage(
                "weir_dead_letters_discarded_total",
                "Dead letters discarded, by the stage that had given up.",
            )?,
        })
    }
}

/// What the role does with records.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    actions: IntCounterVec,
    pub(crate) duplicates: IntCounter,
    pub(crate) replays: IntCounter,
    pub(crate) erased: IntCounter,
    pub(crate) verdict_seconds: Histogram,
}

impl Records {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let actions = IntCounterVec::new(
            Opts::new("weir_verdicts_total", "Verdicts published, by action."),
            &["action"],
        )?;
        let duplicates = IntCounter::new(
            "weir_duplicates_dropped_total",
            "Messages dropped because their id has a verdict already.",
        )?;
        let replays = IntCounter::new(
            "weir_replays_skipped_total",
            "Records read again after a restart or a failure whose verdict is out already.",
        )?;
        let erased = IntCounter::new(
            "weir_process_erased_total",
            "Messages that got no verdict because they were erased before.",
        )?;
        let verdict_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "weir_accept_to_judged_seconds",
                "Seconds from a message's acceptance to the broker's acknowledgement of its verdict.",
            )
            .buckets(vec![
                0.002, 0.004, 0.006, 0.008, 0.012, 0.016, 0.024, 0.032, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0,
            ]),
        )?;
        registry.register(Box::new(actions.clone()))?;
        registry.register(Box::new(duplicates.clone()))?;
        registry.register(Box::new(replays.clone()))?;
        registry.register(Box::new(erased.clone()))?;
        registry.register(Box::new(verdict_seconds.clone()))?;
        Ok(Self {
            actions,
            duplicates,
            replays,
            erased,
            verdict_seconds,
        })
    }

    pub(crate) fn judged(&self, action: Action) {
        self.actions.with_label_values(&[action.name()]).inc();
    }
}
