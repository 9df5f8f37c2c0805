//! After a start: the messages that wait to be judged are read back, so that their ids
//! are known as if this process had accepted them.

use std::collections::BTreeMap;

use weir_bus::Record;
use weir_records::topic;

use super::Recent;
use crate::Error;
use crate::accept::check::Sender;

/// Reads `weir.messages` from where the processor stands to its end, `most` records of
/// all partitions together and the newest of them, and remembers their ids.
pub(crate) async fn seed(
    recent: &Recent,
    bus: &weir_bus::Config,
    most: usize,
) -> Result<(), Error> {
    let ends = weir_bus::watermarks(bus, topic::MESSAGES).await?;
    let judged = weir_bus::committed(bus, topic::GROUP_PROCESS, topic::MESSAGES).await?;
    let mut ids = 0_usize;
    for (partition, from) in starts(&ends, &judged, most) {
        let mut remember = |record: Record| {
            // What can't be read is for the processor to give up.
            let Ok(message) = weir_records::decode_message(&record.payload) else {
                return;
            };
            recent.accept(&recent.identify(
                &message.tenant,
                &message.id,
                (&message.channel, &message.text),
                Sender::of(&message),
            ));
            ids += 1;
        };
        weir_bus::read_back(bus, topic::MESSAGES, partition, from, &mut remember).await?;
    }
    tracing::info!(
        ids,
        "ids of messages that wait to be judged are known again"
    );
    Ok(())
}

/// Where to begin in each partition that has something to read.
fn starts(
    ends: &BTreeMap<i32, (i64, i64)>,
    judged: &BTreeMap<i32, i64>,
    most: usize,
) -> Vec<(i32, i64)> {
    let each = i64::try_from(most / ends.len().max(1)).unwrap_or(i64::MAX);
    ends.iter()
        .map(|(partition, (low, high))| {
            let judged = judged.get(partition).copied().unwrap_or(*low);
            (
                *partition,
                judged.max(*low).max(high.saturating_sub(each)),
                *high,
            )
        })
        .filter(|(_, from, high)| from < high)
        .map(|(partition, from, _)| (partition, from))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_waits_is_read_and_the_newest_of_a_long_backlog() {
        let ends = BTreeMap::from([(0, (0, 100)), (1, (50, 60)), (2, (0, 100_000)), (3, (7, 7))]);
        let judged = BTreeMap::from([(0, 100), (2, 10)]);
        assert_eq!(starts(&ends, &judged, 4_000), [(1, 50), (2, 99_000)]);
        assert_eq!(starts(&BTreeMap::new(), &judged, 10), []);
    }
}
