//! The data folder of `weir up`: who may open it, which version wrote it, and the
//! files that hold secrets.
//!
//! ```text
//! DATA/version        format of the folder; a newer one is refused
//! DATA/lock           held by the running Weir
//! DATA/log-lock       held by who copies the log, or deletes from it on request
//! DATA/admin.json     first administrator: name, password, API key (0600)
//! DATA/secrets/       signing key, broker secret (0700)
//! DATA/broker/        the log (0700)
//! DATA/store/         accounts, keys, history (0700)
//! DATA/lake/          the Delta table (0700)
//! DATA/store-copy/    of the store, while a backup is made
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rand::distr::{Alphanumeric, SampleString as _};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

/// Format of the folder that this build writes.
const VERSION: u32 = 1;
const SECRET_LENGTH: usize = 43;
/// Where the running Weir puts a copy of its store for `weir backup`.
pub(crate) const STORE_COPY: &str = "store-copy";
/// Between two looks at whether the folder is free.
const LOOK: Duration = Duration::from_millis(100);

/// Keeps the log as it is, or to oneself, for as long as the answer is held; also across
/// processes, and never longer than they live. `None` where somebody else has it.
///
/// # Errors
/// The folder can't be written.
pub(crate) fn hold_log(root: &Path) -> std::io::Result<Option<File>> {
    let path = root.join("log-lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Removes the copy of the store that a backup left which broke off: what is erased from the
/// store must not stay in it. One that is being made stays.
///
/// # Errors
/// The folder can't be written.
pub(crate) fn remove_left_copy(root: &Path) -> std::io::Result<()> {
    let copy = root.join(STORE_COPY);
    if !copy.exists() {
        return Ok(());
    }
    let Some(_held) = hold_log(root)? else {
        return Ok(());
    };
    match fs::remove_dir_all(copy) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// An opened, locked data folder.
#[derive(Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
    _lock: File,
}

/// What `DATA/admin.json` holds.
#[derive(Serialize, Deserialize)]
pub(crate) struct Admin {
    pub(crate) url: String,
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) api_key: String,
}

impl DataDir {
    /// Creates the folder if it is missing, checks its version, and locks it; where
    /// somebody else has it, waits for as long as `patience`.
    pub(crate) fn open(root: &Path, patience: Duration) -> Result<Self> {
        let shown = root.display();
        private_folder(root)?;
        let lock_path = root.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .with_context(|| format!("can't write in the data folder {shown}"))?;
        let give_up = Instant::now() + patience;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < give_up => {
                    std::thread::sleep(LOOK);
                }
                Err(TryLockError::WouldBlock) => {
                    bail!(
                        "the data folder {shown} is in use by another Weir; stop it, or choose another folder with --data"
                    )
                }
                Err(TryLockError::Error(error)) => {
                    return Err(error)
                        .with_context(|| format!("can't lock the data folder {shown}"));
                }
            }
        }
        let version_path = root.join("version");
        match fs::read_to_string(&version_path) {
            Ok(text) => match text.trim().parse::<u32>() {
                Ok(VERSION) => {}
                Ok(found) if found > VERSION => bail!(
                    "the data folder {shown} was written by a newer Weir (format {found}, this one knows {VERSION}); \
                     start that version or newer"
                ),
                _ => bail!("{} does not hold a format version", version_path.display()),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                write_whole(&version_path, format!("{VERSION}\n").as_bytes(), 0o644)?;
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("can't read {}", version_path.display()));
            }
        }
        let secrets = root.join("secrets");
        fs::create_dir_all(&secrets)
            .and_then(|()| fs::set_permissions(&secrets, fs::Permissions::from_mode(0o700)))
            .with_context(|| format!("can't create {}", secrets.display()))?;
        // So that it is ours: a backup that root makes is to lock it, not to own it.
        if let Err(error) = hold_log(root) {
            tracing::warn!(%error, "`log-lock` can't be opened: make it this user's, or the log can't be cut");
        }
        Ok(Self {
            root: root.to_owned(),
            _lock: lock,
        })
    }

    pub(crate) fn path(&self, part: &str) -> PathBuf {
        self.root.join(part)
    }

    /// The folder of a part, which nobody else on this machine can read where it is new.
    pub(crate) fn part(&self, part: &str) -> Result<PathBuf> {
        let path = self.path(part);
        private_folder(&path)?;
        Ok(path)
    }

    /// Where the lake is by its setting. In the data folder it is as private as the rest;
    /// elsewhere others may be meant to read it.
    pub(crate) fn lake(&self, set: &str) -> Result<String> {
        if set.is_empty() {
            return Ok(self.part("lake")?.display().to_string());
        }
        if Path::new(set).starts_with(&self.root) {
            private_folder(Path::new(set))?;
        }
        Ok(set.to_owned())
    }

    /// Says so where others can look in. Who made the folder so may mean it; parts that an
    /// older Weir made there may be readable as well.
    pub(crate) fn warn_of_onlookers(&self) {
        let Ok(found) = fs::metadata(&self.root) else {
            return;
        };
        let mode = found.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            tracing::warn!(
                data = %self.root.display(),
                mode = format!("{mode:04o}"),
                "others on this machine can look into the data folder; `chmod 700` keeps them out"
            );
        }
    }

    pub(crate) fn secrets(&self) -> PathBuf {
        self.root.join("secrets")
    }

    /// The password of the embedded broker, made on first use.
    pub(crate) fn broker_secret(&self) -> Result<SecretString> {
        let path = self.secrets().join("broker");
        if !path.exists() {
            let secret = Alphanumeric.sample_string(&mut rand::rng(), SECRET_LENGTH);
            write_whole(&path, secret.as_bytes(), 0o600)?;
        }
        let text =
            fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
        Ok(SecretString::from(text.trim().to_owned()))
    }

    /// Writes `admin.json`, readable by its owner alone.
    pub(crate) fn write_admin(&self, admin: &Admin) -> Result<PathBuf> {
        let path = self.root.join("admin.json");
        let mut text = serde_json::to_vec_pretty(admin)?;
        text.push(b'\n');
        write_whole(&path, &text, 0o600)?;
        Ok(path)
    }

    /// Removes `admin.json`.
    pub(crate) fn remove_admin(&self) -> Result<()> {
        let path = self.root.join("admin.json");
        fs::remove_file(&path).with_context(|| format!("can't remove {}", path.display()))
    }

    /// Brings the address in `admin.json` up to date, where the file is still there.
    pub(crate) fn refresh_admin(&self, url: &str) -> Result<()> {
        match read_admin(&self.root) {
            Ok(admin) if admin.url != url => self
                .write_admin(&Admin {
                    url: url.to_owned(),
                    ..admin
                })
                .map(drop),
            _ => Ok(()),
        }
    }
}

