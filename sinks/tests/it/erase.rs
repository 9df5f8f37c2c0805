//! What is erased is in no row and in no file, whatever happens meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use weir_bus::Stage as _;
use weir_records::{Erasure, Target};
use weir_sinks::lake::{self, Config, Erased, Writer};

use crate::support::{
    Bus, NOON, assert_holds, assigned, at_once, data_files, fences, metric, on_disk, open, record,
    records, rows, time, until,
};

/// The messages of tenant-1's sender-4 are those of offset 4, 37, 103, 136 and so on.
const SENDER: [i64; 3] = [4, 37, 103];

pub fn of_sender(up_to: i64) -> Erasure {
    erasure(Target::Sender("sender-4".to_owned()), up_to)
}

pub fn of_message(id: &str) -> Erasure {
    erasure(Target::Message(id.to_owned()), 1_000_000)
}

/// `up_to`: the offset of the last message that is covered.
fn erasure(target: Target, up_to: i64) -> Erasure {
    Erasure {
        tenant: "tenant-1".to_owned(),
        target,
        up_to: time(NOON) + Duration::from_millis(up_to.unsigned_abs()),
        requested_at: Timestamp::now(),
        by: "test".to_owned(),
    }
}

/// Runs the writer until the answer is there.
async fn answered(
    writer: &mut Writer,
    erasing: tokio::task::JoinHandle<Result<Erased, lake::Error>>,
) -> Erased {
    until(writer, async || erasing.is_finished()).await;
    erasing.await.unwrap().unwrap()
}

async fn follow(writer: &mut Writer, registry: &Registry, bus: &Bus, stop: &CancellationToken) {
    let followed = writer.follow(&bus.config, registry, stop.clone()).await;
    followed.unwrap();
}

