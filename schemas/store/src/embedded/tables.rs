//! The storage engine: its tables, how much memory they may take, and what its
//! errors mean to us.
//!
//! Memory: a block cache of 16 MiB, and per table a write buffer of a few MiB, which
//! may exist up to four more times while it is written out. The engine's
//! default filters, 10 bits a key, tell most absent ids without a look at the disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, LsmError};

use crate::Error;

const MIB: u64 = 1_024 * 1_024;
const CACHE: u64 = 16 * MIB;
/// The least that the engine takes. Also what is read again after a crash, at most
/// about twice.
const LOG: u64 = 64 * MIB;
const OPEN_FILES: usize = 256;

/// The open tables.
pub(super) struct Tables {
    pub(super) db: Database,
    /// tenant, id → the record of `weir.verdicts`.
    pub(super) messages: Keyspace,
    /// tenant, id → source partition and offset.
    pub(super) sources: Keyspace,
    /// kind, tenant, name, day, position → id; kind, tenant, name, day → nothing.
    pub(super) lists: Keyspace,
    /// Users, keys, and what makes them unique.
    pub(super) accounts: Keyspace,
    /// Fences, and the number of the last write.
    pub(super) meta: Keyspace,
}

impl Tables {
    /// Opens the database in that folder, or makes it.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        // The engine panics on some kinds of damage.
        catch_unwind(AssertUnwindSafe(|| Self::open_unguarded(path)))
            .map_err(|_| Error::Damaged("the storage engine could not read its files".to_owned()))?
            .map_err(opening)
    }

    fn open_unguarded(path: &Path) -> fjall::Result<Self> {
        let db = Database::builder(path)
            .cache_size(CACHE)
            .max_journaling_size(LOG)
            .max_cached_files(Some(OPEN_FILES))
            .worker_threads(2)
            // Every batch names its own durability.
            .manual_journal_persist(true)
            .open()?;
        let buffer = |mib: u64| KeyspaceCreateOptions::default().max_memtable_size(mib * MIB);
        // A record is written once and read by its key: kept apart from the keys, it is
        // not written again each time that keys are merged.
        let records = KvSeparationOptions::default().separation_threshold(128);
        Ok(Self {
            messages: db.keyspace("messages", || buffer(8).with_kv_separation(Some(records)))?,
            sources: db.keyspace("sources", || buffer(4))?,
            lists: db.keyspace("lists", || buffer(4))?,
            accounts: db.keyspace("accounts", || buffer(1))?,
            meta: db.keyspace("meta", || buffer(1))?,
            db,
        })
    }
}

/// What a failure while opening means.
fn opening(error: fjall::Error) -> Error {
    match error {
        fjall::Error::Locked => Error::Unavailable("the storage engine is still closing".into()),
        fjall::Error::Io(error) | fjall::Error::Storage(LsmError::Io(error)) => {
            Error::Unavailable(error.into())
        }
        other => Error::Damaged(other.to_string()),
    }
}

/// What a failure of an open database means.
pub(super) fn failed(error: fjall::Error) -> Error {
    match error {
        fjall::Error::Io(_)
        | fjall::Error::Poisoned
        | fjall::Error::Locked
        | fjall::Error::KeyspaceDeleted
        | fjall::Error::Storage(LsmError::Io(_)) => Error::Unavailable(error.into()),
        other => Error::Damaged(other.to_string()),
    }
}
