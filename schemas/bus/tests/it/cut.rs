//! Records that are taken out of the log.

use std::path::Path;

use weir_bus::Error;
use weir_records::topic;

use crate::stages::{Running, Shared};
use crate::support::{DAY, Kafka, fill, producer, record, until};

/// A payload that the stage of these tests reads as a number.
const MARKER: &[u8] = b"3141592653";

#[tokio::test(flavor = "multi_thread")]
async fn deleted_records_can_not_be_read_and_those_behind_them_can() {
    let kafka = Kafka::start().await;
    let topic = kafka.topic(2).await;
    let producer = producer(&kafka.config());
    fill(&producer, topic, 0, 0..10).await;
    fill(&producer, topic, 1, 0..10).await;
    let left = weir_bus::delete_records(&kafka.config(), topic, [(1, 4)].into())
        .await
        .unwrap();
    assert_eq!(left, [(1, 4)].into());
    assert_eq!(
        kafka.watermarks(topic).await,
        [(0, (0, 10)), (1, (4, 10))].into()
    );
    let read = kafka.read(topic).await;
    assert_eq!((read[&0].len(), read[&1].len()), (10, 6));

    let nothing = weir_bus::delete_records(&kafka.config(), topic, [].into()).await;
    assert_eq!(nothing.unwrap(), [].into());
    let beyond = weir_bus::delete_records(&kafka.config(), topic, [(0, 11)].into()).await;
    assert!(matches!(beyond, Err(Error::Topic { .. })), "{beyond:?}");
    let absent = weir_bus::delete_records(&kafka.config(), "absent", [(0, 1)].into()).await;
    assert!(matches!(absent, Err(Error::UnknownTopic(_))), "{absent:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_waits_for_every_group_and_then_leaves_no_text_on_disk() {
    let Some(mut kafka) = Kafka::stoppable().await else {
        return;
    };
    let config = kafka.config();
    weir_bus::create_topics(&config, DAY, None).await.unwrap();
    let producer = producer(&config);
    for name in [topic::MESSAGES, topic::VERDICTS] {
        let records = (0..20).map(|n| record(name, n % 4, MARKER)).collect();
        for answer in producer.send(records).unwrap().await {
            answer.unwrap();
        }
    }
    assert_eq!(files_with(kafka.folder(), MARKER), 8);

    // The lake has read nothing yet: verdicts stay.
    for (group, name) in [
        (topic::GROUP_PROCESS, topic::MESSAGES),
        (topic::GROUP_HISTORY, topic::VERDICTS),
    ] {
        read_all(&kafka, group, name).await;
    }
    let cut = weir_bus::cut_settled(&config).await.unwrap();
    assert_eq!(
        cut[topic::MESSAGES],
        [(0, 5), (1, 5), (2, 5), (3, 5)].into()
    );
    assert_eq!(
        cut[topic::VERDICTS],
        [(0, 0), (1, 0), (2, 0), (3, 0)].into()
    );
    assert_eq!(files_with(kafka.folder(), MARKER), 4);

    read_all(&kafka, topic::GROUP_LAKE, topic::VERDICTS).await;
    weir_bus::cut_settled(&config).await.unwrap();
    assert_eq!(files_with(kafka.folder(), MARKER), 0);
    // Nothing is left to do, and the log goes on where it was, also after a restart.
    let again = weir_bus::cut_settled(&config).await.unwrap();
    assert_eq!(again[topic::VERDICTS][&2], 5);
    kafka.stop().await;
    kafka.start_again().await;
    assert_eq!(kafka.watermarks(topic::VERDICTS).await[&3], (5, 5));
    fill(&producer, topic::VERDICTS, 3, 0..2).await;
    assert_eq!(kafka.watermarks(topic::VERDICTS).await[&3], (5, 7));
}

async fn read_all(kafka: &Kafka, group: &'static str, name: &'static str) {
    let stage = Shared::default();
    let producer = producer(&kafka.config());
    let worker = Running::start(&kafka.config(), group, name, &stage, &producer);
    until("the records", async || stage.count() == 20).await;
    worker.stop().await;
}

/// How many files under the folder hold these bytes.
fn files_with(folder: &Path, bytes: &[u8]) -> usize {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            if path.is_dir() {
                files_with(&path, bytes)
            } else {
                let content = std::fs::read(&path).unwrap();
                usize::from(content.windows(bytes.len()).any(|part| part == bytes))
            }
        })
        .sum()
}
