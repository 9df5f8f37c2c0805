//! Merging, checkpoints and clean-up change nothing that a reader sees.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use deltalake::datafusion::prelude::SessionContext;
use deltalake::kernel::Transaction;
use deltalake::kernel::transaction::CommitProperties;
use weir_bus::Stage as _;
use weir_records::topic;
use weir_sinks::lake::{self, Config, Writer};

use crate::support::{
    assert_holds, assigned, at_once, data_files, fences, judged, metric, open, record_of, records,
    rows, table, time,
};

/// Waits until the upkeep has done what `until` asks for.
async fn keep_up(writer: &mut Writer, mut until: impl AsyncFnMut() -> bool) {
    for _ in 0..6_000 {
        writer.tick().await.unwrap();
        if until().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the upkeep did not come to an end");
}

fn count(folder: &Path, ending: &str) -> usize {
    let mut found = 0;
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() {
            found += if entry.file_name() == "_delta_log" {
                0
            } else {
                count(&entry.path(), ending)
            };
        } else if entry.file_name().to_string_lossy().ends_with(ending) {
            found += 1;
        }
    }
    found
}

/// Everything as often as can be.
fn eager(folder: &Path) -> Config {
    Config {
        merge_files: 4,
        checkpoint_commits: 10,
        retention: Duration::from_secs(3),
        log_retention: Duration::from_millis(1),
        upkeep: Duration::ZERO,
        ..at_once(folder)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn merging_checkpoints_and_clean_up_keep_rows_and_fences() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, registry) = open(&eager(folder.path())).await;
    assigned(&mut writer, 0..2).await;
    // A partition that falls silent after its first row must be remembered all the same.
    writer.handle(&records(1, 0..1)).await.unwrap();
    let mut early = table(folder.path()).await;
    let commits = 40;
    for commit in 0..commits {
        writer
            .handle(&records(0, commit * 5..commit * 5 + 5))
            .await
            .unwrap();
        writer.tick().await.unwrap();
    }
    keep_up(&mut writer, async || {
        let files = metric(&registry, "weir_lake_files") as usize;
        files < 4 && count(folder.path(), ".parquet") == files
    })
    .await;
    assert!(
        metric(&registry, "weir_lake_files_compacted_total")
            >= f64::from(u16::try_from(commits).unwrap())
    );
    assert!(metric(&registry, "weir_lake_checkpoints_total") >= 1.0);

    let found = rows(folder.path()).await;
    assert_holds(&found, 0, 0..200);
    assert_holds(&found, 1, 0..1);
    assert_eq!(fences(folder.path(), 0..2).await, [(0, 199), (1, 0)].into());
    let log = count(&folder.path().join("_delta_log"), ".json");
    assert!(log < 30, "the log is not bounded: {log} entries");

    // A reader that held an old version finds its way to the newest.
    early.update_state().await.unwrap();
    assert_eq!(early.version(), table(folder.path()).await.version());

    // A new writer still drops what is in.
    drop(writer);
    let (mut writer, registry) = open(&eager(folder.path())).await;
    assigned(&mut writer, 0..2).await;
    writer.handle(&records(0, 0..210)).await.unwrap();
    writer.handle(&records(1, 0..2)).await.unwrap();
    assert_eq!(metric(&registry, "weir_lake_replays_total") as i64, 201);
    let found = rows(folder.path()).await;
    assert_holds(&found, 0, 0..210);
    assert_holds(&found, 1, 0..2);
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_reads_merged_and_fresh_files_alike() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        retention: Duration::from_hours(1),
        ..eager(folder.path())
    };
    let (mut writer, registry) = open(&config).await;
    assigned(&mut writer, 0..1).await;
    for commit in 0..9 {
        writer
            .handle(&records(0, commit * 10..commit * 10 + 10))
            .await
            .unwrap();
    }
    keep_up(&mut writer, async || {
        metric(&registry, "weir_lake_files_compacted_total") >= 8.0
    })
    .await;
    writer.handle(&records(0, 90..100)).await.unwrap();

    let context = SessionContext::new();
    let provider = table(folder.path()).await.table_provider().await.unwrap();
    context.register_table("messages", provider).unwrap();
    let sql = r#"SELECT count(*), count(DISTINCT "offset"), count(sender), max(insult) FROM messages
                 WHERE tenant = 'tenant-1' AND date = DATE '2026-03-01'"#;
    let found = context.sql(sql).await.unwrap().collect().await.unwrap();
    let shown = arrow::util::pretty::pretty_format_batches(&found)
        .unwrap()
        .to_string();
    assert!(
        shown
            .lines()
            .nth(3)
            .unwrap()
            .replace(' ', "")
            .starts_with("|33|33|27|0.3|"),
        "{shown}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_that_is_over_ends_in_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        merge_files: 1_000,
        retention: Duration::from_hours(1),
        ..eager(folder.path())
    };
    let (mut writer, registry) = open(&config).await;
    assigned(&mut writer, 0..1).await;
    for (offset, at) in (0..).zip([
        "2026-03-01T10:00:00Z",
        "2026-03-01T11:00:00Z",
        "2026-03-02T10:00:00Z",
    ]) {
        writer
            .handle(&[record_of(0, offset, judged(0, offset, time(at)))])
            .await
            .unwrap();
    }
    // The files are of this minute: a late row may still come.
    for _ in 0..50 {
        writer.tick().await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(
        metric(&registry, "weir_lake_files_compacted_total") as i64,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_merges_of_the_same_files_leave_one() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        retention: Duration::from_hours(1),
        // Of two writers, none may take the log away under the other.
        log_retention: Duration::from_hours(1),
        ..eager(folder.path())
    };
    let (mut first, one) = open(&config).await;
    let (mut second, two) = open(&config).await;
    assigned(&mut first, 0..1).await;
    for commit in 0..12 {
        first
            .handle(&records(0, commit * 5..commit * 5 + 5))
            .await
            .unwrap();
        second.tick().await.unwrap();
    }
    assigned(&mut second, 1..2).await;
    for commit in 0..12 {
        second
            .handle(&records(1, commit * 5..commit * 5 + 5))
            .await
            .unwrap();
        first.tick().await.unwrap();
    }
    let merged = |registry| metric(registry, "weir_lake_files_compacted_total");
    keep_up(&mut first, async || {
        second.tick().await.unwrap();
        merged(&one) + merged(&two) >= 20.0
    })
    .await;
    let found = rows(folder.path()).await;
    assert_holds(&found, 0, 0..60);
    assert_holds(&found, 1, 0..60);
}

