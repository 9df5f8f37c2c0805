//! The verdict: what a model scored and what the thresholds made of it.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap};

/// What a text is scored for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attribute {
    /// Rude, disrespectful or otherwise likely to make people leave.
    Toxicity,
    /// The same, so that even the thick-skinned would leave.
    SevereToxicity,
    /// Aimed at a person.
    Insult,
    /// Announces harm.
    Threat,
    /// Aimed at people for what they are.
    IdentityAttack,
    /// Swear words, whatever they are aimed at.
    Profanity,
}

impl Attribute {
    /// All, in the order of the model's columns and of the wire.
    pub const ALL: [Self; 6] = [
        Self::Toxicity,
        Self::SevereToxicity,
        Self::Insult,
        Self::Threat,
        Self::IdentityAttack,
        Self::Profanity,
    ];

    /// The name users type.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Toxicity => "toxicity",
            Self::SevereToxicity => "severe_toxicity",
            Self::Insult => "insult",
            Self::Threat => "threat",
            Self::IdentityAttack => "identity_attack",
            Self::Profanity => "profanity",
        }
    }

    /// The attribute of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.name() == name)
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What to do with a message, mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Show it.
    Allow,
    /// Show it, and let a moderator see it.
    Flag,
    /// Keep it back until a moderator decides.
    Hold,
    /// Do not show it.
    Block,
}

impl Action {
    /// All, mildest first.
    pub const ALL: [Self; 4] = [Self::Allow, Self::Flag, Self::Hold, Self::Block];

    /// The name users type.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Flag => "flag",
            Self::Hold => "hold",
            Self::Block => "block",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One probability for each attribute, in the order of [`Attribute::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Scores(pub [f32; 6]);

impl Scores {
    /// The probability of one attribute, 0 to 1.
    #[must_use]
    pub const fn get(&self, attribute: Attribute) -> f32 {
        self.0[attribute as usize]
    }
}

impl Serialize for Scores {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut map = out.serialize_map(Some(self.0.len()))?;
        for attribute in Attribute::ALL {
            map.serialize_entry(attribute.name(), &self.get(attribute))?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Scores {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let map = std::collections::BTreeMap::<Attribute, f32>::deserialize(from)?;
        let mut scores = Self::default();
        for attribute in Attribute::ALL {
            scores.0[attribute as usize] = *map
                .get(&attribute)
                .ok_or_else(|| de::Error::missing_field(attribute.name()))?;
        }
        Ok(scores)
    }
}

/// Which of the three sentiments is the likeliest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SentimentLabel {
    /// Unhappy, angry, sad.
    Negative,
    /// Neither, or not said.
    Neutral,
    /// Happy, thankful, amused.
    Positive,
}

impl SentimentLabel {
    /// The name users type.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Negative => "negative",
            Self::Neutral => "neutral",
            Self::Positive => "positive",
        }
    }
}

/// Three probabilities and the label of the largest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sentiment {
    /// The likeliest; the first of equals in the order below.
    pub label: SentimentLabel,
    /// Probability.
    pub negative: f32,
    /// Probability.
    pub neutral: f32,
    /// Probability.
    pub positive: f32,
}

impl Sentiment {
    /// From the probabilities negative, neutral, positive.
    #[must_use]
    pub fn from_probabilities([negative, neutral, positive]: [f32; 3]) -> Self {
        let label = if negative >= neutral && negative >= positive {
            SentimentLabel::Negative
        } else if neutral >= positive {
            SentimentLabel::Neutral
        } else {
            SentimentLabel::Positive
        };
        Self {
            label,
            negative,
            neutral,
            positive,
        }
    }

    /// The probability of the label.
    #[must_use]
    pub const fn score(&self) -> f32 {
        match self.label {
            SentimentLabel::Negative => self.negative,
            SentimentLabel::Neutral => self.neutral,
            SentimentLabel::Positive => self.positive,
        }
    }
}

/// Why a message was not simply allowed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// Which score.
    pub attribute: Attribute,
    /// What it was.
    pub score: f32,
    /// What it reached.
    pub threshold: f32,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {:.2}>={:.2}",
            self.attribute, self.score, self.threshold
        )
    }
}

/// The words that a score points at: half-open, in Unicode code points of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Which score.
    pub attribute: Attribute,
    /// First code point.
    pub start: u32,
    /// One past the last code point.
    pub end: u32,
}

/// A judgement of one message. The same object everywhere users meet one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What to do.
    pub action: Action,
    /// The scores that led there, strongest action first; empty for `allow`.
    pub reasons: Vec<Reason>,
    /// Every attribute's score.
    pub scores: Scores,
    /// The mood of the text.
    pub sentiment: Sentiment,
    /// ISO 639-1 where there is one, else 639-3; `und` where it can't be told.
    pub language: String,
    /// Where in the text.
    pub spans: Vec<Span>,
    /// Name of the model that scored.
    pub model: String,
    /// When; microseconds are kept.
    pub judged_at: Timestamp,
}
