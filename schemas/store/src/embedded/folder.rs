//! The folder that the store lives in:
//!
//! ```text
//! lock       held by the process that uses the store
//! format     the version of what lies here; written last when the folder is made
//! upgrading  there from before the first change of an upgrade to its end
//! committed  the number of the last write that was acknowledged
//! db/        the storage engine's own files
//! ```
//!
//! The engine cuts its log at the first record that it cannot read: right for a torn
//! tail, wrong for a damaged middle, behind which lie acknowledged writes. So each
//! write carries a number, and `committed` tells which one must at least be there.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::Error;

/// The newest format that this build reads and the one that it writes.
pub(super) const FORMAT: u32 = 3;
const FORMAT_NAME: &str = "weir-store";

/// A folder held by this process.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    committed: File,
    /// Unlocks when it is dropped.
    _lock: File,
}

impl Folder {
    /// Takes the folder for this process, making it where it is missing. `make` builds
    /// the empty database in the folder that it is given, `upgrade` brings one of an earlier
    /// format to this one; either may be begun anew after a crash.
    pub(super) fn open(
        path: &Path,
        make: impl FnOnce(&Path) -> Result<(), Error>,
        upgrade: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Folder {
            path: path.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed)?;
        let lock = file(&path.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Locked {
                    path: path.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let database = path.join("db");
        match fs::read_to_string(path.join("format")) {
            Ok(text) => {
                let found = check_format(&text)?;
                let begun = path.join("upgrading");
                if found < FORMAT && database.is_dir() {
                    // Older programs refuse it from here on: they would miss what is moved.
                    file(&begun)
                        .and_then(|file| file.sync_all())
                        .and_then(|()| sync(path))
                        .and_then(|()| write_format(path))
                        .map_err(failed)?;
                }
                if begun.exists() {
                    upgrade(&database)?;
                    fs::remove_file(&begun)
                        .and_then(|()| sync(path))
                        .map_err(failed)?;
                    tracing::info!(to = FORMAT, "the store was upgraded");
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Self::make(path, &database, make)?;
            }
            Err(source) => return Err(failed(source)),
        }
        if !database.is_dir() {
            return Err(Error::Damaged("its folder `db` is missing".to_owned()));
        }
        let committed = file(&path.join("committed")).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            committed,
            _lock: lock,
        })
    }

    /// Made aside and renamed: a crash while the engine makes its first files leaves
    /// nothing that would be taken for a database.
    fn make(
        path: &Path,
        database: &Path,
        make: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let failed = |source| Error::Folder {
            path: path.to_owned(),
            source,
        };
        if !database.exists() {
            let part = path.join("db.part");
            if part.exists() {
                fs::remove_dir_all(&part).map_err(failed)?;
            }
            make(&part)?;
            fs::rename(&part, database).map_err(failed)?;
            sync(path).map_err(failed)?;
        }
        write_format(path).map_err(failed)
    }

    /// Where the engine's files are.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join("db")
    }

    /// The number of a write that was acknowledged, not necessarily the last one: it is
    /// left to the system when to put it on disk. `None` where that was lost.
    pub(super) fn committed(&self) -> Option<u64> {
        let mut bytes = [0; 16];
        self.committed.read_exact_at(&mut bytes, 0).ok()?;
        let (number, sum) = bytes.split_at(8);
        let number = u64::from_be_bytes(number.try_into().ok()?);
        (checksum(number) == sum).then_some(number)
    }

    /// Notes that a write was acknowledged.
    pub(super) fn commit(&self, number: u64) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        bytes[8..].copy_from_slice(&checksum(number));
        // The write itself is safe already: without its note only this check is weaker.
        if let Err(error) = self.committed.write_all_at(&bytes, 0) {
            tracing::warn!(%error, "the number of the last write could not be noted");
        }
    }
}

fn write_format(path: &Path) -> std::io::Result<()> {
    let part = path.join("format.part");
    let mut format = File::create(&part)?;
    writeln!(format, "{FORMAT_NAME} {FORMAT}")?;
    format.sync_all()?;
    fs::rename(&part, path.join("format"))?;
    sync(path)
}

/// The version that is there, if this build knows it.
fn check_format(text: &str) -> Result<u32, Error> {
    let version = text
        .trim()
        .strip_prefix(FORMAT_NAME)
        .and_then(|rest| rest.trim().parse::<u32>().ok())
        .ok_or_else(|| Error::Damaged("its file `format` does not name a version".to_owned()))?;
    if version > FORMAT {
        return Err(Error::NewerFormat {
            found: version,
            known: FORMAT,
        });
    }
    Ok(version)
}

fn file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

fn sync(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

fn checksum(number: u64) -> [u8; 8] {
    let sum = Sha256::digest(number.to_be_bytes());
    // A SHA-256 has 32 bytes.
    sum.first_chunk().copied().unwrap_or_default()
}
