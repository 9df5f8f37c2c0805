//! What the roles work on, by the settings: brokers, store, lake. The roles do not know
//! which they have got.
//!
//! An embedded one lives in the data folder and belongs to one process. Those of others
//! (Apache Kafka, a CQL database) are waited for: a process that starts while they are
//! away goes on by itself once they are back.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use prometheus::Registry;
use weir_broker::Broker;
use weir_store::{Accounts, History, cql, embedded};

use crate::config::{Config, Store};
use crate::data::DataDir;
use crate::retention;
use crate::serve::Readiness;

/// User name of Weir's own clients at the embedded broker.
const BROKER_USER: &str = "weir";
/// Between two tries to reach what is away.
const AGAIN: Duration = Duration::from_secs(1);
/// Of so many tries that failed, one is told.
const TOLD: u32 = 60;

/// What one store is to others.
type Faces = (Arc<dyn Accounts>, Arc<dyn History>);

fn both<S: Accounts + History>(store: &Arc<S>) -> Faces {
    (
        Arc::clone(store) as Arc<dyn Accounts>,
        Arc::clone(store) as Arc<dyn History>,
    )
}

/// Connected, and ready for the roles.
pub(crate) struct Backends {
    pub(crate) bus: weir_bus::Config,
    pub(crate) accounts: Arc<dyn Accounts>,
    pub(crate) history: Arc<dyn History>,
    /// Folder of the Delta table.
    pub(crate) lake: String,
    /// Folder of the keys that sign tokens.
    pub(crate) secrets: PathBuf,
    /// The store, where it is embedded.
    pub(crate) embedded: Option<Arc<embedded::Store>>,
    broker: Option<Broker>,
}

impl Backends {
    /// Those of `weir up`: whatever the settings leave empty is embedded, in `data`.
    pub(crate) async fn open(config: &Config, data: &DataDir, registry: &Registry) -> Result<Self> {
        let lake = data.lake(&config.lake)?;
        let (bus, broker) = if config.bus.brokers.is_empty() {
            let broker = start_broker(config, data, registry).await?;
            let security = weir_bus::Security::Plain {
                username: BROKER_USER.to_owned(),
                password: data.broker_secret()?,
            };
            let bus = config.bus(broker.address().to_string(), security);
            make_topics(config, &bus).await?;
            (bus, Some(broker))
        } else {
            (reach_bus(config).await?, None)
        };
        let opened = match config.store {
            Store::Embedded => embedded::Store::open(&data.path("store"))
                .context("the store can't be opened")
                .map(|store| (both(&store), Some(store))),
            Store::Scylla => reach_store(config).await.map(|store| (store, None)),
        };
        let ((accounts, history), embedded) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                if let Some(broker) = broker {
                    broker.shutdown().await;
                }
                return Err(error);
            }
        };
        Ok(Self {
            bus,
            accounts,
            history,
            lake,
            secrets: data.secrets(),
            embedded,
            broker,
        })
    }

    /// Those of a lone role: shared with other processes, so none of them is embedded.
    pub(crate) async fn reach(config: &Config) -> Result<Self> {
        let bus = reach_bus(config).await?;
        let (accounts, history) = reach_store(config).await?;
        Ok(Self {
            bus,
            accounts,
            history,
            lake: config.lake.clone(),
            secrets: config.data.join("secrets"),
            embedded: None,
            broker: None,
        })
    }

    /// Looks at brokers and store each time that somebody asks whether this process is ready.
    pub(crate) fn watch(&self, ready: &mut Readiness) {
        let bus = self.bus.clone();
        ready.add("bus", move || {
            let bus = bus.clone();
            async move {
                weir_bus::reachable(&bus)
                    .await
                    .map_err(|error| error.to_string())
            }
        });
        let history = Arc::clone(&self.history);
        ready.add("store", move || {
            let history = Arc::clone(&history);
            // The cheapest question that a store has to look up.
            async move {
                let looked = history.fence(0).await;
                looked.map(drop).map_err(|error| {
                    tracing::debug!(%error, "the store is not ready");
                    // Anybody may ask: which node failed, and how, is for the log.
                    "the store is not available".to_owned()
                })
            }
        });
    }

    pub(crate) async fn shutdown(self) {
        if let Some(broker) = self.broker {
            broker.shutdown().await;
        }
    }
}

async fn start_broker(config: &Config, data: &DataDir, registry: &Registry) -> Result<Broker> {
    let mut broker = weir_broker::Config::new(config.bus.listen, data.part("broker")?);
    broker.auth = weir_broker::Auth::Plain {
        username: BROKER_USER.to_owned(),
        password: data.broker_secret()?,
    };
    Broker::start(broker, registry)
        .await
        .context("the embedded broker can't start")
}

/// Makes what is missing of the topics.
pub(crate) async fn make_topics(config: &Config, bus: &weir_bus::Config) -> Result<()> {
    let retention = Duration::from_secs(u64::from(config.bus.retention_hours) * 3600);
    weir_bus::create_topics(bus, retention, retention::of_log(&config.retention))
        .await
        .context("the topics can't be made")
}

/// Brokers of others, on which `weir migrate` has made the topics.
async fn reach_bus(config: &Config) -> Result<weir_bus::Config> {
    let bus = config.bus(config.bus.brokers.clone(), weir_bus::Security::None);
    let check = || weir_bus::check_topics(&bus);
    patiently("Kafka", check, |error| {
        matches!(error, weir_bus::Error::Unreachable { .. })
    })
    .await
    .context("the topics can't be used; `weir migrate` makes them")?;
    Ok(bus)
}

async fn reach_store(config: &Config) -> Result<Faces> {
    let connect = || cql::Store::connect(&config.cql);
    let store = patiently("the CQL database", connect, weir_store::Error::retriable)
        .await
        .context("the CQL database can't be used")?;
    Ok(both(&store))
}

/// Tries until it works, or fails in a way that waiting does not mend.
async fn patiently<T, E: std::error::Error + Send + Sync + 'static, F>(
    what: &str,
    mut attempt: impl FnMut() -> F,
    passing: impl Fn(&E) -> bool,
) -> Result<T>
where
    F: Future<Output = Result<T, E>>,
{
    let mut tries = 0_u32;
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) if passing(&error) => {
                if tries.is_multiple_of(TOLD) {
                    tracing::warn!(%error, tries, "waiting for {what}");
                }
                tries = tries.wrapping_add(1);
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => bail!(error),
        }
    }
}
