//! What an operator may set about the way in: every bound of this crate is a field here.

use serde::{Deserialize, Serialize};

use crate::Error;

/// A record must fit into one Kafka message of 1 MiB, whatever is around the text.
const LARGEST_TEXT: usize = 512 << 10;
/// The same for the producer's own fields.
const LARGEST_METADATA: usize = 256 << 10;

/// Limits of the way in. Every default is safe to run with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Messages of one batch at most.
    pub batch_messages: usize,
    /// Bytes of a batch's body at most.
    pub batch_bytes: usize,
    /// Bytes of a single message's body at most.
    pub message_bytes: usize,
    /// Bytes of a text at most, after trimming; up to 512 KiB.
    pub text_bytes: usize,
    /// Bytes of `metadata` at most, as sent; up to 256 KiB.
    pub metadata_bytes: usize,
    /// How far `sent_at` may lie in the past, in seconds.
    pub sent_at_past_seconds: u32,
    /// How far `sent_at` may lie in the future, in seconds.
    pub sent_at_future_seconds: u32,
    /// How long a request waits for the broker's acknowledgement, in seconds, before it
    /// is answered with 503.
    pub ack_seconds: u32,
    /// How long a body may take to arrive, in seconds.
    pub body_seconds: u32,
    /// Bytes of bodies in memory at most, of all requests together; then 503.
    pub bodies_bytes: usize,
    /// Ids of accepted messages remembered at most, to know a producer's retry and to
    /// answer `pending`; about 90 bytes each.
    pub recent_ids: usize,
    /// Bytes of fresh verdicts kept at most, to answer them before they are stored.
    pub recent_verdict_bytes: usize,
    /// Requests that may wait for a verdict at once; then 503.
    pub waiters: usize,
    /// The longest `?wait=`, in seconds.
    pub wait_seconds: u32,
    /// The largest `?limit=` of a page of history.
    pub page_messages: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            batch_messages: 1_000,
            batch_bytes: 8 << 20,
            message_bytes: 64 << 10,
            text_bytes: 8 << 10,
            metadata_bytes: 4 << 10,
            sent_at_past_seconds: 7 * 86_400,
            sent_at_future_seconds: 300,
            ack_seconds: 10,
            body_seconds: 30,
            bodies_bytes: 128 << 20,
            recent_ids: 500_000,
            recent_verdict_bytes: 32 << 20,
            waiters: 10_000,
            wait_seconds: 30,
            page_messages: 200,
        }
    }
}

impl Config {
    /// Refuses settings with which the crate could not keep its promises.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let positive = [
            ("batch_messages", self.batch_messages),
            ("batch_bytes", self.batch_bytes),
            ("message_bytes", self.message_bytes),
            ("text_bytes", self.text_bytes),
            ("ack_seconds", self.ack_seconds as usize),
            ("body_seconds", self.body_seconds as usize),
            ("recent_ids", self.recent_ids),
            ("page_messages", self.page_messages),
        ];
        if let Some((setting, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return Err(Error::Setting {
                setting,
                reason: "must be above 0",
            });
        }
        let bounded = [
            (
                "text_bytes",
                self.text_bytes,
                LARGEST_TEXT,
                "must be 512 KiB or less",
            ),
            (
                "metadata_bytes",
                self.metadata_bytes,
                LARGEST_METADATA,
                "must be 256 KiB or less",
            ),
            (
                "page_messages",
                self.page_messages,
                weir_store::MAX_PAGE,
                "must be 1,000 or less",
            ),
            (
                "batch_bytes",
                self.batch_bytes,
                self.bodies_bytes,
                "must fit into `bodies_bytes`",
            ),
            (
                "message_bytes",
                self.message_bytes,
                self.bodies_bytes,
                "must fit into `bodies_bytes`",
            ),
        ];
        match bounded.into_iter().find(|(_, value, most, _)| value > most) {
            Some((setting, _, _, reason)) => Err(Error::Setting { setting, reason }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_accepted_and_a_wrong_setting_is_named() {
        Config::default().check().unwrap();
        let config = Config {
            text_bytes: 1 << 20,
            ..Config::default()
        };
        assert!(
            config
                .check()
                .unwrap_err()
                .to_string()
                .contains("text_bytes")
        );
        let config = Config {
            bodies_bytes: 1 << 20,
            ..Config::default()
        };
        assert!(
            config
                .check()
                .unwrap_err()
                .to_string()
                .contains("batch_bytes")
        );
    }
}
