//! After a start: the messages that wait to be judged are read back, so that their ids
//! are known as if this process had accepted them. The last message of each partition is
//! read in any case, so that the clock does not run behind what was accepted before.
//!
//! What was judged meanwhile, and the history may not have yet, is known from its verdicts by
//! then: those come first, because of two that fill the memory the later one stays.

use std::collections::BTreeMap;

use weir_bus::Record;
use weir_records::{Source, topic};

use crate::Error;
use crate::ingest::Inner;
use crate::verdicts::Origin;

/// Reads `weir.messages` from where the processor stood to its end, `most` records of
/// all partitions together and the newest of them, and remembers their ids but those of
/// erased messages, and those that the history has or had. Answers where the topic goes on,
/// by partition.
pub(crate) async fn seed(
    inner: &Inner,
    bus: &weir_bus::Config,
    most: usize,
    origin: &Origin,
) -> Result<BTreeMap<i32, i64>, Error> {
    let ends = weir_bus::watermarks(bus, topic::MESSAGES).await?;
    let mut ids = 0_usize;
    let mut next: BTreeMap<i32, i64> = ends.iter().map(|(at, (_, high))| (*at, *high)).collect();
    for (partition, from, waiting) in starts(&ends, origin.judged(), most) {
        let mut remember = |record: Record| {
            // What can't be read is for the processor to give up.
            let Ok(message) = weir_records::decode_message(&record.payload) else {
                return;
            };
            inner.clock.saw(message.received_at);
            let at = Source {
                partition: record.partition,
                offset: record.offset,
            };
            if at.offset < waiting || origin.is_stored(at) {
                return;
            }
            let identity = inner.recent.identity_of(&message);
            inner.verdicts.unless_erased(&message, || {
                ids += usize::from(inner.recent.hear(&identity, at, &inner.verdicts));
            });
        };
        let end = weir_bus::read_back(bus, topic::MESSAGES, partition, from, &mut remember).await?;
        next.insert(partition, end);
    }
    tracing::info!(
        ids,
        "ids of messages that wait to be judged are known again"
    );
    Ok(next)
}

/// Of each partition that holds something: where to begin, and the first offset that
/// waits to be judged.
fn starts(
    ends: &BTreeMap<i32, (i64, i64)>,
    judged: &BTreeMap<i32, i64>,
    most: usize,
) -> Vec<(i32, i64, i64)> {
    let each = i64::try_from(most / ends.len().max(1)).unwrap_or(i64::MAX);
    ends.iter()
        .filter(|(_, (low, high))| low < high)
        .map(|(partition, (low, high))| {
            let judged = judged.get(partition).copied().unwrap_or(*low);
            let waiting = judged.max(*low).max(high.saturating_sub(each));
            (*partition, waiting.min(high - 1), waiting)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_read_the_newest_of_a_long_backlog_and_the_last_in_any_case() {
        let ends = BTreeMap::from([(0, (0, 100)), (1, (50, 60)), (2, (0, 100_000)), (3, (7, 7))]);
        let judged = BTreeMap::from([(0, 100), (2, 10)]);
        let expected = [(0, 99, 100), (1, 50, 50), (2, 99_000, 99_000)];
        assert_eq!(starts(&ends, &judged, 4_000), expected);
        assert_eq!(starts(&BTreeMap::new(), &judged, 10), []);
    }
}
