//! Between the plain types and Protobuf bytes. A reader of version 1 reads any
//! later version too, as far as it knows the fields.

use bytes::Bytes;
use jiff::Timestamp;
use prost::Message as _;

use crate::erasure::{Erasure, Target};
use crate::message::{DeadLetter, Judged, Message, Resolution, Settlement, Source};
use crate::verdict::{Action, Attribute, Reason, Scores, Sentiment, Span, Verdict};

mod wire {
    #![allow(missing_docs, clippy::all, unreachable_pub)]
    include!(concat!(env!("OUT_DIR"), "/weir.v1.rs"));

    /// As much of `Judged` as can be read whatever is wrong with its verdict.
    #[derive(Clone, PartialEq, ::prost::Message)]
    pub struct JudgedMessage {
        #[prost(message, optional, tag = "2")]
        pub message: ::core::option::Option<Message>,
        #[prost(int32, optional, tag = "4")]
        pub partition: ::core::option::Option<i32>,
        #[prost(int64, optional, tag = "5")]
        pub offset: ::core::option::Option<i64>,
        #[prost(uint32, tag = "15")]
        pub min_reader: u32,
    }
}

/// Version of the schema that this build writes.
pub const SCHEMA: u32 = 1;

/// Why a payload is not a record. Its text says which field, never what was in it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Not Protobuf of this message.
    #[error("the record is not valid Protobuf")]
    Malformed,
    /// A field without which the record means nothing.
    #[error("the record lacks the field `{0}`")]
    Missing(&'static str),
    /// A field whose value is none of those known.
    #[error("the record's field `{0}` holds a value that is not known")]
    Unknown(&'static str),
    /// A version that this build would misread.
    #[error(
        "the record needs a reader of schema version {0} or later; this build is one of {SCHEMA}"
    )]
    Newer(u32),
}

impl DecodeError {
    /// A stable code for dead letters and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed_record",
            Self::Missing(_) => "missing_field",
            Self::Unknown(_) => "unknown_value",
            Self::Newer(_) => "unknown_schema",
        }
    }
}

impl Message {
    /// Protobuf bytes of `weir.messages`.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        wire::Message::from(self).encode_to_vec()
    }
}

/// A record of `weir.messages` as it is published once more: as it was, with the fields
/// that only later versions know, but no longer the only one with its id.
#[must_use]
pub fn published_again(payload: &[u8]) -> Vec<u8> {
    const ID_MADE: u32 = 11;
    let mut again = payload.to_vec();
    // Of a field that comes twice the last counts.
    prost::encoding::bool::encode(ID_MADE, &false, &mut again);
    again
}

impl Judged {
    /// Protobuf bytes of `weir.verdicts`.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        wire::Judged {
            schema: SCHEMA,
            message: Some(self.message.into()),
            verdict: Some(self.verdict.into()),
            partition: Some(self.source.partition),
            offset: Some(self.source.offset),
            min_reader: 0,
        }
        .encode_to_vec()
    }
}

impl DeadLetter {
    /// Protobuf bytes of `weir.dead`.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        wire::DeadLetter {
            schema: SCHEMA,
            stage: self.stage,
            reason: self.reason,
            topic: self.topic,
            partition: Some(self.source.partition),
            offset: Some(self.source.offset),
            key: self.key.into(),
            payload: self.payload.into(),
            failed_at: self.failed_at.as_microsecond(),
            resolution: self.resolution.map(Into::into),
            min_reader: 0,
        }
        .encode_to_vec()
    }
}

impl Erasure {
    /// Protobuf bytes of `weir.erasures`.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let (sender, id) = match self.target {
            Target::Sender(sender) => (sender, String::new()),
            Target::Message(id) => (String::new(), id),
        };
        wire::Erasure {
            schema: SCHEMA,
            tenant: self.tenant,
            sender,
            id,
            up_to: self.up_to.as_microsecond(),
            requested_at: self.requested_at.as_microsecond(),
            by: self.by,
            min_reader: 0,
        }
        .encode_to_vec()
    }
}

/// Reads a record of `weir.messages`.
///
/// # Errors
/// [`DecodeError`] names the field at fault.
pub fn message(payload: &[u8]) -> Result<Message, DecodeError> {
    wire::Message::decode(payload)
        .map_err(|_| DecodeError::Malformed)?
        .try_into()
}

/// Whether this build may read a record that says so.
const fn readable(min_reader: u32) -> Result<(), DecodeError> {
    if min_reader > SCHEMA {
        return Err(DecodeError::Newer(min_reader));
    }
    Ok(())
}

