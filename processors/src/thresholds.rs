//! From which score on an attribute leads to an action. A model brings thresholds
//! along; the configuration may replace those of an attribute.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use weir_inference::Info;
use weir_records::{Action, Attribute};

/// Thresholds by attribute. An attribute named here replaces all of the model's
/// levels for it: a level left out is then never reached.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Thresholds(pub BTreeMap<Attribute, Levels>);

/// The levels of one attribute: probabilities above 0, at most 1, rising.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Levels {
    /// Show it, and let a moderator see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flag: Option<f32>,
    /// Keep it back until a moderator decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<f32>,
    /// Do not show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<f32>,
}

/// A threshold that can't be; names the setting.
#[derive(Debug, thiserror::Error)]
pub enum ThresholdError {
    /// Not a probability above 0.
    #[error("the threshold {attribute}.{action} is {value}: it must be above 0 and at most 1")]
    Range {
        /// Whose.
        attribute: Attribute,
        /// For what.
        action: Action,
        /// What it is.
        value: f32,
    },
    /// A milder action would come after a stronger one.
    #[error("the threshold {attribute}.{action} is below that of {milder}")]
    Order {
        /// Whose.
        attribute: Attribute,
        /// For what.
        action: Action,
        /// What it would undercut.
        milder: Action,
    },
    /// A metric of that name is registered already.
    #[error("the metrics of the stages could not be registered")]
    Metrics(#[from] prometheus::Error),
}

impl Levels {
    /// The strongest action that a score reaches, with its threshold.
    #[must_use]
    pub fn reached(&self, score: f32) -> Option<(Action, f32)> {
        let mut levels = self.by_action().into_iter().rev();
        levels.find_map(|(action, level)| {
            level
                .filter(|level| score >= *level)
                .map(|level| (action, level))
        })
    }

    const fn by_action(&self) -> [(Action, Option<f32>); 3] {
        [
            (Action::Flag, self.flag),
            (Action::Hold, self.hold),
            (Action::Block, self.block),
        ]
    }

    fn check(&self, attribute: Attribute) -> Result<(), ThresholdError> {
        let mut before: Option<(Action, f32)> = None;
        for (action, level) in self.by_action() {
            let Some(value) = level else { continue };
            if !(value > 0.0 && value <= 1.0) {
                return Err(ThresholdError::Range {
                    attribute,
                    action,
                    value,
                });
            }
            if let Some((milder, below)) = before
                && value < below
            {
                return Err(ThresholdError::Order {
                    attribute,
                    action,
                    milder,
                });
            }
            before = Some((action, value));
        }
        Ok(())
    }
}

impl Thresholds {
    /// The levels of an attribute.
    #[must_use]
    pub fn of(&self, attribute: Attribute) -> Levels {
        self.0.get(&attribute).copied().unwrap_or_default()
    }

    /// The model's thresholds, with these in place of those of the same attribute.
    ///
    /// # Errors
    /// A level out of range or out of order, the model's included.
    pub fn over(&self, model: &Info) -> Result<Self, ThresholdError> {
        let mut all = Self::default();
        for attribute in Attribute::ALL {
            let theirs = model.thresholds.get(attribute.name()).copied().flatten();
            let theirs = theirs.map(|levels| Levels {
                flag: levels.flag,
                hold: levels.hold,
                block: levels.block,
            });
            if let Some(levels) = self.0.get(&attribute).copied().or(theirs) {
                levels.check(attribute)?;
                all.0.insert(attribute, levels);
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(thresholds: &str) -> Info {
        let json = format!(
            r#"{{"name": "m", "sha256": {{}}, "max_tokens": 128, "attributes": [], "sentiment": [],
                "thresholds": {thresholds}, "span_threshold": 0.5, "tolerance": 0.1}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn a_configured_attribute_replaces_all_of_the_models_levels() {
        let model = info(
            r#"{"insult": {"flag": 0.5, "hold": 0.9}, "threat": {"flag": 0.3}, "profanity": null}"#,
        );
        let set: Thresholds = serde_json::from_str(r#"{"insult": {"block": 0.99}}"#).unwrap();
        let all = set.over(&model).unwrap();
        assert_eq!(all.of(Attribute::Insult).reached(0.95), None);
        assert_eq!(
            all.of(Attribute::Insult).reached(0.99),
            Some((Action::Block, 0.99))
        );
        assert_eq!(
            all.of(Attribute::Threat).reached(0.3),
            Some((Action::Flag, 0.3))
        );
        assert_eq!(all.of(Attribute::Profanity).reached(1.0), None);
        assert_eq!(all.of(Attribute::Toxicity).reached(1.0), None);
    }

    #[test]
    fn a_wrong_threshold_is_named() {
        let fault = |json: &str| {
            let set: Thresholds = serde_json::from_str(json).unwrap();
            set.over(&info("{}")).unwrap_err().to_string()
        };
        assert!(fault(r#"{"insult": {"flag": 0}}"#).contains("insult.flag"));
        assert!(fault(r#"{"threat": {"block": 1.5}}"#).contains("threat.block"));
        assert!(fault(r#"{"threat": {"flag": 0.9, "block": 0.5}}"#).contains("threat.block"));
        assert!(serde_json::from_str::<Thresholds>(r#"{"insults": {"flag": 0.5}}"#).is_err());
        assert!(serde_json::from_str::<Thresholds>(r#"{"insult": {"flags": 0.5}}"#).is_err());
    }
}
