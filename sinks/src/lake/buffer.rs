//! What waits for the next commit, and the rule that lets a row in once.
//!
//! A row goes in only if its source offset is above the last one of its partition
//! that the table or this buffer holds. Kafka's offsets may move past a record only
//! when what came of it (a row, a dead letter, nothing) is safe: [`Buffer::settle`]
//! says so, and is called only with no rows left.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use weir_bus::{Dead, Outcome, Record};
use weir_records::{Erasures, Judged};

use super::Config;
use crate::history::dead;

/// The reason of a dead letter whose row names another partition than its record's.
pub const PARTITION_MISMATCH: &str = "partition_mismatch";

/// Rows and dead letters of the partitions that this member reads.
#[derive(Default)]
pub(crate) struct Buffer {
    partitions: BTreeMap<i32, Partition>,
    rows: Vec<Judged>,
    dead: Vec<Dead>,
    bytes: usize,
    since: Option<Instant>,
}

#[derive(Default)]
struct Partition {
    /// The last source offset in the table or in this buffer.
    last: Option<i64>,
    /// The record after the last one taken.
    next: i64,
    /// What Kafka was told last.
    told: i64,
}

/// What became of a record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Its row waits.
    Row,
    /// Its row is held already.
    Replay,
    /// It was given up, for this reason.
    Dead(&'static str),
    /// It was taken before; the worker went back.
    Again,
    /// Its row is not to be kept.
    Erased,
}

impl Buffer {
    /// Whether the partition is known; if not, its fence has to be read.
    pub(crate) fn knows(&self, partition: i32) -> bool {
        self.partitions.contains_key(&partition)
    }

    /// A partition comes, with nothing of it taken yet.
    pub(crate) fn assign(&mut self, partition: i32) {
        self.revoke(partition);
        self.partitions.insert(partition, Partition::default());
    }

    /// A partition goes: what waits of it will be read again by its next owner.
    pub(crate) fn revoke(&mut self, partition: i32) {
        self.partitions.remove(&partition);
        self.rows.retain(|row| row.source.partition != partition);
        self.dead.retain(|dead| dead.partition != partition);
    }

    pub(crate) fn partitions(&self) -> Vec<i32> {
        self.partitions.keys().copied().collect()
    }

    /// Takes a record in, unless its row is held or among `erasures`.
    pub(crate) fn push(&mut self, record: &Record, erasures: &Erasures) -> Taken {
        let partition = self.partitions.entry(record.partition).or_default();
        if record.offset < partition.next {
            return Taken::Again;
        }
        partition.next = record.offset + 1;
        self.since.get_or_insert_with(Instant::now);
        let row = match weir_records::judged(&record.payload) {
            Ok(row) if row.source.partition == record.partition => row,
            Ok(_) => return self.give_up(record, PARTITION_MISMATCH),
            Err(error) => return self.give_up(record, error.code()),
        };
        if partition.last.is_some_and(|last| row.source.offset <= last) {
            return Taken::Replay;
        }
        partition.last = Some(row.source.offset);
        if erasures.cover(&row.message) {
            return Taken::Erased;
        }
        self.bytes += record.payload.len();
        self.rows.push(row);
        Taken::Row
    }

    fn give_up(&mut self, record: &Record, reason: &'static str) -> Taken {
        self.bytes += record.payload.len();
        self.dead.push(dead(record, reason));
        Taken::Dead(reason)
    }

    /// The table holds a partition up to `fence`: rows of it up to there go. Answers how many.
    pub(crate) fn fence(&mut self, partition: i32, fence: Option<i64>) -> usize {
        let (Some(fence), Some(entry)) = (fence, self.partitions.get_mut(&partition)) else {
            return 0;
        };
        entry.last = entry.last.max(Some(fence));
        let before = self.rows.len();
        self.rows
            .retain(|row| row.source.partition != partition || row.source.offset > fence);
        before - self.rows.len()
    }

    /// Lets the rows go that are not to be kept. Answers how many.
    pub(crate) fn erase(&mut self, erasures: &Erasures) -> usize {
        let before = self.rows.len();
        self.rows.retain(|row| !erasures.cover(&row.message));
        before - self.rows.len()
    }

    pub(crate) fn rows(&mut self) -> &mut [Judged] {
        &mut self.rows
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The last source offset of each partition among the rows.
    pub(crate) fn marks(&self) -> BTreeMap<i32, i64> {
        let mut marks = BTreeMap::new();
        for row in &self.rows {
            let mark = marks
                .entry(row.source.partition)
                .or_insert(row.source.offset);
            *mark = row.source.offset.max(*mark);
        }
        marks
    }

    /// Whether nothing more may be taken before a commit.
    pub(crate) fn is_full(&self, config: &Config) -> bool {
        self.rows.len() + self.dead.len() >= config.rows || self.bytes >= config.bytes
    }

    /// Whether something has waited for `every`.
    pub(crate) fn is_due(&self, every: Duration) -> bool {
        self.since.is_some_and(|since| since.elapsed() >= every)
    }

    /// The rows are in the table: how far Kafka's offsets may move, and what to give up.
    pub(crate) fn settle(&mut self) -> Outcome {
        self.rows.clear();
        // After a backlog, the space of its largest commit is not kept for ever.
        self.rows.shrink_to(8_192);
        self.bytes = 0;
        self.since = None;
        let mut outcome = Outcome {
            dead: std::mem::take(&mut self.dead),
            ..Outcome::default()
        };
        for (partition, entry) in &mut self.partitions {
            if entry.next > entry.told {
                entry.told = entry.next;
                outcome.done.insert(*partition, entry.next);
            }
        }
        outcome
    }
}
