//! Consumer groups as rdkafka runs them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::server::{PATIENCE, Server, name, options, take, until};

fn assigned<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> BTreeSet<i32> {
    let list = consumer.assignment().unwrap();
    list.elements()
        .iter()
        .map(rdkafka::topic_partition_list::TopicPartitionListElem::partition)
        .collect()
}

/// Polls all of them until the assignments are as wanted. What is read is thrown away.
fn settle<C: ConsumerContext>(
    consumers: &[&BaseConsumer<C>],
    wanted: impl Fn(&[BTreeSet<i32>]) -> bool,
) {
    let begin = Instant::now();
    loop {
        for consumer in consumers {
            drop(consumer.poll(Duration::from_millis(20)));
        }
        let all: Vec<_> = consumers
            .iter()
            .map(|consumer| assigned(consumer))
            .collect();
        if wanted(&all) {
            return;
        }
        assert!(
            begin.elapsed() < PATIENCE,
            "the group did not settle: {all:?}"
        );
    }
}

/// Whether the partitions 0 to `count` are dealt out, each once, in shares that differ by one at most.
fn fair(all: &[BTreeSet<i32>], count: i32) -> bool {
    let dealt: Vec<i32> = all.iter().flatten().copied().collect();
    let whole = BTreeSet::from_iter(dealt.iter().copied()) == (0..count).collect();
    let sizes = all.iter().map(BTreeSet::len);
    whole
        && dealt.len() == usize::try_from(count).unwrap()
        && sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1
}

#[test]
fn members_share_the_partitions_with_every_assignor() {
    let server = Server::start();
    for assignor in ["range", "roundrobin", "cooperative-sticky"] {
        let topic = server.topic("shared", 6, &[]);
        let group = name(assignor);
        let settings = [("partition.assignment.strategy", assignor)];
        let first = server.consumer(&group, &settings);
        first.subscribe(&[&topic]).unwrap();
        settle(&[&first], |all| fair(all, 6));
        let second = server.consumer(&group, &settings);
        second.subscribe(&[&topic]).unwrap();
        settle(&[&first, &second], |all| fair(all, 6));
        let third = server.consumer(&group, &settings);
        third.subscribe(&[&topic]).unwrap();
        settle(&[&first, &second, &third], |all| fair(all, 6));
        drop(second);
        settle(&[&first, &third], |all| fair(all, 6));
        drop(first);
        settle(&[&third], |all| fair(all, 6));
    }
}

#[test]
fn nothing_is_skipped_when_members_come_and_go() {
    let server = Server::start();
    let topic = server.topic("handover", 4, &[]);
    let group = name("handover");
    let producer = server.producer(&[]);
    let settings = [("partition.assignment.strategy", "cooperative-sticky")];
    let mut seen = BTreeSet::new();
    let mut sent = 0;
    for _ in 0..4 {
        for _ in 0..50 {
            server.send(&producer, &topic, sent % 4, format!("{sent}").as_bytes());
            sent += 1;
        }
        // A member that reads some, commits those, and goes.
        let consumer = server.consumer(&group, &settings);
        consumer.subscribe(&[&topic]).unwrap();
        for message in take(&consumer, 30) {
            seen.insert(
                std::str::from_utf8(message.payload().unwrap())
                    .unwrap()
                    .parse::<i32>()
                    .unwrap(),
            );
        }
        consumer.commit_consumer_state(CommitMode::Sync).unwrap();
    }
    let consumer = server.consumer(&group, &settings);
    consumer.subscribe(&[&topic]).unwrap();
    for message in take(&consumer, 200 - 120) {
        let new = seen.insert(
            std::str::from_utf8(message.payload().unwrap())
                .unwrap()
                .parse()
                .unwrap(),
        );
        assert!(new, "a committed record came again");
    }
    assert_eq!(seen, (0..sent).collect());
}

#[test]
fn commits_carry_metadata_and_are_found_again() {
    let server = Server::start();
    let topic = server.topic("commits", 2, &[]);
    let group = name("commits");
    let consumer = server.consumer(&group, &[]);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic, 0, Offset::Offset(7))
        .unwrap();
    list.elements()[0].set_metadata("half way");
    consumer.commit(&list, CommitMode::Sync).unwrap();
    let again = server.consumer(&group, &[]);
    let mut asked = TopicPartitionList::new();
    asked.add_partition(&topic, 0);
    asked.add_partition(&topic, 1);
    let found = again.committed_offsets(asked, PATIENCE).unwrap();
    let of = |partition| found.find_partition(&topic, partition).unwrap();
    assert_eq!(
        (of(0).offset(), of(0).metadata()),
        (Offset::Offset(7), "half way")
    );
    assert_eq!(of(1).offset(), Offset::Invalid);
}

