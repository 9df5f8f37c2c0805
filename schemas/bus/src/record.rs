//! Records on their way in and out. Their `Debug` shows places and sizes, never content.

use std::fmt;

use bytes::Bytes;
use jiff::Timestamp;
use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;

/// A record as read.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Partition of the topic that is read.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
    /// Key; empty where there is none.
    pub key: Bytes,
    /// Payload; empty where there is none.
    pub payload: Bytes,
    /// When it was written, in milliseconds; 1970-01-01 where the log does not say.
    pub timestamp: Timestamp,
}

impl Record {
    pub(crate) fn copy(message: &BorrowedMessage<'_>) -> Self {
        let bytes = |part: Option<&[u8]>| part.map_or_else(Bytes::new, Bytes::copy_from_slice);
        Self {
            partition: message.partition(),
            offset: message.offset(),
            key: bytes(message.key()),
            payload: bytes(message.payload()),
            timestamp: message
                .timestamp()
                .to_millis()
                .and_then(|millis| Timestamp::from_millisecond(millis).ok())
                .unwrap_or(Timestamp::UNIX_EPOCH),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.key.len() + self.payload.len()
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("partition", &self.partition)
            .field("offset", &self.offset)
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

/// A record to be written.
#[derive(Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Where to.
    pub topic: &'static str,
    /// Which partition; `None` = chosen by the key, as Java's clients do (murmur2).
    pub partition: Option<i32>,
    /// Key; empty = none, and then any partition.
    pub key: Vec<u8>,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Outgoing {
    pub(crate) fn bytes(&self) -> usize {
        self.key.len() + self.payload.len()
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}
