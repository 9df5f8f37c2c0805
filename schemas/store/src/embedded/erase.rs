//! Erasing rows: first from every table, in steps, then from the files ([`super::purge`]).
//!
//! A step is one write like any other: what it takes away goes all at once, with the note
//! that files still hold it. The fence keeps out what comes again from the topic, because
//! it is read under the same lock as rows are written.
//!
//! Steps need no turn of their own: they go on while files are merged or copied. Whoever
//! asks for an erasure then waits for its turn to purge; who comes behind with the rest of it
//! does not.

use std::collections::HashSet;
use std::sync::Arc;

use fjall::OwnedWriteBatch;
use jiff::Timestamp;
use weir_records::Judged;

use super::history::Walk;
use super::keys::{self, Kind};
use super::parts::Parts;
use super::tables::{Tables, failed};
use super::{Inner, Store, Writer, damaged, purge};
use crate::cursor::{List, Position};
use crate::{Erase, Erased, Error, record};

/// Rows of one step.
pub(super) const STEP: usize = 500;

impl Store {
    pub(super) async fn erase_rows(&self, tenant: String, what: Erase) -> Result<Erased, Error> {
        self.blocking(move |store| {
            let messages = store.erase_what(&tenant, &what)?;
            {
                let _one = store.upkeep.lock();
                // Also where nothing was found: a call before this one may have stopped here.
                store.purge()?;
            }
            store.purge_left()?;
            Ok(Erased { messages })
        })
        .await
    }

    pub(super) async fn erase_late_rows(
        &self,
        tenant: String,
        what: Erase,
    ) -> Result<Erased, Error> {
        let erase = move |store: &Inner| {
            let messages = store.erase_what(&tenant, &what)?;
            Ok((messages, store.noted()?.is_some()))
        };
        let (messages, noted) = self.blocking::<_, Error>(erase).await?;
        if noted {
            let inner = Arc::clone(&self.inner);
            // Nobody waits for it: should it be broken off, the note stays.
            tokio::task::spawn_blocking(move || {
                if let Err(error) = inner.purge_left() {
                    tracing::warn!(%error, "what was erased is not purged yet");
                }
            });
        }
        Ok(Erased { messages })
    }
}

impl Inner {
    fn erase_what(&self, tenant: &str, what: &Erase) -> Result<u64, Error> {
        match what {
            Erase::Message { id, up_to } => self.erase_message(tenant, id, *up_to),
            Erase::Sender { name, up_to } => self.erase_sender(tenant, name, *up_to),
        }
    }

    pub(super) fn erase_message(
        &self,
        tenant: &str,
        id: &str,
        up_to: Timestamp,
    ) -> Result<u64, Error> {
        let Ok(key) = keys::fits(keys::message(tenant, id)) else {
            return Ok(0);
        };
        self.write(
            |tables, writer, batch| {
                let Some(found) = tables.records.get(&key).map_err(failed)? else {
                    return Ok(0);
                };
                let row = record::read(&found)?;
                if row.message.received_at > up_to {
                    return Ok(0);
                }
                let gone = remove(tables, batch, &row);
                if let Some(sender) = &row.message.sender {
                    let day = keys::day(row.message.received_at.as_microsecond());
                    let list = List {
                        kind: Kind::Sender.name(),
                        tenant,
                        name: sender,
                    };
                    leave(
                        tables,
                        writer,
                        batch,
                        &list,
                        day,
                        &gone.into_iter().collect(),
                    )?;
                }
                purge::note(tables, writer, batch, purge::EVERYTHING)?;
                Ok(1)
            },
            |_| {},
        )
    }

    fn erase_sender(&self, tenant: &str, name: &str, up_to: Timestamp) -> Result<u64, Error> {
        if keys::fits(keys::longest(Kind::Sender, tenant, name)).is_err() {
            return Ok(0);
        }
        let list = List {
            kind: Kind::Sender.name(),
            tenant,
            name,
        };
        let mut erased = 0;
        // Until nothing came in behind the walk.
        loop {
            let mut found = 0;
            let mut after = Some(Position {
                received_at: up_to.as_microsecond(),
                offset: i64::MAX,
                partition: i32::MAX,
            });
            while after.is_some() {
                let step = |tables: &Tables, writer: &mut Writer, batch: &mut OwnedWriteBatch| {
                    erase_step(tables, writer, batch, &list, after)
                };
                let (rows, next) = self.write(step, |_| {})?;
                found += rows;
                after = next;
            }
            if found == 0 {
                return Ok(erased);
            }
            erased += found;
        }
    }
}

