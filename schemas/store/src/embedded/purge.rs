//! Taking what was erased out of the files.
//!
//! The engine's files are never changed: what is removed stays in them until they are
//! merged, and in its log until that is given up. So after an erasure:
//!
//! 1. the memory of every table is written out and the engine goes on with a new log; it
//!    deletes the old one, because all that is in it lies in tables as well;
//! 2. each table that held something erased is merged whole, twice where values lie apart
//!    from their keys: the first time tells which files of values have holes, the second
//!    time writes those anew without them;
//! 3. the versions that a merge left behind are let go, and their files with them.
//!
//! The first step keeps everybody out, for as long as it takes to close and to open: some
//! hundred milliseconds where the engine is at rest, which is waited for, and longer when
//! it begins to merge at that moment. The second takes as long as it takes to read and
//! write the keys of a table, and the files of records that held something erased, while
//! everything goes on; it needs as much free space as they take.
//!
//! What is to be purged is noted with what erases it, so a crash between the two is made
//! good by the next call. The note goes with the purge, unless another came meanwhile.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use fjall::{Keyspace, OwnedWriteBatch, UserValue};

use super::tables::{Tables, failed};
use super::{Inner, UNPURGED, Writer};
use crate::Error;

/// The records hold something that is erased.
pub(super) const RECORDS: i64 = 1;
/// The sources, the rows and the lists too: names and ids.
pub(super) const EVERYTHING: i64 = 2;

/// A key that nothing else has: names and ids are UTF-8.
pub(super) const TOUCHED: &[u8] = &[0xFF];
/// How often a table is merged at most until no file has a hole.
const MERGES: usize = 6;
/// How long the engine may take to write out some MiB.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long is waited for the engine to rest.
const REST: Duration = Duration::from_secs(5);

/// Notes, with what erases something, that files still hold it.
pub(super) fn note(
    tables: &Tables,
    writer: &mut Writer,
    batch: &mut OwnedWriteBatch,
    what: i64,
) -> Result<(), Error> {
    writer.notes += 1;
    let noted = tables.meta.get(UNPURGED).map_err(failed)?;
    let what = if noted.is_some_and(|noted| *noted == EVERYTHING.to_be_bytes()) {
        EVERYTHING
    } else {
        what
    };
    batch.insert(&tables.meta, UNPURGED, what.to_be_bytes());
    Ok(())
}

impl Inner {
    /// Takes out of the files what was erased before; cheap where there is nothing.
    /// Whoever calls holds `upkeep`.
    pub(super) fn purge(&self) -> Result<(), Error> {
        // What is noted from now on may come too late for this one.
        let notes = self.writer.lock().notes;
        let Some(noted) = self.noted()? else {
            return Ok(());
        };
        let began = Instant::now();
        let names = *noted != RECORDS.to_be_bytes();
        self.begin_log()?;
        {
            // Clones, so that whoever must open the tables anew is not kept waiting for
            // the merge with everybody behind it.
            let tables = self.read()?.clone();
            merge(&tables.records)?;
            if names {
                merge(&tables.sources)?;
                merge(&tables.rows)?;
                merge(&tables.lists)?;
            }
        }
        self.let_go()?;
        self.take_note_away(notes)?;
        let took = began.elapsed().as_millis();
        tracing::info!(milliseconds = took, "what was erased was purged");
        Ok(())
    }

    /// Purges what is noted, unless somebody holds `upkeep`: whoever does calls this when
    /// he has let it go, so that nothing stays that was left to him.
    pub(super) fn purge_left(&self) -> Result<(), Error> {
        while self.noted()?.is_some() {
            let Some(_one) = self.upkeep.try_lock() else {
                return Ok(());
            };
            self.purge()?;
        }
        Ok(())
    }

    pub(super) fn noted(&self) -> Result<Option<UserValue>, Error> {
        self.read()?.meta.get(UNPURGED).map_err(failed)
    }

    /// All is purged that was noted when there were so many notes.
    fn take_note_away(&self, notes: u64) -> Result<(), Error> {
        let fill = |tables: &Tables, writer: &mut Writer, batch: &mut OwnedWriteBatch| {
            if writer.notes == notes {
                batch.remove(&tables.meta, UNPURGED);
            }
            Ok::<_, Error>(())
        };
        self.write(fill, |()| {})
    }

    /// Makes the engine go on with a new log and delete the old one.
    fn begin_log(&self) -> Result<(), Error> {
        // Most of it while others go on.
        write_out(&*self.read()?)?;
        settle(&*self.read()?);
        let mut writer = self.writer.lock();
        if writer.broken {
            self.load(&mut writer, |_| Ok(()))?;
        }
        // The engine gives up a log when each table has written out something later than
        // all that is in it, and a removal is lost in a merge: so each gets something
        // that stays.
        self.touch(&mut writer)?;
        write_out(&*self.read()?)?;
        settle(&*self.read()?);
        self.load(&mut writer, new_log)?;
        self.touch(&mut writer)?;
        // The engine looks after its old logs whenever a table begins a new buffer.
        write_out(&*self.read()?)?;
        drop(writer);
        Ok(())
    }

    /// Makes the engine forget versions, and delete files, that nobody reads any more.
    fn let_go(&self) -> Result<(), Error> {
        let mut writer = self.writer.lock();
        // It keeps all that is not older than two writes.
        for _ in 0..3 {
            self.touch(&mut writer)?;
        }
        // Nobody reads while this is held.
        let tables = self.tables.write();
        if let Some(tables) = tables.as_ref() {
            write_out(tables)?;
        }
        Ok(())
    }

