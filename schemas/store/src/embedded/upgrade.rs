//! From each format of the folder to the next.
//!
//! Every step may be begun anew after a crash: it moves entries in writes of which each is
//! done whole or not at all, and finds out from what is there how far it came.

use std::path::Path;

use fjall::{Database, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};

use super::damaged;
use super::due;
use super::keys;
use super::parts::{Parts, part};
use super::purge;
use super::tables::{self, Tables, failed, guarded, opening};
use crate::Error;

/// Entries of a write.
const AT_ONCE: usize = 1_000;
/// The records of format 1.
const FIRST_RECORDS: &str = "messages";

/// Makes the newest format of an older one.
pub(super) fn upgrade(path: &Path) -> Result<(), Error> {
    guarded(|| {
        let db = tables::database(path).map_err(opening)?;
        let tables = Tables::open_unguarded(&db).map_err(opening)?;
        split_records(&db, &tables).map_err(failed)?;
        name_parts(&tables)?;
        move_rows(&tables)?;
        db.persist(PersistMode::SyncAll).map_err(failed)
    })
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

/// To format 3: days of lists named no parts. Those whose rows were all erased have none.
fn name_parts(tables: &Tables) -> Result<(), Error> {
    let mut batch = tables.db.batch();
    for tag in keys::BUCKETS {
        for entry in tables.lists.prefix([tag]) {
            let (day, parts) = entry.into_inner().map_err(failed)?;
            if parts.is_empty() {
                batch.insert(&tables.lists, day, Parts::default().bytes());
                commit_full(tables, &mut batch)?;
            }
        }
    }
    batch.commit().map_err(failed)
}

/// To format 3: rows of lists lay among the days of their list, one after the other.
fn move_rows(tables: &Tables) -> Result<(), Error> {
    let mut moved = 0_u64;
    let mut batch = tables.db.batch();
    for tag in keys::SECOND_ROWS {
        // The day that the last row was of.
        let mut last: Option<(Vec<u8>, Parts)> = None;
        for entry in tables.lists.prefix([tag]) {
            let (key, id) = entry.into_inner().map_err(failed)?;
            let (day, row, position) =
                keys::of_second(&key).ok_or_else(|| damaged("a row of `lists`"))?;
            let parts = match last {
                Some((last, parts)) if last == day => parts,
                // Some of its rows may have been moved before a crash.
                _ => match tables.lists.get(&day).map_err(failed)? {
                    Some(parts) => Parts::read(&parts)?,
                    None => Parts::default(),
                },
            };
            let parts = parts.and(Parts::one(part(position.received_at)));
            batch.insert(&tables.lists, day.clone(), parts.bytes());
            batch.insert(&tables.rows, row, id);
            batch.remove(&tables.lists, key);
            last = Some((day, parts));
            moved += 1;
            commit_full(tables, &mut batch)?;
            if moved.is_multiple_of(1_000_000) {
                tracing::info!(rows = moved, "the store is being upgraded");
            }
        }
    }
    batch.commit().map_err(failed)?;
    // Also where nothing was moved: a crash may have come right after the last of them. The
    // last that went are still in memory, and would stay in the files.
    purge::write_out(tables)?;
    purge::merge(&tables.lists)
}

fn commit_full(tables: &Tables, batch: &mut OwnedWriteBatch) -> Result<(), Error> {
    if batch.len() >= AT_ONCE {
        let full = std::mem::replace(batch, tables.db.batch());
        full.commit().map_err(failed)?;
        tables.make_room()?;
    }
    Ok(())
}
