//! A lake of another log is refused, whatever is to be written into it; one of this log never.

use std::collections::BTreeMap;

use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use weir_bus::{BoxError, Stage as _};
use weir_records::{Erasure, Target, topic};
use weir_sinks::lake::{self, Config, Writer};

use crate::support::{Bus, NOON, assigned, at_once, metric, open, records, time, until};

/// A writer that has been told its log.
async fn follow(config: &Config, bus: &Bus) -> Result<(Writer, Registry), lake::Error> {
    let (mut writer, registry) = open(config).await;
    // Never stopped: it ends with the test.
    let stop = CancellationToken::new();
    writer.follow(&bus.config, &registry, stop).await?;
    Ok((writer, registry))
}

fn refused(answer: Result<BTreeMap<i32, i64>, BoxError>) -> String {
    let error = answer.unwrap_err().to_string();
    assert!(error.contains("written from another log"), "{error}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_is_ahead_of_the_log_is_refused_and_its_folder_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = at_once(folder.path());
    let (mut writer, _) = open(&config).await;
    assigned(&mut writer, 0..1).await;
    writer.handle(&records(0, 0..50)).await.unwrap();
    drop(writer);

    let bus = Bus::start().await;
    for messages in [10, 39] {
        bus.accept(0, messages).await;
        let error = follow(&config, &bus).await.err().unwrap();
        assert!(matches!(error, lake::Error::AnotherLog { held: 49, .. }));
        assert!(error.to_string().contains(&config.url), "{error}");
    }
    // The log has got as far.
    bus.accept(0, 1).await;
    let (mut writer, registry) = follow(&config, &bus).await.unwrap();
    assigned(&mut writer, 0..1).await;

    // What goes from the log leaves its end, of which nothing has to be left.
    let all = BTreeMap::from([(0, 50)]);
    let cut = weir_bus::delete_records(&bus.config, topic::MESSAGES, all).await;
    assert_eq!(cut.unwrap()[&0], 50);
    assigned(&mut writer, 0..1).await;
    writer.handle(&records(0, 40..60)).await.unwrap();
    until(&mut writer, async || {
        metric(&registry, "weir_lake_rows_total") == 10.0
    })
    .await;
    bus.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_made_anew_under_a_writer_is_refused_and_stays_so_when_it_has_grown() {
    let bus = Bus::start().await;
    let folder = tempfile::tempdir().unwrap();
    let config = at_once(folder.path());
    let (mut writer, _) = follow(&config, &bus).await.unwrap();
    assigned(&mut writer, 0..2).await;
    // As other writers of another log would leave it.
    let (mut other, _) = open(&config).await;
    assigned(&mut other, 0..1).await;
    other.handle(&records(0, 0..50)).await.unwrap();
    bus.accept(0, 10).await;
    let error = refused(writer.assigned(&[0]).await);
    assert!(error.contains("up to offset 49 of partition 0"), "{error}");
    bus.accept(0, 90).await;
    refused(writer.assigned(&[0]).await);
    bus.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_another_log_asked_for_does_not_pass_for_this_ones() {
    let folder = tempfile::tempdir().unwrap();
    let config = at_once(folder.path());
    let erasure = || Erasure {
        tenant: "tenant-1".to_owned(),
        target: Target::Message("0-1".to_owned()),
        up_to: time(NOON),
        requested_at: time(NOON),
        by: "test".to_owned(),
    };
    let old = Bus::start().await;
    let (mut writer, _) = follow(&config, &old).await.unwrap();
    for _ in 0..3 {
        old.erase(erasure()).await;
    }
    until(&mut writer, async || {
        lake::erased_up_to(&config, &old.config).await.unwrap() == Some(2)
    })
    .await;
    drop(writer);
    old.broker.shutdown().await;

    let new = Bus::start().await;
    new.erase(erasure()).await;
    let error = lake::erased_up_to(&config, &new.config).await.unwrap_err();
    assert!(error.to_string().contains(topic::ERASURES), "{error}");
    let error = follow(&config, &new).await.err().unwrap();
    assert!(matches!(error, lake::Error::AnotherLog { .. }), "{error}");
    new.broker.shutdown().await;
}
