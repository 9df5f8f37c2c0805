//! What has run out goes: the texts of a day, and later its rows.
//!
//! Two indexes by tenant and day say what there is ([`Due`]), so a call finds the channels
//! whose days are over without a look at anything else, and does nothing where there are
//! none. A day goes whole, once all of it is over: a message stays for at most a day longer
//! than the tenant's retention. Then its files are written anew ([`super::purge`]).
//!
//! A step is one write of some hundred rows. A day of a channel that has more is marked in
//! the index, and whoever writes a row of it takes the mark away: then the day is gone
//! through once more, and its entry goes only after nothing came in between.

use std::collections::HashSet;

use fjall::OwnedWriteBatch;
use jiff::Timestamp;

use super::due::Due;
use super::erase::{self, STEP};
use super::history::Walk;
use super::keys::{self, Kind};
use super::tables::{Tables, failed};
use super::{Inner, Store, Writer, damaged, purge};
use crate::cursor::{List, Position};
use crate::{Error, Retention, record};

/// The mark of a day that is being gone through in several steps.
const BEGUN: &[u8] = &[1];

/// What ran out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expired {
    /// Messages whose text went, and whose verdict stays.
    pub texts: u64,
    /// Messages that went.
    pub messages: u64,
}

/// One tenant's days that are over.
struct Over<'a> {
    due: Due,
    tenant: &'a str,
    /// The last of them.
    day: i32,
}

/// How far a step came.
#[derive(Default)]
struct Step {
    expired: Expired,
    /// The entry of the index in whose rows it stopped, and the last one that it did.
    stopped: Option<(Vec<u8>, Position)>,
    /// Nothing is left.
    done: bool,
}

impl Store {
    /// Removes the texts and the rows whose time is over at `now`, from the tables and
    /// from the files. To be called every now and then, an hour apart, say: cheap where
    /// nothing has run out since. In steps: a call that failed goes on with the next.
    /// Whatever the retention was before, the one given counts for all that is there.
    ///
    /// # Errors
    /// [`Error::Setting`] for a retention that can't work; otherwise when the store
    /// fails.
    pub async fn expire(&self, retention: &Retention, now: Timestamp) -> Result<Expired, Error> {
        retention.check()?;
        let (retention, today) = (retention.clone(), keys::day(now.as_microsecond()));
        self.blocking(move |store| {
            let one = store.upkeep.lock();
            let mut all = Expired::default();
            // Rows first: the text of what goes altogether need not go before.
            for due in [Due::Verdicts, Due::Texts] {
                let mut from = due.behind(None);
                while let Some(tenant) = store.next_tenant(due, &from)? {
                    let days = match due {
                        Due::Texts => retention.of(&tenant).0,
                        Due::Verdicts => retention.of(&tenant).1,
                    };
                    if let Some(days) = i32::try_from(days).ok().filter(|days| *days > 0) {
                        let over = Over {
                            due,
                            tenant: &tenant,
                            day: today.saturating_sub(days).saturating_sub(1),
                        };
                        let expired = store.expire_days(&over)?;
                        all.texts += expired.texts;
                        all.messages += expired.messages;
                    }
                    from = due.behind(Some(&tenant));
                }
            }
            store.purge()?;
            drop(one);
            store.purge_left()?;
            Ok(all)
        })
        .await
    }
}

impl Inner {
    /// The first tenant in that index, from that key on.
    fn next_tenant(&self, due: Due, from: &[u8]) -> Result<Option<String>, Error> {
        let tables = self.read()?;
        let mut entries = tables.lists.range(from.to_vec()..due.end());
        let Some(entry) = entries.next() else {
            return Ok(None);
        };
        let parts = due.parts(&entry.key().map_err(failed)?);
        let (tenant, ..) = parts.ok_or_else(broken)?;
        Ok(Some(tenant))
    }

    fn expire_days(&self, over: &Over<'_>) -> Result<Expired, Error> {
        let mut all = Expired::default();
        let mut stopped = None;
        loop {
            let fill = |tables: &Tables, writer: &mut Writer, batch: &mut OwnedWriteBatch| {
                step(tables, writer, batch, over, stopped.take())
            };
            let step = self.write(fill, |_| {})?;
            all.texts += step.expired.texts;
            all.messages += step.expired.messages;
            if step.done {
                return Ok(all);
            }
            stopped = step.stopped;
        }
    }
}

fn step(
    tables: &Tables,
    writer: &mut Writer,
    batch: &mut OwnedWriteBatch,
    over: &Over<'_>,
    mut stopped: Option<(Vec<u8>, Position)>,
) -> Result<Step, Error> {
    let &Over { due, tenant, day } = over;
    let mut step = Step::default();
    let mut rows = 0;
    let mut again = false;
    // Senders' days that go with their rows.
    let mut left = HashSet::new();
    let days = due.from(tenant, i32::MIN)..due.from(tenant, day.saturating_add(1));
    for (number, entry) in tables.lists.range(days).enumerate() {
        let (key, mark) = entry.into_inner().map_err(failed)?;
        if number == STEP {
            return Ok(step);
        }
        let (_, channel, day) = due.parts(&key).ok_or_else(broken)?;
        let walk = Walk {
            snapshot: tables.db.snapshot(),
            tables,
            kind: Kind::Channel,
            list: List {
                kind: Kind::Channel.name(),
                tenant,
                name: &channel,
            },
        };
        let bucket = keys::bucket(Kind::Channel, tenant, &channel, day);
        let (entry, resumed) = match stopped.take() {
            Some((entry, position)) if *entry == *key => (entry, Some(position)),
            // The days before it came back meanwhile: it is gone through from its start.
            _ => (key.to_vec(), None),
        };
        let mut last = resumed;
        for row in walk.rows(day, walk.parts(day)?, resumed) {
            let (position, id) = row?;
            if rows == STEP {
                if resumed.is_none() {
                    batch.insert(&tables.lists, entry.clone(), BEGUN);
                    writer.known_buckets.remove(&bucket);
                }
                step.stopped = last.map(|last| (entry, last));
                return Ok(step);
            }
            if rows == 0 {
                purge::note(tables, writer, batch, purge::RECORDS)?;
            }
            rows += 1;
            last = Some(position);
            let key = keys::message(tenant, &id);
            let found = tables.records.get(&key).map_err(failed)?;
            let found = found.ok_or_else(|| damaged("a row of `rows` without its record"))?;
            let row = record::read(&found)?;
            match due {
                Due::Verdicts => {
                    erase::remove(tables, batch, &row);
                    if let Some(sender) = &row.message.sender {
                        // All that is left in it is over as well.
                        let bucket = keys::bucket(Kind::Sender, tenant, sender, day);
                        let known = writer.known_buckets.remove(&bucket).is_some();
                        if known || left.insert(bucket.clone()) {
                            batch.remove(&tables.lists, bucket);
                        }
                    }
                    step.expired.messages += 1;
                }
                Due::Texts if row.message.text.is_empty() => {}
                Due::Texts => {
                    batch.insert(&tables.records, key, record::without_text(&row));
                    step.expired.texts += 1;
                }
            }
        }
        if resumed.is_some() && *mark != *BEGUN {
            again = true;
            continue;
        }
        writer.known_buckets.remove(&bucket);
        batch.remove(&tables.lists, entry);
        if due == Due::Verdicts {
            batch.remove(&tables.lists, bucket);
            batch.remove(&tables.lists, Due::Texts.key(tenant, &channel, day));
        }
    }
    step.done = !again;
    Ok(step)
}

fn broken() -> Error {
    damaged("an entry of the days in `lists`")
}
