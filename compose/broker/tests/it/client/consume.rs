//! Reading, without a group.

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::raw::{NO_PRODUCER, Raw, batch, fetch_request};
use crate::server::{PATIENCE, Server, name, take};

#[test]
fn a_waiting_fetch_is_answered_when_a_record_comes() {
    let server = Server::start();
    let topic = server.topic("wait", 1, &[]);
    let mut reader = Raw::connect(server.address());
    // Twenty seconds: an answer without records would mean that the fetch did not wake up.
    reader.send(&fetch_request(&topic, 0, 0, 20_000, 1 << 20), 11);
    let mut writer = Raw::connect(server.address());
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(
        writer.produce(&topic, 0, batch(&[b"now"], NO_PRODUCER, 0)),
        (0, 0)
    );
    let answer = reader.receive::<kafka_protocol::messages::FetchRequest>(11);
    let partition = &answer.responses[0].partitions[0];
    assert_eq!(partition.high_watermark, 1);
    assert!(!partition.records.clone().unwrap_or_default().is_empty());
}

#[test]
fn nothing_to_read_is_answered_when_the_wait_is_over() {
    let server = Server::start();
    let topic = server.topic("empty", 1, &[]);
    assert_eq!(
        Raw::connect(server.address()).fetch(&topic, 0, 0, 50, 1 << 20),
        (0, bytes::Bytes::new())
    );
}

#[test]
fn the_smallest_fetch_still_gets_one_whole_batch() {
    let server = Server::start();
    let topic = server.topic("small", 1, &[]);
    let mut raw = Raw::connect(server.address());
    let sent = batch(&[&[7; 10_000]], NO_PRODUCER, 0);
    for offset in 0..3 {
        assert_eq!(raw.produce(&topic, 0, sent.clone()), (0, offset));
    }
    assert_eq!(raw.fetch(&topic, 0, 1, 0, 1).1.len(), sent.len());
    assert_eq!(raw.fetch(&topic, 0, 0, 0, 1 << 20).1.len(), sent.len() * 3);
}

#[test]
fn an_offset_out_of_range_is_refused() {
    let server = Server::start();
    let topic = server.topic("range", 1, &[]);
    let mut raw = Raw::connect(server.address());
    assert_eq!(
        raw.fetch(&topic, 0, 5, 0, 1_000).0,
        1,
        "OFFSET_OUT_OF_RANGE"
    );
    assert_eq!(
        raw.fetch("no-such-topic", 0, 0, 0, 1_000).0,
        3,
        "UNKNOWN_TOPIC_OR_PARTITION"
    );
}

#[test]
fn reading_can_begin_anywhere() {
    let server = Server::start();
    let topic = server.topic("seek", 1, &[]);
    let producer = server.producer(&[]);
    for index in 0..100_u8 {
        server.send(&producer, &topic, 0, &[index]);
    }
    let from = |offset| {
        server.read(&topic, 0, offset, 1)[0]
            .payload()
            .unwrap()
            .to_vec()
    };
    assert_eq!(from(Offset::Beginning), [0]);
    assert_eq!(from(Offset::Offset(42)), [42]);
    assert_eq!(from(Offset::OffsetTail(3)), [97]);
    assert_eq!(server.watermarks(&topic, 0), (0, 100));
}

#[test]
fn times_lead_to_offsets() {
    let server = Server::start();
    let topic = server.topic("times", 1, &[("retention.ms", "-1")]);
    let mut raw = Raw::connect(server.address());
    for (offset, timestamp) in [(0, 1_000), (1, 2_000), (2, 1_500), (3, 3_000)] {
        assert_eq!(
            raw.produce(&topic, 0, batch(&[b"x"], NO_PRODUCER, timestamp)),
            (0, offset)
        );
    }
    assert_eq!(raw.list_offset(&topic, 0, 0), (0, 1_000));
    assert_eq!(raw.list_offset(&topic, 0, 1_001), (1, 2_000));
    assert_eq!(raw.list_offset(&topic, 0, 2_001), (3, 3_000));
    assert_eq!(raw.list_offset(&topic, 0, 3_001), (-1, -1));
    assert_eq!(raw.list_offset(&topic, 0, -2).0, 0);
    assert_eq!(raw.list_offset(&topic, 0, -1).0, 4);
    assert_eq!(raw.list_offset(&topic, 0, -3), (3, 3_000));
    let consumer: BaseConsumer = server.client().create().unwrap();
    let mut wanted = TopicPartitionList::new();
    wanted
        .add_partition_offset(&topic, 0, Offset::Offset(1_600))
        .unwrap();
    let found = consumer.offsets_for_times(wanted, PATIENCE).unwrap();
    assert_eq!(found.elements()[0].offset(), Offset::Offset(1));
}

#[test]
fn a_time_is_found_inside_a_compressed_batch() {
    let server = Server::start();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = server.topic("inside", 1, &[("retention.ms", "-1")]);
        let producer = server.producer(&[("compression.type", codec), ("linger.ms", "200")]);
        let sends = (0..50).map(|index| {
            let record = rdkafka::producer::FutureRecord::<(), _>::to(&topic)
                .partition(0)
                .payload("the same again and again")
                .timestamp(10_000 + index * 10);
            producer
                .send_result(record)
                .map_err(|(error, _)| error)
                .unwrap()
        });
        for sent in sends.collect::<Vec<_>>() {
            server.runtime.block_on(sent).unwrap().unwrap();
        }
        let mut raw = Raw::connect(server.address());
        assert_eq!(raw.list_offset(&topic, 0, 10_301), (31, 10_310), "{codec}");
    }
}

#[test]
fn many_partitions_are_read_by_one_consumer() {
    let server = Server::start();
    let topic = server.topic("many", 12, &[]);
    let producer = server.producer(&[]);
    for index in 0..120 {
        server.send(&producer, &topic, index % 12, format!("{index}").as_bytes());
    }
    let consumer = server.consumer(&name("all"), &[]);
    let mut list = TopicPartitionList::new();
    for partition in 0..12 {
        list.add_partition_offset(&topic, partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&list).unwrap();
    let mut seen: Vec<i32> = take(&consumer, 120)
        .iter()
        .map(|message| {
            std::str::from_utf8(message.payload().unwrap())
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..120).collect::<Vec<_>>());
}
