//! Verdicts reach the history once; what can't be stored is given up alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use weir_bus::{Dead, Record, Stage};
use weir_records::{Judged, Source};
use weir_store::embedded::Store;
use weir_store::{Erase, Erased, Error, History, Page, PageRequest};

use crate::erase::{of_message, of_sender};
use crate::support::{Bus, NOON, judged, metric, record, record_of, records, time};

fn stage(store: Arc<dyn History>) -> (impl Stage, Registry) {
    let registry = Registry::new();
    (weir_sinks::history(store, &registry).unwrap(), registry)
}

/// Partition and offset.
fn places(dead: &[Dead]) -> Vec<(i32, i64)> {
    let place = |dead: &Dead| (dead.partition, dead.offset);
    dead.iter().map(place).collect()
}

/// Hands records over as the worker does, until nothing of them is left. Answers what is
/// done, and where what was given up lies.
async fn to_the_end(
    writer: &mut impl Stage,
    mut batch: Vec<Record>,
) -> (BTreeMap<i32, i64>, Vec<(i32, i64)>) {
    let (mut done, mut dead) = (BTreeMap::new(), Vec::new());
    while !batch.is_empty() {
        let outcome = writer.handle(&batch).await.unwrap();
        done.extend(outcome.done);
        dead.extend(places(&outcome.dead));
        batch.retain(|record| {
            let left = outcome.left.get(&record.partition);
            left.is_some_and(|left| record.offset >= *left)
        });
    }
    (done, dead)
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_are_found_by_id_and_replays_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (mut writer, registry) = stage(Arc::clone(&store) as _);
    let mut both = records(0, 0..20);
    both.extend(records(1, 0..10));
    assert_eq!(
        writer.handle(&both).await.unwrap().done,
        [(0, 20), (1, 10)].into()
    );
    assert_eq!(
        writer.handle(&records(0, 10..30)).await.unwrap().done,
        [(0, 30)].into()
    );
    assert_eq!(metric(&registry, "weir_history_rows_total") as i64, 40);
    assert_eq!(metric(&registry, "weir_history_replays_total") as i64, 10);
    assert_eq!(store.fence(0).await.unwrap(), Some(29));
    let row = store.message("tenant-2", "0-29").await.unwrap().unwrap();
    assert_eq!(
        row.source,
        Source {
            partition: 0,
            offset: 29
        }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_published_twice_in_one_batch_are_written_once() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, registry) = stage(Store::open(folder.path()).unwrap());
    let sources = [0, 1, 2, 3, 1, 2, 3, 4];
    let batch: Vec<_> = (0..)
        .zip(sources)
        .map(|(offset, source)| record(0, offset, source))
        .collect();
    let outcome = writer.handle(&batch).await.unwrap();
    assert_eq!((outcome.done, outcome.dead.len()), ([(0, 8)].into(), 0));
    assert_eq!(metric(&registry, "weir_history_rows_total") as i64, 5);
    assert_eq!(metric(&registry, "weir_history_replays_total") as i64, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_is_given_up_and_holds_nothing_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (mut writer, _) = stage(Arc::clone(&store) as _);
    let mut batch = records(0, 0..5);
    batch[3].payload = bytes::Bytes::from_static(b"\x0a\xff");
    let outcome = writer.handle(&batch).await.unwrap();
    assert_eq!(outcome.done, [(0, 5)].into());
    assert_eq!(outcome.dead.len(), 1);
    assert_eq!(
        (outcome.dead[0].offset, outcome.dead[0].reason),
        (3, "malformed_record")
    );
    assert_eq!(store.fence(0).await.unwrap(), Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_names_another_partition_is_given_up_and_moves_no_fence() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let (mut writer, _) = stage(Arc::clone(&store) as _);
    let mut batch = records(0, 0..5);
    batch[3] = record_of(0, 3, judged(1, 1_000, time(NOON)));
    let outcome = writer.handle(&batch).await.unwrap();
    assert_eq!(outcome.done, [(0, 5)].into());
    let dead: Vec<_> = outcome
        .dead
        .iter()
        .map(|dead| (dead.offset, dead.reason))
        .collect();
    assert_eq!(dead, [(3, "partition_mismatch")]);
    // What is really of that partition is still written.
    writer.handle(&records(1, 0..3)).await.unwrap();
    assert_eq!(
        (store.fence(0).await.unwrap(), store.fence(1).await.unwrap()),
        (Some(4), Some(2))
    );
}

/// The embedded store behind a fault: it refuses some ids for good, or is away. As a
/// database does it, it finds fault only with what it has to write.
struct Faulty {
    store: Arc<Store>,
    refuses: &'static [&'static str],
    away: AtomicBool,
    /// It can't erase a sender.
    stuck: AtomicBool,
    /// An erasure takes so long.
    slow: Duration,
    erasures: AtomicUsize,
}

impl Faulty {
    fn new(store: &Arc<Store>, refuses: &'static [&'static str]) -> Self {
        Self {
            store: Arc::clone(store),
            refuses,
            away: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
            slow: Duration::ZERO,
            erasures: AtomicUsize::new(0),
        }
    }
}

