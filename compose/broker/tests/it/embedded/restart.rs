//! A stop and a start keep everything; damage on disk is seen and costs no more than it must.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::raw::{NO_PRODUCER, Raw, batch};
use crate::server::{PATIENCE, Server, take};

fn segment(folder: &Path, topic: &str) -> PathBuf {
    folder
        .join("topics")
        .join(topic)
        .join("0")
        .join(format!("{:020}.log", 0))
}

#[test]
fn records_settings_offsets_and_ids_outlive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::on(folder.path(), |_| {});
    let topic = server.topic("kept", 2, &[("retention.ms", "-1")]);
    let producer = server.producer(&[]);
    for index in 0..10_u8 {
        server.send(&producer, &topic, 1, &[index]);
    }
    let consumer = server.consumer("g", &[]);
    consumer.subscribe(&[&topic]).unwrap();
    take(&consumer, 4);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic, 1, Offset::Offset(4))
        .unwrap();
    consumer.commit(&list, CommitMode::Sync).unwrap();
    let id = Raw::connect(server.address()).producer_id();
    drop((consumer, producer));
    server.stop();

    let server = Server::on(folder.path(), |_| {});
    assert_eq!(server.watermarks(&topic, 1), (0, 10));
    let consumer = server.consumer("g", &[]);
    consumer.subscribe(&[&topic]).unwrap();
    let rest: Vec<u8> = take(&consumer, 6)
        .iter()
        .map(|message| message.payload().unwrap()[0])
        .collect();
    assert_eq!(rest, [4, 5, 6, 7, 8, 9]);
    assert!(Raw::connect(server.address()).producer_id() > id);
    assert_eq!(server.send(&server.producer(&[]), &topic, 1, b"more"), 10);
}

#[test]
fn a_retry_is_recognised_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::on(folder.path(), |_| {});
    let topic = server.topic("retry", 1, &[("retention.ms", "-1")]);
    let mut raw = Raw::connect(server.address());
    let id = raw.producer_id();
    for sequence in 0..3 {
        raw.produce(&topic, 0, batch(&[b"x"], (id, 0, sequence), 0));
    }
    drop(raw);
    server.stop();
    let server = Server::on(folder.path(), |_| {});
    let mut raw = Raw::connect(server.address());
    assert_eq!(
        raw.produce(&topic, 0, batch(&[b"x"], (id, 0, 1), 0)),
        (0, 1)
    );
    assert_eq!(
        raw.produce(&topic, 0, batch(&[b"x"], (id, 0, 9), 0)).0,
        45,
        "OUT_OF_ORDER_SEQUENCE_NUMBER"
    );
    assert_eq!(
        raw.produce(&topic, 0, batch(&[b"x"], (id, 0, 3), 0)),
        (0, 3)
    );
}

#[test]
fn a_torn_tail_is_cut_on_start() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::on(folder.path(), |_| {});
    let topic = server.topic("torn", 1, &[]);
    let producer = server.producer(&[]);
    for index in 0..5_u8 {
        server.send(&producer, &topic, 0, &[index]);
    }
    drop(producer);
    server.stop();
    let torn = batch(&[b"never acknowledged"], NO_PRODUCER, 0);
    let mut file = File::options()
        .append(true)
        .open(segment(folder.path(), &topic))
        .unwrap();
    file.write_all(&torn[..torn.len() / 2]).unwrap();
    let server = Server::on(folder.path(), |_| {});
    assert_eq!(server.watermarks(&topic, 0), (0, 5));
    assert_eq!(server.send(&server.producer(&[]), &topic, 0, &[5]), 5);
    assert_eq!(
        server.payloads(&topic, 0, 6),
        (0..6).map(|index| vec![index]).collect::<Vec<_>>()
    );
}

