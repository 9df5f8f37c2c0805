//! Whether the lake was written from the log that is read now.
//!
//! A fence lies below the end of its partition, and the end stays when records go with
//! their retention. One that the log has not reached yet is of another log, or of what this
//! one has lost since: then what comes next would be dropped as held already, and erasures
//! be taken for done. So neither is begun on.

use weir_records::topic;

use super::Error;
use super::table::Table;

/// Compares the version of the table that was read last with the log: the mark of the
/// erasures, and the fences of these partitions, or of all.
///
/// # Errors
/// [`Error::AnotherLog`]; otherwise the table or the log can't be read.
pub(super) async fn check(
    table: &Table,
    url: &str,
    bus: &weir_bus::Config,
    partitions: Option<&[i32]>,
) -> Result<(), Error> {
    // Asked now, so after the fences were read: another writer may be moving both.
    let (messages, erasures) = tokio::try_join!(
        weir_bus::watermarks(bus, topic::MESSAGES),
        weir_bus::watermarks(bus, topic::ERASURES),
    )?;
    for (of, (_, end)) in messages {
        if partitions.is_none_or(|partitions| partitions.contains(&of)) {
            reached(url, topic::MESSAGES, of, table.fence(of).await?, end)?;
        }
    }
    let end = erasures.get(&0).map_or(0, |(_, end)| *end);
    reached(url, topic::ERASURES, 0, table.erased().await?, end)
}

/// Whether a topic has got as far as the lake says.
pub(super) fn reached(
    url: &str,
    topic: &'static str,
    partition: i32,
    held: Option<i64>,
    end: i64,
) -> Result<(), Error> {
    match held {
        Some(held) if held >= end => Err(Error::AnotherLog {
            url: url.to_owned(),
            topic,
            partition,
            held,
            end,
        }),
        _ => Ok(()),
    }
}