#[async_trait]
impl History for Faulty {
    async fn write(&self, partition: i32, rows: &[Judged]) -> Result<usize, Error> {
        if self.away.load(Ordering::Relaxed) && partition == 1 {
            return Err(Error::Unavailable("away".into()));
        }
        let fence = self.store.fence(partition).await?;
        if rows
            .iter()
            .filter(|row| Some(row.source.offset) > fence)
            .any(|row| self.refuses.contains(&row.message.id.as_str()))
        {
            return Err(Error::Refused("as the test asks"));
        }
        self.store.write(partition, rows).await
    }

    async fn put(&self, row: &Judged) -> Result<bool, Error> {
        self.store.put(row).await
    }

    async fn fence(&self, partition: i32) -> Result<Option<i64>, Error> {
        self.store.fence(partition).await
    }

    async fn message(&self, tenant: &str, id: &str) -> Result<Option<Judged>, Error> {
        self.store.message(tenant, id).await
    }

    async fn source(&self, tenant: &str, id: &str) -> Result<Option<Source>, Error> {
        self.store.source(tenant, id).await
    }

    async fn channel(
        &self,
        tenant: &str,
        channel: &str,
        page: &PageRequest,
    ) -> Result<Page, Error> {
        self.store.channel(tenant, channel, page).await
    }

    async fn sender(&self, tenant: &str, sender: &str, page: &PageRequest) -> Result<Page, Error> {
        self.store.sender(tenant, sender, page).await
    }

    async fn erase(&self, tenant: &str, what: &Erase) -> Result<Erased, Error> {
        if self.stuck.load(Ordering::Relaxed) && matches!(what, Erase::Sender { .. }) {
            return Err(Error::Unavailable("too many removals".into()));
        }
        tokio::time::sleep(self.slow).await;
        self.erasures.fetch_add(1, Ordering::Relaxed);
        self.store.erase(tenant, what).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_refused_for_good_is_given_up_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let faulty = Faulty::new(&store, &["0-0", "0-13", "0-29"]);
    let (mut writer, registry) = stage(Arc::new(faulty));
    let (done, dead) = to_the_end(&mut writer, records(0, 0..30)).await;
    assert_eq!(done, [(0, 30)].into());
    assert_eq!(dead, [(0, 0), (0, 13), (0, 29)]);
    assert_eq!(metric(&registry, "weir_history_rows_total") as i64, 27);
    assert!(store.message("tenant-1", "0-13").await.unwrap().is_none());
    assert!(store.message("tenant-1", "0-28").await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_settles_nothing_and_the_retry_writes_all_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let faulty = Arc::new(Faulty::new(&store, &[]));
    faulty.away.store(true, Ordering::Relaxed);
    let (mut writer, registry) = stage(Arc::clone(&faulty) as _);
    let mut both = records(0, 0..5);
    both.extend(records(1, 0..5));
    assert!(writer.handle(&both).await.is_err());
    faulty.away.store(false, Ordering::Relaxed);
    assert_eq!(
        writer.handle(&both).await.unwrap().done,
        [(0, 5), (1, 5)].into()
    );
    assert_eq!(metric(&registry, "weir_history_rows_total") as i64, 10);
    assert_eq!(
        (store.fence(0).await.unwrap(), store.fence(1).await.unwrap()),
        (Some(4), Some(4))
    );
}

/// What a killed process leaves between a call and its letters is what the first call left.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_behind_a_refused_row_is_written_before_its_letter() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let faulty = Arc::new(Faulty::new(&store, &["0-5", "0-7"]));
    let mut both = records(1, 0..3);
    both.extend(records(0, 0..10));
    for _ in 0..2 {
        let (mut writer, _) = stage(Arc::clone(&faulty) as _);
        let outcome = writer.handle(&both).await.unwrap();
        assert_eq!(outcome.done, [(0, 6), (1, 3)].into());
        assert_eq!(outcome.left, [(0, 6)].into());
        assert_eq!(places(&outcome.dead), [(0, 5)]);
        assert_eq!(outcome.dead[0].reason, "refused_by_store");
        assert_eq!(store.fence(0).await.unwrap(), Some(4));
        assert_eq!(store.fence(1).await.unwrap(), Some(2));
    }
    let (mut writer, _) = stage(faulty as _);
    let (done, dead) = to_the_end(&mut writer, records(0, 6..10)).await;
    assert_eq!((done, dead), ([(0, 10)].into(), vec![(0, 7)]));
    assert_eq!(store.fence(0).await.unwrap(), Some(9));
}

/// Records that can't be read, erased or repeated ones among them: each is told once.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_again_behind_a_refused_row_is_counted_and_given_up_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let faulty = Faulty::new(&store, &["0-2"]);
    let (mut writer, registry) = stage(Arc::new(faulty));
    let sources = [0, 1, 0, 2, 3, 4, 3, 5];
    let mut batch: Vec<_> = (0..)
        .zip(sources)
        .map(|(offset, source)| record(0, offset, source))
        .collect();
    batch[5].payload = bytes::Bytes::from_static(b"\x0a\xff");
    let (done, dead) = to_the_end(&mut writer, batch).await;
    assert_eq!((done, dead), ([(0, 8)].into(), vec![(0, 3), (0, 5)]));
    assert_eq!(metric(&registry, "weir_history_rows_total") as i64, 4);
    assert_eq!(metric(&registry, "weir_history_replays_total") as i64, 2);
    assert_eq!(metric(&registry, "weir_history_dead_total") as i64, 2);
}

