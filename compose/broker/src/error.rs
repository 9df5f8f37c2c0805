//! Why a broker can't start: one clear line each.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A broker that can't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The port is taken.
    #[error("the address {0} is in use by another program")]
    AddressInUse(SocketAddr),
    /// The address can't be listened on.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Another broker runs on the folder.
    #[error("the folder {} is in use by another broker", .0.display())]
    Locked(PathBuf),
    /// The folder can't be read or written.
    #[error("can't use {}: {source}", path.display())]
    Folder {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A newer version wrote the folder.
    #[error("the folder {} has format version {found}, and this version knows {known}: use a newer weir", path.display())]
    NewerFormat {
        /// The folder.
        path: PathBuf,
        /// What the folder says.
        found: u32,
        /// What this version writes.
        known: u32,
    },
    /// A file of the folder is not what this broker wrote, and can't be rebuilt.
    #[error("the file {} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The metrics registry already holds a broker's metrics.
    #[error("the metrics can't be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The system has no threads left.
    #[error("can't start a thread: {0}")]
    Thread(io::Error),
}

impl Error {
    pub(crate) fn folder(path: &Path, source: io::Error) -> Self {
        Self::Folder {
            path: path.to_owned(),
            source,
        }
    }
}
