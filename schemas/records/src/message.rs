//! Messages as accepted, as judged, and as given up.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::verdict::Verdict;

/// What a producer sent, after the checks of the way in.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Whose it is; tenants never see each other's.
    pub tenant: String,
    /// Where it was said.
    pub channel: String,
    /// Who said it, where the producer named one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sender: Option<String>,
    /// The sender is a user who signed in, not a name that a producer's key gave.
    #[serde(default)]
    pub by_user: bool,
    /// Unique in its tenant.
    pub id: String,
    /// Weir made the id, for this record: another bears it only where somebody was told it
    /// and sent it again, so nothing of it is in a store yet. Not part of what was said.
    #[serde(skip)]
    pub id_made: bool,
    /// What was said: 1 byte to 8 KiB of UTF-8, trimmed.
    pub text: String,
    /// When, as the producer says; microseconds are kept.
    pub sent_at: Timestamp,
    /// When Weir accepted it; microseconds are kept.
    pub received_at: Timestamp,
    /// The producer's own fields: a JSON object, as text.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "raw_json")]
    pub metadata: Option<String>,
}

/// Says everything but what was said.
impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("tenant", &self.tenant)
            .field("channel", &self.channel)
            .field("sender", &self.sender)
            .field("id", &self.id)
            .field("text_bytes", &self.text.len())
            .field("sent_at", &self.sent_at)
            .field("received_at", &self.received_at)
            .finish_non_exhaustive()
    }
}

/// A message's place in `weir.messages`: the fence of every later write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Source {
    /// Partition of `weir.messages` (and, the same, of `weir.verdicts`).
    pub partition: i32,
    /// Offset in that partition of `weir.messages`.
    pub offset: i64,
}

/// A message with its verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The message.
    #[serde(flatten)]
    pub message: Message,
    /// Its verdict.
    pub verdict: Verdict,
    /// Where the message stands in `weir.messages`.
    #[serde(flatten)]
    pub source: Source,
}

/// A record that could not be processed, kept whole so that it can be replayed.
#[derive(Clone, PartialEq)]
pub struct DeadLetter {
    /// The stage that gave up, such as `process` or `history`.
    pub stage: String,
    /// Why: a stable code without any text of the message.
    pub reason: String,
    /// Topic of the record.
    pub topic: String,
    /// Its place in that topic.
    pub source: Source,
    /// Its key.
    pub key: Bytes,
    /// Its payload, as read.
    pub payload: Bytes,
    /// When it was given up.
    pub failed_at: Timestamp,
    /// Set: no letter but a note that the letter of this stage, topic and source is
    /// settled; it lies behind the letter, in the same partition of `weir.dead`.
    pub resolution: Option<Resolution>,
}

/// What was done with a dead letter, by whom and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// What was done.
    pub settlement: Settlement,
    /// Id of the key, or name of the user, that asked for it.
    pub by: String,
    /// The letter's offset in `weir.dead`.
    pub letter: i64,
    /// When; microseconds are kept.
    pub settled_at: Timestamp,
}

/// How a dead letter is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settlement {
    /// Its record went its way after all.
    Replayed,
    /// Somebody decided that it never will.
    Discarded,
}

impl Settlement {
    /// All, in the order of their numbers on the wire, from 1.
    pub const ALL: [Self; 2] = [Self::Replayed, Self::Discarded];
}

/// Says everything but the payload: it may hold text.
impl std::fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetter")
            .field("stage", &self.stage)
            .field("reason", &self.reason)
            .field("topic", &self.topic)
            .field("source", &self.source)
            .field("payload_bytes", &self.payload.len())
            .field("resolution", &self.resolution)
            .finish_non_exhaustive()
    }
}

/// Text that is JSON already goes into JSON as what it is.
mod raw_json {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
    use serde_json::value::RawValue;

    pub(super) fn serialize<S: Serializer>(
        text: &Option<String>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        text.as_deref()
            .map(serde_json::from_str::<&RawValue>)
            .transpose()
            .map_err(|_| ser::Error::custom("metadata is not JSON"))?
            .serialize(out)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<String>, D::Error> {
        let value = Option::<serde_json::Map<String, serde_json::Value>>::deserialize(from)?;
        value
            .map(|map| serde_json::to_string(&map).map_err(de::Error::custom))
            .transpose()
    }
}
