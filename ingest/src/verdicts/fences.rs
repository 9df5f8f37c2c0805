//! How far each partition has been judged: a processor that was paused, and whose partitions
//! are another's since, may publish verdicts late. They are dropped here as in every store.
//!
//! The history's fences are where the follower begins, so it drops nothing that the history
//! does not have.

use std::collections::BTreeMap;

use weir_records::{Source, topic};
use weir_store::History;

use crate::Error;

/// The last source offset of each partition of `weir.messages`.
#[derive(Debug, Default)]
pub(super) struct Fences(BTreeMap<i32, i64>);

impl Fences {
    /// Those of the history.
    pub(super) async fn of(history: &dyn History, bus: &weir_bus::Config) -> Result<Self, Error> {
        let mut fences = BTreeMap::new();
        // A verdict lies in the partition of its message.
        for partition in weir_bus::watermarks(bus, topic::VERDICTS)
            .await?
            .into_keys()
        {
            let fence = history.fence(partition).await?;
            fences.extend(fence.map(|fence| (partition, fence)));
        }
        Ok(Self(fences))
    }

    /// Whether nothing has come yet from there or beyond; from now on it has.
    pub(super) fn pass(&mut self, source: Source) -> bool {
        let above = self.0.get(&source.partition).copied();
        let new = Some(source.offset) > above;
        if new {
            self.0.insert(source.partition, source.offset);
        }
        new
    }
}