#[test]
fn a_member_that_falls_silent_is_replaced() {
    let server = Server::start();
    let topic = server.topic("silent", 2, &[]);
    let group = name("silent");
    // A static member doesn't say goodbye: only its session ends.
    let silent = server.consumer(&group, &[("group.instance.id", "one")]);
    silent.subscribe(&[&topic]).unwrap();
    settle(&[&silent], |all| fair(all, 2));
    drop(silent);
    let other = server.consumer(&group, &[("group.instance.id", "two")]);
    other.subscribe(&[&topic]).unwrap();
    settle(&[&other], |all| fair(all, 2));
}

#[derive(Default)]
struct Counting {
    rebalances: AtomicUsize,
}

impl ClientContext for Counting {}

impl ConsumerContext for Counting {
    fn post_rebalance(&self, _consumer: &BaseConsumer<Self>, _rebalance: &Rebalance<'_>) {
        self.rebalances.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_static_member_that_restarts_disturbs_nobody() {
    let server = Server::start();
    let topic = server.topic("static", 4, &[]);
    let group = name("static");
    let member = |instance: &str| {
        let mut config = server.client();
        config
            .set("group.id", &group)
            .set("group.instance.id", instance)
            .set("session.timeout.ms", "30000");
        let consumer: BaseConsumer<Counting> =
            BaseConsumer::from_config_and_context(&config, Counting::default()).unwrap();
        consumer.subscribe(&[&topic]).unwrap();
        consumer
    };
    let (stays, goes) = (member("stays"), member("goes"));
    settle(&[&stays, &goes], |all| fair(all, 4));
    let (before, own) = (
        stays.context().rebalances.load(Ordering::Relaxed),
        assigned(&goes),
    );
    drop(goes);
    let back = member("goes");
    settle(&[&stays, &back], |all| fair(all, 4));
    assert_eq!(assigned(&back), own);
    assert_eq!(stays.context().rebalances.load(Ordering::Relaxed), before);
}

#[test]
fn groups_are_listed_described_and_deleted() {
    let server = Server::start();
    let topic = server.topic("listed", 2, &[]);
    let group = name("listed");
    let consumer = server.consumer(&group, &[("client.id", "tester")]);
    consumer.subscribe(&[&topic]).unwrap();
    settle(&[&consumer], |all| fair(all, 2));
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic, 0, Offset::Offset(1))
        .unwrap();
    consumer.commit(&list, CommitMode::Sync).unwrap();
    let probe: BaseConsumer = server.client().create().unwrap();
    let described = probe.fetch_group_list(Some(&group), PATIENCE).unwrap();
    let found = &described.groups()[0];
    assert_eq!(
        (found.state(), found.protocol_type(), found.members().len()),
        ("Stable", "consumer", 1)
    );
    assert_eq!(found.members()[0].client_id(), "tester");
    assert!(
        probe
            .fetch_group_list(None, PATIENCE)
            .unwrap()
            .groups()
            .iter()
            .any(|one| one.name() == group)
    );
    let delete = || {
        let deleted = server
            .runtime
            .block_on(server.admin().delete_groups(&[&group], &options()))
            .unwrap();
        deleted.into_iter().next().unwrap()
    };
    assert_eq!(
        delete().unwrap_err().1,
        rdkafka::error::RDKafkaErrorCode::NonEmptyGroup
    );
    drop(consumer);
    until("the group is empty", || {
        let described = probe.fetch_group_list(Some(&group), PATIENCE).unwrap();
        described.groups()[0].state() == "Empty"
    });
    delete().unwrap();
    let listed = probe.fetch_group_list(None, PATIENCE).unwrap();
    assert!(!listed.groups().iter().any(|one| one.name() == group));
    let mut asked = TopicPartitionList::new();
    asked.add_partition(&topic, 0);
    let gone = server
        .consumer(&group, &[])
        .committed_offsets(asked, PATIENCE)
        .unwrap();
    assert_eq!(gone.elements()[0].offset(), Offset::Invalid);
}

#[test]
fn two_groups_read_the_same_records() {
    let server = Server::start();
    let topic = server.topic("twice", 1, &[]);
    let producer = server.producer(&[]);
    for index in 0..10_u8 {
        server.send(&producer, &topic, 0, &[index]);
    }
    let mut read: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    for group in ["history", "lake"] {
        let consumer = server.consumer(&name(group), &[]);
        consumer.subscribe(&[&topic]).unwrap();
        read.insert(
            group,
            take(&consumer, 10)
                .iter()
                .map(|message| message.payload().unwrap()[0])
                .collect(),
        );
    }
    assert_eq!(read["history"], (0..10).collect::<Vec<u8>>());
    assert_eq!(read["history"], read["lake"]);
}
