//! The store inside the process, on a log-structured engine.
//!
//! ```text
//! write ─ one at a time ─ fence and duplicates dropped ─ one batch ─ fdatasync ─ noted
//! read ── point reads where they are called, lists on a blocking thread, on a snapshot
//! ```
//!
//! A point read takes microseconds from memory and one or two blocks from disk where
//! not: handing it to another thread would cost more than it saves. Writes wait for
//! the disk and lists read many blocks: they run on blocking threads.
//!
//! After a failed write (a full disk, say) the engine takes no more: the next write
//! opens it anew, so that the store goes on once the cause is gone.

mod accounts;
mod backup;
mod due;
mod erase;
mod expire;
mod folder;
mod history;
mod keys;
mod parts;
mod purge;
mod tables;
mod upgrade;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fjall::{OwnedWriteBatch, PersistMode};
use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard};

use self::folder::Folder;
use self::parts::Parts;
use self::tables::{Tables, failed};
use crate::Error;

pub use self::backup::BackedUp;
pub use self::expire::Expired;

/// Days of lists that are remembered, about 150 bytes each; one that is forgotten is read and
/// written once more.
const KNOWN_BUCKETS: usize = 50_000;
/// The key of the number of the last write.
const NUMBER: &[u8] = b"number";
/// The key of what was erased and still lies in files ([`purge`]).
const UNPURGED: &[u8] = b"unpurged";

/// Accounts and history in a folder of this machine.
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    /// What only one write at a time may use.
    writer: Mutex<Writer>,
    /// `None` between a failure and the next success in opening it anew.
    tables: RwLock<Option<Tables>>,
    /// How often the tables were opened.
    opened: AtomicU64,
    fences: RwLock<BTreeMap<i32, i64>>,
    /// One at a time: what purges, copies, or looks for what has run out.
    upkeep: Mutex<()>,
    folder: Folder,
}

/// What the next write builds on.
#[derive(Default)]
struct Writer {
    number: u64,
    /// What the entries of days say that were written or read last.
    known_buckets: HashMap<Vec<u8>, Parts>,
    /// How often it was noted that something is to be purged.
    notes: u64,
    broken: bool,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("folder", &self.inner.folder)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in that folder, making both where they are missing. Blocks for
    /// as long as it takes to read back what was not merged before a crash, a second
    /// at most.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has it, [`Error::NewerFormat`],
    /// [`Error::Damaged`], and [`Error::Folder`] when the folder can't be used.
    pub fn open(path: &Path) -> Result<Arc<Self>, Error> {
        let make = |database: &Path| Tables::open(database).map(drop);
        let folder = Folder::open(path, make, upgrade::upgrade)?;
        let inner = Inner {
            writer: Mutex::default(),
            tables: RwLock::new(None),
            opened: AtomicU64::new(0),
            fences: RwLock::default(),
            upkeep: Mutex::default(),
            folder,
        };
        inner.load(&mut inner.writer.lock(), |_| Ok(()))?;
        Ok(Arc::new(Self {
            inner: Arc::new(inner),
        }))
    }

    /// Runs what may wait for the disk away from the threads that serve requests.
    async fn blocking<T, E>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(answer) => answer,
            Err(_) => Err(damaged("the engine gave up while reading or writing").into()),
        }
    }
}

impl Inner {
    /// Opens the tables and reads what writes build on. `closed` sees their folder
    /// while nothing is open in it.
    fn load(
        &self,
        writer: &mut Writer,
        closed: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut slot = self.tables.write();
        writer.broken = true;
        // The old ones must be closed before the same files are opened again.
        *slot = None;
        self.opened.fetch_add(1, Ordering::Relaxed);
        closed(&self.folder.database())?;
        let tables = Tables::open(&self.folder.database())?;

        let mut fences = BTreeMap::new();
        let mut number = 0;
        for entry in tables.meta.iter() {
            let (key, value) = entry.into_inner().map_err(failed)?;
            let value = (*value)
                .try_into()
                .map(i64::from_be_bytes)
                .map_err(|_| damaged("meta"))?;
            if *key == *NUMBER {
                number = value.cast_unsigned();
            } else if *key != *UNPURGED {
                fences.insert(keys::fence_of(&key).ok_or_else(|| damaged("meta"))?, value);
            }
        }
        if let Some(committed) = self.folder.committed()
            && committed > number
        {
            return Err(Error::Damaged(format!(
                "write {committed} was acknowledged, but only {number} can be read back: \
                 restore a backup, or remove the file `committed` to go on without the lost writes"
            )));
        }
        *writer = Writer {
            number,
            known_buckets: HashMap::new(),
            notes: writer.notes,
            broken: false,
        };
        *self.fences.write() = fences;
        *slot = Some(tables);
        Ok(())
    }

    /// How often the tables were opened; it stays while they are read.
    fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// The tables, to read from.
    fn read(&self) -> Result<MappedRwLockReadGuard<'_, Tables>, Error> {
        RwLockReadGuard::try_map(self.tables.read(), Option::as_ref)
            .map_err(|_| Error::Unavailable("the storage engine is being opened anew".into()))
    }

    /// Does one write: `fill` puts the changes into the batch, which becomes durable as
    /// a whole; then `done` sees the answer, before the next write begins. Nothing is
    /// written where `fill` fails or leaves the batch empty.
    fn write<T, E: From<Error>>(
        &self,
        fill: impl FnOnce(&Tables, &mut Writer, &mut OwnedWriteBatch) -> Result<T, E>,
        done: impl FnOnce(&T),
    ) -> Result<T, E> {
        let mut writer = self.writer.lock();
        if writer.broken {
            self.load(&mut writer, |_| Ok(()))?;
            tracing::info!("the store takes writes again");
        }
        self.write_next(&mut writer, fill, done)
    }

    /// The same, for who holds the writer already.
    fn write_next<T, E: From<Error>>(
        &self,
        writer: &mut Writer,
        fill: impl FnOnce(&Tables, &mut Writer, &mut OwnedWriteBatch) -> Result<T, E>,
        done: impl FnOnce(&T),
    ) -> Result<T, E> {
        let tables = self.read()?;
        tables.make_room()?;
        let mut batch = tables.db.batch().durability(Some(PersistMode::SyncData));
        let answer = fill(&tables, writer, &mut batch).inspect_err(|_| {
            // Some of them may have been in the batch that is given up.
            writer.known_buckets.clear();
        })?;
        if batch.is_empty() {
            return Ok(answer);
        }
        let number = writer.number + 1;
        batch.insert(&tables.meta, NUMBER, number.to_be_bytes());
        if let Err(error) = batch.commit() {
            tracing::error!(%error, "a write to the store failed");
            writer.broken = true;
            return Err(failed(error).into());
        }
        writer.number = number;
        self.folder.commit(number);
        done(&answer);
        Ok(answer)
    }
}

fn damaged(place: &str) -> Error {
    Error::Damaged(place.to_owned())
}
