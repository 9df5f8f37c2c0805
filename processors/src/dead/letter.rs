//! A letter as it lies in `weir.dead`: where it is, what is in it, and which of the
//! records around it are the same letter or a note about it.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use weir_bus::Record;
use weir_records::{
    DeadLetter, DecodeError, Erasures, Judged, Message, Resolution, Settlement, Source, topic,
};

/// The stage and the reason of what lies in `weir.dead` and is no letter.
const UNKNOWN_STAGE: &str = "unknown";
const UNREADABLE: &str = "unreadable_letter";

/// Names a letter by its place in `weir.dead`, written `<partition>-<offset>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) partition: i32,
    pub(super) offset: i64,
}

impl Id {
    pub(super) const fn of(record: &Record) -> Self {
        Self {
            partition: record.partition,
            offset: record.offset,
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.partition, self.offset)
    }
}

impl FromStr for Id {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (partition, offset) = text.split_once('-').ok_or(())?;
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(partition) || !digits(offset) {
            return Err(());
        }
        Ok(Self {
            partition: partition.parse().map_err(|_| ())?,
            offset: offset.parse().map_err(|_| ())?,
        })
    }
}

/// What makes two records the same letter: stage, topic and place of what was given
/// up. A stage that goes down before it commits may write a letter twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Identity([u8; 16]);

impl Identity {
    pub(super) fn of(letter: &DeadLetter) -> Self {
        let mut hash = Sha256::new();
        for part in [&letter.stage, &letter.topic] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update(letter.source.partition.to_le_bytes());
        hash.update(letter.source.offset.to_le_bytes());
        let mut short = [0; 16];
        short.copy_from_slice(&hash.finalize()[..16]);
        Self(short)
    }
}

/// A record of `weir.dead`.
pub(super) enum Entry {
    Letter(DeadLetter),
    /// The letter of that identity is settled.
    Note(Identity, Resolution),
}

/// Reads a record; what can't be read at all is a letter about itself.
pub(super) fn read(record: &Record) -> Entry {
    match weir_records::dead_letter(&record.payload) {
        Ok(mut letter) => match letter.resolution.take() {
            Some(resolution) => Entry::Note(Identity::of(&letter), resolution),
            None => Entry::Letter(letter),
        },
        Err(_) => Entry::Letter(DeadLetter {
            stage: UNKNOWN_STAGE.to_owned(),
            reason: UNREADABLE.to_owned(),
            topic: topic::DEAD.to_owned(),
            source: Source {
                partition: record.partition,
                offset: record.offset,
            },
            key: record.key.clone(),
            payload: record.payload.clone(),
            failed_at: record.timestamp,
            resolution: None,
        }),
    }
}

/// A letter with what has become of it.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub(super) id: Id,
    pub(super) letter: DeadLetter,
    pub(super) settled: Option<Resolution>,
    /// Where its partition ended when that was found out.
    pub(super) end: i64,
}

/// What this version can read of a letter's payload.
#[derive(Debug)]
pub(super) enum Inside {
    /// A record of `weir.messages`.
    Message(Message),
    /// A record of `weir.verdicts`.
    Judged(Box<Judged>),
    /// Of a record of `weir.verdicts` all but the verdict.
    Unjudged(Message, Source),
    Nothing(DecodeError),
}

impl Inside {
    pub(super) fn of(letter: &DeadLetter) -> Self {
        match letter.topic.as_str() {
            topic::MESSAGES => match weir_records::decode_message(&letter.payload) {
                Ok(message) => Self::Message(message),
                Err(fault) => Self::Nothing(fault),
            },
            topic::VERDICTS => match weir_records::judged(&letter.payload) {
                Ok(judged) => Self::Judged(Box::new(judged)),
                Err(fault) => match weir_records::judged_message(&letter.payload) {
                    Ok((message, source)) => Self::Unjudged(message, source),
                    Err(_) => Self::Nothing(fault),
                },
            },
            _ => Self::Nothing(DecodeError::Malformed),
        }
    }

    pub(super) fn message(&self) -> Option<&Message> {
        match self {
            Self::Message(message) | Self::Unjudged(message, _) => Some(message),
            Self::Judged(judged) => Some(&judged.message),
            Self::Nothing(_) => None,
        }
    }

    /// Whether an administrator who is confined to `tenant` may know of it. What can't
    /// be read is nobody's but the operators', and what is erased is nobody's.
    pub(super) fn is_shown(&self, tenant: Option<&str>, erased: &Erasures) -> bool {
        let message = self.message();
        tenant.is_none_or(|tenant| message.is_some_and(|m| m.tenant == tenant))
            && !message.is_some_and(|m| erased.cover(m))
    }
}

/// What has become of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// Nothing yet.
    Open,
    /// Its record went its way after all.
    Replayed,
    /// Somebody decided that it never will.
    Discarded,
}

impl State {
    pub(super) fn of(settled: Option<&Resolution>) -> Self {
        match settled.map(|resolution| resolution.settlement) {
            None => Self::Open,
            Some(Settlement::Replayed) => Self::Replayed,
            Some(Settlement::Discarded) => Self::Discarded,
        }
    }
}

/// The note that settles a letter.
pub(super) fn note(letter: &Letter, settlement: Settlement, by: &str) -> DeadLetter {
    DeadLetter {
        key: bytes::Bytes::new(),
        payload: bytes::Bytes::new(),
        resolution: Some(Resolution {
            settlement,
            by: by.to_owned(),
            letter: letter.id.offset,
            settled_at: micros(Timestamp::now()),
        }),
        ..letter.letter.clone()
    }
}

/// As the wire keeps it.
fn micros(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written_and_nothing_else_is_one() {
        let id = Id {
            partition: 3,
            offset: 9_876_543_210,
        };
        assert_eq!(id.to_string(), "3-9876543210");
        assert_eq!("3-9876543210".parse(), Ok(id));
        for bad in [
            "",
            "-",
            "3",
            "3-",
            "-3",
            "3--4",
            "3-+4",
            " 3-4",
            "3-4-5",
            "9999999999-1",
        ] {
            assert_eq!(bad.parse::<Id>(), Err(()), "{bad}");
        }
    }
}
