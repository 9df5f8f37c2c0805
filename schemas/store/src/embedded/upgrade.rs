//! From each format of the folder to the next.
//!
//! Every step may be begun anew after a crash: it moves entries in writes of which each is
//! done whole or not at all, and finds out from what is there how far it came.

use std::path::Path;

use fjall::{Database, KeyspaceCreateOptions, PersistMode};

use super::damaged;
use super::due;
use super::keys;
use super::parts::{Parts, part};
use super::purge;
use super::tables::{self, Tables, failed, guarded};
use crate::Error;

/// Entries of a write.
const AT_ONCE: usize = 1_000;
/// The records of format 1.
const FIRST_RECORDS: &str = "messages";

/// Makes the newest format of an older one.
pub(super) fn upgrade(path: &Path) -> Result<(), Error> {
    let tables = guarded(|| {
        let db = tables::database(path)?;
        let tables = Tables::open_unguarded(&db)?;
        split_records(&db, &tables)?;
        Ok(tables)
    })?;
    move_rows(&tables)?;
    tables.db.persist(PersistMode::SyncAll).map_err(failed)
}

/// To format 2: files of records kept what was erased, and there was no index of what
/// runs out.
fn split_records(db: &Database, tables: &Tables) -> fjall::Result<()> {
    if !db.keyspace_exists(FIRST_RECORDS) {
        return Ok(());
    }
    let first = db.keyspace(FIRST_RECORDS, KeyspaceCreateOptions::default)?;
    // They come in all at once.
    if tables.records.is_empty()? {
        tables::copy(first.iter(), &tables.records)?;
    }
    let mut batch = db.batch();
    for bucket in tables.lists.prefix(keys::ALL_CHANNELS) {
        for day in due::days_of(&bucket.key()?).into_iter().flatten() {
            batch.insert(&tables.lists, day, []);
        }
        if batch.len() >= AT_ONCE {
            std::mem::replace(&mut batch, db.batch()).commit()?;
        }
    }
    batch.commit()?;
    db.persist(PersistMode::SyncAll)?;
    db.delete_keyspace(first)
}

/// To format 3: rows of lists lay among the days of their list, one after the other.
fn move_rows(tables: &Tables) -> Result<(), Error> {
    let mut moved = 0_u64;
    for tag in keys::SECOND_ROWS {
        let mut batch = tables.db.batch();
        // Of the list and the day that the last row was of.
        let mut day: Option<(Vec<u8>, Parts)> = None;
        for entry in tables.lists.prefix([tag]) {
            let (key, id) = entry.into_inner().map_err(failed)?;
            let (bucket, row, position) =
                keys::of_second(&key).ok_or_else(|| damaged("a row of `lists`"))?;
            let parts = match day {
                Some((last, parts)) if last == bucket => parts,
                // Some of its rows may have been moved before a crash.
                _ => match tables.lists.get(&bucket).map_err(failed)? {
                    Some(parts) if !parts.is_empty() => Parts::read(&parts)?,
                    _ => Parts::default(),
                },
            };
            let parts = parts.and(Parts::one(part(position.received_at)));
            batch.insert(&tables.lists, bucket.clone(), parts.bytes());
            batch.insert(&tables.rows, row, id);
            batch.remove(&tables.lists, key);
            day = Some((bucket, parts));
            moved += 1;
            if batch.len() >= AT_ONCE {
                let full = std::mem::replace(&mut batch, tables.db.batch());
                full.commit().map_err(failed)?;
            }
            if moved.is_multiple_of(1_000_000) {
                tracing::info!(rows = moved, "the store is being upgraded");
            }
        }
        batch.commit().map_err(failed)?;
    }
    // Also where nothing was moved: a crash may have come right after the last of them.
    purge::merge(&tables.lists)
}