fn assert_forgotten(folder: &Path, offsets: &[i64]) {
    let found: BTreeSet<String> = on_disk(folder).into_iter().map(|(id, _)| id).collect();
    assert!(!found.is_empty());
    for offset in offsets {
        assert!(!found.contains(&format!("0-{offset}")), "{offset} is left");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_is_erased_while_rows_arrive_and_files_are_merged() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, registry) = open(&Config {
        merge_files: 3,
        upkeep: Duration::ZERO,
        ..at_once(folder.path())
    })
    .await;
    assigned(&mut writer, 0..1).await;
    for flush in 0..30 {
        writer
            .handle(&records(0, flush * 5..flush * 5 + 5))
            .await
            .unwrap();
        writer.tick().await.unwrap();
    }
    // Merged files stay for readers: what is erased is in several files.
    until(&mut writer, async || {
        metric(&registry, "weir_lake_files_compacted_total") > 10.0
    })
    .await;
    let copies = on_disk(folder.path());
    let copies = copies.iter().filter(|(id, _)| id == "0-4").count();
    assert!(copies > 1, "{copies}");

    let eraser = writer.eraser();
    let erasing = tokio::spawn(async move { eraser.erase(vec![of_sender(110)]).await });
    let mut next = 150;
    while !erasing.is_finished() {
        assert!(next < 100_000, "never answered");
        writer.handle(&records(0, next..next + 5)).await.unwrap();
        next += 5;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let erased = erasing.await.unwrap().unwrap();
    assert_eq!(erased.rows, 3);
    assert!(erased.files_rewritten >= 1 && erased.files_removed > erased.files_rewritten);
    assert_forgotten(folder.path(), &SENDER);
    writer.handle(&records(0, next..next + 5)).await.unwrap();
    next += 5;
    let kept = |offset: &i64| !SENDER.contains(offset);
    assert_holds(&rows(folder.path()).await, 0, (0..next).filter(kept));
    assert_eq!(fences(folder.path(), 0..1).await[&0], next - 1);
    assert_eq!(metric(&registry, "weir_lake_erased_rows_total"), 3.0);

    // Again: nothing is left to do.
    let eraser = writer.eraser();
    let erasing = tokio::spawn(async move { eraser.erase(vec![of_sender(110)]).await });
    let again = answered(&mut writer, erasing).await;
    assert_eq!((again.rows, again.files_rewritten), (0, 0));
    writer.finish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_message_is_erased_from_the_buffer_from_a_file_and_for_all_time() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(&at_once(folder.path())).await;
    assigned(&mut writer, 0..1).await;
    writer.handle(&records(0, 0..20)).await.unwrap();
    drop(writer);
    let (mut writer, registry) = open(&Config {
        rows: 1_000,
        every: Duration::from_hours(1),
        ..at_once(folder.path())
    })
    .await;
    assigned(&mut writer, 0..1).await;
    writer.handle(&records(0, 20..40)).await.unwrap();
    assert_eq!(metric(&registry, "weir_lake_buffered_rows"), 20.0);

    // One of each, one of another tenant, and one that is still to come.
    let erasures = ["0-10", "0-25", "0-26", "0-43"].map(of_message);
    let eraser = writer.eraser();
    let erasing = tokio::spawn(async move { eraser.erase(erasures.to_vec()).await });
    let erased = answered(&mut writer, erasing).await;
    assert_eq!((erased.rows, erased.files_rewritten), (2, 1));
    writer.handle(&records(0, 40..50)).await.unwrap();
    writer.finish().await.unwrap();
    let kept = |offset: &i64| ![10, 25, 43].contains(offset);
    assert_holds(&rows(folder.path()).await, 0, (0..50).filter(kept));
    assert_forgotten(folder.path(), &[10, 25, 43]);
    assert_eq!(fences(folder.path(), 0..1).await[&0], 49);

    // Whoever asks a writer that has ended is told so.
    let eraser = writer.eraser();
    drop(writer);
    let late = eraser.erase(vec![of_message("0-1")]).await;
    assert!(matches!(late, Err(lake::Error::Stopped)), "{late:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_any_other_row_goes_and_the_table_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let config = at_once(folder.path());
    let (mut writer, registry) = open(&config).await;
    assigned(&mut writer, 0..1).await;
    writer.handle(&[record(0, 4, 4)]).await.unwrap();
    writer.handle(&[record(0, 5, 5)]).await.unwrap();

    // By a process of its own, beside the writer.
    let erased = lake::erase(&config, vec![of_sender(110)]).await.unwrap();
    assert_eq!(
        erased,
        Erased {
            rows: 1,
            files_rewritten: 1,
            files_removed: 1
        }
    );
    assert_eq!(on_disk(folder.path()).len(), 1);
    writer.handle(&records(0, 6..10)).await.unwrap();
    assert_holds(&rows(folder.path()).await, 0, 5..10);
    assert_eq!(metric(&registry, "weir_lake_failures_total"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_topic_is_followed_and_a_kill_before_the_deletion_leaves_nothing() {
    let bus = Bus::start().await;
    let folder = tempfile::tempdir().unwrap();
    let config = at_once(folder.path());
    let stop = CancellationToken::new();
    let (mut writer, registry) = open(&config).await;
    bus.accept(0, 120).await;
    follow(&mut writer, &registry, &bus, &stop).await;
    assigned(&mut writer, 0..1).await;
    // Taken at once, committed when it is known that nothing is to be left out.
    writer.handle(&records(0, 0..60)).await.unwrap();
    until(&mut writer, async || {
        metric(&registry, "weir_lake_rows_total") == 60.0
    })
    .await;
    let before: Vec<_> = data_files(folder.path())
        .into_iter()
        .map(|path| (fs::read(&path).unwrap(), path))
        .collect();
    bus.erase(of_sender(110)).await;
    until(&mut writer, async || {
        metric(&registry, "weir_lake_files_removed_total") == 1.0
    })
    .await;
    let mark = lake::erased_up_to(&config, &bus.config).await.unwrap();
    assert_eq!(mark, Some(0));
    assert_forgotten(folder.path(), &[4, 37]);
    drop(writer);

    // As a kill between the commit and the deletion would leave it.
    for (bytes, path) in &before {
        fs::write(path, bytes).unwrap();
    }
    let (mut writer, registry) = open(&config).await;
    follow(&mut writer, &registry, &bus, &stop).await;
    assigned(&mut writer, 0..1).await;
    // Offset 103 was said before the erasure and is read only now.
    writer.handle(&records(0, 60..120)).await.unwrap();
    until(&mut writer, async || {
        metric(&registry, "weir_lake_files_removed_total") == 1.0
            && metric(&registry, "weir_lake_rows_total") == 59.0
    })
    .await;
    assert_forgotten(folder.path(), &SENDER);
    writer.finish().await.unwrap();
    let kept = |offset: &i64| !SENDER.contains(offset);
    assert_holds(&rows(folder.path()).await, 0, (0..120).filter(kept));
    stop.cancel();
    bus.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_writer_that_did_not_know_are_found_at_its_next_start() {
    let bus = Bus::start().await;
    let folder = tempfile::tempdir().unwrap();
    let config = at_once(folder.path());
    let stop = CancellationToken::new();
    let (mut first, registry) = open(&config).await;
    bus.accept(0, 20).await;
    follow(&mut first, &registry, &bus, &stop).await;
    bus.erase(of_sender(110)).await;
    until(&mut first, async || {
        lake::erased_up_to(&config, &bus.config).await.unwrap() == Some(0)
    })
    .await;
    // Another writer commits a row that is erased, and is killed before it learns of it.
    let (mut second, _) = open(&config).await;
    assigned(&mut second, 0..1).await;
    second.handle(&records(0, 0..20)).await.unwrap();
    drop((first, second));
    assert_eq!(rows(folder.path()).await.len(), 20);

    let (mut again, registry) = open(&config).await;
    follow(&mut again, &registry, &bus, &stop).await;
    until(&mut again, async || {
        metric(&registry, "weir_lake_erased_rows_total") == 1.0
            && metric(&registry, "weir_lake_files_removed_total") == 1.0
    })
    .await;
    assert_forgotten(folder.path(), &[4]);
    stop.cancel();
    bus.broker.shutdown().await;
}
