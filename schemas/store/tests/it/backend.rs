//! The implementations that the contract is run over. A new one is a type with
//! [`Backend`] and one more line in each `contract!` list.

use std::sync::Arc;

use tempfile::TempDir;
use weir_store::embedded::Store;
use weir_store::{Accounts, History};

/// A place that a store can be opened in more than once.
pub(crate) trait Backend: Sized {
    /// A place that holds nothing yet.
    fn new() -> Self;

    /// Opens what it holds; everything opened before has been dropped.
    fn open(&self) -> Opened;
}

/// Both faces of one open store.
pub(crate) struct Opened {
    pub(crate) accounts: Arc<dyn Accounts>,
    pub(crate) history: Arc<dyn History>,
}

/// The store inside the process.
pub(crate) struct Embedded(TempDir);

impl Backend for Embedded {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self) -> Opened {
        let store = Store::open(&self.0.path().join("store")).unwrap();
        Opened {
            accounts: store.clone(),
            history: store,
        }
    }
}

/// Makes a test of every function named, for every backend.
macro_rules! contract {
    ($($name:ident),+ $(,)?) => {
        mod embedded {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name(<crate::backend::Embedded as crate::backend::Backend>::new()).await;
                }
            )+
        }
    };
}
pub(crate) use contract;