/// A store whose own limits refuse the row, and one that only says so of what it writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_row_is_given_up_also_when_the_call_fails_elsewhere_or_was_not_heard_of() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let faulty = Arc::new(Faulty::new(&store, &["0-2"]));
    faulty.away.store(true, Ordering::Relaxed);
    let (mut writer, _) = stage(Arc::clone(&faulty) as _);
    let mut both = records(0, 0..5);
    both.extend(records(1, 0..5));
    // The other partition fails the call, so nothing of it counts.
    writer.handle(&both).await.unwrap_err();
    assert_eq!(store.fence(0).await.unwrap(), Some(1));
    faulty.away.store(false, Ordering::Relaxed);
    let (_, dead) = to_the_end(&mut writer, both).await;
    assert_eq!(dead, [(0, 2)]);
    let (_, dead) = to_the_end(&mut writer, records(0, 5..7)).await;
    assert!(dead.is_empty());

    // A row too long for the store's keys: another process finds it below the fence.
    let mut long = crate::support::judged(0, 7, jiff::Timestamp::now());
    long.message.channel = "x".repeat(100_000);
    let batch = [crate::support::record_of(0, 7, long), record(0, 8, 8)];
    for _ in 0..2 {
        let (mut writer, _) = stage(Arc::clone(&store) as _);
        let (_, dead) = to_the_end(&mut writer, batch.to_vec()).await;
        assert_eq!(dead, [(0, 7)], "it must not be lost without a letter");
        assert_eq!(store.fence(0).await.unwrap(), Some(8));
    }
}

/// Ticks until that message is not in the store.
async fn until_gone(writer: &mut impl Stage, store: &Store, id: &str) {
    for _ in 0..6_000 {
        writer.tick().await.unwrap();
        if store.message("tenant-1", id).await.unwrap().is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{id} is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_cannot_be_repeated_holds_up_neither_rows_nor_other_erasures() {
    let bus = Bus::start().await;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let faulty = Arc::new(Faulty::new(&store, &[]));
    faulty.stuck.store(true, Ordering::Relaxed);
    // As of a process that does not know of the erasures yet.
    let (mut first, _) = stage(Arc::clone(&store) as _);
    first.handle(&records(0, 0..60)).await.unwrap();
    bus.erase(of_sender(110)).await;
    bus.erase(of_message("0-7")).await;

    let (registry, stop) = (Registry::new(), CancellationToken::new());
    let mut writer = weir_sinks::history(Arc::clone(&faulty) as _, &registry).unwrap();
    writer.follow(&bus.config, &registry, stop.clone()).unwrap();
    until_gone(&mut writer, &store, "0-7").await;
    assert!(store.message("tenant-1", "0-4").await.unwrap().is_some());
    // Offset 103 is one of hers. That nothing more was asked at the start is known only a
    // moment after the last of it has come.
    let outcome = loop {
        if let Ok(outcome) = writer.handle(&records(0, 60..120)).await {
            break outcome;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(outcome.done, [(0, 120)].into());
    assert!(store.message("tenant-1", "0-103").await.unwrap().is_none());
    assert!(store.message("tenant-1", "0-106").await.unwrap().is_some());

    faulty.stuck.store(false, Ordering::Relaxed);
    until_gone(&mut writer, &store, "0-4").await;
    assert!(store.message("tenant-1", "0-37").await.unwrap().is_none());
    assert_eq!(metric(&registry, "weir_history_erased_total") as i64, 4);
    stop.cancel();
    bus.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_many_slow_erasures_lets_records_through_between_them() {
    let bus = Bus::start().await;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let faulty = Arc::new(Faulty {
        // Longer than the stage gives them at a time.
        slow: Duration::from_millis(200),
        ..Faulty::new(&store, &[])
    });
    for id in ["a", "b", "c"] {
        bus.erase(of_message(id)).await;
    }
    let (registry, stop) = (Registry::new(), CancellationToken::new());
    let mut writer = weir_sinks::history(Arc::clone(&faulty) as _, &registry).unwrap();
    writer.follow(&bus.config, &registry, stop.clone()).unwrap();
    while writer.handle(&[]).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for done in 1..=3 {
        writer.tick().await.unwrap();
        assert_eq!(faulty.erasures.load(Ordering::Relaxed), done);
        writer
            .handle(&records(0, 0..10 * done as i64))
            .await
            .unwrap();
        assert_eq!(store.fence(0).await.unwrap(), Some(10 * done as i64 - 1));
    }
    stop.cancel();
    bus.broker.shutdown().await;
}
