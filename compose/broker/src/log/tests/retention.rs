//! What retention and deleting take away, and what they leave.

use super::*;

#[test]
fn deleting_and_retention_remove_whole_segments_and_stay_done() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ("segment.bytes", "10000"),
        ("retention.ms", "-1"),
        ("retention.bytes", "30000"),
    ];
    let (log, partition) = one_topic(folder.path(), &settings);
    for _ in 0..500 {
        plain(&log, &partition, &[b'x'; 100]);
    }
    assert_eq!(partition.delete_records(10), Ok(10));
    assert_eq!(partition.delete_records(5), Ok(10));
    assert_eq!(
        partition.delete_records(501),
        Err(ResponseError::OffsetOutOfRange)
    );
    assert_eq!(
        partition.read(9, 100, true, &mut Vec::new()),
        Err(ResponseError::OffsetOutOfRange)
    );
    assert_eq!(offsets(&partition, 10).0.len(), 490);
    partition.retain();
    let start = partition.start();
    let kept: u64 = partition
        .segments
        .read()
        .iter()
        .map(|segment| segment.size())
        .sum();
    assert!(
        start > 200 && (30_000..41_000).contains(&kept),
        "{start} {kept}"
    );
    log.configure("t", false, |overrides| {
        overrides.insert("retention.ms".to_owned(), "1000".to_owned());
        Ok(())
    })
    .unwrap();
    kill(log);
    let (log, partition) = one_topic(folder.path(), &[]);
    assert_eq!((partition.start(), partition.end()), (start, 500));
    // Time stamp 0 is long ago: even the active segment goes.
    partition.retain();
    assert_eq!((partition.start(), partition.end()), (500, 500));
    assert_eq!(plain(&log, &partition, b"next"), 500);
    assert_eq!(
        fs::read_dir(folder.path().join("t/0"))
            .unwrap()
            .filter(|entry| {
                entry
                    .as_ref()
                    .unwrap()
                    .path()
                    .extension()
                    .is_some_and(|end| end == "log")
            })
            .count(),
        1
    );
}

#[test]
fn a_record_goes_at_its_age_though_newer_ones_keep_coming() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("retention.ms", "8000000"), ("segment.ms", "1000000")];
    let (log, partition) = one_topic(folder.path(), &settings);
    let at = |age: i64| now_ms() - age;
    for age in [7_000_000, 6_500_000] {
        append(&log, &partition, &[b"old"], (-1, -1, -1), at(age)).unwrap();
    }
    partition.retain();
    // The first was old enough for its segment to be closed, not to go.
    assert_eq!((partition.start(), partition.segments.read().len()), (0, 2));
    append(&log, &partition, &[b"new"], (-1, -1, -1), at(0)).unwrap();
    partition.retain();
    assert_eq!(partition.segments.read().len(), 2, "the new one is young");
    log.configure("t", false, |overrides| {
        overrides.insert("retention.ms".to_owned(), "6000000".to_owned());
        Ok(())
    })
    .unwrap();
    partition.retain();
    assert_eq!((partition.start(), partition.end()), (2, 3));
    assert_eq!(offsets(&partition, 2), (vec![2], None));
    log.close();
}

#[test]
fn retention_between_staging_and_writing_takes_nothing_that_is_acknowledged_later() {
    let folder = tempfile::tempdir().unwrap();
    let (log, partition) = one_topic(folder.path(), &[("retention.ms", "1000")]);
    // Time stamp 0 is long ago: the first is to go, and the next is staged meanwhile.
    append(&log, &partition, &[b"first"], (7, 0, 0), 0).unwrap();
    let (staged, answer) = job(&partition, &[b"second"], (7, 0, 1), now_ms());
    partition.stage(staged);
    partition.retain();
    partition.commit();
    assert_eq!(answer.blocking_recv().unwrap().unwrap().base_offset, 1);
    assert_eq!(plain(&log, &partition, b"third"), 2);
    let start = partition.start();
    assert_eq!(offsets(&partition, start), ((start..3).collect(), None));

    // Nor does a checkpoint know of a batch that a kill takes away.
    let (staged, answer) = job(&partition, &[b"fourth"], (7, 0, 2), now_ms());
    partition.stage(staged);
    partition.delete_records(partition.end()).unwrap();
    kill(log);
    let (log, partition) = one_topic(folder.path(), &[]);
    let again = append(&log, &partition, &[b"fourth"], (7, 0, 2), now_ms()).unwrap();
    assert_eq!(
        answer.blocking_recv().unwrap().unwrap().base_offset,
        again.base_offset
    );
    assert_eq!(partition.end(), again.base_offset + 1);
    log.close();
}
