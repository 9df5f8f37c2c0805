//! Second state: what the model says of a normalised text.
//!
//! Scores are rounded to four decimals before anything is decided: how the texts of
//! a pass are batched moves a sum by a few units in the last place, and the same
//! text must get the same verdict when it is read again.

use weir_inference::{Model, Raw, ScoreError, TokenScore};
use weir_records::{Scores, Sentiment};

use crate::normalise::Normalised;

/// A text with its probabilities.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    pub(crate) normalised: Normalised,
    pub(crate) scores: Scores,
    pub(crate) sentiment: Sentiment,
    /// The tokens that stand out, by bytes of the normalised text.
    pub(crate) tokens: Vec<TokenScore>,
}

impl Scored {
    /// What the model said, rounded.
    #[must_use]
    pub fn new(normalised: Normalised, raw: Raw) -> Self {
        Self {
            normalised,
            scores: Scores(raw.scores.map(rounded)),
            sentiment: Sentiment::from_probabilities(raw.sentiment.map(rounded)),
            tokens: raw.tokens,
        }
    }
}

/// Scores all texts in one go; one answer for each, in order.
pub(crate) async fn all(model: &Model, texts: Vec<Normalised>) -> Vec<Result<Scored, ScoreError>> {
    let raw = model
        .score(texts.iter().map(|text| text.text().to_owned()).collect())
        .await;
    texts
        .into_iter()
        .zip(raw)
        .map(|(normalised, raw)| Ok(Scored::new(normalised, raw?)))
        .collect()
}

fn rounded(probability: f32) -> f32 {
    // In double precision, so that the nearest f32 to the four decimals comes out.
    ((f64::from(probability) * 1e4).round() / 1e4) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_below_the_fifth_decimal_vanish() {
        assert_eq!(rounded(0.800_000_1), 0.8);
        assert_eq!(rounded(0.799_999_9), 0.8);
        assert_eq!(rounded(0.123_449), 0.1234);
        assert_eq!(rounded(0.0), 0.0);
        assert_eq!(rounded(1.0), 1.0);
    }
}
