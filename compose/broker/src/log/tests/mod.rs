//! Partitions on real files: what a restart finds, what damage does, and what is taken back.

mod retention;

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kafka_protocol::ResponseError;
use tokio::sync::{Semaphore, oneshot};

use super::batch::{Demand, Header, check, tests::batch};
use super::partition::{Appended, CHECKPOINT, Job, Partition, now_ms};
use super::settings::Overrides;
use super::*;

fn open(folder: &Path) -> Log {
    let limits = Limits {
        checkpoint_bytes: 1 << 20,
        writers: 2,
        ..Limits::default()
    };
    Log::open(
        folder,
        Arc::new(limits),
        Metrics::new(&prometheus::Registry::new()).unwrap(),
    )
    .unwrap()
}

/// Ends the threads and writes no checkpoint, as a SIGKILL would.
fn kill(log: Log) {
    log.writers.stop();
    log.writers.join();
    drop(log);
}

fn one_topic(folder: &Path, settings: &[(&str, &str)]) -> (Log, Arc<Partition>) {
    let log = open(folder);
    if log.get("t").is_none() {
        let overrides: Overrides = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        log.create("t", 1, overrides, false).unwrap();
    }
    let partition = log.partition("t", 0).unwrap();
    (log, partition)
}

type Answer = oneshot::Receiver<Result<Appended, ResponseError>>;

fn job(
    partition: &Arc<Partition>,
    values: &[&[u8]],
    producer: (i64, i16, i32),
    timestamp: i64,
) -> (Job, Answer) {
    let bytes = batch(values, producer, timestamp);
    let batch = check(
        bytes,
        Demand {
            max_bytes: 1 << 20,
            append_time: None,
        },
    )
    .unwrap();
    let (reply, answer) = oneshot::channel();
    let permit = Arc::new(Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap());
    let job = Job {
        partition: Arc::clone(partition),
        batch,
        reply: Some(reply),
        permit,
    };
    (job, answer)
}

fn append(
    log: &Log,
    partition: &Arc<Partition>,
    values: &[&[u8]],
    producer: (i64, i16, i32),
    timestamp: i64,
) -> Result<Appended, ResponseError> {
    let (job, answer) = job(partition, values, producer, timestamp);
    log.writers.submit(job);
    answer.blocking_recv().unwrap()
}

fn plain(log: &Log, partition: &Arc<Partition>, value: &[u8]) -> i64 {
    append(log, partition, &[value], (-1, -1, -1), 0)
        .unwrap()
        .base_offset
}

/// Base offsets of everything readable from `offset` on, and what ended it.
fn offsets(partition: &Partition, mut offset: i64) -> (Vec<i64>, Option<ResponseError>) {
    let mut found = Vec::new();
    while offset < partition.end() {
        let mut out = Vec::new();
        match partition.read(offset, 4_096, true, &mut out) {
            Ok(_) => {}
            Err(error) => return (found, Some(error)),
        }
        let mut rest = out.as_slice();
        while let Some(header) = Header::parse(rest) {
            found.push(header.base_offset);
            offset = header.next_offset();
            rest = &rest[header.bytes..];
        }
    }
    (found, None)
}

fn tail(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder.join("t/0"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .max()
        .unwrap()
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let (log, partition) = one_topic(folder.path(), &[("segment.bytes", "20000")]);
    for index in 0..1_000 {
        assert_eq!(plain(&log, &partition, &[b'x'; 100]), index);
    }
    assert!(partition.segments.read().len() > 3);
    kill(log);
    let (log, partition) = one_topic(folder.path(), &[]);
    assert_eq!(offsets(&partition, 0), ((0..1_000).collect(), None));
    assert_eq!(offsets(&partition, 777).0.first(), Some(&777));
    assert_eq!(plain(&log, &partition, b"next"), 1_000);
    log.close();
    // Without the checkpoint everything is scanned, and the same.
    fs::write(folder.path().join("t/0").join(CHECKPOINT), b"nonsense").unwrap();
    let (_log, partition) = one_topic(folder.path(), &[]);
    assert_eq!(offsets(&partition, 0).0.len(), 1_001);
}

#[test]
fn a_torn_tail_is_cut_and_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let (log, partition) = one_topic(folder.path(), &[]);
    for _ in 0..10 {
        plain(&log, &partition, b"kept");
    }
    kill(log);
    let half = batch(&[b"half written"], (-1, -1, -1), 0);
    let file = File::options()
        .append(true)
        .open(tail(folder.path()))
        .unwrap();
    std::io::Write::write_all(&mut &file, &half[..half.len() - 5]).unwrap();
    let (log, partition) = one_topic(folder.path(), &[]);
    assert_eq!(partition.end(), 10);
    assert_eq!(plain(&log, &partition, b"after"), 10);
    assert_eq!(offsets(&partition, 0), ((0..11).collect(), None));
}

