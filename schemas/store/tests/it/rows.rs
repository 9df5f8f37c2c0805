//! Judged messages to store.

use jiff::Timestamp;
use weir_records::{
    Action, Attribute, Judged, Message, Reason, Scores, Sentiment, Source, Span, Verdict,
};

/// 2026-03-01T00:00:00Z in microseconds.
pub(crate) const MIDNIGHT: i64 = 1_772_323_200_000_000;
pub(crate) const HOUR: i64 = 3_600_000_000;

/// A row of partition 0 in tenant `acme`, channel `lobby`, by `ada`.
pub(crate) fn row(id: &str, offset: i64) -> Judged {
    let at = Timestamp::from_microsecond(MIDNIGHT + offset * 1_000).unwrap();
    Judged {
        message: Message {
            tenant: "acme".into(),
            channel: "lobby".into(),
            sender: Some("ada".into()),
            id: id.into(),
            text: format!("words of {id}"),
            sent_at: at,
            received_at: at,
            by_user: false,
            id_made: false,
            metadata: Some(r#"{"depth":1}"#.into()),
        },
        verdict: Verdict {
            action: Action::Flag,
            reasons: vec![Reason {
                attribute: Attribute::Insult,
                score: 0.93,
                threshold: 0.8,
            }],
            scores: Scores([0.9, 0.1, 0.93, 0.0, 0.0, 0.4]),
            sentiment: Sentiment::from_probabilities([0.9, 0.08, 0.02]),
            language: "en".into(),
            spans: vec![Span {
                attribute: Attribute::Toxicity,
                start: 0,
                end: 5,
            }],
            model: "test".into(),
            judged_at: at,
        },
        source: Source {
            partition: 0,
            offset,
        },
    }
}

pub(crate) trait With: Sized {
    fn in_tenant(self, tenant: &str) -> Self;
    fn in_channel(self, channel: &str) -> Self;
    fn by(self, sender: Option<&str>) -> Self;
    fn at(self, microseconds: i64) -> Self;
    fn on_partition(self, partition: i32) -> Self;
    fn with_made_id(self, made: bool) -> Self;
}

impl With for Judged {
    fn in_tenant(mut self, tenant: &str) -> Self {
        self.message.tenant = tenant.into();
        self
    }

    fn in_channel(mut self, channel: &str) -> Self {
        self.message.channel = channel.into();
        self
    }

    fn by(mut self, sender: Option<&str>) -> Self {
        self.message.sender = sender.map(Into::into);
        self
    }

    fn at(mut self, microseconds: i64) -> Self {
        self.message.received_at = Timestamp::from_microsecond(microseconds).unwrap();
        self
    }

    fn on_partition(mut self, partition: i32) -> Self {
        self.source.partition = partition;
        self
    }

    fn with_made_id(mut self, made: bool) -> Self {
        self.message.id_made = made;
        self
    }
}
