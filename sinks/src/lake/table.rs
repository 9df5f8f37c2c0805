//! The Delta table: opening and making it, its fences, its commits.
//!
//! Whatever is committed goes through [`Table::commit`], which tells whether another
//! writer's commit came between. Fences read from one version hold only for commits
//! made on that version: after a commit that was not alone they are read again.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use deltalake::kernel::engine::arrow_conversion::TryIntoKernel as _;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties, PROTOCOL};
use deltalake::kernel::{Action, LogicalFileView, StructType, Transaction};
use deltalake::logstore::object_store::ObjectStoreExt as _;
use deltalake::logstore::object_store::path::Path;
use deltalake::logstore::{LogStoreRef, ObjectStoreRef};
use deltalake::operations::create::CreateBuilder;
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::table::state::DeltaTableState;
use deltalake::{DeltaTable, DeltaTableBuilder, TableProperty};
use url::Url;
use weir_records::columns::{DATE, MESSAGES};
use weir_records::topic;

use super::store::Durable;
use super::{Config, Error};

/// The version of what Weir writes into the table, under this property.
const FORMAT_KEY: &str = "weir.format";
/// The version that this build writes; it reads no later one.
const FORMAT: u32 = 1;
/// The columns by whose least and greatest value a reader may skip a file.
const STATISTICS: &str =
    "tenant,channel,sender,message_id,sent_at,received_at,judged_at,partition,offset";

/// The table and the version of it that was read last.
pub(crate) struct Table {
    log: LogStoreRef,
    state: DeltaTableState,
    /// The folder, where the table lies in one.
    folder: Option<PathBuf>,
}

/// What became of a commit.
pub(crate) struct Committed {
    /// Whether no other commit came between the version read and this one.
    pub(crate) alone: bool,
}

impl Table {
    /// Opens the table at `config.url`, or makes it.
    pub(crate) async fn open(config: &Config) -> Result<Self, Error> {
        let (url, folder) = locate(&config.url)?;
        let log = log_store(&url, folder.as_deref()).map_err(|_| Error::Location {
            url: config.url.clone(),
        })?;
        probe(&log, &config.url).await?;
        if !log.is_delta_table_location().await? {
            create(&log, config).await?;
        }
        let mut table = Self {
            state: DeltaTableState::try_new(&log, None)
                .await
                .map_err(|error| newer(&config.url, error))?,
            log,
            folder,
        };
        table.check(&config.url)?;
        table.settle_properties(config).await?;
        Ok(table)
    }

    pub(crate) fn version(&self) -> u64 {
        self.state.version()
    }

    pub(crate) fn state(&self) -> &DeltaTableState {
        &self.state
    }

