//! Fixed records, the same as in the committed encodings. Never change one: add another.

use bytes::Bytes;
use jiff::Timestamp;
use weir_records::{
    Action, Attribute, DeadLetter, Erasure, Judged, Message, Reason, Resolution, Scores, Sentiment,
    Settlement, Source, Span, Target, Verdict,
};

pub fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub fn message() -> Message {
    Message {
        tenant: "acme".to_owned(),
        channel: "lobby".to_owned(),
        sender: Some("Zoë".to_owned()),
        id: "m-1".to_owned(),
        text: "you are an 🥔 idiot".to_owned(),
        sent_at: time("2026-11-22T10:00:00.123456Z"),
        received_at: time("2026-11-22T23:59:59.999999Z"),
        by_user: false,
        id_made: false,
        metadata: Some(r#"{"game":"chess","round":3}"#.to_owned()),
    }
}

/// Only what must be there, and a time before 1970.
pub fn bare() -> Message {
    Message {
        sender: None,
        sent_at: time("1969-12-31T23:59:59.999999Z"),
        by_user: false,
        id_made: false,
        metadata: None,
        ..message()
    }
}

pub fn verdict() -> Verdict {
    Verdict {
        action: Action::Flag,
        reasons: vec![Reason {
            attribute: Attribute::Insult,
            score: 0.93,
            threshold: 0.80,
        }],
        scores: Scores([0.91, 0.05, 0.93, 0.01, 0.02, 0.40]),
        sentiment: Sentiment::from_probabilities([0.90, 0.08, 0.02]),
        language: "en".to_owned(),
        spans: vec![Span {
            attribute: Attribute::Toxicity,
            start: 13,
            end: 18,
        }],
        model: "minilm-1".to_owned(),
        judged_at: time("2026-11-23T00:00:00.000001Z"),
    }
}

pub fn judged() -> Judged {
    Judged {
        message: message(),
        verdict: verdict(),
        source: Source {
            partition: 3,
            offset: 9_876_543_210,
        },
    }
}

/// The first record of a partition, allowed: everything that may be 0 or empty is.
pub fn judged_bare() -> Judged {
    Judged {
        message: bare(),
        verdict: Verdict {
            action: Action::Allow,
            reasons: Vec::new(),
            scores: Scores([0.0; 6]),
            sentiment: Sentiment::from_probabilities([0.0, 1.0, 0.0]),
            spans: Vec::new(),
            ..verdict()
        },
        source: Source {
            partition: 0,
            offset: 0,
        },
    }
}

pub fn dead_letter() -> DeadLetter {
    DeadLetter {
        stage: "process".to_owned(),
        reason: "malformed_record".to_owned(),
        topic: "weir.messages".to_owned(),
        source: Source {
            partition: 0,
            offset: 42,
        },
        key: Bytes::from_static(b"acme\0lobby"),
        payload: Bytes::from_static(&[0xff, 0x00, 0x80]),
        failed_at: time("2026-11-22T10:00:01Z"),
        resolution: None,
    }
}

/// A note that the letter was replayed.
pub fn resolution() -> DeadLetter {
    DeadLetter {
        key: Bytes::new(),
        payload: Bytes::new(),
        resolution: Some(Resolution {
            settlement: Settlement::Replayed,
            by: "admin".to_owned(),
            letter: 0,
            settled_at: time("2026-11-23T10:00:00.000001Z"),
        }),
        ..dead_letter()
    }
}

pub fn erasure() -> Erasure {
    Erasure {
        tenant: "acme".to_owned(),
        target: Target::Sender("Zoë".to_owned()),
        up_to: time("2026-11-23T08:00:00.000001Z"),
        requested_at: time("2026-11-23T08:00:00.25Z"),
        by: "admin".to_owned(),
    }
}

pub fn erasure_of_message() -> Erasure {
    Erasure {
        target: Target::Message("m-1".to_owned()),
        ..erasure()
    }
}
