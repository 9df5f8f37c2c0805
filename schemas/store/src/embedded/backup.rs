//! A copy of the store, made while it is used.
//!
//! The copy is a store of its own, filled from a snapshot: all that was written before one
//! moment and nothing after it, so a fence and the rows up to it, a user and the address
//! that is taken with him. Reading it is done in parts, between which others may have the
//! tables to themselves; what purges waits until the copy is made.
//!
//! A copy keeps what is erased from the store later.

use std::ops::Bound;
use std::path::Path;

use fjall::{Keyspace, Readable, Snapshot};

use super::folder::Folder;
use super::tables::{TABLES, Tables, failed};
use super::{Inner, NUMBER, Store, damaged};
use crate::Error;

/// Entries that are read without a break.
const AT_ONCE: usize = 1_000;

/// What a copy holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackedUp {
    /// Messages.
    pub messages: u64,
}

/// The moment that is copied.
struct Moment {
    snapshot: Snapshot,
    /// Tables that are opened anew know nothing of the snapshot.
    opened: u64,
}

impl Store {
    /// Copies the store as it is now into that folder, while it is used. The copy can be
    /// opened as a store, and so be copied back in the same way.
    ///
    /// # Errors
    /// [`Error::Folder`] when there is a store in that folder already, or it can't be
    /// written; [`Error::Unavailable`] when the store had to be opened anew meanwhile:
    /// the same call starts again from the beginning.
    pub async fn backup(&self, to: &Path) -> Result<BackedUp, Error> {
        let to = to.to_owned();
        self.blocking(move |store| {
            let copied = {
                let _one = store.upkeep.lock();
                store.backup(&to)
            };
            // The copy is none the worse for it, and the next call tries again.
            if let Err(error) = store.purge_left() {
                tracing::warn!(%error, "what was erased during a copy is not purged yet");
            }
            copied
        })
        .await
    }
}

impl Inner {
    fn backup(&self, to: &Path) -> Result<BackedUp, Error> {
        for part in ["format", "db"] {
            if to.join(part).exists() {
                return Err(Error::Folder {
                    path: to.to_owned(),
                    source: std::io::ErrorKind::AlreadyExists.into(),
                });
            }
        }
        let mut copied = (0, 0);
        let make = |part: &Path| {
            copied = self.copy_into(&Tables::open(part)?)?;
            Ok(())
        };
        let folder = Folder::open(to, make, |_| Ok(()))?;
        let (messages, number) = copied;
        folder.commit(number);
        Ok(BackedUp { messages })
    }

    /// Fills empty tables; answers the number of messages and that of the last write.
    fn copy_into(&self, into: &Tables) -> Result<(u64, u64), Error> {
        let moment = {
            let tables = self.read()?;
            Moment {
                snapshot: tables.db.snapshot(),
                opened: self.opened(),
            }
        };
        let mut rows = [0; TABLES];
        for (number, rows) in rows.iter_mut().enumerate() {
            *rows = self.copy_table(&moment, number, into.all()[number])?;
        }
        let number = into.meta.get(NUMBER).map_err(failed)?;
        let number = number.map_or(Ok([0; 8]), |number| (*number).try_into());
        let number = number.map_err(|_| damaged("meta"))?;
        // Each message has one.
        let sources = rows[1] - u64::from(has_touched(&into.sources)?);
        Ok((sources, u64::from_be_bytes(number)))
    }

    /// Fills an empty table with what the same one had at that moment.
    fn copy_table(&self, moment: &Moment, number: usize, into: &Keyspace) -> Result<u64, Error> {
        let mut filling = into.start_ingestion().map_err(failed)?;
        let mut last: Bound<Vec<u8>> = Bound::Unbounded;
        let mut copied = 0;
        loop {
            let tables = self.read()?;
            if self.opened() != moment.opened {
                return Err(Error::Unavailable(
                    "the store was opened anew while it was copied".into(),
                ));
            }
            let rest = (last.clone(), Bound::Unbounded);
            let entries = moment
                .snapshot
                .range::<Vec<u8>, _>(tables.all()[number], rest);
            let mut some = 0;
            for entry in entries.take(AT_ONCE) {
                let (key, value) = entry.into_inner().map_err(failed)?;
                last = Bound::Excluded(key.to_vec());
                filling.write(key, value).map_err(failed)?;
                some += 1;
            }
            copied += some as u64;
            if some < AT_ONCE {
                break;
            }
        }
        if copied > 0 {
            filling.finish().map_err(failed)?;
        }
        Ok(copied)
    }
}

fn has_touched(table: &Keyspace) -> Result<bool, Error> {
    table.contains_key(super::purge::TOUCHED).map_err(failed)
}
