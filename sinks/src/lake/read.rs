//! Some columns of a data file, read where they lie: a search for a sender does not
//! fetch texts.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use bytes::Bytes;
use deltalake::ObjectStoreError;
use deltalake::kernel::LogicalFileView;
use deltalake::logstore::ObjectStoreRef;
use deltalake::logstore::object_store::ObjectStoreExt as _;
use deltalake::logstore::object_store::path::Path;
use futures::future::{BoxFuture, FutureExt as _, TryFutureExt as _};
use futures::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::Error;

/// Rows decoded at a time.
const ROWS: usize = 8_192;

/// The batches of a file, of these columns only.
pub(crate) async fn columns(
    store: ObjectStoreRef,
    view: &LogicalFileView,
    columns: &[&str],
) -> Result<BoxStream<'static, Result<RecordBatch, ArrowError>>, Error> {
    let file = File {
        store,
        path: view.object_store_path(),
        size: u64::try_from(view.size()).unwrap_or(0),
    };
    let file = ParquetRecordBatchStreamBuilder::new(file)
        .await
        .map_err(ArrowError::from)?;
    let mask = ProjectionMask::columns(file.parquet_schema(), columns.iter().copied());
    let batches = file
        .with_projection(mask)
        .with_batch_size(ROWS)
        .build()
        .map_err(ArrowError::from)?;
    Ok(batches.map_err(ArrowError::from).boxed())
}

struct File {
    store: ObjectStoreRef,
    path: Path,
    size: u64,
}

fn failed(error: ObjectStoreError) -> ParquetError {
    ParquetError::External(error.into())
}

impl AsyncFileReader for File {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        self.store
            .get_range(&self.path, range)
            .map_err(failed)
            .boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move {
            self.store
                .get_ranges(&self.path, &ranges)
                .await
                .map_err(failed)
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let size = self.size;
            let found = ParquetMetaDataReader::new()
                .with_arrow_reader_options(options)
                .load_and_finish(self, size)
                .await?;
            Ok(Arc::new(found))
        }
        .boxed()
    }
}
