//! The three states in a row, for every place that needs a verdict: the role, the
//! HTTP door and the command.

use std::sync::Arc;

use prometheus::Registry;
use weir_inference::{Model, ScoreError};
use weir_records::Verdict;

use crate::decide::Decided;
use crate::metrics::Stages;
use crate::normalise::Normalised;
use crate::score;
use crate::thresholds::{ThresholdError, Thresholds};

/// Why a text has no verdict.
pub type JudgeError = ScoreError;

/// Judges texts. Clones share the model.
#[derive(Clone, Debug)]
pub struct Judge {
    model: Model,
    thresholds: Arc<Thresholds>,
    stages: Stages,
}

impl Judge {
    /// A judge on a model, whose thresholds `set` replaces attribute by attribute.
    ///
    /// # Errors
    /// A threshold can't be, or the metrics are registered already.
    pub fn new(
        model: Model,
        set: &Thresholds,
        registry: &Registry,
    ) -> Result<Self, ThresholdError> {
        let thresholds = Arc::new(set.over(model.info())?);
        Ok(Self {
            model,
            thresholds,
            stages: Stages::new(registry)?,
        })
    }

    /// Judges the texts in one go; one answer for each, in order.
    pub async fn judge(&self, texts: &[&str]) -> Vec<Result<Verdict, JudgeError>> {
        let timer = self.stages.normalise.start_timer();
        let normalised = texts.iter().map(|text| Normalised::new(text)).collect();
        timer.observe_duration();

        let timer = self.stages.score.start_timer();
        let scored = score::all(&self.model, normalised).await;
        timer.observe_duration();

        let timer = self.stages.decide.start_timer();
        let name = &self.model.info().name;
        let verdicts = texts
            .iter()
            .zip(scored)
            .map(|(text, scored)| Ok(Decided::new(text, &scored?, &self.thresholds, name).0))
            .collect();
        timer.observe_duration();
        verdicts
    }

    /// The thresholds in force.
    #[must_use]
    pub fn thresholds(&self) -> &Thresholds {
        &self.thresholds
    }

    pub(crate) const fn stages(&self) -> &Stages {
        &self.stages
    }
}
