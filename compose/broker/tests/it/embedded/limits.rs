//! Bounds hold, and who runs into one is told.

use std::time::Duration;

use kafka_protocol::messages::{CreateTopicsRequest, MetadataRequest};
use rdkafka::topic_partition_list::Offset;

use crate::raw::{NO_PRODUCER, Raw, batch, topic};
use crate::server::{Server, name, until};

#[test]
fn one_connection_too_many_is_closed_and_places_come_free() {
    let server = Server::embedded(|config| config.limits.connections = 3);
    let request = MetadataRequest::default().with_topics(Some(Vec::new()));
    let mut places: Vec<Raw> = (0..3).map(|_| Raw::connect(server.address())).collect();
    for raw in &mut places {
        raw.call(&request, 1);
    }
    assert!(Raw::connect(server.address()).closed());
    drop(places);
    until("a place is free", || {
        let mut raw = Raw::connect(server.address());
        raw.send(&request, 1);
        raw.receive_bytes().is_ok()
    });
}

#[test]
fn a_silent_connection_is_closed() {
    let server =
        Server::embedded(|config| config.limits.connection_idle = Duration::from_millis(200));
    assert!(Raw::connect(server.address()).closed());
}

#[test]
fn partitions_are_bounded() {
    let server = Server::embedded(|config| config.limits.partitions = 10);
    server.topic("most", 10, &[]);
    let wanted = kafka_protocol::messages::create_topics_request::CreatableTopic::default()
        .with_name(topic(&name("more")))
        .with_num_partitions(1)
        .with_replication_factor(1);
    let mut raw = Raw::connect(server.address());
    let answer = raw.call(
        &CreateTopicsRequest::default()
            .with_topics(vec![wanted])
            .with_timeout_ms(1_000),
        4,
    );
    assert_eq!(answer.topics[0].error_code, 44, "POLICY_VIOLATION");
    assert!(
        answer.topics[0]
            .error_message
            .as_ref()
            .is_some_and(|words| words.contains("10"))
    );
}

#[test]
fn a_fetch_of_everything_is_answered_in_parts() {
    let server = Server::embedded(|config| config.limits.fetch_bytes = 100_000);
    let topic = server.topic("parts", 1, &[]);
    let mut raw = Raw::connect(server.address());
    let sent = batch(&[&[7; 30_000]], NO_PRODUCER, 0);
    for _ in 0..20 {
        raw.produce(&topic, 0, sent.clone());
    }
    let (error, records) = raw.fetch(&topic, 0, 0, 0, 10_000_000);
    assert_eq!((error, records.len()), (0, sent.len() * 3));
    assert_eq!(server.read(&topic, 0, Offset::Beginning, 20).len(), 20);
}

#[test]
fn retention_by_size_and_by_time_removes_old_segments() {
    let server = Server::embedded(|config| config.limits.maintenance = Duration::from_millis(100));
    let sized = server.topic(
        "sized",
        1,
        &[("segment.bytes", "20000"), ("retention.bytes", "50000")],
    );
    let timed = server.topic("timed", 1, &[("retention.ms", "1000")]);
    let kept = server.topic("kept", 1, &[("retention.ms", "-1")]);
    let producer = server.producer(&[]);
    for _ in 0..100 {
        server.send(&producer, &sized, 0, &[1; 2_000]);
    }
    server.send(&producer, &timed, 0, b"old");
    Raw::connect(server.address()).produce(&kept, 0, batch(&[b"older"], NO_PRODUCER, 5));
    until("size", || server.watermarks(&sized, 0).0 > 50);
    until("time", || server.watermarks(&timed, 0) == (1, 1));
    assert_eq!(server.watermarks(&kept, 0), (0, 1));
    assert_eq!(server.watermarks(&sized, 0).1, 100);
    assert!(server.metric("weir_broker_log_bytes") < 120_000.0);
}

#[test]
fn the_metrics_tell_what_happened() {
    let server = Server::embedded(|_| {});
    let topic = server.topic("counted", 1, &[]);
    let producer = server.producer(&[]);
    server.send(&producer, &topic, 0, b"one");
    server.send(&producer, &topic, 0, b"two");
    server.payloads(&topic, 0, 2);
    assert!((server.metric("weir_broker_produced_records_total") - 2.0).abs() < 0.1);
    assert!(server.metric("weir_broker_produced_bytes_total") > 130.0);
    assert!(server.metric("weir_broker_fetched_bytes_total") > 130.0);
    assert!(server.metric("weir_broker_connections") >= 1.0);
    let mut raw = Raw::connect(server.address());
    raw.send_bytes(&[0, 0, 0, 1, 9]);
    assert!(raw.closed());
    assert!((server.metric("weir_broker_refused_total") - 1.0).abs() < 0.1);
}
