//! The storage engine: its tables, how much memory they may take, and what its
//! errors mean to us.
//!
//! Memory: a block cache of 16 MiB, and per table a write buffer of a few MiB, which
//! may exist up to four more times while it is written out. The engine's
//! default filters, 10 bits a key, tell most absent ids without a look at the disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use fjall::compaction::Leveled;
use fjall::{Database, Guard, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, LsmError};

use super::purge::write_out;
use crate::Error;

const MIB: u64 = 1_024 * 1_024;
const CACHE: u64 = 16 * MIB;
/// The least that the engine takes. Also what is read again after a crash, at most
/// about twice.
const LOG: u64 = 64 * MIB;
/// All buffers of all tables at most: those that are being filled are 24 MiB, and full ones
/// that wait to be written out four times that.
const BUFFERS: u64 = 120 * MIB;
const OPEN_FILES: usize = 256;
/// How many tables there are.
pub(super) const TABLES: usize = 6;

/// The open tables.
#[derive(Clone)]
pub(super) struct Tables {
    pub(super) db: Database,
    /// tenant, id → the record of `weir.verdicts`, with or without its text.
    pub(super) records: Keyspace,
    /// tenant, id → source partition and offset.
    pub(super) sources: Keyspace,
    /// day, part of it, kind, tenant, name, position → id
    pub(super) rows: Keyspace,
    /// kind, tenant, name, day → the parts of it that have rows;
    /// tenant, day, channel → nothing, once for what has rows and once for texts.
    pub(super) lists: Keyspace,
    /// Users, keys, and what makes them unique.
    pub(super) accounts: Keyspace,
    /// Fences, the number of the last write, and what is to be purged.
    pub(super) meta: Keyspace,
}

impl Tables {
    /// Opens the database in that folder, or makes it.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        guarded(|| {
            let db = database(path).map_err(opening)?;
            Self::open_unguarded(&db).map_err(opening)
        })
    }

    pub(super) fn open_unguarded(db: &Database) -> fjall::Result<Self> {
        let buffer = |mib: u64| KeyspaceCreateOptions::default().max_memtable_size(mib * MIB);
        // A record is written once and read by its key: kept apart from the keys, it is
        // not written again each time that keys are merged. Only what was erased or ran
        // out leaves a hole in a file of records, and the whole file is written again
        // for it, wherever it is: nothing that should be gone is left behind.
        let records = KvSeparationOptions::default()
            .separation_threshold(128)
            .staleness_threshold(0.0)
            .age_cutoff(1.0);
        // Rows of one part of a day come at as many places as there are names, so a full buffer
        // is merged with all of the first level that is of that part. With the engine's files
        // of 64 MiB, that level grows to 256 MiB before any of it goes on, and writes slow down
        // until it has: files as large as the buffer keep it at 32 MiB. The days of the lists
        // come at as many places, and are few. Holds for stores that are made from now on.
        let scattered = || Arc::new(Leveled::default().with_table_target_size(8 * MIB));
        let rows = || buffer(8).compaction_strategy(scattered());
        let lists = || buffer(2).compaction_strategy(scattered());
        Ok(Self {
            records: db.keyspace("records", || buffer(8).with_kv_separation(Some(records)))?,
            sources: db.keyspace("sources", || buffer(4))?,
            rows: db.keyspace("rows", rows)?,
            lists: db.keyspace("lists", lists)?,
            accounts: db.keyspace("accounts", || buffer(1))?,
            meta: db.keyspace("meta", || buffer(1))?,
            db: db.clone(),
        })
    }

    /// Waits for the engine to write out its memory where that is more than it should be.
    /// It is told to when a buffer is full, but forgets it while very many merges wait:
    /// then the buffers, and what is read again at the next start, would grow without end.
    pub(super) fn make_room(&self) -> Result<(), Error> {
        if self.db.write_buffer_size() > BUFFERS {
            write_out(self)?;
        }
        Ok(())
    }

    /// Every table.
    pub(super) const fn all(&self) -> [&Keyspace; TABLES] {
        [
            &self.records,
            &self.sources,
            &self.rows,
            &self.lists,
            &self.accounts,
            &self.meta,
        ]
    }
}

/// Fills an empty table with entries in their order, all or none.
pub(super) fn copy(
    entries: impl Iterator<Item = Guard>,
    into: &Keyspace,
) -> Result<(), fjall::Error> {
    let mut filling = into.start_ingestion()?;
    for entry in entries {
        let (key, value) = entry.into_inner()?;
        filling.write(key, value)?;
    }
    filling.finish()
}

pub(super) fn database(path: &Path) -> fjall::Result<Database> {
    Database::builder(path)
        .cache_size(CACHE)
        .max_journaling_size(LOG)
        .max_cached_files(Some(OPEN_FILES))
        .worker_threads(2)
        // Every batch names its own durability.
        .manual_journal_persist(true)
        .open()
}

/// The engine panics on some kinds of damage.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|_| Error::Damaged("the storage engine could not read its files".to_owned()))?
}

/// What a failure while opening means.
pub(super) fn opening(error: fjall::Error) -> Error {
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