#[test]
fn a_flipped_byte_is_an_error_and_not_a_wrong_record() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::on(folder.path(), |_| {});
    let topic = server.topic("flipped", 1, &[("retention.ms", "-1")]);
    let mut raw = Raw::connect(server.address());
    let sent = batch(&[b"some payload"], NO_PRODUCER, 0);
    for offset in 0..5 {
        assert_eq!(raw.produce(&topic, 0, sent.clone()), (0, offset));
    }
    drop(raw);
    server.stop();
    let file = File::options()
        .read(true)
        .write(true)
        .open(segment(folder.path(), &topic))
        .unwrap();
    let at = u64::try_from(sent.len() * 3 - 4).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
    let server = Server::on(folder.path(), |_| {});
    let mut raw = Raw::connect(server.address());
    assert_eq!(raw.fetch(&topic, 0, 0, 0, 1 << 20).1.len(), sent.len() * 2);
    assert_eq!(raw.fetch(&topic, 0, 2, 0, 1 << 20).0, 2, "CORRUPT_MESSAGE");
    assert_eq!(raw.fetch(&topic, 0, 3, 0, 1 << 20).1.len(), sent.len() * 2);
    // The way past it for a reader that must go on.
    let mut before = TopicPartitionList::new();
    before
        .add_partition_offset(&topic, 0, Offset::Offset(3))
        .unwrap();
    server
        .runtime
        .block_on(
            server
                .admin()
                .delete_records(&before, &crate::server::options()),
        )
        .unwrap();
    assert_eq!(
        server.payloads(&topic, 0, 2),
        [b"some payload", b"some payload"]
    );
}

#[test]
fn deleted_records_leave_nothing_on_disk_and_the_log_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::on(folder.path(), |_| {});
    let topic = server.topic("cut", 1, &[]);
    let producer = server.producer(&[]);
    let holds = |words: &[u8]| {
        let logs = fs::read_dir(folder.path().join("topics").join(&topic).join("0")).unwrap();
        logs.map(|entry| fs::read(entry.unwrap().path()).unwrap())
            .any(|bytes| bytes.windows(words.len()).any(|part| part == words))
    };
    let delete = |server: &Server, offset| {
        let mut before = TopicPartitionList::new();
        before
            .add_partition_offset(&topic, 0, Offset::Offset(offset))
            .unwrap();
        let deleting = server.admin();
        let deleting = deleting.delete_records(&before, &crate::server::options());
        server.runtime.block_on(deleting).unwrap();
    };
    for _ in 0..3 {
        server.send(&producer, &topic, 0, b"secret words");
    }
    server.send(&producer, &topic, 0, b"plain words");
    assert!(holds(b"secret words"));
    // A record that is kept keeps its file, until it is deleted as well.
    delete(&server, 3);
    assert_eq!(server.payloads(&topic, 0, 1), [b"plain words"]);
    server.send(&producer, &topic, 0, b"later words");
    delete(&server, 4);
    assert!(!holds(b"secret words") && !holds(b"plain words") && holds(b"later words"));
    delete(&server, 5);
    assert!(!holds(b"later words"));

    drop(producer);
    server.stop();
    let server = Server::on(folder.path(), |_| {});
    assert_eq!(server.watermarks(&topic, 0), (5, 5));
    server.send(&server.producer(&[]), &topic, 0, b"last words");
    assert_eq!(server.payloads(&topic, 0, 1), [b"last words"]);
}

#[test]
fn deleted_topics_leave_nothing_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::on(folder.path(), |_| {});
    let topic = server.topic("gone", 3, &[]);
    server.send(&server.producer(&[]), &topic, 0, b"secret words");
    let consumer = server.consumer("g", &[]);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic, 0, Offset::Offset(1))
        .unwrap();
    consumer.commit(&list, CommitMode::Sync).unwrap();
    server
        .runtime
        .block_on(
            server
                .admin()
                .delete_topics(&[&topic], &crate::server::options()),
        )
        .unwrap();
    assert_eq!(
        fs::read_dir(folder.path().join("topics")).unwrap().count(),
        0
    );
    server.topic("other", 1, &[]);
    let mut asked = TopicPartitionList::new();
    asked.add_partition(&topic, 0);
    let left = consumer.committed_offsets(asked, PATIENCE).unwrap();
    assert_eq!(left.elements()[0].offset(), Offset::Invalid);
}