#[test]
fn an_unsynced_whole_batch_is_kept() {
    // Written by a broker that was killed before its sync: a retry must find it.
    let folder = tempfile::tempdir().unwrap();
    let (log, partition) = one_topic(folder.path(), &[]);
    append(&log, &partition, &[b"a"], (5, 0, 0), 0).unwrap();
    kill(log);
    let mut whole = batch(&[b"b"], (5, 0, 1), 0).to_vec();
    whole[..8].copy_from_slice(&1_i64.to_be_bytes());
    std::io::Write::write_all(
        &mut File::options()
            .append(true)
            .open(tail(folder.path()))
            .unwrap(),
        &whole,
    )
    .unwrap();
    let (log, partition) = one_topic(folder.path(), &[]);
    assert_eq!(partition.end(), 2);
    assert_eq!(
        append(&log, &partition, &[b"b"], (5, 0, 1), 0)
            .unwrap()
            .base_offset,
        1
    );
    assert_eq!(partition.end(), 2);
}

#[test]
fn a_flipped_byte_is_seen_and_costs_only_its_batch() {
    let folder = tempfile::tempdir().unwrap();
    let (log, partition) = one_topic(folder.path(), &[]);
    let mut ends = Vec::new();
    for _ in 0..10 {
        plain(&log, &partition, b"some bytes");
        ends.push(partition.segments.read().last().unwrap().size());
    }
    let flip = |at: u64| {
        let file = File::options()
            .read(true)
            .write(true)
            .open(tail(folder.path()))
            .unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    };
    flip(ends[4] - 3);
    assert_eq!(
        offsets(&partition, 0),
        ((0..4).collect(), Some(ResponseError::CorruptMessage))
    );
    assert_eq!(offsets(&partition, 5), ((5..10).collect(), None));
    kill(log);
    // The scan after a kill must not take it for a torn tail: it was acknowledged.
    let (log, partition) = one_topic(folder.path(), &[]);
    assert_eq!(partition.end(), 10);
    assert_eq!(
        offsets(&partition, 0),
        ((0..4).collect(), Some(ResponseError::CorruptMessage))
    );
    assert_eq!(offsets(&partition, 5), ((5..10).collect(), None));
    assert_eq!(plain(&log, &partition, b"next"), 10);
    kill(log);
    // Nor where a header is hit, and nothing leads on from it.
    flip(ends[6] + 9);
    fs::remove_file(folder.path().join("t/0").join(CHECKPOINT)).unwrap();
    let (log, partition) = one_topic(folder.path(), &[]);
    assert_eq!(partition.end(), 11);
    assert_eq!(
        offsets(&partition, 7).1,
        Some(ResponseError::CorruptMessage)
    );
    assert_eq!(plain(&log, &partition, b"next"), 11);
}

#[test]
fn a_segment_that_lost_acknowledged_bytes_never_reuses_offsets() {
    let folder = tempfile::tempdir().unwrap();
    let (log, partition) = one_topic(folder.path(), &[]);
    for _ in 0..10 {
        plain(&log, &partition, b"some bytes");
    }
    log.close();
    let file = File::options()
        .write(true)
        .open(tail(folder.path()))
        .unwrap();
    let size = file.metadata().unwrap().len();
    file.set_len(size / 2).unwrap();
    let (log, partition) = one_topic(folder.path(), &[]);
    assert_eq!(plain(&log, &partition, b"next"), 10);
    assert_eq!(
        offsets(&partition, 0),
        ((0..5).collect(), Some(ResponseError::CorruptMessage))
    );
    assert_eq!(offsets(&partition, 10), (vec![10], None));
}