/// Makes a folder, and those above it, that nobody else on this machine can read where
/// they are new: texts lie in it.
pub(crate) fn private_folder(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("can't create the folder {}", path.display()))
}

/// Reads `admin.json` of a data folder.
pub(crate) fn read_admin(root: &Path) -> Result<Admin> {
    let path = root.join("admin.json");
    let text = fs::read(&path).with_context(|| format!("can't read {}", path.display()))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("{} is not what Weir wrote", path.display()))
}

/// Either the whole file is there, or none of it: a crash never leaves half a secret.
pub(crate) fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let half = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let _ = fs::remove_file(&half);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&half)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&half, path)?;
        // The name is the folder's to keep.
        path.parent()
            .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    write().with_context(|| format!("can't write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_opener_is_told_that_the_folder_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let _first = DataDir::open(folder.path(), Duration::ZERO).unwrap();
        let refusal = DataDir::open(folder.path(), Duration::ZERO)
            .unwrap_err()
            .to_string();
        assert!(refusal.contains("in use by another Weir"), "{refusal}");
    }

    #[test]
    fn the_lock_of_the_log_is_made_by_whoever_opens_the_folder_and_left_free() {
        let folder = tempfile::tempdir().unwrap();
        let _data = DataDir::open(folder.path(), Duration::ZERO).unwrap();
        assert!(folder.path().join("log-lock").is_file());
        assert!(hold_log(folder.path()).unwrap().is_some());
    }

    #[test]
    fn parts_are_private_in_a_folder_that_is_not_and_a_lake_elsewhere_is_left_to_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("data");
        fs::create_dir(&root).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        let data = DataDir::open(&root, Duration::ZERO).unwrap();
        data.part("broker").unwrap();
        let lake = data.lake("").unwrap();
        assert_eq!(Path::new(&lake), root.join("lake"));
        let inside = root.join("other");
        data.lake(&inside.display().to_string()).unwrap();
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for part in ["broker", "lake", "other", "secrets"] {
            assert_eq!(mode(root.join(part)), 0o700, "{part}");
        }
        assert_eq!(mode(root), 0o755);
        let elsewhere = folder.path().join("lake");
        data.lake(&elsewhere.display().to_string()).unwrap();
        assert!(!elsewhere.exists());
    }

    #[test]
    fn a_folder_of_a_newer_version_is_refused_with_both_versions() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("version"), "2\n").unwrap();
        let refusal = DataDir::open(folder.path(), Duration::ZERO)
            .unwrap_err()
            .to_string();
        assert!(refusal.contains("format 2, this one knows 1"), "{refusal}");
    }

    #[test]
    fn secrets_are_readable_by_their_owner_alone_and_stay_the_same() {
        use secrecy::ExposeSecret as _;
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(folder.path(), Duration::ZERO).unwrap();
        let first = data.broker_secret().unwrap();
        assert_eq!(
            first.expose_secret(),
            data.broker_secret().unwrap().expose_secret()
        );
        assert_eq!(first.expose_secret().len(), SECRET_LENGTH);
        let mode = |p: PathBuf| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(data.secrets()), 0o700);
        assert_eq!(mode(data.secrets().join("broker")), 0o600);
    }
}
