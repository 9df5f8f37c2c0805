//! A query's own session: what it can name, what it may use.
//!
//! Each query gets a fresh catalog that holds the tenant's `messages` and nothing else,
//! and a memory pool of its own. What is shared is what no query can change: the
//! functions, the file footers in memory, and the way to the lake's files.

use std::sync::Arc;

use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList,
    MemorySchemaProvider, SchemaProvider,
};
use datafusion::common::Result;
use datafusion::execution::cache::cache_manager::CacheManagerConfig;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, SessionStateBuilder, SessionStateDefaults};
use datafusion::object_store::ObjectStore;
use datafusion::prelude::SessionConfig;
use parking_lot::RwLock;
use url::Url;

use crate::config::Config;
use crate::grow;
use crate::memory::Share;
use crate::table::Messages;

/// The catalog and schema that `messages` is in.
const CATALOG: &str = "weir";
const SCHEMA: &str = "public";

/// Functions left out. Of the first, one call makes as much data as its argument says,
/// outside of every memory bound. The last two take a type as text, which is known to be
/// one of no bounded size only after the plan was checked.
const UNBOUNDED: [&str; 11] = [
    "repeat",
    "lpad",
    "rpad",
    "array_repeat",
    "array_resize",
    "range",
    "generate_series",
    "array_replace_n",
    "array_replace_all",
    "arrow_cast",
    "arrow_try_cast",
];

/// Makes sessions.
pub(crate) struct Sessions {
    base: SessionState,
    memory: usize,
    all_memory: Arc<dyn MemoryPool>,
}

impl Sessions {
    /// # Errors
    /// A setting that DataFusion refuses.
    pub(crate) fn new(config: &Config, stores: Arc<Stores>) -> Result<Self> {
        let caches = CacheManagerConfig::default()
            .with_metadata_cache_limit(config.file_cache_bytes)
            .with_list_files_cache(None)
            .with_list_files_cache_limit(0)
            .with_file_statistics_cache_limit(0);
        let runtime = RuntimeEnvBuilder::new()
            .with_object_store_registry(stores)
            .with_cache_manager(caches)
            .with_disk_manager_builder(
                DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled),
            )
            .build_arc()?;

        let mut settings = SessionConfig::new()
            .with_default_catalog_and_schema(CATALOG, SCHEMA)
            .with_create_default_catalog_and_schema(false)
            .with_information_schema(true)
            .with_target_partitions(config.partitions.max(1));
        let options = settings.options_mut();
        options.sql_parser.collect_spans = true;
        // The columns are of this type too.
        options.sql_parser.map_string_types_to_utf8view = false;

        let functions = SessionStateDefaults::default_scalar_functions();
        let base = SessionStateBuilder::new()
            .with_config(settings)
            .with_runtime_env(runtime)
            .with_expr_planners(SessionStateDefaults::default_expr_planners())
            .with_scalar_functions(
                functions
                    .into_iter()
                    .filter(|f| !UNBOUNDED.contains(&f.name()))
                    .map(grow::bounded)
                    .collect(),
            )
            .with_aggregate_functions(SessionStateDefaults::default_aggregate_functions())
            .with_window_functions(SessionStateDefaults::default_window_functions())
            // As tables these two give their rows batch by batch; nothing here reads files.
            .with_table_function_list(
                SessionStateDefaults::default_table_functions()
                    .into_iter()
                    .filter(|f| matches!(f.name(), "range" | "generate_series"))
                    .collect(),
            )
            .build();
        Ok(Self {
            base,
            memory: config.memory_bytes,
            all_memory: Arc::new(GreedyMemoryPool::new(config.memory_total_bytes)),
        })
    }

    /// A session in which `messages` is that table and nothing else exists.
    ///
    /// # Errors
    /// None that a query could cause.
    pub(crate) fn open(&self, messages: Messages) -> Result<SessionState> {
        let schema = MemorySchemaProvider::new();
        schema.register_table("messages".to_owned(), Arc::new(messages))?;
        let catalog = MemoryCatalogProvider::new();
        catalog.register_schema(SCHEMA, Arc::new(schema))?;
        let catalogs = MemoryCatalogProviderList::new();
        catalogs.register_catalog(CATALOG.to_owned(), Arc::new(catalog));

        let shared = self.base.runtime_env();
        let runtime = RuntimeEnv {
            memory_pool: Arc::new(Share::new(self.memory, Arc::clone(&self.all_memory))),
            ..RuntimeEnv::clone(shared)
        };
        let mut state = SessionStateBuilder::new_from_existing(self.base.clone())
            .with_catalog_list(Arc::new(catalogs))
            .with_runtime_env(Arc::new(runtime))
            .build();
        state.mark_start_execution();
        Ok(state)
    }
}

/// The one object store that queries reach: the lake's.
#[derive(Debug, Default)]
pub(crate) struct Stores(RwLock<Option<(Url, Arc<dyn ObjectStore>)>>);

impl ObjectStoreRegistry for Stores {
    fn register_store(
        &self,
        url: &Url,
        store: Arc<dyn ObjectStore>,
    ) -> Option<Arc<dyn ObjectStore>> {
        self.0
            .write()
            .replace((url.clone(), store))
            .map(|(_, before)| before)
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        let same = |a: &Url, b: &Url| {
            a.scheme() == b.scheme() && a.host_str() == b.host_str() && a.port() == b.port()
        };
        match &*self.0.read() {
            Some((known, store)) if same(known, url) => Ok(Arc::clone(store)),
            _ => datafusion::common::plan_err!("files can't be read here"),
        }
    }
}