#[test]
fn a_retry_is_recognised_over_a_kill_with_and_without_checkpoint() {
    for rounds in [3, 30_000] {
        let folder = tempfile::tempdir().unwrap();
        let (log, partition) = one_topic(folder.path(), &[("segment.bytes", "300000")]);
        let mut last = Appended {
            base_offset: -1,
            append_time: -1,
        };
        for sequence in 0..rounds {
            if rounds > 100 && sequence % 10 != 0 {
                continue;
            }
            let values: Vec<&[u8]> = if rounds > 100 {
                vec![&[b'x'; 60]; 10]
            } else {
                vec![b"x"]
            };
            last = append(&log, &partition, &values, (9, 0, sequence), 0).unwrap();
        }
        let end = partition.end();
        kill(log);
        let (log, partition) = one_topic(folder.path(), &[]);
        let (values, sequence): (Vec<&[u8]>, i32) = if rounds > 100 {
            (vec![&[b'x'; 60]; 10], rounds - 10)
        } else {
            (vec![b"x"], rounds - 1)
        };
        assert_eq!(
            append(&log, &partition, &values, (9, 0, sequence), 0)
                .unwrap()
                .base_offset,
            last.base_offset
        );
        assert_eq!(partition.end(), end);
        let gap = append(&log, &partition, &values, (9, 0, sequence + 500), 0);
        assert_eq!(gap, Err(ResponseError::OutOfOrderSequenceNumber));
    }
}

#[test]
fn times_lead_to_offsets_across_segments_and_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let (log, partition) = one_topic(
        folder.path(),
        &[("segment.bytes", "30000"), ("retention.ms", "-1")],
    );
    for index in 0..600 {
        append(
            &log,
            &partition,
            &[&[b'x'; 150]],
            (-1, -1, -1),
            1_000 + index * 10,
        )
        .unwrap();
    }
    for reopened in [false, true] {
        let (_log, partition) = if reopened {
            one_topic(folder.path(), &[])
        } else {
            (open(&folder.path().join("other")), Arc::clone(&partition))
        };
        assert_eq!(partition.by_time(0), Ok(Some((0, 1_000))));
        for index in [0, 1, 299, 300, 598, 599] {
            assert_eq!(
                partition.by_time(1_000 + index * 10),
                Ok(Some((index, 1_000 + index * 10)))
            );
            assert_eq!(
                partition.by_time(1_000 + index * 10 - 3),
                Ok(Some((index, 1_000 + index * 10)))
            );
        }
        assert_eq!(partition.by_time(1_000 + 5_991), Ok(None));
        assert_eq!(partition.newest(), Ok(Some((599, 6_990))));
        fs::remove_dir_all(folder.path().join("other")).unwrap_or_default();
    }
    drop(log);
}

#[test]
fn a_reader_gets_nothing_that_the_partition_does_not_show_yet() {
    let folder = tempfile::tempdir().unwrap();
    let (log, partition) = one_topic(folder.path(), &[]);
    for value in [b"a", b"b", b"c"] {
        append(&log, &partition, &[value], (-1, -1, -1), now_ms()).unwrap();
    }
    // As between the moment that a segment is longer and the moment that the end has moved.
    partition.end.store(2, Ordering::Release);
    assert_eq!(offsets(&partition, 0), (vec![0, 1], None));
    assert_eq!(partition.read(2, 4_096, true, &mut Vec::new()), Ok(0));
    log.close();
}

#[test]
fn a_deleted_topic_is_gone_from_disk_and_may_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let (log, partition) = one_topic(folder.path(), &[]);
    plain(&log, &partition, b"old");
    log.delete("t").unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_eq!(
        append(&log, &partition, &[b"late"], (-1, -1, -1), 0),
        Err(ResponseError::UnknownTopicOrPartition)
    );
    assert_eq!(
        log.delete("t").unwrap_err().0,
        ResponseError::UnknownTopicOrPartition
    );
    log.create("t", 2, Overrides::new(), false).unwrap();
    assert_eq!(log.partition("t", 0).unwrap().end(), 0);
    log.grow("t", 3, false).unwrap();
    assert_eq!(
        log.grow("t", 3, false).unwrap_err().0,
        ResponseError::InvalidPartitions
    );
    log.close();
    assert_eq!(open(folder.path()).get("t").unwrap().partition_count(), 3);
}

#[test]
fn memory_does_not_grow_with_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let (log, partition) = one_topic(folder.path(), &[]);
    let value = [b'x'; 900];
    let values: Vec<&[u8]> = vec![&value; 100];
    for _ in 0..100 {
        append(&log, &partition, &values, (-1, -1, -1), 0).unwrap();
    }
    // 9 MB of log: the index entries since the last checkpoint (1 MB here) at most.
    let segments = partition.segments.read();
    let indexed: u64 = segments.iter().map(|segment| segment.saved().indexed).sum();
    assert!(indexed > 80, "{indexed}");
    drop(segments);
    log.close();
}