    pub(crate) fn log(&self) -> LogStoreRef {
        Arc::clone(&self.log)
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = LogicalFileView> {
        self.state.log_data().into_iter()
    }

    pub(crate) fn file_count(&self) -> usize {
        self.state.log_data().num_files()
    }

    /// The store of the data files, rooted at the table.
    pub(crate) fn store(&self) -> ObjectStoreRef {
        self.log.object_store(None)
    }

    pub(crate) fn folder(&self) -> Option<&FilePath> {
        self.folder.as_deref()
    }

    /// Reads the newest version.
    pub(crate) async fn refresh(&mut self) -> Result<(), Error> {
        if self.state.update(&self.log, None).await.is_err() {
            // What is in memory may hang on log entries that are gone by now.
            self.state = DeltaTableState::try_new(&self.log, None).await?;
        }
        Ok(())
    }

    /// The last source offset that this version holds of a partition.
    pub(crate) async fn fence(&self, partition: i32) -> Result<Option<i64>, Error> {
        let app = topic::lake_transaction(partition);
        Ok(self.state.transaction_version(&self.log, app).await?)
    }

    /// The offset of the last erasure that this version was searched for.
    pub(crate) async fn erased(&self) -> Result<Option<i64>, Error> {
        let app = topic::LAKE_ERASURES;
        Ok(self.state.transaction_version(&self.log, app).await?)
    }

    /// Commits `actions` together with application transactions, on the version read last.
    pub(crate) async fn commit(
        &mut self,
        actions: Vec<Action>,
        transactions: Vec<Transaction>,
        operation: DeltaOperation,
    ) -> Result<Committed, Error> {
        let base = self.state.version();
        // Checkpoints and clean-up have their own time, away from the path of rows.
        let properties = CommitProperties::default()
            .with_create_checkpoint(false)
            .with_cleanup_expired_logs(Some(false))
            .with_application_transactions(transactions);
        let done = CommitBuilder::from(properties)
            .with_actions(actions)
            .build(Some(&self.state), Arc::clone(&self.log), operation)
            .await?;
        self.state = done.snapshot;
        Ok(Committed {
            alone: done.version == base + 1,
        })
    }

    fn check(&self, url: &str) -> Result<(), Error> {
        let found = self.state.metadata().configuration().get(FORMAT_KEY);
        if let Some(found) = found
            && found.parse::<u32>().map_or(true, |format| format > FORMAT)
        {
            return Err(Error::NewerFormat {
                url: url.to_owned(),
                found: found.clone(),
                known: FORMAT,
            });
        }
        if let Some(difference) = difference(&expected()?, &self.state) {
            return Err(Error::Schema {
                url: url.to_owned(),
                difference,
            });
        }
        PROTOCOL
            .can_write_to(&self.state)
            .map_err(|error| newer(url, error.into()))
    }

    /// An operator may have changed how long the past is kept.
    async fn settle_properties(&mut self, config: &Config) -> Result<(), Error> {
        let found = self.state.metadata().configuration();
        let changed: HashMap<String, String> = properties(config)
            .into_iter()
            .filter(|(key, value)| key.as_str() != FORMAT_KEY && found.get(key) != Some(value))
            .collect();
        if changed.is_empty() {
            return Ok(());
        }
        let mut table = DeltaTable::new(self.log());
        table.load().await?;
        table
            .set_tbl_properties()
            .with_properties(changed)
            .with_raise_if_not_exists(false)
            .await?;
        self.refresh().await
    }
}

/// The URL of the setting, and its folder if it is one.
fn locate(setting: &str) -> Result<(Url, Option<PathBuf>), Error> {
    let location = || Error::Location {
        url: setting.to_owned(),
    };
    let folder = if setting.contains("://") {
        let url = Url::parse(setting).map_err(|_| location())?;
        if url.scheme() != "file" {
            return Ok((url, None));
        }
        url.to_file_path().map_err(|()| location())?
    } else if setting.is_empty() {
        return Err(location());
    } else {
        PathBuf::from(setting)
    };
    let folder = std::fs::create_dir_all(&folder)
        .and_then(|()| folder.canonicalize())
        .map_err(|source| Error::NotWritable {
            url: setting.to_owned(),
            source: source.into(),
        })?;
    let url = Url::from_directory_path(&folder).map_err(|()| location())?;
    Ok((url, Some(folder)))
}

/// See [`super::missing_files`].
pub(crate) async fn missing_files(config: &Config) -> Result<Vec<String>, Error> {
    let (url, folder) = locate(&config.url)?;
    let log = log_store(&url, folder.as_deref())?;
    if !log.is_delta_table_location().await? {
        return Ok(Vec::new());
    }
    let state = DeltaTableState::try_new(&log, None).await?;
    let store = log.object_store(None);
    let mut missing = Vec::new();
    for view in state.log_data() {
        let path = view.path().into_owned();
        match store.head(&Path::parse(&path).unwrap_or_default()).await {
            Ok(_) => {}
            Err(deltalake::ObjectStoreError::NotFound { .. }) => missing.push(path),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(missing)
}

fn log_store(url: &Url, folder: Option<&FilePath>) -> Result<LogStoreRef, Error> {
    let builder = DeltaTableBuilder::from_url(url.clone())?;
    let builder = match folder {
        Some(_) => builder.with_storage_backend(Arc::new(Durable::new()), url.clone()),
        None => builder,
    };
    Ok(builder.build_storage()?)
}

/// Writes and deletes a file: better to say now that it cannot be done than at the first commit.
async fn probe(log: &LogStoreRef, url: &str) -> Result<(), Error> {
    let path = Path::from(format!("_weir_probe_{}", std::process::id()));
    let store = log.object_store(None);
    let refused = |source: deltalake::ObjectStoreError| Error::NotWritable {
        url: url.to_owned(),
        source: source.into(),
    };
    store.put(&path, "probe".into()).await.map_err(refused)?;
    match store.delete(&path).await {
        // Another writer of this process was quicker.
        Ok(()) | Err(deltalake::ObjectStoreError::NotFound { .. }) => Ok(()),
        Err(error) => Err(refused(error)),
    }
}

async fn create(log: &LogStoreRef, config: &Config) -> Result<(), Error> {
    let made = CreateBuilder::new()
        .with_log_store(Arc::clone(log))
        .with_table_name("messages")
        .with_comment("Messages with their verdicts, written by Weir")
        .with_columns(expected()?.fields().cloned())
        .with_partition_columns([DATE])
        .with_configuration(
            properties(config)
                .into_iter()
                .map(|(key, value)| (key, Some(value))),
        )
        .with_raise_if_key_not_exists(false)
        .with_save_mode(SaveMode::ErrorIfExists)
        // Without retries, a table that another writer makes at this moment stays as it is.
        .with_commit_properties(CommitProperties::default().with_max_retries(0))
        .await;
    match made {
        Ok(_) => Ok(()),
        Err(_) if log.is_delta_table_location().await? => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn expected() -> Result<StructType, Error> {
    Ok(MESSAGES.as_ref().try_into_kernel()?)
}

fn difference(expected: &StructType, state: &DeltaTableState) -> Option<String> {
    let found = state.schema();
    let partitioned = state.metadata().partition_columns();
    if partitioned != [DATE] {
        return Some(format!(
            "it is partitioned by {partitioned:?}, not by `{DATE}`"
        ));
    }
    for column in expected.fields() {
        let name = column.name();
        match found.field(name) {
            None => return Some(format!("it lacks the column `{name}`")),
            Some(other) if other.data_type() != column.data_type() => {
                return Some(format!(
                    "its column `{name}` is {}, not {}",
                    other.data_type(),
                    column.data_type()
                ));
            }
            Some(other) if other.is_nullable() != column.is_nullable() => {
                return Some(format!(
                    "its column `{name}` differs in whether it may be null"
                ));
            }
            Some(_) => {}
        }
    }
    found
        .fields()
        .find(|field| expected.field(field.name()).is_none())
        .map(|field| {
            format!(
                "it has a column `{}` that this build does not know",
                field.name()
            )
        })
}

/// The table's own settings. `delta.setTransactionRetentionDuration` is not among
/// them: a transaction that expired would let rows in twice.
fn properties(config: &Config) -> BTreeMap<String, String> {
    [
        (FORMAT_KEY, FORMAT.to_string()),
        (
            TableProperty::DeletedFileRetentionDuration.as_ref(),
            interval(config.retention),
        ),
        (
            TableProperty::LogRetentionDuration.as_ref(),
            interval(config.log_retention),
        ),
        (
            TableProperty::DataSkippingStatsColumns.as_ref(),
            STATISTICS.to_owned(),
        ),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

fn interval(duration: Duration) -> String {
    if duration.subsec_millis() == 0 {
        format!("interval {} seconds", duration.as_secs())
    } else {
        format!("interval {} milliseconds", duration.as_millis())
    }
}

/// An error of reading a table that uses what this build does not know.
fn newer(url: &str, error: deltalake::DeltaTableError) -> Error {
    use deltalake::DeltaTableError as E;
    use deltalake::kernel::transaction::TransactionError as T;

    let text = error.to_string();
    let unknown = matches!(
        &error,
        E::Transaction {
            source: T::UnsupportedTableFeatures(_) | T::TableFeaturesRequired(_)
        }
    ) || (matches!(&error, E::KernelError(_) | E::Kernel { .. })
        && text.to_lowercase().contains("unsupported"));
    if unknown {
        Error::NewerFormat {
            url: url.to_owned(),
            found: text,
            known: FORMAT,
        }
    } else {
        error.into()
    }
}
