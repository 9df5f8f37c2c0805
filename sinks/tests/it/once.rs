//! Every row once: replays, two writers, dead letters, dates.

use weir_bus::Stage as _;
use weir_sinks::lake::Config;

use crate::support::{
    assert_holds, assigned, at_once, batches, fences, judged, metric, open, record, record_of,
    records, rows, table, time,
};

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_settled_only_after_the_commit() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        rows: 100,
        ..at_once(folder.path())
    };
    let (mut writer, registry) = open(&config).await;
    assigned(&mut writer, 0..2).await;
    let outcome = writer.handle(&records(0, 0..60)).await.unwrap();
    assert!(outcome.done.is_empty(), "nothing is in the table yet");
    assert_eq!(rows(folder.path()).await.len(), 0);
    assert_eq!(metric(&registry, "weir_lake_buffered_rows") as i64, 60);

    let outcome = writer.handle(&records(1, 0..40)).await.unwrap();
    assert_eq!(outcome.done, [(0, 60), (1, 40)].into());
    assert_eq!(fences(folder.path(), 0..3).await, [(0, 59), (1, 39)].into());
    let found = rows(folder.path()).await;
    assert_holds(&found, 0, 0..60);
    assert_holds(&found, 1, 0..40);
    assert_eq!(
        metric(&registry, "weir_lake_commits_total") as i64,
        1,
        "one commit for both partitions"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_written_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        rows: 1_000,
        ..at_once(folder.path())
    };
    let (mut writer, _) = open(&config).await;
    assigned(&mut writer, 0..1).await;
    writer.handle(&records(0, 0..10)).await.unwrap();
    let outcome = writer.finish().await.unwrap();
    assert_eq!(outcome.done, [(0, 10)].into());
    assert_holds(&rows(folder.path()).await, 0, 0..10);
}

