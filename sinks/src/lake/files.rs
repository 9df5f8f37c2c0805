//! Rows into Parquet files: sorted, in row groups of one sorted run each, compressed
//! and with the statistics by which readers skip.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::error::ArrowError;
use deltalake::datafile::writer::{DeltaWriter, WriterConfig};
use deltalake::kernel::Add;
use deltalake::logstore::ObjectStoreRef;
use deltalake::logstore::object_store::ObjectStoreExt as _;
use deltalake::logstore::object_store::memory::InMemory;
use deltalake::logstore::object_store::path::Path;
use deltalake::operations::get_num_idx_cols_and_stats_columns;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use weir_records::Judged;
use weir_records::columns::{self, DATE, MESSAGES};

use super::Error;
use super::table::Table;

/// Rows of one row group, and of one sorted run: what is held decoded at a time.
pub(crate) const RUN_ROWS: usize = 65_536;
/// Rows made into columns at a time.
const BATCH_ROWS: usize = 8_192;

/// Makes data files of the table.
#[derive(Clone)]
pub(crate) struct Files {
    store: ObjectStoreRef,
    config: WriterConfig,
}

impl Files {
    pub(crate) fn new(table: &Table) -> Result<Self, Error> {
        let (columns, statistics) =
            get_num_idx_cols_and_stats_columns(Some(table.state().table_config()), HashMap::new());
        Ok(Self {
            store: table.store(),
            config: WriterConfig::new(
                Arc::clone(&MESSAGES),
                vec![DATE.to_owned()],
                Some(layout()?),
                None,
                None,
                columns,
                statistics,
            ),
        })
    }

    pub(crate) fn store(&self) -> ObjectStoreRef {
        Arc::clone(&self.store)
    }

    /// Writes one file for each date among the rows; they are not part of the table
    /// before they are committed. The rows are put in the order of the file.
    ///
    /// The files are made in memory first: they are small, and the library's writer
    /// does not take well to a storage that fails half-way.
    pub(crate) async fn write(&self, rows: &mut [Judged]) -> Result<Vec<Add>, Error> {
        rows.sort_unstable_by(|a, b| place(a).cmp(&place(b)));
        let memory = Arc::new(InMemory::new());
        let adds = self.encode(rows, Arc::clone(&memory) as _).await?;
        for add in &adds {
            let path = Path::parse(&add.path).map_err(deltalake::ObjectStoreError::from)?;
            let bytes = memory.get(&path).await?.bytes().await?;
            self.store.put(&path, bytes.into()).await?;
        }
        Ok(adds)
    }

    async fn encode(&self, rows: &[Judged], store: ObjectStoreRef) -> Result<Vec<Add>, Error> {
        let mut file = self.begin_in(store);
        for chunk in rows.chunks(BATCH_ROWS) {
            file.push(&columns::batch(chunk)?).await?;
        }
        file.close().await
    }

    /// A file written to the table's storage as it grows.
    pub(crate) fn begin(&self) -> File {
        self.begin_in(self.store())
    }

    fn begin_in(&self, store: ObjectStoreRef) -> File {
        File {
            writer: DeltaWriter::new(store, self.config.clone()),
        }
    }
}

/// Files being written.
pub(crate) struct File {
    writer: DeltaWriter,
}

impl File {
    pub(crate) async fn push(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        Ok(self.writer.write(batch).await?)
    }

    pub(crate) async fn close(self) -> Result<Vec<Add>, Error> {
        Ok(self.writer.close().await?)
    }

    /// Gives up what was written so far.
    pub(crate) async fn abort(self) {
        // What is left of it is removed with the other files that the table does not know.
        let _ = self.writer.abort().await;
    }
}

/// Sorts rows given as batches, all of one date, into one batch.
pub(crate) fn sorted(batches: &[RecordBatch]) -> Result<RecordBatch, ArrowError> {
    let all = concat_batches(&MESSAGES, batches)?;
    let keys = ["tenant", "channel", "received_at"]
        .map(|name| {
            MESSAGES.index_of(name).map(|index| SortColumn {
                values: Arc::clone(all.column(index)),
                options: None,
            })
        })
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    take_record_batch(&all, &lexsort_to_indices(&keys, None)?)
}

/// Where a row stands in its file: a tenant's channel together, in its order.
fn place(row: &Judged) -> impl Ord + '_ {
    let received = row.message.received_at.as_microsecond();
    (
        received.div_euclid(86_400_000_000),
        &row.message.tenant,
        &row.message.channel,
        received,
        row.source,
    )
}

/// Dictionaries where values repeat, differences where they grow, plain where neither
/// helps; page statistics for what queries select by.
fn layout() -> Result<WriterProperties, Error> {
    let level =
        ZstdLevel::try_new(1).map_err(|error| ArrowError::ParquetError(error.to_string()))?;
    let path = |name: &str| ColumnPath::from(name);
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("weir ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(RUN_ROWS))
        .set_statistics_enabled(EnabledStatistics::Chunk);
    for name in ["tenant", "channel", "sender", "received_at"] {
        properties = properties.set_column_statistics_enabled(path(name), EnabledStatistics::Page);
    }
    for name in ["text", "reasons"] {
        properties = properties.set_column_statistics_enabled(path(name), EnabledStatistics::None);
    }
    for field in MESSAGES.fields() {
        use arrow::datatypes::DataType::{Float32, Int64, Timestamp};
        let column = path(field.name());
        match field.data_type() {
            Timestamp(..) | Int64 => {
                properties = properties
                    .set_column_dictionary_enabled(column.clone(), false)
                    .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
            }
            Float32 => {
                properties = properties.set_column_dictionary_enabled(column, false);
            }
            _ if matches!(field.name().as_str(), "text" | "message_id") => {
                properties = properties.set_column_dictionary_enabled(column, false);
            }
            _ => {}
        }
    }
    Ok(properties.build())
}
