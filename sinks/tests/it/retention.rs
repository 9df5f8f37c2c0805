//! Rows and texts go when their days are over, once, and nobody else's do.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::AsArray as _;
use jiff::Timestamp;
use weir_bus::Stage as _;
use weir_sinks::lake::{Config, Days, Retention};

use crate::support::{
    assigned, at_once, batches, judged, metric, open, record_of, records, table, until,
};

const FOR_GOOD: Days = Days {
    text_days: 0,
    verdict_days: 0,
};

#[tokio::test(flavor = "multi_thread")]
async fn texts_and_rows_go_by_tenant_and_by_day_and_only_once() {
    let folder = tempfile::tempdir().unwrap();
    let days = |text_days, verdict_days| Days {
        text_days,
        verdict_days,
    };
    let config = Config {
        upkeep: Duration::ZERO,
        keep: Retention {
            default: days(30, 0),
            tenants: BTreeMap::from([
                ("tenant-1".to_owned(), days(30, 60)),
                ("tenant-2".to_owned(), FOR_GOOD),
            ]),
        },
        ..at_once(folder.path())
    };
    let (mut writer, _) = open(&at_once(folder.path())).await;
    assigned(&mut writer, 0..2).await;
    // Of the first of March, months ago; and of now. Offset modulo three is the tenant.
    writer.handle(&records(0, 0..30)).await.unwrap();
    let alone: Vec<_> = records(0, 30..60)
        .into_iter()
        .filter(|record| record.offset % 3 == 1)
        .collect();
    writer.handle(&alone).await.unwrap();
    let now = Timestamp::from_microsecond(Timestamp::now().as_microsecond()).unwrap();
    let fresh: Vec<_> = (0..9)
        .map(|offset| record_of(1, offset, judged(1, offset, now)))
        .collect();
    writer.handle(&fresh).await.unwrap();
    writer.finish().await.unwrap();
    drop(writer);

    let (mut writer, registry) = open(&config).await;
    until(&mut writer, async || {
        metric(&registry, "weir_lake_expired_rows_total") == 30.0
    })
    .await;
    writer.finish().await.unwrap();
    let (mut blank, mut kept) = (0, 0);
    let found = table(folder.path()).await;
    for (_, batch) in batches(&found).await {
        let column = |name| batch.column_by_name(name).unwrap().as_string::<i32>();
        for row in 0..batch.num_rows() {
            let (id, text) = (column("message_id").value(row), column("text").value(row));
            let (old, offset) = id.split_once('-').unwrap();
            let tenant = offset.parse::<i64>().unwrap() % 3;
            assert_eq!(column("tenant").value(row), format!("tenant-{tenant}"));
            match (old, tenant) {
                ("0", 0) => {
                    assert_eq!(text, "", "{id}");
                    blank += 1;
                }
                ("0", 1) => panic!("{id} is still there"),
                _ => {
                    assert!(!text.is_empty(), "{id}");
                    kept += 1;
                }
            }
        }
    }
    assert_eq!((blank, kept), (10, 10 + 9));
    let files = found.snapshot().unwrap().log_data().num_files();
    assert_eq!(files, 2, "a file of which nothing is left is not written");

    // Another start looks, and leaves everything as it is.
    let version = found.version();
    let (mut writer, registry) = open(&config).await;
    for _ in 0..100 {
        writer.tick().await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    writer.finish().await.unwrap();
    assert_eq!(table(folder.path()).await.version(), version);
    assert_eq!(metric(&registry, "weir_lake_expired_rows_total"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_unless_it_is_set() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        upkeep: Duration::ZERO,
        ..at_once(folder.path())
    };
    let (mut writer, registry) = open(&config).await;
    assigned(&mut writer, 0..1).await;
    writer.handle(&records(0, 0..30)).await.unwrap();
    for _ in 0..50 {
        writer.tick().await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    writer.finish().await.unwrap();
    assert_eq!(metric(&registry, "weir_lake_expired_rows_total"), 0.0);
    assert_eq!(crate::support::rows(folder.path()).await.len(), 30);
}
