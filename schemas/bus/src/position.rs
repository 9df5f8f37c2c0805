//! How far each partition is read, and what was gone before it could be read.

use std::collections::BTreeMap;

use prometheus::{IntCounter, Opts, Registry};

use crate::error::Error;
use crate::record::Record;

/// The partitions that a reader holds, each with the offset it expects next.
pub(crate) struct Positions {
    reader: &'static str,
    lost: IntCounter,
    partitions: BTreeMap<i32, Position>,
}

#[derive(Clone, Copy)]
struct Position {
    /// Where reading began, once it is known.
    first: Option<i64>,
    next: Option<i64>,
}

impl Positions {
    /// `reader`: the consumer group, or the name of a tail.
    pub(crate) fn new(reader: &'static str, registry: &Registry) -> Result<Self, Error> {
        let lost = IntCounter::with_opts(
            Opts::new(
                "weir_records_lost_total",
                "Records that were deleted by retention before the group has read them.",
            )
            .const_label("group", reader),
        )?;
        registry.register(Box::new(lost.clone()))?;
        Ok(Self {
            reader,
            lost,
            partitions: BTreeMap::new(),
        })
    }

    /// A partition is read from `next`; `None`: from wherever the brokers say.
    pub(crate) fn start(&mut self, partition: i32, next: Option<i64>) {
        self.partitions
            .insert(partition, Position { first: next, next });
    }

    pub(crate) fn forget(&mut self, partition: i32) {
        self.partitions.remove(&partition);
    }

    pub(crate) fn holds(&self, partition: i32) -> bool {
        self.partitions.contains_key(&partition)
    }

    pub(crate) fn partitions(&self) -> Vec<i32> {
        self.partitions.keys().copied().collect()
    }

    /// The offset expected next, once it is known.
    pub(crate) fn next(&self, partition: i32) -> Option<i64> {
        self.partitions.get(&partition)?.next
    }

    /// The offset at which reading began, once it is known.
    pub(crate) fn first(&self, partition: i32) -> Option<i64> {
        self.partitions.get(&partition)?.first
    }

    /// A record was read. Weir's topics have no gaps but those that retention cuts.
    pub(crate) fn pass(&mut self, record: &Record) {
        let (partition, offset) = (record.partition, record.offset);
        let Some(position) = self.partitions.get_mut(&partition) else {
            return;
        };
        position.first.get_or_insert(offset);
        let reader = self.reader;
        match position.next.replace(offset + 1) {
            Some(expected) if offset > expected => {
                let records = offset - expected;
                self.lost.inc_by(records.unsigned_abs());
                tracing::error!(
                    reader,
                    partition,
                    expected,
                    offset,
                    records,
                    "records were deleted by retention before they were read"
                );
            }
            Some(expected) if offset < expected => {
                tracing::error!(
                    reader,
                    partition,
                    expected,
                    offset,
                    "the log ends before what was read from it: it was cut or made anew"
                );
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use jiff::Timestamp;

    use super::*;

    fn record(offset: i64) -> Record {
        Record {
            partition: 0,
            offset,
            key: Bytes::new(),
            payload: Bytes::new(),
            timestamp: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_gap_counts_what_is_missing() {
        let mut positions = Positions::new("group", &Registry::new()).unwrap();
        positions.start(0, Some(10));
        positions.pass(&record(10));
        assert_eq!(positions.lost.get(), 0);
        positions.pass(&record(15));
        assert_eq!(positions.lost.get(), 4);
        assert_eq!(positions.next(0), Some(16));
    }

    #[test]
    fn an_unknown_start_loses_nothing() {
        let mut positions = Positions::new("group", &Registry::new()).unwrap();
        positions.start(0, None);
        positions.pass(&record(1_000));
        assert_eq!(positions.lost.get(), 0);
    }
}
