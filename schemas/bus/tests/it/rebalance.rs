//! Partitions that move between members of a group.

use std::collections::BTreeSet;
use std::time::Duration;

use weir_bus::Config;

use crate::stages::{Running, Shared};
use crate::support::{DAY, Kafka, fill, producer, unique, until};
use crate::worker::dead_letters;

#[tokio::test(flavor = "multi_thread")]
async fn partitions_move_to_a_new_member_and_back_without_loss_or_repeat() {
    let kafka = Kafka::start().await;
    let topic = kafka.topic(4).await;
    let group = unique("group");
    let config = kafka.config();
    let producer = producer(&config);
    let some = async |from, to| {
        for partition in 0..4 {
            fill(&producer, topic, partition, from..to).await;
        }
    };
    some(0, 100).await;
    // Buffers, so that only what is finished before a partition goes is not repeated.
    let (first, second) = (Shared::with(|book| book.buffer = true), Shared::default());
    let one = Running::start(&config, group, topic, &first, &producer);
    until("the first records", async || first.count() == 400).await;

    let two = Running::start(&config, group, topic, &second, &producer);
    until("a share for the second", async || {
        second.0.lock().assigned.len() == 2
    })
    .await;
    {
        let book = first.0.lock();
        assert_eq!(book.revoked.len(), 2, "only what moves is revoked");
        assert!(book.finished > 0);
    }
    some(100, 200).await;
    until("the next records", async || {
        first.count() + second.count() == 800
    })
    .await;

    two.stop().await;
    until("all partitions back", async || {
        first.0.lock().assigned.len() == 6
    })
    .await;
    some(200, 250).await;
    until("the last records", async || {
        first.count() + second.count() == 1_000
    })
    .await;
    one.stop().await;
    second.assert_once_in_order();

    assert_eq!(
        kafka.committed(group, topic).await,
        (0..4).map(|partition| (partition, 250)).collect(),
    );
    let (first, second) = (first.0.lock(), second.0.lock());
    for partition in 0..4 {
        let taken =
            |book: &crate::stages::Book| book.taken.get(&partition).cloned().unwrap_or_default();
        let all: Vec<u32> = [taken(&first), taken(&second)].concat();
        assert_eq!(all.len(), 250, "no repeat");
        assert_eq!(
            all.iter().copied().collect::<BTreeSet<_>>(),
            (0..250).collect(),
            "no loss"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_goes_takes_its_failed_records_along() {
    let kafka = Kafka::start().await;
    let topic = kafka.topic(2).await;
    let group = unique("group");
    let config = kafka.config();
    let producer = producer(&config);
    fill(&producer, topic, 0, 0..20).await;
    fill(&producer, topic, 1, 0..20).await;
    let (broken, sound) = (Shared::with(|book| book.broken = true), Shared::default());
    let one = Running::start(&config, group, topic, &broken, &producer);
    until("failures", async || broken.0.lock().failures > 1).await;
    // Joins while the first is backing off.
    let two = Running::start(&config, group, topic, &sound, &producer);
    until("records of one partition", async || sound.count() == 20).await;
    broken.0.lock().broken = false;
    until("records of the other", async || broken.count() == 20).await;
    two.stop().await;
    one.stop().await;
    broken.assert_once_in_order();
    let partitions = |stage: &Shared| {
        stage
            .0
            .lock()
            .taken
            .keys()
            .copied()
            .collect::<BTreeSet<_>>()
    };
    assert!(partitions(&broken).is_disjoint(&partitions(&sound)));
    assert_eq!(
        kafka.committed(group, topic).await,
        [(0, 20), (1, 20)].into()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_of_a_partition_that_stays_is_written_before_anything_behind_it_is_done() {
    // Letters have a broker of their own, which is away while one of two partitions goes.
    let Some(mut desk) = Kafka::stoppable().await else {
        return;
    };
    weir_bus::create_topics(&desk.config(), DAY, None)
        .await
        .unwrap();
    let kafka = Kafka::start().await;
    let topic = kafka.topic(2).await;
    let group = unique("group");
    let config = kafka.config();
    let records = producer(&config);
    for partition in 0..2 {
        fill(&records, topic, partition, 0..10).await;
    }
    let first = Shared::with(|book| {
        book.buffer = true;
        book.give_up = [5].into();
    });
    let letters = producer(&Config {
        delivery_timeout: Duration::from_millis(300),
        ..desk.config()
    });
    let one = Running::start(&config, group, topic, &first, &letters);
    until("the first records", async || first.count() == 20).await;

    desk.stop().await;
    let second = Shared::default();
    let two = Running::start(&config, group, topic, &second, &records);
    until("a partition to move", async || second.count() == 10).await;
    let goes = first.0.lock().revoked[0];
    let stays = 1 - goes;
    fill(&records, topic, stays, 10..20).await;
    desk.start_again().await;
    until("the next records", async || first.count() == 30).await;
    one.stop().await;
    two.stop().await;
    first.assert_once_in_order();

    let letters = dead_letters(&desk, topic).await;
    let sources: BTreeSet<_> = letters
        .iter()
        .map(|letter| (letter.source.partition, letter.source.offset))
        .collect();
    assert_eq!(sources, [(stays, 5)].into());
    let committed = kafka.committed(group, topic).await;
    assert_eq!(committed[&stays], 20);
}
