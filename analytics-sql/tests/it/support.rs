//! A lake written the way the sink writes it, an engine over it, and rows to put in.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::util::display::array_value_to_string;
use deltalake::kernel::Transaction;
use deltalake::kernel::transaction::CommitProperties;
use deltalake::{DeltaTable, DeltaTableBuilder};
use jiff::Timestamp;
use prometheus::Registry;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use weir_analytics_sql::{Config, Engine, Error, Query};
use weir_records::{
    Action, Attribute, Erasure, Judged, Message, Reason, Scores, Sentiment, Source, Target,
    Verdict, columns, topic,
};

pub(crate) const PARTITIONS: i32 = 4;

/// A verdict on `text`; its id says where it comes from.
pub(crate) fn judged(tenant: &str, partition: i32, offset: i64, text: &str) -> Judged {
    let at = Timestamp::from_second(1_790_000_000 + offset).unwrap();
    Judged {
        message: Message {
            tenant: tenant.to_owned(),
            channel: format!("channel-{}", offset % 5),
            sender: (offset % 3 != 0).then(|| format!("sender-{}", offset % 7)),
            id: format!("{tenant}-{partition}-{offset}"),
            text: text.to_owned(),
            sent_at: at,
            received_at: at,
            by_user: false,
            id_made: false,
            metadata: None,
        },
        verdict: Verdict {
            action: Action::ALL[usize::try_from(offset).unwrap() % 4],
            reasons: vec![Reason {
                attribute: Attribute::Insult,
                score: 0.93,
                threshold: 0.8,
            }],
            scores: Scores([0.1, 0.2, 0.93, 0.4, 0.5, 0.6]),
            sentiment: Sentiment::from_probabilities([0.9, 0.08, 0.02]),
            language: "en".to_owned(),
            spans: Vec::new(),
            model: "test".to_owned(),
            judged_at: at,
        },
        source: Source { partition, offset },
    }
}

/// Rows of one partition with offsets in that range.
pub(crate) fn rows(tenant: &str, partition: i32, offsets: std::ops::Range<i64>) -> Vec<Judged> {
    offsets
        .map(|offset| {
            judged(
                tenant,
                partition,
                offset,
                &format!("text {offset} of {tenant}"),
            )
        })
        .collect()
}

/// A Delta table in a folder of its own.
pub(crate) struct Lake {
    pub(crate) folder: TempDir,
    table: Option<DeltaTable>,
}

impl Lake {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            table: None,
        }
    }

    pub(crate) fn place(&self) -> String {
        self.folder.path().join("lake").to_str().unwrap().to_owned()
    }

    fn table(&mut self) -> DeltaTable {
        self.table.take().unwrap_or_else(|| {
            std::fs::create_dir_all(self.place()).unwrap();
            let url = url::Url::from_directory_path(self.place()).unwrap();
            DeltaTableBuilder::from_url(url).unwrap().build().unwrap()
        })
    }

    /// Commits rows with one application transaction for each partition.
    pub(crate) async fn commit(&mut self, rows: &[Judged]) {
        let mut last = BTreeMap::new();
        for row in rows {
            last.insert(row.source.partition, row.source.offset);
        }
        let transactions = last
            .into_iter()
            .map(|(partition, offset)| Transaction::new(topic::lake_transaction(partition), offset))
            .collect();
        let table = self
            .table()
            .write([columns::batch(rows).unwrap()])
            .with_partition_columns([columns::DATE])
            .with_commit_properties(
                CommitProperties::default().with_application_transactions(transactions),
            )
            .await
            .unwrap();
        self.table = Some(table);
    }

    /// Rewrites the small files as few.
    pub(crate) async fn compact(&mut self) {
        let (table, _) = self.table().optimize().await.unwrap();
        self.table = Some(table);
    }
}

/// What is to be forgotten of a tenant, up to that offset's time.
pub(crate) fn erasure(tenant: &str, target: Target, offset: i64) -> Erasure {
    Erasure {
        tenant: tenant.to_owned(),
        target,
        up_to: Timestamp::from_second(1_790_000_000 + offset).unwrap(),
        requested_at: Timestamp::now(),
        by: "test".to_owned(),
    }
}

/// Settings for tests: like the defaults, but quick to see a flush.
pub(crate) fn config(lake: &Lake) -> Config {
    Config {
        lake: lake.place(),
        refresh_millis: 50,
        ..Config::default()
    }
}

pub(crate) async fn open(config: Config) -> Engine {
    let partitions = (0..PARTITIONS).collect();
    let engine = Engine::open(
        config,
        partitions,
        &Registry::new(),
        CancellationToken::new(),
    )
    .await
    .unwrap();
    engine.set_ready();
    engine
}

/// Puts rows in from a thread that may block, as the bus does.
pub(crate) async fn offer(engine: &Engine, rows: Vec<Judged>) {
    let engine = engine.clone();
    tokio::task::spawn_blocking(move || engine.offer(rows))
        .await
        .unwrap();
}

pub(crate) fn query(tenant: &str, sql: &str) -> Query {
    Query {
        tenant: tenant.to_owned(),
        sql: sql.to_owned(),
        limit: None,
    }
}

pub(crate) async fn run(
    engine: &Engine,
    tenant: &str,
    sql: &str,
) -> Result<Vec<RecordBatch>, Error> {
    let mut answer = engine.query(query(tenant, sql)).await?;
    let mut batches = Vec::new();
    while let Some(batch) = answer.next().await? {
        batches.push(batch);
    }
    Ok(batches)
}

/// Every cell as text, row by row.
pub(crate) async fn table(engine: &Engine, tenant: &str, sql: &str) -> Vec<Vec<String>> {
    let batches = run(engine, tenant, sql)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e}"));
    cells(&batches)
}

pub(crate) fn cells(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let mut table = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            table.push(
                batch
                    .columns()
                    .iter()
                    .map(|column| {
                        if column.is_null(row) {
                            "null".to_owned()
                        } else {
                            array_value_to_string(column, row).unwrap()
                        }
                    })
                    .collect(),
            );
        }
    }
    table
}

/// The one number that a query answers.
pub(crate) async fn number(engine: &Engine, tenant: &str, sql: &str) -> i64 {
    let batches = run(engine, tenant, sql)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e}"));
    let column = batches[0].column(0).as_primitive::<Int64Type>();
    assert_eq!((batches.len(), column.len()), (1, 1), "{sql}");
    column.value(0)
}

pub(crate) async fn refused(engine: &Engine, tenant: &str, sql: &str) -> Error {
    match run(engine, tenant, sql).await {
        Ok(batches) => panic!("answered {:?} to {sql}", cells(&batches)),
        Err(error) => error,
    }
}
