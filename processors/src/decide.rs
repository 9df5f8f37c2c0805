//! Third state: what is done with a text, and why.

use jiff::Timestamp;
use weir_inference::TokenScore;
use weir_records::{Action, Attribute, Reason, Span, Verdict};

use crate::score::Scored;
use crate::thresholds::Thresholds;

/// A text with its verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct Decided(pub Verdict);

impl Decided {
    /// Decides by thresholds: the action is the strongest that any attribute reaches;
    /// the reasons are all attributes that reach one, strongest action first, then
    /// highest score.
    ///
    /// The words that the toxicity points at are named if something is done, or if
    /// the toxicity reaches its own flag.
    #[must_use]
    pub fn new(original: &str, scored: &Scored, thresholds: &Thresholds, model: &str) -> Self {
        let mut reached: Vec<(Action, Reason)> = Attribute::ALL
            .into_iter()
            .filter_map(|attribute| {
                let score = scored.scores.get(attribute);
                let (action, threshold) = thresholds.of(attribute).reached(score)?;
                Some((
                    action,
                    Reason {
                        attribute,
                        score,
                        threshold,
                    },
                ))
            })
            .collect();
        // Stable: equals keep the attributes' order.
        reached.sort_by(|(a, x), (b, y)| b.cmp(a).then(y.score.total_cmp(&x.score)));
        let action = reached.first().map_or(Action::Allow, |(action, _)| *action);
        let spans = if action == Action::Allow {
            Vec::new()
        } else {
            spans(original, scored)
        };
        Self(Verdict {
            action,
            reasons: reached.into_iter().map(|(_, reason)| reason).collect(),
            scores: scored.scores,
            sentiment: scored.sentiment,
            language: scored.normalised.language().to_owned(),
            spans,
            model: model.to_owned(),
            judged_at: now(),
        })
    }
}

/// In code points of the original text.
fn spans(original: &str, scored: &Scored) -> Vec<Span> {
    let bytes = |token: &TokenScore| (token.start as usize, token.end as usize);
    let places = scored
        .normalised
        .places(original, scored.tokens.iter().map(bytes));
    let span = |(start, end)| Span {
        attribute: Attribute::Toxicity,
        start,
        end,
    };
    places.into_iter().map(span).collect()
}

/// To the microsecond, which is what is kept.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use weir_inference::Raw;
    use weir_records::SentimentLabel;

    use super::*;
    use crate::normalise::Normalised;

    fn thresholds() -> Thresholds {
        serde_json::from_str(
            r#"{"toxicity": {"flag": 0.5, "hold": 0.8, "block": 0.95}, "insult": {"flag": 0.6},
                "threat": {"hold": 0.4}, "profanity": {"flag": 0.9, "block": 0.9}}"#,
        )
        .unwrap()
    }

    /// toxicity, severe_toxicity, insult, threat, identity_attack, profanity
    fn decide(scores: [f32; 6]) -> Verdict {
        let raw = Raw {
            scores,
            sentiment: [0.1, 0.2, 0.7],
            tokens: vec![TokenScore {
                start: 4,
                end: 8,
                toxicity: 0.9,
            }],
        };
        let text = "you fool";
        Decided::new(
            text,
            &Scored::new(Normalised::new(text), raw),
            &thresholds(),
            "m",
        )
        .0
    }

    fn reasons(verdict: &Verdict) -> Vec<(&str, f32)> {
        verdict
            .reasons
            .iter()
            .map(|r| (r.attribute.name(), r.threshold))
            .collect()
    }

    #[test]
    fn nothing_reached_is_allowed_without_reasons_or_spans() {
        let verdict = decide([0.4999, 0.9, 0.5, 0.39, 1.0, 0.8]);
        assert_eq!(verdict.action, Action::Allow);
        assert!(verdict.reasons.is_empty());
        assert!(verdict.spans.is_empty());
        assert_eq!(verdict.sentiment.label, SentimentLabel::Positive);
        assert_eq!(verdict.model, "m");
    }

    #[test]
    fn a_threshold_is_reached_at_its_value() {
        let verdict = decide([0.5, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(verdict.action, Action::Flag);
        assert_eq!(reasons(&verdict), [("toxicity", 0.5)]);
        let span = verdict.spans[0];
        assert_eq!(
            (span.attribute, span.start, span.end),
            (Attribute::Toxicity, 4, 8)
        );
    }

    #[test]
    fn the_strongest_action_wins_and_comes_first() {
        let verdict = decide([0.85, 0.0, 0.99, 0.41, 0.0, 0.0]);
        assert_eq!(verdict.action, Action::Hold);
        assert_eq!(
            reasons(&verdict),
            [("toxicity", 0.8), ("threat", 0.4), ("insult", 0.6)]
        );
        let verdict = decide([0.6, 0.0, 0.7, 0.0, 0.0, 0.9]);
        assert_eq!(verdict.action, Action::Block);
        assert_eq!(
            reasons(&verdict),
            [("profanity", 0.9), ("insult", 0.6), ("toxicity", 0.5)]
        );
    }

    #[test]
    fn a_difference_that_rounding_takes_decides_nothing() {
        assert_eq!(
            decide([0.499_99, 0.0, 0.0, 0.0, 0.0, 0.0]).action,
            Action::Flag
        );
        assert_eq!(
            decide([0.500_01, 0.0, 0.0, 0.0, 0.0, 0.0])
                .scores
                .get(Attribute::Toxicity),
            0.5
        );
    }
}