/// Reads a record of `weir.verdicts`.
///
/// # Errors
/// [`DecodeError`] names the field at fault.
pub fn judged(payload: &[u8]) -> Result<Judged, DecodeError> {
    let record = wire::Judged::decode(payload).map_err(|_| DecodeError::Malformed)?;
    readable(record.min_reader)?;
    Ok(Judged {
        message: record
            .message
            .ok_or(DecodeError::Missing("message"))?
            .try_into()?,
        verdict: record
            .verdict
            .ok_or(DecodeError::Missing("verdict"))?
            .try_into()?,
        source: source(record.partition, record.offset)?,
    })
}

/// Reads of a record of `weir.verdicts` the message and its place only, whatever its
/// verdict is like.
///
/// # Errors
/// [`DecodeError`] names the field at fault.
pub fn judged_message(payload: &[u8]) -> Result<(Message, Source), DecodeError> {
    let record = wire::JudgedMessage::decode(payload).map_err(|_| DecodeError::Malformed)?;
    readable(record.min_reader)?;
    let message = record.message.ok_or(DecodeError::Missing("message"))?;
    Ok((
        message.try_into()?,
        source(record.partition, record.offset)?,
    ))
}

/// Reads a record of `weir.dead`.
///
/// # Errors
/// [`DecodeError`] names the field at fault.
pub fn dead_letter(payload: &[u8]) -> Result<DeadLetter, DecodeError> {
    let record = wire::DeadLetter::decode(payload).map_err(|_| DecodeError::Malformed)?;
    readable(record.min_reader)?;
    Ok(DeadLetter {
        stage: required(record.stage, "stage")?,
        reason: required(record.reason, "reason")?,
        topic: required(record.topic, "topic")?,
        source: source(record.partition, record.offset)?,
        key: Bytes::from(record.key),
        payload: Bytes::from(record.payload),
        failed_at: time(said(record.failed_at), "failed_at")?,
        resolution: record.resolution.map(TryInto::try_into).transpose()?,
    })
}

/// Reads a record of `weir.erasures`.
///
/// # Errors
/// [`DecodeError`] names the field at fault.
pub fn erasure(payload: &[u8]) -> Result<Erasure, DecodeError> {
    let record = wire::Erasure::decode(payload).map_err(|_| DecodeError::Malformed)?;
    readable(record.min_reader)?;
    let target = match (record.sender.is_empty(), record.id.is_empty()) {
        (false, true) => Target::Sender(record.sender),
        (true, false) => Target::Message(record.id),
        (true, true) => return Err(DecodeError::Missing("sender")),
        // Of two, one might be meant to limit the other: nothing is forgotten by guess.
        (false, false) => return Err(DecodeError::Unknown("sender")),
    };
    Ok(Erasure {
        tenant: required(record.tenant, "tenant")?,
        target,
        up_to: time(said(record.up_to), "up_to")?,
        requested_at: time(said(record.requested_at), "requested_at")?,
        by: required(record.by, "by")?,
    })
}

impl From<Message> for wire::Message {
    fn from(message: Message) -> Self {
        Self {
            schema: SCHEMA,
            tenant: message.tenant,
            channel: message.channel,
            sender: message.sender.unwrap_or_default(),
            id: message.id,
            text: message.text,
            sent_at: Some(message.sent_at.as_microsecond()),
            received_at: message.received_at.as_microsecond(),
            metadata: message.metadata.unwrap_or_default(),
            by_user: message.by_user,
            id_made: message.id_made,
            min_reader: 0,
        }
    }
}

impl TryFrom<wire::Message> for Message {
    type Error = DecodeError;

    fn try_from(record: wire::Message) -> Result<Self, DecodeError> {
        readable(record.min_reader)?;
        Ok(Self {
            tenant: required(record.tenant, "tenant")?,
            channel: required(record.channel, "channel")?,
            sender: Some(record.sender).filter(|s| !s.is_empty()),
            id: required(record.id, "id")?,
            text: required(record.text, "text")?,
            sent_at: time(record.sent_at, "sent_at")?,
            received_at: time(said(record.received_at), "received_at")?,
            metadata: Some(record.metadata).filter(|m| !m.is_empty()),
            by_user: record.by_user,
            id_made: record.id_made,
        })
    }
}

impl From<Resolution> for wire::Resolution {
    fn from(resolution: Resolution) -> Self {
        Self {
            settlement: number(&Settlement::ALL, resolution.settlement),
            by: resolution.by,
            letter: Some(resolution.letter),
            settled_at: resolution.settled_at.as_microsecond(),
        }
    }
}