/// The library itself lets two rewrites of the same files pass and so doubles rows;
/// the shared application id is what makes the second fail.
#[tokio::test(flavor = "multi_thread")]
async fn a_rewrite_in_between_makes_the_other_fail() {
    use deltalake::DeltaTableError;
    use deltalake::protocol::SaveMode;

    let folder = tempfile::tempdir().unwrap();
    drop(open(&at_once(folder.path())).await);
    let write = async |table: deltalake::DeltaTable, version| {
        let batch =
            weir_records::columns::batch(&[judged(0, version, time("2026-03-01T10:00:00Z"))])
                .unwrap();
        let properties = CommitProperties::default()
            .with_application_transaction(Transaction::new(topic::LAKE_REWRITE, version));
        table
            .write([batch])
            .with_save_mode(SaveMode::Append)
            .with_commit_properties(properties)
            .await
    };
    let (first, second) = (table(folder.path()).await, table(folder.path()).await);
    write(first, 1).await.unwrap();
    let refused = write(second, 2).await;
    assert!(
        matches!(refused, Err(DeltaTableError::Transaction { .. })),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn forgotten_files_go_and_recent_ones_stay() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        retention: Duration::from_hours(1),
        ..eager(folder.path())
    };
    let (mut writer, registry) = open(&config).await;
    assigned(&mut writer, 0..1).await;
    writer.handle(&records(0, 0..5)).await.unwrap();
    let date = folder.path().join("date=2026-03-01");
    let old = SystemTime::now() - Duration::from_hours(2);
    for (name, age) in [
        ("part-a.parquet", true),
        ("part-b.parquet", false),
        ("part-c.parquet#1", true),
        ("part-d.parquet#2", false),
    ] {
        let file = File::create(date.join(name)).unwrap();
        if age {
            file.set_modified(old).unwrap();
        }
    }
    drop(writer);
    drop(registry);
    let (mut writer, registry) = open(&config).await;
    keep_up(&mut writer, async || {
        metric(&registry, "weir_lake_files_removed_total") >= 2.0
    })
    .await;
    let left: Vec<bool> = [
        "part-a.parquet",
        "part-b.parquet",
        "part-c.parquet#1",
        "part-d.parquet#2",
    ]
    .map(|name| date.join(name).exists())
    .into();
    assert_eq!(left, [false, true, false, true]);
    assert_holds(&rows(folder.path()).await, 0, 0..5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_a_copy_lacks_is_named_and_nothing_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let config = at_once(folder.path());
    assert!(lake::missing_files(&config).await.unwrap().is_empty());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let (mut writer, _) = open(&config).await;
    assigned(&mut writer, 0..1).await;
    writer.handle(&records(0, 0..20)).await.unwrap();
    writer.finish().await.unwrap();
    assert!(lake::missing_files(&config).await.unwrap().is_empty());
    let file = data_files(folder.path()).remove(0);
    std::fs::remove_file(&file).unwrap();
    let missing = lake::missing_files(&config).await.unwrap();
    assert_eq!(missing.len(), 1);
    assert!(file.ends_with(&missing[0]), "{missing:?}");
}