#[tokio::test(flavor = "multi_thread")]
async fn replayed_records_are_dropped_by_the_table_s_own_memory() {
    let folder = tempfile::tempdir().unwrap();
    let config = at_once(folder.path());
    let (mut first, _) = open(&config).await;
    assigned(&mut first, 0..1).await;
    first.handle(&records(0, 0..50)).await.unwrap();
    drop(first);

    let (mut second, registry) = open(&config).await;
    assigned(&mut second, 0..1).await;
    let outcome = second.handle(&records(0, 20..80)).await.unwrap();
    assert_eq!(outcome.done, [(0, 80)].into());
    assert_eq!(metric(&registry, "weir_lake_replays_total") as i64, 30);
    assert_eq!(metric(&registry, "weir_lake_rows_total") as i64, 30);
    // A replay alone moves the offsets without a commit.
    let version = table(folder.path()).await.version();
    assigned(&mut second, 0..1).await;
    let outcome = second.handle(&records(0, 0..80)).await.unwrap();
    let done = if outcome.done.is_empty() {
        second.finish().await.unwrap().done
    } else {
        outcome.done
    };
    assert_eq!(done, [(0, 80)].into());
    assert_eq!(table(folder.path()).await.version(), version);
    assert_holds(&rows(folder.path()).await, 0, 0..80);
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_published_twice_are_written_once() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, registry) = open(&at_once(folder.path())).await;
    assigned(&mut writer, 0..1).await;
    // The processor published 0 to 9, died, and published 4 to 14 again.
    let mut sources: Vec<i64> = (0..10).collect();
    sources.extend(4..15);
    let stream: Vec<_> = (0..)
        .zip(&sources)
        .map(|(offset, source)| record(0, offset, *source))
        .collect();
    let outcome = writer.handle(&stream).await.unwrap();
    assert_eq!(outcome.done, [(0, 21)].into());
    assert_eq!(metric(&registry, "weir_lake_replays_total") as i64, 6);
    assert_holds(&rows(folder.path()).await, 0, 0..15);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_of_one_partition_double_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        rows: 1_000,
        ..at_once(folder.path())
    };
    let (mut paused, registry) = open(&config).await;
    assigned(&mut paused, 0..2).await;
    paused.handle(&records(0, 0..30)).await.unwrap();
    paused.handle(&records(1, 0..10)).await.unwrap();

    // The group takes the first to be dead and gives its partitions to a second.
    let (mut second, _) = open(&config).await;
    assigned(&mut second, 0..2).await;
    second.handle(&records(0, 0..20)).await.unwrap();
    second.finish().await.unwrap();

    // The first comes back and goes on where it was.
    let outcome = paused.finish().await.unwrap();
    assert_eq!(outcome.done, [(0, 30), (1, 10)].into());
    assert_eq!(metric(&registry, "weir_lake_conflicts_total") as i64, 1);
    second.handle(&records(0, 20..40)).await.unwrap();
    second.finish().await.unwrap();

    let found = rows(folder.path()).await;
    assert_holds(&found, 0, 0..40);
    assert_holds(&found, 1, 0..10);
    assert_eq!(fences(folder.path(), 0..2).await, [(0, 39), (1, 9)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_in_between_is_noticed_even_if_it_named_another_partition() {
    let folder = tempfile::tempdir().unwrap();
    let config = at_once(folder.path());
    let (mut first, _) = open(&config).await;
    assigned(&mut first, 0..2).await;
    first.handle(&records(0, 0..5)).await.unwrap();
    let (mut second, _) = open(&config).await;
    assigned(&mut second, 0..2).await;
    second.handle(&records(1, 0..9)).await.unwrap();
    // The first commits partition 0 past the second's commit, without a conflict …
    first.handle(&records(0, 5..8)).await.unwrap();
    // … and only then sees records of partition 1 that the second wrote.
    first.handle(&records(1, 0..12)).await.unwrap();
    let found = rows(folder.path()).await;
    assert_holds(&found, 0, 0..8);
    assert_holds(&found, 1, 0..12);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_makers_of_the_table_end_with_one() {
    let folder = tempfile::tempdir().unwrap();
    let config = at_once(folder.path());
    let ((mut first, _), (mut second, _)) = tokio::join!(open(&config), open(&config));
    assigned(&mut first, 0..1).await;
    assigned(&mut second, 1..2).await;
    first.handle(&records(0, 0..3)).await.unwrap();
    second.handle(&records(1, 0..3)).await.unwrap();
    assert_eq!(rows(folder.path()).await.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_goes_takes_its_waiting_rows_along() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        rows: 1_000,
        ..at_once(folder.path())
    };
    let (mut writer, _) = open(&config).await;
    assigned(&mut writer, 0..2).await;
    writer.handle(&records(0, 0..5)).await.unwrap();
    writer.handle(&records(1, 0..5)).await.unwrap();
    writer.revoked(0).await;
    assert_eq!(writer.finish().await.unwrap().done, [(1, 5)].into());
    assert_holds(&rows(folder.path()).await, 0, 0..0);

    assigned(&mut writer, 0..1).await;
    writer.handle(&records(0, 0..6)).await.unwrap();
    assert_eq!(writer.finish().await.unwrap().done, [(0, 6)].into());
    assert_holds(&rows(folder.path()).await, 0, 0..6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_is_given_up_and_holds_nothing_back() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, registry) = open(&at_once(folder.path())).await;
    assigned(&mut writer, 0..1).await;
    let mut stream = records(0, 0..6);
    stream[2].payload = bytes::Bytes::from_static(b"\xff\xff not a record");
    stream[4] = record_of(0, 4, judged(3, 4, time(crate::support::NOON)));
    let outcome = writer.handle(&stream).await.unwrap();
    assert_eq!(outcome.done, [(0, 6)].into());
    let dead: Vec<_> = outcome
        .dead
        .iter()
        .map(|dead| (dead.offset, dead.reason))
        .collect();
    assert_eq!(dead, [(2, "malformed_record"), (4, "partition_mismatch")]);
    assert_eq!(outcome.dead[0].payload, stream[2].payload);
    assert_eq!(metric(&registry, "weir_lake_dead_total") as i64, 2);
    assert_holds(&rows(folder.path()).await, 0, [0, 1, 3, 5].into_iter());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_lie_under_the_utc_date_of_their_arrival() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(&at_once(folder.path())).await;
    assigned(&mut writer, 0..1).await;
    let stream: Vec<_> = [
        "2026-02-28T23:59:59.999999Z",
        "2026-03-01T00:00:00Z",
        "2026-03-01T01:30:00+02:00",
        "1969-12-31T23:59:59Z",
    ]
    .into_iter()
    .zip(0..)
    .map(|(at, offset)| record_of(0, offset, judged(0, offset, time(at))))
    .collect();
    writer.handle(&stream).await.unwrap();
    let dates: Vec<_> = rows(folder.path())
        .await
        .into_iter()
        .map(|row| row.date)
        .collect();
    assert_eq!(
        dates,
        ["2026-02-28", "2026-03-01", "2026-02-28", "1969-12-31"]
    );
    assert!(folder.path().join("date=2026-03-01").is_dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_sorted_and_says_what_is_in_it() {
    use arrow::array::AsArray as _;

    let folder = tempfile::tempdir().unwrap();
    let (mut writer, _) = open(&at_once(folder.path())).await;
    assigned(&mut writer, 0..1).await;
    writer.handle(&records(0, 0..500)).await.unwrap();
    let table = table(folder.path()).await;
    let mut last = (String::new(), String::new());
    for (_, batch) in batches(&table).await {
        let tenants = batch.column_by_name("tenant").unwrap().as_string::<i32>();
        let channels = batch.column_by_name("channel").unwrap().as_string::<i32>();
        for row in 0..batch.num_rows() {
            let place = (
                tenants.value(row).to_owned(),
                channels.value(row).to_owned(),
            );
            assert!(place >= last, "{place:?} after {last:?}");
            last = place;
        }
    }
    let stats = table
        .snapshot()
        .unwrap()
        .log_data()
        .iter()
        .next()
        .unwrap()
        .stats()
        .unwrap();
    for expected in [
        "\"numRecords\":500",
        "\"tenant-0\"",
        "\"tenant-2\"",
        "\"offset\":499",
    ] {
        assert!(stats.contains(expected), "{expected} is not in {stats}");
    }
    assert!(
        !stats.contains("the text of"),
        "message text has no place in the log"
    );
}
