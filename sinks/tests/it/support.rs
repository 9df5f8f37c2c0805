//! Records as the worker hands them over, and the table as a reader finds it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use bytes::Bytes;
use deltalake::datafile::DataFileReader as _;
use deltalake::datafile::reader::ParquetFileReader;
use deltalake::{DeltaTable, DeltaTableBuilder};
use futures::TryStreamExt as _;
use jiff::Timestamp;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use prometheus::Registry;
use url::Url;
use weir_broker::Broker;
use weir_bus::{Outgoing, Producer, Record, Stage};
use weir_records::{Action, Erasure, Judged, Message, Scores, Sentiment, Source, Verdict, topic};
use weir_sinks::lake::{Config, Writer};

pub const NOON: &str = "2026-03-01T12:00:00Z";

pub fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A verdict whose content follows from its source.
pub fn judged(partition: i32, offset: i64, received_at: Timestamp) -> Judged {
    let channel = format!("channel-{}", offset % 7);
    Judged {
        message: Message {
            tenant: format!("tenant-{}", offset % 3),
            channel,
            sender: (offset % 5 != 0).then(|| format!("sender-{}", offset % 11)),
            id: format!("{partition}-{offset}"),
            text: format!("the text of message {offset}, said in partition {partition}"),
            sent_at: received_at,
            received_at,
            by_user: false,
            id_made: false,
            metadata: None,
        },
        verdict: Verdict {
            action: Action::ALL[usize::try_from(offset % 4).unwrap()],
            reasons: Vec::new(),
            scores: Scores([0.1, 0.02, 0.3, 0.0, 0.0, 0.4]),
            sentiment: Sentiment::from_probabilities([0.2, 0.7, 0.1]),
            language: "en".to_owned(),
            spans: Vec::new(),
            model: "test".to_owned(),
            judged_at: received_at,
        },
        source: Source { partition, offset },
    }
}

/// A record of `weir.verdicts` at `offset` that holds the verdict of source offset `source`.
pub fn record(partition: i32, offset: i64, source: i64) -> Record {
    let received = time(NOON) + Duration::from_millis(source.unsigned_abs());
    record_of(partition, offset, judged(partition, source, received))
}

pub fn record_of(partition: i32, offset: i64, row: Judged) -> Record {
    Record {
        partition,
        offset,
        key: Bytes::from(topic::key(&row.message.tenant, &row.message.channel)),
        timestamp: row.message.received_at,
        payload: Bytes::from(row.encode()),
    }
}

/// Records whose offsets equal their source offsets.
pub fn records(partition: i32, offsets: std::ops::Range<i64>) -> Vec<Record> {
    offsets
        .map(|offset| record(partition, offset, offset))
        .collect()
}

/// Flushes at every call of `handle`, and cares for the table only when told to.
pub fn at_once(folder: &Path) -> Config {
    Config {
        url: folder.display().to_string(),
        rows: 1,
        upkeep: Duration::from_hours(1),
        ..Config::default()
    }
}

/// A writer of group `weir.lake` with metrics of its own.
pub async fn open(config: &Config) -> (Writer, Registry) {
    let registry = Registry::new();
    let writer = Writer::open(config.clone(), &registry).await.unwrap();
    (writer, registry)
}

pub async fn assigned(writer: &mut Writer, partitions: std::ops::Range<i32>) {
    let partitions: Vec<i32> = partitions.collect();
    assert!(writer.assigned(&partitions).await.unwrap().is_empty());
}

/// Runs the writer until something is so.
pub async fn until(writer: &mut Writer, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..6_000 {
        writer.tick().await.unwrap();
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never done");
}

/// The value of a counter or gauge, summed over its labels.
pub fn metric(registry: &Registry, name: &str) -> f64 {
    let families = registry.gather();
    let family = families
        .iter()
        .find(|family| family.name() == name)
        .unwrap_or_else(|| panic!("no metric {name}"));
    family
        .get_metric()
        .iter()
        .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
        .sum()
}

/// The table, opened as any reader would. With the retentions of these tests the log
/// may be cut between a reader's listing and its reading.
pub async fn table(folder: &Path) -> DeltaTable {
    let url = Url::from_directory_path(folder.canonicalize().unwrap()).unwrap();
    for _ in 0..20 {
        if let Ok(table) = DeltaTableBuilder::from_url(url.clone())
            .unwrap()
            .load()
            .await
        {
            return table;
        }
    }
    DeltaTableBuilder::from_url(url)
        .unwrap()
        .load()
        .await
        .unwrap()
}

/// A row as found: where it came from, its id, and the date of its file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    pub partition: i32,
    pub offset: i64,
    pub id: String,
    pub date: String,
}