/// Puts the removal of the next rows of a sender's list into the batch. Answers how many
/// and the last of them, where there may be more.
fn erase_step(
    tables: &Tables,
    writer: &mut Writer,
    batch: &mut OwnedWriteBatch,
    list: &List<'_>,
    after: Option<Position>,
) -> Result<(u64, Option<Position>), Error> {
    let walk = Walk {
        snapshot: tables.db.snapshot(),
        tables,
        kind: Kind::Sender,
        list: *list,
    };
    let mut gone = HashSet::new();
    let mut rows = 0;
    for day in walk.days(after) {
        let (day, parts) = day?;
        for row in walk.rows(day, parts, after) {
            let (position, id) = row?;
            let key = keys::message(list.tenant, &id);
            let found = tables.records.get(&key).map_err(failed)?;
            let found = found.ok_or_else(|| damaged("a row of `rows` without its record"))?;
            gone.extend(remove(tables, batch, &record::read(&found)?));
            rows += 1;
            if rows == 1 {
                purge::note(tables, writer, batch, purge::EVERYTHING)?;
            }
            if rows as usize == STEP {
                return Ok((rows, Some(position)));
            }
        }
        leave(tables, writer, batch, list, day, &gone)?;
    }
    Ok((rows, None))
}

/// Puts the removal of a row from every table into the batch; answers its keys in lists.
pub(super) fn remove(tables: &Tables, batch: &mut OwnedWriteBatch, row: &Judged) -> Vec<Vec<u8>> {
    let message = &row.message;
    let position = Position {
        received_at: message.received_at.as_microsecond(),
        offset: row.source.offset,
        partition: row.source.partition,
    };
    let channel = (Kind::Channel, &message.channel);
    let sender = message.sender.as_ref().map(|name| (Kind::Sender, name));
    let keys: Vec<_> = [channel]
        .into_iter()
        .chain(sender)
        .map(|(kind, name)| keys::row(kind, &message.tenant, name, position))
        .collect();
    for key in &keys {
        batch.remove(&tables.rows, key.clone());
    }
    let key = keys::message(&message.tenant, &message.id);
    batch.remove(&tables.sources, key.clone());
    batch.remove(&tables.records, key);
    keys
}

/// Takes a sender's bucket, and with it the name, out of the lists, if it holds nothing
/// but what is `gone`.
fn leave(
    tables: &Tables,
    writer: &mut Writer,
    batch: &mut OwnedWriteBatch,
    list: &List<'_>,
    day: i32,
    gone: &HashSet<Vec<u8>>,
) -> Result<(), Error> {
    let bucket = keys::bucket(Kind::Sender, list.tenant, list.name, day);
    let Some(parts) = tables.lists.get(&bucket).map_err(failed)? else {
        return Ok(());
    };
    for part in Parts::read(&parts)?.newest_first() {
        let rows = keys::rows(Kind::Sender, list.tenant, list.name, day, part);
        for entry in tables.rows.prefix(rows) {
            let key = entry.key().map_err(failed)?;
            if !gone.contains(&*key) {
                return Ok(());
            }
        }
    }
    writer.known_buckets.remove(&bucket);
    batch.remove(&tables.lists, bucket);
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use weir_records::{Action, Judged, Message, Scores, Sentiment, Source, Verdict};

    /// Message `m` of tenant `acme`, and a text that stands in a file as it is.
    pub(in super::super) fn row() -> (Judged, &'static str) {
        let text = "qX7mPz0vR3kLw9TbYc5nHsJd2GfUeAo8";
        let at = jiff::Timestamp::from_second(1_772_323_200).unwrap();
        let row = Judged {
            message: Message {
                tenant: "acme".into(),
                channel: "lobby".into(),
                sender: Some("ada".into()),
                by_user: false,
                id_made: false,
                id: "m".into(),
                text: text.repeat(5),
                sent_at: at,
                received_at: at,
                metadata: None,
            },
            verdict: Verdict {
                action: Action::Allow,
                reasons: Vec::new(),
                scores: Scores([0.0; 6]),
                sentiment: Sentiment::from_probabilities([0.0, 1.0, 0.0]),
                language: "en".into(),
                spans: Vec::new(),
                model: "test".into(),
                judged_at: at,
            },
            source: Source {
                partition: 0,
                offset: 1,
            },
        };
        (row, text)
    }
}
