//! Files of a date written again as one: sorted run by run, and with rows left out or
//! changed on the way. What is put in their place is ready to be committed, and not
//! part of the table before.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Date32Array, RecordBatch};
use deltalake::datafile::DataFileReader as _;
use deltalake::datafile::reader::ParquetFileReader;
use deltalake::kernel::{Action, LogicalFileView};
use deltalake::logstore::object_store::path::Path;
use deltalake::logstore::object_store::{Error as StoreError, ObjectStoreExt as _};
use futures::TryStreamExt as _;
use weir_records::columns::{DATE, MESSAGES};

use super::Error;
use super::files::{File, Files, RUN_ROWS, sorted};

/// Files written in place of others, ready to be committed.
pub(crate) struct Rewritten {
    /// When the first of the new files was begun.
    pub(crate) at: Instant,
    /// The files replaced, by their path in the table.
    pub(crate) inputs: HashSet<String>,
    /// Their removal, and the new files.
    pub(crate) actions: Vec<Action>,
    /// Rows of the inputs that the new files do not hold.
    pub(crate) dropped: usize,
}

impl Rewritten {
    /// The removal of a file with nothing in its place.
    pub(crate) fn gone(view: &LogicalFileView) -> Self {
        Self {
            at: Instant::now(),
            inputs: HashSet::from([view.path().into_owned()]),
            actions: vec![Action::Remove(view.remove_action(true))],
            dropped: view.num_records().unwrap_or(0),
        }
    }

    /// The new files, by their path in the table.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = &str> {
        self.actions.iter().filter_map(|action| match action {
            Action::Add(add) => Some(add.path.as_str()),
            _ => None,
        })
    }

    /// Deletes the new files, which are not to be committed after all.
    pub(crate) async fn discard(&self, files: &Files) {
        let paths: Vec<&str> = self.outputs().collect();
        // What can't be deleted now goes with the other files that the table does not know.
        let _ = delete(files, paths.into_iter()).await;
    }
}

/// Deletes files that are not part of the table. Answers how many there were.
pub(crate) async fn delete(
    files: &Files,
    paths: impl Iterator<Item = &str>,
) -> Result<usize, StoreError> {
    let mut deleted = 0;
    for path in paths {
        let path = Path::parse(path).unwrap_or_else(|_| Path::from(path));
        match files.store().delete(&path).await {
            Ok(()) => deleted += 1,
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(deleted)
}

/// What becomes of a batch of rows.
pub(crate) trait Change: FnMut(RecordBatch) -> Result<RecordBatch, Error> + Send {}
impl<F: FnMut(RecordBatch) -> Result<RecordBatch, Error> + Send> Change for F {}

/// Reads `inputs`, all of that date, and writes what `change` makes of their rows as one
/// file; none if nothing is left. `data_change`: whether the table says something else then.
///
/// # Errors
/// A file can't be read or written, or holds another number of rows than the table says.
pub(crate) async fn rewrite(
    files: &Files,
    date: i32,
    inputs: &[LogicalFileView],
    data_change: bool,
    change: impl Change,
) -> Result<Rewritten, Error> {
    let at = Instant::now();
    let expected: Option<usize> = inputs.iter().map(LogicalFileView::num_records).sum();
    let mut file = files.begin();
    let (read, written) = match copy(files, date, inputs, &mut file, change).await {
        Ok(rows) => rows,
        Err(error) => {
            file.abort().await;
            return Err(error);
        }
    };
    let adds = file.close().await?;
    if expected.is_some_and(|expected| expected != read) {
        return Err(Error::Rewrite {
            expected: expected.unwrap_or_default(),
            found: read,
        });
    }
    let removes = inputs
        .iter()
        .map(|view| Action::Remove(view.remove_action(data_change)));
    let adds = adds.into_iter().map(|mut add| {
        add.data_change = data_change;
        Action::Add(add)
    });
    Ok(Rewritten {
        at,
        actions: removes.chain(adds).collect(),
        inputs: inputs.iter().map(|view| view.path().into_owned()).collect(),
        dropped: read - written,
    })
}

/// Answers how many rows were read, and how many written.
async fn copy(
    files: &Files,
    date: i32,
    inputs: &[LogicalFileView],
    file: &mut File,
    mut change: impl Change,
) -> Result<(usize, usize), Error> {
    let reader = ParquetFileReader::new(files.store());
    let (mut run, mut held) = (Vec::new(), 0);
    let (mut read, mut written) = (0, 0);
    for view in inputs {
        let mut batches = reader.read_file(view.object_store_path()).await?;
        while let Some(batch) = batches.try_next().await? {
            read += batch.num_rows();
            let mut batch = change(with_date(&batch, date)?)?;
            written += batch.num_rows();
            // A run fills its row group exactly.
            while held + batch.num_rows() >= RUN_ROWS {
                let room = RUN_ROWS - held;
                run.push(batch.slice(0, room));
                batch = batch.slice(room, batch.num_rows() - room);
                file.push(&sorted(&run)?).await?;
                run.clear();
                held = 0;
            }
            if batch.num_rows() > 0 {
                held += batch.num_rows();
                run.push(batch);
            }
        }
    }
    if !run.is_empty() {
        file.push(&sorted(&run)?).await?;
    }
    Ok((read, written))
}

/// The date is in the file's path, not among its columns.
fn with_date(batch: &RecordBatch, date: i32) -> Result<RecordBatch, Error> {
    let columns = MESSAGES
        .fields()
        .iter()
        .map(|field| -> Result<ArrayRef, Error> {
            if field.name() == DATE {
                return Ok(Arc::new(Date32Array::from_value(date, batch.num_rows())));
            }
            Ok(Arc::clone(
                batch.column(batch.schema_ref().index_of(field.name())?),
            ))
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(Arc::clone(&MESSAGES), columns)?)
}

/// Days since 1970-01-01 of the file's date.
pub(crate) fn date(view: &LogicalFileView) -> Option<i32> {
    days(view.partition_values_map().get(DATE)?.as_deref()?)
}

/// Days since 1970-01-01 of the date in a file's path in the table.
pub(crate) fn date_in(path: &str) -> Option<i32> {
    let folder = path.split('/').next()?;
    days(folder.strip_prefix(DATE)?.strip_prefix('=')?)
}

fn days(text: &str) -> Option<i32> {
    let date: jiff::civil::Date = text.parse().ok()?;
    let midnight = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    i32::try_from(midnight.as_second().div_euclid(86_400)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_a_file_that_is_gone_is_in_its_path() {
        assert_eq!(date_in("date=1970-01-11/part-1.parquet"), Some(10));
        for path in [
            "part-1.parquet",
            "date=x/part-1.parquet",
            "dates=1970-01-11/a",
        ] {
            assert_eq!(date_in(path), None, "{path}");
        }
    }
}
