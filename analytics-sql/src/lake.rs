//! The lake as queries see it: one version of the Delta table, with the last source
//! offset that it holds for each partition.
//!
//! The writer commits rows and offsets in one Delta commit, so a version and its
//! fences always fit together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::DataFusionError;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::parquet::errors::ParquetError;
use deltalake::delta_datafusion::{DeltaScanConfig, DeltaScanNext};
use deltalake::logstore::LogStore;
use deltalake::{DeltaTable, DeltaTableBuilder, DeltaTableError, ObjectStoreError};
use url::Url;
use weir_records::{columns, topic};

/// One version of the lake, or that there is none yet.
pub(crate) struct Snapshot {
    /// The table's version; `None` before the writer made the table.
    pub(crate) version: Option<u64>,
    /// Last source offset held, for every partition asked for; `None` where it holds nothing.
    pub(crate) fences: BTreeMap<i32, Option<i64>>,
    /// Reads that version's rows, of all tenants.
    pub(crate) scan: Option<Arc<dyn TableProvider>>,
}

/// Follows the Delta table.
pub(crate) struct Reader {
    table: DeltaTable,
    loaded: bool,
    /// Version and partitions of the last snapshot given out.
    given: Option<(Option<u64>, BTreeSet<i32>)>,
}

impl Reader {
    /// Names the table; does not look at it yet.
    ///
    /// # Errors
    /// The place is not a URL or path, or of a kind that this build does not know.
    pub(crate) fn new(place: &str) -> Result<Self, DeltaTableError> {
        let table = DeltaTableBuilder::from_url(url(place)?)?.build()?;
        Ok(Self {
            table,
            loaded: false,
            given: None,
        })
    }

    /// Lets queries reach the table's files, and nothing else.
    pub(crate) fn register(&self, stores: &dyn ObjectStoreRegistry) {
        let log = self.table.log_store();
        let mut root = log.root_url().clone();
        root.set_path("/");
        stores.register_store(&root, log.root_object_store(None));
    }

    /// Looks at the table. `None` if it is as it was and every partition asked for was
    /// answered before.
    ///
    /// # Errors
    /// The table can't be read now.
    pub(crate) async fn refresh(
        &mut self,
        partitions: &BTreeSet<i32>,
    ) -> Result<Option<Snapshot>, DeltaTableError> {
        if !self.loaded && !self.table.verify_deltatable_existence().await? {
            return Ok(self.give(None, partitions).then(|| Snapshot {
                version: None,
                fences: partitions.iter().map(|&p| (p, None)).collect(),
                scan: None,
            }));
        }
        self.table.update_incremental(None).await?;
        self.loaded = true;
        let state = self.table.snapshot()?;
        let version = state.version();
        if self
            .given
            .as_ref()
            .is_some_and(|(v, known)| *v == Some(version) && partitions.is_subset(known))
        {
            return Ok(None);
        }

        let log = self.table.log_store();
        let mut fences = BTreeMap::new();
        for &partition in partitions {
            let fence = state
                .transaction_version(log.as_ref(), topic::lake_transaction(partition))
                .await?;
            fences.insert(partition, fence);
        }
        let config = DeltaScanConfig::new()
            .with_wrap_partition_values(false)
            .with_schema(Arc::clone(&columns::MESSAGES));
        let scan = DeltaScanNext::new(Arc::new(state.snapshot().clone()), config)?;
        self.give(Some(version), partitions);
        Ok(Some(Snapshot {
            version: Some(version),
            fences,
            scan: Some(Arc::new(scan)),
        }))
    }

    /// Remembers what is given out; answers whether it is news.
    fn give(&mut self, version: Option<u64>, partitions: &BTreeSet<i32>) -> bool {
        let now = Some((version, partitions.clone()));
        let news = self.given != now;
        self.given = now;
        news
    }
}

/// Whether a file is gone that the snapshot names: what it held was rewritten, and the
/// file was deleted at once because something was erased from it.
pub(crate) fn is_gone(error: &DataFusionError) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if matches!(
            error.downcast_ref::<ObjectStoreError>(),
            Some(ObjectStoreError::NotFound { .. })
        ) {
            return true;
        }
        // The reader of footers passes the storage's error on in words only.
        if let Some(ParquetError::General(words)) = error.downcast_ref::<ParquetError>()
            && words.contains("Object at location ")
            && words.contains(" not found")
        {
            return true;
        }
        next = match error.downcast_ref::<DataFusionError>() {
            Some(DataFusionError::ObjectStore(inner)) => Some(&**inner),
            Some(DataFusionError::ParquetError(inner)) => Some(&**inner),
            Some(DataFusionError::Shared(inner)) => Some(&**inner),
            _ => error.source(),
        };
    }
    false
}

/// A URL as it is, a path made absolute; a colon alone does not make one of the other.
fn url(place: &str) -> Result<Url, DeltaTableError> {
    if place.contains("://")
        && let Ok(url) = Url::parse(place)
    {
        return Ok(url);
    }
    std::path::absolute(place)
        .ok()
        .and_then(|path| Url::from_directory_path(path).ok())
        .ok_or_else(|| DeltaTableError::InvalidTableLocation("neither a URL nor a path".to_owned()))
}
