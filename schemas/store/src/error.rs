//! Why a store could not do what it was asked. Texts name the place and the cause,
//! never what was stored.

use std::path::PathBuf;

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What is stored was written by a later version of Weir.
    #[error(
        "the store has format {found}, this build knows formats up to {known}: start the newer Weir on it"
    )]
    NewerFormat {
        /// What the store says.
        found: u32,
        /// The newest that this build reads.
        known: u32,
    },
    /// The tables are missing, or older than this build needs.
    #[error("the store has format {found}, this build needs {known}: run `weir migrate`")]
    OlderFormat {
        /// What the store says; 0 where it has no tables yet.
        found: u32,
        /// What this build needs.
        known: u32,
    },
    /// A setting with which the store can't be used.
    #[error("the setting `{setting}` of the store is wrong: {reason}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What is wrong about it; never its value.
        reason: String,
    },
    /// Another process holds the folder.
    #[error("the store in {} is in use by another process", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The folder can't be made, read or written.
    #[error("the store in {} cannot be used", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What lies on disk is not what was written there.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// A row that this store will never take; waiting does not help.
    #[error("the row is refused: {0}")]
    Refused(&'static str),
    /// The cursor belongs to another list.
    #[error("the cursor does not belong to this list")]
    Cursor,
    /// The store can't be used now. The cause is in the text, so that whoever logs the error
    /// logs it as well: it may name nodes, and is for no answer to a caller.
    #[error("the store is not available: {0}")]
    Unavailable(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn retriable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}