/// All batches of the current version, each with the date of its file.
pub async fn batches(table: &DeltaTable) -> Vec<(String, RecordBatch)> {
    let reader = ParquetFileReader::new(table.object_store());
    let mut found = Vec::new();
    for view in table.snapshot().unwrap().log_data() {
        let date = view.partition_values_map()["date"].clone().unwrap();
        let mut stream = reader.read_file(view.object_store_path()).await.unwrap();
        while let Some(batch) = stream.try_next().await.unwrap() {
            found.push((date.clone(), batch));
        }
    }
    found
}

/// All rows of the current version, in order of partition and offset.
pub async fn rows(folder: &Path) -> Vec<Found> {
    let mut found = Vec::new();
    for (date, batch) in batches(&table(folder).await).await {
        let partitions = batch
            .column_by_name("partition")
            .unwrap()
            .as_primitive::<Int32Type>();
        let offsets = batch
            .column_by_name("offset")
            .unwrap()
            .as_primitive::<Int64Type>();
        let ids = batch
            .column_by_name("message_id")
            .unwrap()
            .as_string::<i32>();
        for row in 0..batch.num_rows() {
            assert!(!ids.is_null(row));
            found.push(Found {
                partition: partitions.value(row),
                offset: offsets.value(row),
                id: ids.value(row).to_owned(),
                date: date.clone(),
            });
        }
    }
    found.sort();
    found
}

/// The last source offset of each of `partitions` that the table remembers.
pub async fn fences(folder: &Path, partitions: std::ops::Range<i32>) -> BTreeMap<i32, i64> {
    let table = table(folder).await;
    let log = table.log_store();
    let mut found = BTreeMap::new();
    for partition in partitions {
        let app = topic::lake_transaction(partition);
        if let Some(version) = table
            .snapshot()
            .unwrap()
            .transaction_version(&log, app)
            .await
            .unwrap()
        {
            found.insert(partition, version);
        }
    }
    found
}

/// Checks that the table holds exactly these source offsets of the partition, once each.
pub fn assert_holds(found: &[Found], partition: i32, offsets: impl Iterator<Item = i64>) {
    let found: Vec<i64> = found
        .iter()
        .filter(|row| row.partition == partition)
        .map(|row| row.offset)
        .collect();
    let expected: Vec<i64> = offsets.collect();
    let missing: Vec<_> = expected
        .iter()
        .filter(|offset| !found.contains(offset))
        .take(5)
        .collect();
    let doubled: Vec<_> = found
        .windows(2)
        .filter(|pair| pair[0] == pair[1])
        .map(|pair| pair[0])
        .take(5)
        .collect();
    assert!(
        found == expected,
        "partition {partition}: {} rows for {} expected, missing {missing:?}, doubled {doubled:?}",
        found.len(),
        expected.len()
    );
}

/// Ids and texts of every data file on the disk, whether the table uses it or not.
pub fn on_disk(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for file in data_files(folder) {
        let file = std::fs::File::open(file).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        for batch in reader.build().unwrap() {
            let batch = batch.unwrap();
            let texts = |name| batch.column_by_name(name).unwrap().as_string::<i32>();
            for row in 0..batch.num_rows() {
                found.push((
                    texts("message_id").value(row).to_owned(),
                    texts("text").value(row).to_owned(),
                ));
            }
        }
    }
    found
}

/// Every data file on the disk.
pub fn data_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(data_files(&path));
        } else if path.extension().is_some_and(|ending| ending == "parquet")
            && !path.to_string_lossy().contains("_delta_log")
        {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// A broker with Weir's topics, and what is written into them.
pub struct Bus {
    pub broker: Broker,
    pub config: weir_bus::Config,
    producer: Producer,
    _folder: tempfile::TempDir,
}

impl Bus {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::start(
            weir_broker::Config::new(([127, 0, 0, 1], 0).into(), folder.path()),
            &Registry::new(),
        )
        .await
        .unwrap();
        let config = weir_bus::Config {
            brokers: broker.address().to_string(),
            ..weir_bus::Config::default()
        };
        weir_bus::create_topics(&config, Duration::from_hours(1), None)
            .await
            .unwrap();
        Self {
            producer: Producer::new(&config, &Registry::new()).unwrap(),
            broker,
            config,
            _folder: folder,
        }
    }

    pub async fn erase(&self, erasure: Erasure) {
        self.write(topic::ERASURES, 0, vec![erasure.encode()]).await;
    }

    /// Takes the log of accepted messages on by so many, of which nobody reads what they say.
    pub async fn accept(&self, partition: i32, messages: usize) {
        let payloads = vec![b"message".to_vec(); messages];
        self.write(topic::MESSAGES, partition, payloads).await;
    }

    async fn write(&self, topic: &'static str, partition: i32, payloads: Vec<Vec<u8>>) {
        let record = |payload| Outgoing {
            topic,
            partition: Some(partition),
            key: Vec::new(),
            payload,
        };
        let records = payloads.into_iter().map(record).collect();
        for answer in self.producer.send(records).unwrap().await {
            answer.unwrap();
        }
    }
}
