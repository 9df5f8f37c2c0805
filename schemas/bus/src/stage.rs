//! What a stage is: it takes records and says what is done. It sees no commits, no
//! retries and no dead-letter topic; those are the worker's.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::BoxError;
use crate::record::Record;

/// A stage, driven by one [`Worker`](crate::Worker): no two of its methods run at once.
#[async_trait]
pub trait Stage: Send + 'static {
    /// Its name in dead letters, metrics and logs.
    fn name(&self) -> &'static str;

    /// Partitions have come. Answers the offsets to read from; one that is left out is read
    /// from what the group has committed, else from the earliest.
    ///
    /// # Errors
    /// It is asked again after a back-off; nothing of these partitions is read before.
    async fn assigned(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, i64>, BoxError> {
        let _ = partitions;
        Ok(BTreeMap::new())
    }

    /// A partition goes: whatever is held of it is now someone else's.
    /// [`finish`](Self::finish) was called just before, unless the partition was lost.
    async fn revoked(&mut self, partition: i32) {
        let _ = partition;
    }

    /// Takes records of any assigned partitions, in order within each. Never empty.
    ///
    /// # Errors
    /// Nothing of the call counts: the same records come again after a back-off,
    /// perhaps without those of a partition that went, perhaps with more behind them.
    async fn handle(&mut self, records: &[Record]) -> Result<Outcome, BoxError>;

    /// Called about every tick, whether records come or not, but not while
    /// [`handle`](Self::handle) is being repeated.
    ///
    /// # Errors
    /// Nothing of the call counts; the next tick comes as usual.
    async fn tick(&mut self) -> Result<Outcome, BoxError> {
        Ok(Outcome::default())
    }

    /// Last chance to bring what is buffered to safety: before partitions go and
    /// before the worker stops. Records may follow, from the partitions that stay.
    ///
    /// # Errors
    /// Nothing of the call counts: what is not done is read again by the next owner.
    async fn finish(&mut self) -> Result<Outcome, BoxError> {
        self.tick().await
    }
}

/// What a call has brought to its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// For a partition, the next offset: everything below it is done, or is in `dead`.
    /// Partitions of which nothing has moved may be left out.
    pub done: BTreeMap<i32, i64>,
    /// What is given up. The worker writes it to `weir.dead` before it commits `done`.
    pub dead: Vec<Dead>,
    /// For a partition, the first of the records that [`handle`](Stage::handle) was given
    /// and has not taken: from there on they come again, once `dead` is written. So a stage
    /// that remembers how far it is can wait with that until a letter is safe. At least one
    /// record of a call must be taken.
    pub left: BTreeMap<i32, i64>,
}

/// A record that is given up.
#[derive(Clone, PartialEq, Eq)]
pub struct Dead {
    /// Its partition in the topic that is read.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Why: a stable code, without text of the record.
    pub reason: &'static str,
    /// Its key.
    pub key: Bytes,
    /// Its payload, as read.
    pub payload: Bytes,
}

impl fmt::Debug for Dead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dead")
            .field("partition", &self.partition)
            .field("offset", &self.offset)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}
