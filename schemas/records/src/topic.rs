//! The topics, their keys, and the consumer groups that read them.

/// Accepted messages, keyed by [`key`].
pub const MESSAGES: &str = "weir.messages";
/// Judged messages: same key, same partition as the message.
pub const VERDICTS: &str = "weir.verdicts";
/// Dead letters, keyed like the record they hold.
pub const DEAD: &str = "weir.dead";
/// What is to be forgotten, in one partition. Kept longer than any other topic: whoever
/// reads an old record again must know whether it was erased.
pub const ERASURES: &str = "weir.erasures";

/// Every topic that Weir needs.
pub const ALL: [&str; 4] = [MESSAGES, VERDICTS, DEAD, ERASURES];

/// Judges `weir.messages`.
pub const GROUP_PROCESS: &str = "weir.process";
/// Writes `weir.verdicts` into the history.
pub const GROUP_HISTORY: &str = "weir.history";
/// Writes `weir.verdicts` into the lake.
pub const GROUP_LAKE: &str = "weir.lake";

/// The record key: a channel of a tenant keeps its order because all of its
/// messages share a key, and so a partition.
#[must_use]
pub fn key(tenant: &str, channel: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(tenant.len() + 1 + channel.len());
    key.extend_from_slice(tenant.as_bytes());
    key.push(0);
    key.extend_from_slice(channel.as_bytes());
    key
}

/// The application id under which the lake's table remembers, in the same commit as
/// the rows, the last source offset it holds of a partition of [`MESSAGES`].
#[must_use]
pub fn lake_transaction(partition: i32) -> String {
    format!("{MESSAGES}/{partition}")
}

/// The application id that every rewrite of the lake's files commits under, so that
/// of two rewrites at the same time one fails instead of doubling rows.
pub const LAKE_REWRITE: &str = "weir.lake/rewrite";

/// The application id under which the lake's table remembers the offset of the last
/// record of [`ERASURES`] that its files were searched for.
pub const LAKE_ERASURES: &str = "weir.lake/erasures";
