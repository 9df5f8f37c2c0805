//! Files that hold secrets: mode 0600 in a folder of mode 0700, or not used at all.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::OpenError;

/// Makes the folder if it is not there, and refuses one that others may use.
pub(crate) fn folder(path: &Path) -> Result<(), OpenError> {
    if !path.exists() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(at(path))?;
    }
    private(path, "700")
}

/// The text of a file that only its owner may use.
pub(crate) fn read(path: &Path) -> Result<String, OpenError> {
    private(path, "600")?;
    fs::read_to_string(path).map_err(at(path))
}

/// Writes a new file, whole or not at all, durable when it returns.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), OpenError> {
    let part = path.with_extension("part");
    let store = || -> std::io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, path)?;
        match path.parent() {
            Some(folder) => fs::File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    };
    store().map_err(at(path))
}

fn private(path: &Path, wanted: &'static str) -> Result<(), OpenError> {
    let mode = fs::metadata(path).map_err(at(path))?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(OpenError::Permissions {
        path: path.to_owned(),
        mode,
        wanted,
    })
}

/// Says which file a system error is about.
pub(crate) fn at(path: &Path) -> impl FnOnce(std::io::Error) -> OpenError {
    let path: PathBuf = path.to_owned();
    move |source| OpenError::Io { path, source }
}