    fn touch(&self, writer: &mut Writer) -> Result<(), Error> {
        let fill = |tables: &Tables, _: &mut Writer, batch: &mut OwnedWriteBatch| {
            for table in tables.all() {
                // Every write leaves something in this one.
                if table.name() != tables.meta.name() {
                    batch.insert(table, TOUCHED, []);
                }
            }
            Ok::<_, Error>(())
        };
        self.write_next(writer, fill, |()| {})
    }
}

/// Writes out what the tables have in memory.
pub(super) fn write_out(tables: &Tables) -> Result<(), Error> {
    for table in tables.all() {
        table.rotate_memtable().map_err(failed)?;
    }
    let give_up = Instant::now() + PATIENCE;
    let pending = |table: &&Keyspace| table.sealed_memtable_count() > 0;
    while tables.all().iter().any(pending) {
        if Instant::now() > give_up {
            return Err(Error::Unavailable(
                "the storage engine does not write out its memory".into(),
            ));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Waits a while until nothing is merged: closing the engine would wait for that, with
/// everybody locked out.
fn settle(tables: &Tables) {
    let give_up = Instant::now() + REST;
    let mut quiet = 0;
    // Between two merges there is a moment without one.
    while quiet < 3 && Instant::now() < give_up {
        std::thread::sleep(Duration::from_millis(2));
        quiet = if tables.db.active_compactions() == 0 {
            quiet + 1
        } else {
            0
        };
    }
}

/// Merges a table until no file of values has a hole.
pub(super) fn merge(table: &Keyspace) -> Result<(), Error> {
    for _ in 0..MERGES {
        if table.table_count() > 0 {
            table.major_compact().map_err(failed)?;
        }
        if table.fragmented_blob_bytes() == 0 {
            return Ok(());
        }
    }
    Err(Error::Unavailable(
        "files that hold erased records could not be written anew".into(),
    ))
}

/// Puts an empty log behind the others: the engine takes up the last one.
fn new_log(database: &Path) -> Result<(), Error> {
    let make = || -> std::io::Result<()> {
        let mut last = 0;
        for entry in fs::read_dir(database)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".jnl"));
            last = last.max(number.and_then(|number| number.parse().ok()).unwrap_or(0));
        }
        let next: u64 = last + 1;
        File::create_new(database.join(format!("{next}.jnl")))?.sync_all()?;
        File::open(database)?.sync_all()
    };
    make().map_err(|error| Error::Unavailable(error.into()))
}

#[cfg(test)]
mod tests {
    use super::super::{Store, erase};
    use super::*;
    use crate::History as _;

    fn files_with(folder: &Path, text: &str) -> usize {
        let entries = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        entries
            .map(|path| match path.is_dir() {
                true => files_with(&path, text),
                false => {
                    let bytes = fs::read(path).unwrap();
                    let holds = bytes
                        .windows(text.len())
                        .any(|part| part == text.as_bytes());
                    usize::from(holds)
                }
            })
            .sum()
    }

    #[tokio::test]
    async fn what_a_crash_left_unpurged_is_purged_by_the_next_call() {
        let folder = tempfile::tempdir().unwrap();
        let (row, text) = erase::tests::row();
        let store = Store::open(folder.path()).unwrap();
        store.write(0, std::slice::from_ref(&row)).await.unwrap();
        // As far as a process came that was killed then.
        assert_eq!(
            store
                .inner
                .erase_message("acme", "m", jiff::Timestamp::MAX)
                .unwrap(),
            1
        );
        drop(store);
        assert_ne!(files_with(folder.path(), text), 0);

        let store = Store::open(folder.path()).unwrap();
        let what = crate::Erase::Message {
            id: "another".to_owned(),
            up_to: jiff::Timestamp::MAX,
        };
        assert_eq!(store.erase("acme", &what).await.unwrap().messages, 0);
        assert_eq!(files_with(folder.path(), text), 0);
    }

    #[test]
    fn what_comes_late_waits_for_no_merge_and_is_purged_by_whoever_was_at_it() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (row, text) = erase::tests::row();
        let store = Store::open(folder.path()).unwrap();
        let what = crate::Erase::Message {
            id: "m".to_owned(),
            up_to: jiff::Timestamp::MAX,
        };
        runtime.block_on(store.write(0, &[row])).unwrap();
        // As one that merges or copies.
        let one = store.inner.upkeep.lock();
        let erased = runtime.block_on(store.erase_late("acme", &what)).unwrap();
        assert_eq!(erased.messages, 1);
        let found = runtime.block_on(store.message("acme", "m")).unwrap();
        assert!(found.is_none());
        assert_ne!(files_with(folder.path(), text), 0);
        drop(one);
        while store.inner.noted().unwrap().is_some() {
            store.inner.purge_left().unwrap();
        }
        assert_eq!(files_with(folder.path(), text), 0);
    }

    #[tokio::test]
    async fn a_purge_leaves_the_note_of_what_was_erased_after_it_began() {
        let folder = tempfile::tempdir().unwrap();
        let (row, _) = erase::tests::row();
        let store = Store::open(folder.path()).unwrap();
        store.write(0, &[row]).await.unwrap();
        let before = store.inner.writer.lock().notes;
        let erased = store.inner.erase_message("acme", "m", jiff::Timestamp::MAX);
        assert_eq!(erased.unwrap(), 1);
        store.inner.take_note_away(before).unwrap();
        assert!(store.inner.noted().unwrap().is_some());
        store.inner.purge_left().unwrap();
        assert!(store.inner.noted().unwrap().is_none());
    }
}