impl TryFrom<wire::Resolution> for Resolution {
    type Error = DecodeError;

    fn try_from(record: wire::Resolution) -> Result<Self, DecodeError> {
        Ok(Self {
            settlement: known(&Settlement::ALL, record.settlement, "resolution.settlement")?,
            by: required(record.by, "resolution.by")?,
            letter: record
                .letter
                .ok_or(DecodeError::Missing("resolution.letter"))?,
            settled_at: time(said(record.settled_at), "resolution.settled_at")?,
        })
    }
}

impl From<Verdict> for wire::Verdict {
    fn from(verdict: Verdict) -> Self {
        let sentiment = verdict.sentiment;
        Self {
            action: number(&Action::ALL, verdict.action),
            reasons: verdict
                .reasons
                .into_iter()
                .map(|r| wire::Reason {
                    attribute: number(&Attribute::ALL, r.attribute),
                    score: r.score,
                    threshold: r.threshold,
                })
                .collect(),
            scores: verdict.scores.0.to_vec(),
            sentiment: vec![sentiment.negative, sentiment.neutral, sentiment.positive],
            language: verdict.language,
            spans: verdict
                .spans
                .into_iter()
                .map(|s| wire::Span {
                    attribute: number(&Attribute::ALL, s.attribute),
                    start: s.start,
                    end: s.end,
                })
                .collect(),
            model: verdict.model,
            judged_at: verdict.judged_at.as_microsecond(),
        }
    }
}

impl TryFrom<wire::Verdict> for Verdict {
    type Error = DecodeError;

    fn try_from(record: wire::Verdict) -> Result<Self, DecodeError> {
        // A newer writer may append attributes; the first six keep their meaning.
        let scores = record
            .scores
            .first_chunk()
            .ok_or(DecodeError::Missing("scores"))?;
        let sentiment = record
            .sentiment
            .first_chunk()
            .ok_or(DecodeError::Missing("sentiment"))?;
        Ok(Self {
            action: known(&Action::ALL, record.action, "action")?,
            reasons: record
                .reasons
                .into_iter()
                .map(|r| {
                    Ok(Reason {
                        attribute: known(&Attribute::ALL, r.attribute, "reasons.attribute")?,
                        score: r.score,
                        threshold: r.threshold,
                    })
                })
                .collect::<Result<_, DecodeError>>()?,
            scores: Scores(*scores),
            sentiment: Sentiment::from_probabilities(*sentiment),
            language: required(record.language, "language")?,
            spans: record
                .spans
                .into_iter()
                .map(|s| {
                    Ok(Span {
                        attribute: known(&Attribute::ALL, s.attribute, "spans.attribute")?,
                        start: s.start,
                        end: s.end,
                    })
                })
                .collect::<Result<_, DecodeError>>()?,
            model: required(record.model, "model")?,
            judged_at: time(said(record.judged_at), "judged_at")?,
        })
    }
}

fn required(value: String, field: &'static str) -> Result<String, DecodeError> {
    if value.is_empty() {
        return Err(DecodeError::Missing(field));
    }
    Ok(value)
}

fn source(partition: Option<i32>, offset: Option<i64>) -> Result<Source, DecodeError> {
    Ok(Source {
        partition: partition.ok_or(DecodeError::Missing("partition"))?,
        offset: offset.ok_or(DecodeError::Missing("offset"))?,
    })
}

/// Of a time that is never 1970-01-01: Weir's own clock set it.
fn said(microseconds: i64) -> Option<i64> {
    Some(microseconds).filter(|m| *m != 0)
}

fn time(microseconds: Option<i64>, field: &'static str) -> Result<Timestamp, DecodeError> {
    let microseconds = microseconds.ok_or(DecodeError::Missing(field))?;
    Timestamp::from_microsecond(microseconds).map_err(|_| DecodeError::Unknown(field))
}

/// The number of a value on the wire: its place in `all`, from 1.
fn number<T: Copy + PartialEq>(all: &[T], value: T) -> i32 {
    all.iter()
        .zip(1..)
        .find(|(one, _)| **one == value)
        .map_or(0, |(_, number)| number)
}

fn known<T: Copy>(all: &[T], number: i32, field: &'static str) -> Result<T, DecodeError> {
    match usize::try_from(number) {
        Ok(0) => Err(DecodeError::Missing(field)),
        Ok(number) => all
            .get(number - 1)
            .copied()
            .ok_or(DecodeError::Unknown(field)),
        Err(_) => Err(DecodeError::Unknown(field)),
    }
}
