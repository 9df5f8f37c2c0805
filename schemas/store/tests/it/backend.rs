//! The implementations that the contract is run over. A new one is a type with
//! [`Backend`] and one more line in the `contract!` macro.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::time::{SystemTime, UNIX_EPOCH};

use futures::FutureExt as _;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use tempfile::TempDir;
use weir_store::cql::{self, Config};
use weir_store::{Accounts, History, embedded};

/// A place that a store can be opened in more than once.
pub(crate) trait Backend: Sized {
    /// Whether of two writers of a row at the same moment one is told that it was late.
    const ORDERS_WRITERS: bool = true;

    /// A place that holds nothing yet; `None` where there is none on this machine.
    async fn new() -> Option<Self>;

    /// Opens what it holds; everything opened before has been dropped.
    async fn open(&self) -> Opened;

    /// Takes everything away again.
    async fn clear(self) {}
}

/// Both faces of one open store.
pub(crate) struct Opened {
    pub(crate) accounts: Arc<dyn Accounts>,
    pub(crate) history: Arc<dyn History>,
}

/// The store inside the process.
pub(crate) struct Embedded(TempDir);

impl Backend for Embedded {
    async fn new() -> Option<Self> {
        Some(Self(tempfile::tempdir().unwrap()))
    }

    async fn open(&self) -> Opened {
        let store = embedded::Store::open(&self.0.path().join("store")).unwrap();
        Opened {
            accounts: store.clone(),
            history: store,
        }
    }
}

/// A keyspace of its own on the server that `WEIR_TEST_CQL` names, as `host:port`.
pub(crate) struct Cql(pub(crate) Config);

impl Backend for Cql {
    const ORDERS_WRITERS: bool = false;

    async fn new() -> Option<Self> {
        static SAID: Once = Once::new();
        let Ok(nodes) = std::env::var("WEIR_TEST_CQL") else {
            SAID.call_once(|| eprintln!("no WEIR_TEST_CQL=host:port: nothing is run over CQL"));
            return None;
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let name = (std::process::id(), now.as_nanos());
        Some(Self(Config {
            nodes,
            keyspace: format!("weir_test_{}_{}", name.0, name.1),
            replication: 1,
            // A server that shares two cores with all tests at once.
            connect_seconds: 30,
            read_seconds: 30,
            write_seconds: 60,
            ..Config::default()
        }))
    }

    async fn open(&self) -> Opened {
        let store = self.store().await;
        Opened {
            accounts: store.clone(),
            history: store,
        }
    }

    async fn clear(self) {
        let text = format!("DROP KEYSPACE IF EXISTS {}", self.0.keyspace);
        self.session().await.query_unpaged(text, &[]).await.unwrap();
    }
}

impl Cql {
    /// A store of this keyspace, as another process would have one.
    pub(crate) async fn store(&self) -> Arc<cql::Store> {
        cql::migrate(&self.0).await.unwrap();
        cql::Store::connect(&self.0).await.unwrap()
    }

    /// A connection to say to the server what a store never would.
    pub(crate) async fn session(&self) -> Session {
        let builder = SessionBuilder::new().known_node(&self.0.nodes);
        builder.build().await.unwrap()
    }
}

/// Runs a test over a backend, and takes away what it left even if it failed.
pub(crate) async fn run<B: Backend>(test: impl AsyncFnOnce(&B)) {
    if let Some(backend) = B::new().await {
        finish(backend, test).await;
    }
}

/// Runs a test over CQL with other settings.
pub(crate) async fn run_with(change: impl FnOnce(&mut Config), test: impl AsyncFnOnce(&Cql)) {
    if let Some(mut cql) = Cql::new().await {
        change(&mut cql.0);
        finish(cql, test).await;
    }
}

async fn finish<B: Backend>(backend: B, test: impl AsyncFnOnce(&B)) {
    let outcome = AssertUnwindSafe(test(&backend)).catch_unwind().await;
    backend.clear().await;
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

/// The folder of certificates that `WEIR_TEST_TLS` names, where the server takes TLS: `ca.pem`
/// of the authority that signed the server's, and `other-ca.pem`, which did not.
pub(crate) fn authorities() -> Option<PathBuf> {
    static SAID: Once = Once::new();
    let folder = std::env::var_os("WEIR_TEST_TLS");
    if folder.is_none() {
        SAID.call_once(|| eprintln!("no WEIR_TEST_TLS: nothing is run through TLS"));
    }
    folder.map(PathBuf::from)
}

/// Makes a test of every function named, for every backend.
macro_rules! contract {
    ($($name:ident),+ $(,)?) => {
        mod embedded {
            $(
                #[tokio::test]
                async fn $name() {
                    crate::backend::run(async |backend: &crate::backend::Embedded| {
                        super::$name(backend).await;
                    })
                    .await;
                }
            )+
        }

        mod cql {
            $(
                #[tokio::test]
                async fn $name() {
                    crate::backend::run(async |backend: &crate::backend::Cql| {
                        super::$name(backend).await;
                    })
                    .await;
                }
            )+
        }
    };
}
pub(crate) use contract;
