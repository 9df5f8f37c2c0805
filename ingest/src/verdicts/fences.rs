//! How far each partition has been judged: a processor that was paused, and whose partitions
//! are another's since, may publish verdicts late. They are dropped here as in every store.
//!
//! The history's fences are where the follower begins, so it drops nothing that the history
//! does not have.
//!
//! A fence that the log has not reached is of another log, or of what this one has lost: what
//! is accepted next would have places in it that the history takes for judged. So nothing is.

use std::collections::BTreeMap;
use std::time::Duration;

use weir_records::{Source, topic};
use weir_store::History;

use crate::Error;

/// Between two questions to a history that is away.
const AGAIN: Duration = Duration::from_millis(500);

/// The last source offset of each partition of `weir.messages`.
#[derive(Debug, Default, Clone)]
pub(super) struct Fences(BTreeMap<i32, i64>);

impl Fences {
    /// Those of the history.
    ///
    /// # Errors
    /// [`Error::AnotherLog`]; otherwise history or log can't be read.
    pub(super) async fn of(history: &dyn History, bus: &weir_bus::Config) -> Result<Self, Error> {
        let mut fences = BTreeMap::new();
        // A verdict lies in the partition of its message.
        for partition in weir_bus::watermarks(bus, topic::VERDICTS)
            .await?
            .into_keys()
        {
            let fence = fence(history, partition).await?;
            fences.extend(fence.map(|fence| (partition, fence)));
        }
        // Asked after the fences, which others move.
        let messages = weir_bus::watermarks(bus, topic::MESSAGES).await?;
        for (&partition, &judged) in &fences {
            let end = messages.get(&partition).map_or(0, |(_, end)| *end);
            if judged >= end {
                return Err(Error::AnotherLog {
                    partition,
                    judged,
                    end,
                });
            }
        }
        Ok(Self(fences))
    }

    /// Whether something has come from there or beyond.
    pub(super) fn reach(&self, source: Source) -> bool {
        self.0.get(&source.partition).copied() >= Some(source.offset)
    }

    /// Whether nothing has come yet from there or beyond; from now on it has.
    pub(super) fn pass(&mut self, source: Source) -> bool {
        let new = !self.reach(source);
        if new {
            self.0.insert(source.partition, source.offset);
        }
        new
    }
}

/// Waits for a history that goes away while a process starts: that is no reason to end.
async fn fence(history: &dyn History, partition: i32) -> Result<Option<i64>, weir_store::Error> {
    loop {
        match history.fence(partition).await {
            Err(error) if error.retriable() => {
                tracing::warn!(%error, partition, "the history's fence can't be read; trying on");
                tokio::time::sleep(AGAIN).await;
            }
            answer => return answer,
        }
    }
}
