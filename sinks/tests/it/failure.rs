//! A lake that can't be opened says why; one that can't be written is waited for.

use std::fs;
use std::path::Path;
use std::time::Duration;

use deltalake::kernel::{DataType, PrimitiveType};
use deltalake::operations::create::CreateBuilder;
use prometheus::Registry;
use weir_bus::Stage as _;
use weir_sinks::lake::{Config, Error, Writer};

use crate::support::{assert_holds, assigned, at_once, fences, metric, open, records, rows, table};

async fn refused(config: Config) -> Error {
    match Writer::open(config, &Registry::new()).await {
        Ok(_) => panic!("the lake was opened"),
        Err(error) => error,
    }
}

fn with_url(url: &str) -> Config {
    Config {
        url: url.to_owned(),
        ..Config::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_cannot_be_used_is_refused_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a-file");
    fs::write(&file, "x").unwrap();
    let error = refused(with_url(file.to_str().unwrap())).await;
    assert!(
        matches!(error, Error::NotWritable { .. }) && error.to_string().contains("a-file"),
        "{error}"
    );
    for url in ["", "s3://bucket/lake", "carrier-pigeon://lake"] {
        let error = refused(with_url(url)).await;
        assert!(matches!(error, Error::Location { .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_table_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    CreateBuilder::new()
        .with_location(folder.path().to_str().unwrap())
        .with_column(
            "tenant",
            DataType::Primitive(PrimitiveType::Integer),
            false,
            None,
        )
        .with_column(
            "date",
            DataType::Primitive(PrimitiveType::Date),
            false,
            None,
        )
        .with_partition_columns(["date"])
        .await
        .unwrap();
    let error = refused(at_once(folder.path())).await;
    assert!(
        matches!(&error, Error::Schema { .. }) && error.to_string().contains("`tenant`"),
        "{error}"
    );
    assert_eq!(table(folder.path()).await.version(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_a_later_weir_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(&at_once(folder.path())).await);
    let later = [("weir.format".to_owned(), "2".to_owned())];
    table(folder.path())
        .await
        .set_tbl_properties()
        .with_properties(later.into())
        .with_raise_if_not_exists(false)
        .await
        .unwrap();
    let error = refused(at_once(folder.path())).await;
    assert!(
        matches!(&error, Error::NewerFormat { found, known: 1, .. } if found == "2"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_unknown_features_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(&at_once(folder.path())).await);
    let protocol = r#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["timeTravelling"],"writerFeatures":["timeTravelling"]}}"#;
    fs::write(
        folder.path().join("_delta_log/00000000000000000001.json"),
        protocol,
    )
    .unwrap();
    let error = refused(at_once(folder.path())).await;
    assert!(matches!(&error, Error::NewerFormat { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_retentions_reach_the_table() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(&at_once(folder.path())).await);
    let config = Config {
        retention: Duration::from_hours(3),
        ..at_once(folder.path())
    };
    drop(open(&config).await);
    let table = table(folder.path()).await;
    let settings = table.snapshot().unwrap().metadata().configuration();
    assert_eq!(
        settings["delta.deletedFileRetentionDuration"],
        "interval 10800 seconds"
    );
    assert!(!settings.contains_key("delta.setTransactionRetentionDuration"));
}

/// Puts a file where the folder was, so that nothing below it can be read or written.
fn break_lake(lake: &Path, aside: &Path) {
    fs::rename(lake, aside).unwrap();
    fs::write(lake, "in the way").unwrap();
}

fn mend_lake(lake: &Path, aside: &Path) {
    fs::remove_file(lake).unwrap();
    fs::rename(aside, lake).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_lake_stops_the_intake_and_recovers_by_itself() {
    let root = tempfile::tempdir().unwrap();
    let (lake, aside) = (root.path().join("lake"), root.path().join("aside"));
    let config = Config {
        rows: 10,
        ..at_once(&lake)
    };
    let (mut writer, registry) = open(&config).await;
    assigned(&mut writer, 0..1).await;
    assert_eq!(
        writer.handle(&records(0, 0..10)).await.unwrap().done,
        [(0, 10)].into()
    );

    break_lake(&lake, &aside);
    // The records are taken, the flush fails, nothing is settled.
    assert!(
        writer
            .handle(&records(0, 10..20))
            .await
            .unwrap()
            .done
            .is_empty()
    );
    for _ in 0..5 {
        // Nothing more is taken: memory stays as it is.
        assert!(writer.handle(&records(0, 20..30)).await.is_err());
        assert!(writer.tick().await.unwrap().done.is_empty());
        assert_eq!(metric(&registry, "weir_lake_buffered_rows") as i64, 10);
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert!(metric(&registry, "weir_lake_failures_total") >= 2.0);

    mend_lake(&lake, &aside);
    let mut done = None;
    for _ in 0..200 {
        if let Ok(outcome) = writer.handle(&records(0, 20..30)).await {
            done = outcome.done.get(&0).copied();
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(done, Some(30));
    assert_holds(&rows(&lake).await, 0, 0..30);
    assert_eq!(fences(&lake, 0..1).await, [(0, 29)].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_cannot_be_written_is_made_again_with_the_same_files() {
    let folder = tempfile::tempdir().unwrap();
    let config = at_once(folder.path());
    let (mut writer, _) = open(&config).await;
    assigned(&mut writer, 0..1).await;
    writer.handle(&records(0, 0..10)).await.unwrap();
    // The data can be written, the log cannot: its next place is taken by a folder.
    let place = folder.path().join("_delta_log/00000000000000000002.json#1");
    let next = folder.path().join("_delta_log/00000000000000000002.json");
    fs::create_dir(&next).unwrap();
    assert!(
        writer
            .handle(&records(0, 10..20))
            .await
            .unwrap()
            .done
            .is_empty()
    );
    let written = data_files(folder.path());
    assert_eq!(written, 2);
    fs::remove_dir(&next).unwrap();
    assert!(!place.exists());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let outcome = writer.finish().await.unwrap();
    assert_eq!(outcome.done, [(0, 20)].into());
    assert_eq!(
        data_files(folder.path()),
        2,
        "the rows were not written a second time"
    );
    assert_holds(&rows(folder.path()).await, 0, 0..20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_vanished_is_not_made_anew_behind_its_back() {
    let root = tempfile::tempdir().unwrap();
    let (lake, aside) = (root.path().join("lake"), root.path().join("aside"));
    let (mut writer, _) = open(&at_once(&lake)).await;
    assigned(&mut writer, 0..1).await;
    writer.handle(&records(0, 0..10)).await.unwrap();
    fs::rename(&lake, &aside).unwrap();
    writer.handle(&records(0, 10..20)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(writer.handle(&records(0, 20..30)).await.is_err());
    assert!(!lake.join("_delta_log/00000000000000000002.json").exists());
}

fn data_files(folder: &Path) -> usize {
    fs::read_dir(folder)
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("date="))
        .flat_map(|date| fs::read_dir(date.path()).unwrap())
        .count()
}

/// Needs a small file system of its own:
/// `mount -t tmpfs -o size=3m tmpfs DIR; WEIR_SMALL_DISK=DIR … -- --ignored full_disk`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs WEIR_SMALL_DISK"]
async fn a_full_disk_is_waited_for() {
    let disk = std::path::PathBuf::from(std::env::var("WEIR_SMALL_DISK").unwrap());
    let (lake, filler) = (disk.join("lake"), disk.join("filler"));
    let _ = fs::remove_dir_all(&lake);
    let (mut writer, registry) = open(&at_once(&lake)).await;
    assigned(&mut writer, 0..1).await;
    writer.handle(&records(0, 0..2_000)).await.unwrap();
    let bytes = metric(&registry, "weir_lake_bytes_total") as u64;
    // Room for nothing, and for half of the next file.
    for (from, left) in [(2_000, 0), (4_000, bytes / 2)] {
        fill(&filler, left);
        let failures = metric(&registry, "weir_lake_failures_total");
        let outcome = writer
            .handle(&records(0, from..from + 2_000))
            .await
            .unwrap();
        assert!(outcome.done.is_empty(), "{left} bytes were enough");
        for _ in 0..5 {
            assert!(writer.tick().await.unwrap().done.is_empty());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(metric(&registry, "weir_lake_failures_total") > failures);
        fs::remove_file(&filler).unwrap();
        assert_eq!(
            writer.finish().await.unwrap().done,
            [(0, from + 2_000)].into()
        );
    }
    assert_holds(&rows(&lake).await, 0, 0..6_000);
    assert_eq!(fences(&lake, 0..1).await, [(0, 5_999)].into());
}

/// Fills the disk but for `left` bytes, in pages.
fn fill(filler: &Path, left: u64) {
    use std::io::Write as _;

    let mut file = fs::File::create(filler).unwrap();
    while file.write_all(&[0; 4_096]).is_ok() {}
    let size = file.metadata().unwrap().len();
    file.set_len(size.saturating_sub(left).next_multiple_of(4_096))
        .unwrap();
}
