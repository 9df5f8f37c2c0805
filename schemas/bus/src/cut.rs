//! Takes records out of the log before their retention is over.
//!
//! What it keeps true: [`cut_settled`] deletes nothing that a group of Weir has still to
//! read. Single records can't be taken out of a log; what lies before them goes too.

use std::collections::BTreeMap;

use futures::executor::block_on;
use rdkafka::{Offset, TopicPartitionList};
use weir_records::topic;

use crate::admin::{Asker, admin, blocking, committed, options, watermarks};
use crate::config::Config;
use crate::error::{Error, name};

/// Which groups have to be through with a topic.
const READERS: [(&str, &[&str]); 2] = [
    (topic::MESSAGES, &[topic::GROUP_PROCESS]),
    (topic::VERDICTS, &[topic::GROUP_HISTORY, topic::GROUP_LAKE]),
];

/// Deletes the records of a topic whose offsets lie below those given, by partition.
/// Answers the offset of the first record that is left in each.
///
/// The records can't be read any more when this answers. The embedded broker removes a
/// file at once when all its records are deleted, the newest file included; Apache Kafka
/// does so within `log.retention.check.interval.ms`, and rolls its newest file only by
/// `segment.ms` or `segment.bytes`.
///
/// # Errors
/// No broker answers, it refuses us, there is no such topic or partition, or an offset
/// lies beyond the end.
pub async fn delete_records(
    config: &Config,
    topic: &str,
    up_to: BTreeMap<i32, i64>,
) -> Result<BTreeMap<i32, i64>, Error> {
    const DOING: &str = "deleting records";
    let (config, topic) = (config.clone(), topic.to_owned());
    blocking(move || {
        // Fails with words of its own where there is no broker or no such topic.
        Asker::new(&config, None)?.partitions(&topic)?;
        let mut list = TopicPartitionList::new();
        for (partition, offset) in up_to {
            list.add_partition_offset(&topic, partition, Offset::Offset(offset))
                .map_err(|error| Error::kafka(DOING, &error))?;
        }
        if list.count() == 0 {
            return Ok(BTreeMap::new());
        }
        let deleted = block_on(admin(&config)?.delete_records(&list, &options()))
            .map_err(|error| Error::kafka(DOING, &error))?;
        let mut firsts = BTreeMap::new();
        for element in deleted.elements() {
            if let Err(error) = element.error() {
                return Err(Error::Topic {
                    topic,
                    reason: error
                        .rdkafka_error_code()
                        .map_or_else(|| "its records can't be deleted".to_owned(), name),
                });
            }
            if let Offset::Offset(first) = element.offset() {
                firsts.insert(element.partition(), first);
            }
        }
        Ok(firsts)
    })
    .await
}

/// Deletes from `weir.messages` and `weir.verdicts` everything that all of Weir's groups
/// have dealt with: what is judged, and what history and lake both hold. Answers, for
/// each of the two topics, the offset of the first record left in each partition.
///
/// # Errors
/// As [`delete_records`]. The first of the topics may have been cut.
pub async fn cut_settled(
    config: &Config,
) -> Result<BTreeMap<&'static str, BTreeMap<i32, i64>>, Error> {
    let mut cut = BTreeMap::new();
    for (topic, groups) in READERS {
        let bounds = watermarks(config, topic).await?;
        let mut settled: BTreeMap<i32, i64> =
            bounds.iter().map(|(p, (_, high))| (*p, *high)).collect();
        for group in groups {
            let through = committed(config, group, topic).await?;
            // A group that has committed nothing has read nothing.
            settled.retain(|partition, _| through.contains_key(partition));
            for (partition, offset) in &mut settled {
                *offset = (*offset).min(through.get(partition).copied().unwrap_or(0));
            }
        }
        let low = |partition: &i32| bounds.get(partition).map_or(0, |(low, _)| *low);
        settled.retain(|partition, offset| *offset > low(partition));
        let mut firsts: BTreeMap<i32, i64> =
            bounds.iter().map(|(p, (low, _))| (*p, *low)).collect();
        firsts.extend(delete_records(config, topic, settled).await?);
        cut.insert(topic, firsts);
    }
    Ok(cut)
}
