//! Sending.

use bytes::Bytes;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::FutureRecord;
use rdkafka::topic_partition_list::Offset;

use crate::raw::{NO_PRODUCER, Raw, batch};
use crate::server::{PATIENCE, Server};

#[test]
fn a_record_comes_back_as_it_was_sent_and_in_order() {
    let server = Server::start();
    let topic = server.topic("whole", 1, &[]);
    let producer = server.producer(&[]);
    for index in 0..20_i64 {
        let (key, payload) = (format!("key {index}"), format!("payload {index}"));
        let headers = OwnedHeaders::new().insert(Header {
            key: "trace",
            value: Some("7"),
        });
        let record = FutureRecord::to(&topic)
            .partition(0)
            .key(&key)
            .payload(&payload)
            .timestamp(1_000_000 + index)
            .headers(headers);
        let delivery = server
            .runtime
            .block_on(producer.send(record, PATIENCE))
            .unwrap();
        assert_eq!(delivery.offset, index);
    }
    for (index, message) in server
        .read(&topic, 0, Offset::Beginning, 20)
        .iter()
        .enumerate()
    {
        let index = i64::try_from(index).unwrap();
        assert_eq!(message.offset(), index);
        assert_eq!(message.key(), Some(format!("key {index}").as_bytes()));
        assert_eq!(
            message.payload(),
            Some(format!("payload {index}").as_bytes())
        );
        assert_eq!(message.timestamp().to_millis(), Some(1_000_000 + index));
        assert_eq!(
            message.headers().unwrap().get(0).value,
            Some(b"7".as_slice())
        );
    }
}

#[test]
fn every_codec_is_kept_verbatim() {
    let server = Server::start();
    for (codec, number) in [
        ("none", 0_u8),
        ("gzip", 1),
        ("snappy", 2),
        ("lz4", 3),
        ("zstd", 4),
    ] {
        let topic = server.topic(codec, 1, &[]);
        let settings = [
            ("compression.type", codec),
            ("linger.ms", "50"),
            ("enable.idempotence", "true"),
        ];
        let producer = server.producer(&settings);
        let payload = format!("{codec} ").repeat(500);
        let sends = (0..20).map(|_| {
            let record = FutureRecord::<(), _>::to(&topic)
                .partition(0)
                .payload(&payload);
            producer
                .send_result(record)
                .map_err(|(error, _)| error)
                .unwrap()
        });
        for sent in sends.collect::<Vec<_>>() {
            server.runtime.block_on(sent).unwrap().unwrap();
        }
        assert!(
            server
                .payloads(&topic, 0, 20)
                .iter()
                .all(|one| one == payload.as_bytes())
        );
        let (error, records) = Raw::connect(server.address()).fetch(&topic, 0, 0, 0, 1 << 20);
        assert_eq!((error, records[22] & 7), (0, number), "{codec}");
        if codec != "none" {
            assert!(records.len() < payload.len() * 10, "{codec} was unpacked");
        }
    }
}

#[test]
fn every_kind_of_acknowledgement_stores_the_record() {
    let server = Server::start();
    for acks in ["0", "1", "all"] {
        let topic = server.topic("acks", 1, &[]);
        let producer = server.producer(&[("acks", acks), ("enable.idempotence", "false")]);
        for payload in ["one", "two", "three"] {
            server
                .try_send(&producer, &topic, 0, payload.as_bytes())
                .unwrap();
        }
        assert_eq!(
            server.payloads(&topic, 0, 3),
            [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]
        );
    }
}

#[test]
fn a_megabyte_passes_and_more_is_refused_without_harm() {
    let server = Server::start();
    let topic = server.topic("large", 1, &[]);
    let producer = server.producer(&[("message.max.bytes", "5000000")]);
    assert_eq!(server.send(&producer, &topic, 0, &vec![1; 1_048_500]), 0);
    let refused = server.try_send(&producer, &topic, 0, &vec![2; 1_100_000]);
    assert_eq!(refused, Err(RDKafkaErrorCode::MessageSizeTooLarge));
    let fresh = server.producer(&[]);
    assert_eq!(server.send(&fresh, &topic, 0, b"after"), 1);
    let small = server.topic("small", 1, &[("max.message.bytes", "200")]);
    assert_eq!(
        server.try_send(&fresh, &small, 0, &[3; 300]),
        Err(RDKafkaErrorCode::MessageSizeTooLarge)
    );
}

#[test]
fn a_retried_batch_is_stored_once_and_a_gap_is_refused() {
    let server = Server::start();
    let topic = server.topic("retry", 1, &[]);
    let mut raw = Raw::connect(server.address());
    let id = raw.producer_id();
    assert_ne!(id, raw.producer_id());
    for sequence in 0..8 {
        let sent = batch(&[b"x"], (id, 0, sequence), 0);
        assert_eq!(
            raw.produce(&topic, 0, sent.clone()),
            (0, i64::from(sequence))
        );
        assert_eq!(raw.produce(&topic, 0, sent), (0, i64::from(sequence)));
    }
    // The last five are remembered.
    assert_eq!(
        raw.produce(&topic, 0, batch(&[b"x"], (id, 0, 3), 0)),
        (0, 3)
    );
    let gap = raw.produce(&topic, 0, batch(&[b"x"], (id, 0, 20), 0));
    assert_eq!(gap.0, 45, "OUT_OF_ORDER_SEQUENCE_NUMBER");
    // A new epoch begins again, and fences the old one.
    assert_eq!(
        raw.produce(&topic, 0, batch(&[b"y"], (id, 1, 0), 0)),
        (0, 8)
    );
    let fenced = raw.produce(&topic, 0, batch(&[b"x"], (id, 0, 8), 0));
    assert_eq!(fenced.0, 47, "INVALID_PRODUCER_EPOCH");
    assert_eq!(server.watermarks(&topic, 0), (0, 9));
}

#[test]
fn bad_batches_are_refused_and_the_connection_lives_on() {
    let server = Server::start();
    let topic = server.topic("bad", 1, &[]);
    let mut raw = Raw::connect(server.address());
    let good = batch(&[b"good"], NO_PRODUCER, 0);
    let mut flipped = good.to_vec();
    let last = flipped.len() - 2;
    flipped[last] ^= 1;
    assert_eq!(
        raw.produce(&topic, 0, Bytes::from(flipped)).0,
        2,
        "CORRUPT_MESSAGE"
    );
    assert_eq!(
        raw.produce(&topic, 7, good.clone()).0,
        3,
        "UNKNOWN_TOPIC_OR_PARTITION"
    );
    assert_eq!(
        raw.produce("no-such-topic", 0, good.clone()).0,
        3,
        "UNKNOWN_TOPIC_OR_PARTITION"
    );
    let two = [good.clone(), good.clone()].concat();
    assert_eq!(
        raw.produce(&topic, 0, Bytes::from(two)).0,
        87,
        "INVALID_RECORD"
    );
    assert_eq!(raw.produce(&topic, 0, good), (0, 0));
}

#[test]
fn the_broker_can_stamp_the_records() {
    let server = Server::start();
    let topic = server.topic("stamped", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let producer = server.producer(&[]);
    let record = FutureRecord::<(), _>::to(&topic)
        .partition(0)
        .payload("x")
        .timestamp(5);
    server
        .runtime
        .block_on(producer.send(record, PATIENCE))
        .unwrap();
    let stamp = server.read(&topic, 0, Offset::Beginning, 1)[0].timestamp();
    assert!(
        matches!(stamp, rdkafka::Timestamp::LogAppendTime(at) if at > 1_700_000_000_000),
        "{stamp:?}"
    );
}
