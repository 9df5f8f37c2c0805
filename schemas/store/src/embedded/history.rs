//! The history in the embedded store.

use std::collections::HashSet;

use async_trait::async_trait;
use fjall::{OwnedWriteBatch, Readable, Snapshot};
use weir_records::{Judged, Source};

use super::due;
use super::keys::{self, Kind};
use super::parts::{Parts, part};
use super::tables::{Tables, failed};
use super::{Inner, KNOWN_BUCKETS, Store, Writer, damaged};
use crate::cursor::{List, Position};
use crate::{Cursor, Erase, Erased, Error, History, MAX_PAGE, Page, PageRequest, record};

/// A row as it goes into the tables.
struct Prepared {
    offset: i64,
    key: Vec<u8>,
    id: Vec<u8>,
    record: Vec<u8>,
    source: [u8; 12],
    /// In which ten minutes of its day it was received.
    part: Parts,
    /// Row and bucket of each list that it is in.
    lists: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Prepared {
    fn new(row: &Judged) -> Result<Self, Error> {
        let message = &row.message;
        let position = Position {
            received_at: message.received_at.as_microsecond(),
            offset: row.source.offset,
            partition: row.source.partition,
        };
        let list = |kind, name: &str| -> Result<_, Error> {
            let key = keys::fits(keys::row(kind, &message.tenant, name, position))?;
            let bucket = keys::bucket(kind, &message.tenant, name, keys::day(position.received_at));
            Ok((key, bucket))
        };
        let mut lists = vec![list(Kind::Channel, &message.channel)?];
        if let Some(sender) = &message.sender {
            lists.push(list(Kind::Sender, sender)?);
        }
        let mut source = [0; 12];
        source[..4].copy_from_slice(&row.source.partition.to_be_bytes());
        source[4..].copy_from_slice(&row.source.offset.to_be_bytes());
        Ok(Self {
            offset: row.source.offset,
            key: keys::fits(keys::message(&message.tenant, &message.id))?,
            id: message.id.as_bytes().to_vec(),
            record: row.clone().encode(),
            source,
            part: Parts::one(part(position.received_at)),
            lists,
        })
    }
}

#[async_trait]
impl History for Store {
    async fn write(&self, partition: i32, rows: &[Judged]) -> Result<usize, Error> {
        if rows.iter().any(|row| row.source.partition != partition) {
            return Err(Error::Refused(
                "its partition is not the one that is written",
            ));
        }
        if !rows.is_sorted_by(|a, b| a.source.offset < b.source.offset) {
            return Err(Error::Refused("its offset does not follow the one before"));
        }
        // Also of those below the fence: one that was refused before is refused again, until
        // whoever gives it up has done so.
        let mut rows: Vec<Prepared> = rows.iter().map(Prepared::new).collect::<Result<_, _>>()?;
        let above = self.inner.fences.read().get(&partition).copied();
        rows.retain(|row| Some(row.offset) > above);
        if rows.is_empty() {
            return Ok(0);
        }
        self.blocking(move |store| store.write_rows(partition, rows))
            .await
    }

    async fn put(&self, row: &Judged) -> Result<bool, Error> {
        let row = Prepared::new(row)?;
        self.blocking(move |store| store.put_row(row)).await
    }

    async fn fence(&self, partition: i32) -> Result<Option<i64>, Error> {
        Ok(self.inner.fences.read().get(&partition).copied())
    }

    async fn message(&self, tenant: &str, id: &str) -> Result<Option<Judged>, Error> {
        // What could not be stored is not there.
        let Ok(key) = keys::fits(keys::message(tenant, id)) else {
            return Ok(None);
        };
        let tables = self.inner.read()?;
        let record = tables.records.get(key).map_err(failed)?;
        record.map(|record| record::read(&record)).transpose()
    }

    async fn source(&self, tenant: &str, id: &str) -> Result<Option<Source>, Error> {
        let Ok(key) = keys::fits(keys::message(tenant, id)) else {
            return Ok(None);
        };
        let tables = self.inner.read()?;
        let Some(bytes) = tables.sources.get(key).map_err(failed)? else {
            return Ok(None);
        };
        let broken = || damaged("a row of `sources`");
        let (partition, offset) = bytes.split_at_checked(4).ok_or_else(broken)?;
        Ok(Some(Source {
            partition: i32::from_be_bytes(partition.try_into().map_err(|_| broken())?),
            offset: i64::from_be_bytes(offset.try_into().map_err(|_| broken())?),
        }))
    }

    async fn channel(
        &self,
        tenant: &str,
        channel: &str,
        page: &PageRequest,
    ) -> Result<Page, Error> {
        self.list(Kind::Channel, tenant, channel, page).await
    }

    async fn sender(&self, tenant: &str, sender: &str, page: &PageRequest) -> Result<Page, Error> {
        self.list(Kind::Sender, tenant, sender, page).await
    }

    async fn erase(&self, tenant: &str, what: &Erase) -> Result<Erased, Error> {
        self.erase_rows(tenant.to_owned(), what.clone()).await
    }

    async fn erase_late(&self, tenant: &str, what: &Erase) -> Result<Erased, Error> {
        self.erase_late_rows(tenant.to_owned(), what.clone()).await
    }
}

impl Store {
    async fn list(
        &self,
        kind: Kind,
        tenant: &str,
        name: &str,
        page: &PageRequest,
    ) -> Result<Page, Error> {
        if keys::fits(keys::longest(kind, tenant, name)).is_err() {
            return Ok(Page {
                rows: Vec::new(),
                next: None,
            });
        }
        let (tenant, name, page) = (tenant.to_owned(), name.to_owned(), page.clone());
        self.blocking(move |store| {
            let tables = store.read()?;
            let list = List {
                kind: kind.name(),
                tenant: &tenant,
                name: &name,
            };
            // Rows, pointers and buckets as of one moment.
            Walk {
                snapshot: tables.db.snapshot(),
                tables: &tables,
                kind,
                list,
            }
            .page(&page)
        })
        .await
    }
}

impl Inner {
    fn write_rows(&self, partition: i32, rows: Vec<Prepared>) -> Result<usize, Error> {
        let fill = |tables: &Tables, writer: &mut Writer, batch: &mut OwnedWriteBatch| {
            // Read again: another write of the partition may have come between.
            let above = self.fences.read().get(&partition).copied();
            writer.forget_some();
            let mut fence = above;
            let mut written = 0;
            let mut seen = HashSet::new();
            for row in rows.into_iter().filter(|row| Some(row.offset) > above) {
                fence = Some(row.offset);
                let known = tables.sources.contains_key(&row.key).map_err(failed)?;
                if !known && seen.insert(row.key.clone()) {
                    insert(tables, writer, batch, row)?;
                    written += 1;
                }
            }
            if let Some(fence) = fence.filter(|_| fence > above) {
                batch.insert(&tables.meta, keys::fence(partition), fence.to_be_bytes());
            }
            Ok::<_, Error>((written, fence))
        };
        let (written, _) = self.write(fill, |(_, fence)| {
            self.fences
                .write()
                .extend(fence.map(|fence| (partition, fence)));
        })?;
        Ok(written)
    }

    fn put_row(&self, row: Prepared) -> Result<bool, Error> {
        let fill = |tables: &Tables, writer: &mut Writer, batch: &mut OwnedWriteBatch| {
            writer.forget_some();
            let known = tables.sources.contains_key(&row.key).map_err(failed)?;
            if !known {
                insert(tables, writer, batch, row)?;
            }
            Ok::<_, Error>(!known)
        };
        self.write(fill, |_| ())
    }
}

fn insert(
    tables: &Tables,
    writer: &mut Writer,
    batch: &mut OwnedWriteBatch,
    row: Prepared,
) -> Result<(), Error> {
    for (key, bucket) in row.lists {
        let known = writer.known_buckets.get(&bucket).copied();
        if !known.is_some_and(|known| known.have(row.part)) {
            let known = match known {
                Some(known) => known,
                None => {
                    for day in due::days_of(&bucket).into_iter().flatten() {
                        batch.insert(&tables.lists, day, []);
                    }
                    let stored = tables.lists.get(&bucket).map_err(failed)?;
                    stored.map_or(Ok(Parts::default()), |stored| Parts::read(&stored))?
                }
            };
            let parts = known.and(row.part);
            batch.insert(&tables.lists, bucket.clone(), parts.bytes());
            writer.known_buckets.insert(bucket, parts);
        }
        batch.insert(&tables.rows, key, row.id.clone());
    }
    batch.insert(&tables.sources, row.key.clone(), row.source);
    batch.insert(&tables.records, row.key, row.record);
    Ok(())
}

impl Writer {
    /// Makes room for what a write learns. Not within one: what it has in its batch is known
    /// from nowhere else.
    fn forget_some(&mut self) {
        if self.known_buckets.len() >= KNOWN_BUCKETS {
            self.known_buckets.clear();
        }
    }
}

/// A walk through one list, newest bucket first.
pub(super) struct Walk<'a> {
    pub(super) snapshot: Snapshot,
    pub(super) tables: &'a Tables,
    pub(super) kind: Kind,
    pub(super) list: List<'a>,
}

impl Walk<'_> {
    fn page(&self, request: &PageRequest) -> Result<Page, Error> {
        let limit = request.limit.clamp(1, MAX_PAGE);
        let after = match &request.cursor {
            Some(cursor) => Some(cursor.position(&self.list).ok_or(Error::Cursor)?),
            None => None,
        };
        let mut page = Page {
            rows: Vec::with_capacity(limit.min(100)),
            next: None,
        };
        let mut last = None;
        for day in self.days(after) {
            let (day, parts) = day?;
            for row in self.rows(day, parts, after) {
                let (position, id) = row?;
                if page.rows.len() == limit {
                    page.next = last.map(|last| Cursor::new(&self.list, last));
                    return Ok(page);
                }
                let key = keys::message(self.list.tenant, &id);
                let record = self
                    .snapshot
                    .get(&self.tables.records, key)
                    .map_err(failed)?;
                // A row without its message has been erased.
                if let Some(record) = record {
                    page.rows.push(record::read(&record)?);
                    last = Some(position);
                }
            }
        }
        Ok(page)
    }

    /// The days that have rows, newest first, from the cursor's on, and their parts that do.
    pub(super) fn days(
        &self,
        after: Option<Position>,
    ) -> impl Iterator<Item = Result<(i32, Parts), Error>> {
        let (kind, tenant, name) = (self.kind, self.list.tenant, self.list.name);
        let newest = after.map_or(i32::MAX, |position| keys::day(position.received_at));
        let from = keys::bucket(kind, tenant, name, newest);
        let to = keys::bucket(kind, tenant, name, i32::MIN);
        self.snapshot
            .range(&self.tables.lists, from..=to)
            .map(|entry| {
                let (key, parts) = entry.into_inner().map_err(failed)?;
                let day = keys::day_of(&key).ok_or_else(|| damaged("a day in `lists`"))?;
                Ok((day, Parts::read(&parts)?))
            })
    }

    /// The parts of that day that have rows.
    pub(super) fn parts(&self, day: i32) -> Result<Parts, Error> {
        let bucket = keys::bucket(self.kind, self.list.tenant, self.list.name, day);
        let parts = self.snapshot.get(&self.tables.lists, bucket);
        let parts = parts.map_err(failed)?;
        parts.map_or(Ok(Parts::default()), |parts| Parts::read(&parts))
    }

    /// The rows of those parts of one day, newest first, behind the cursor.
    pub(super) fn rows(
        &self,
        day: i32,
        parts: Parts,
        after: Option<Position>,
    ) -> impl Iterator<Item = Result<(Position, String), Error>> {
        let of_day = after.filter(|position| keys::day(position.received_at) == day);
        let newest = of_day.map_or(u8::MAX, |position| part(position.received_at));
        let parts = parts.newest_first().filter(move |part| *part <= newest);
        let entries = parts.flat_map(move |part| {
            let start = keys::rows(self.kind, self.list.tenant, self.list.name, day, part);
            let mut to = start.clone();
            to.extend([0xFF; keys::POSITION]);
            let mut from = start;
            if let Some(position) = after {
                // Rows of earlier days and parts lie behind it as well.
                from.extend(keys::position_bytes(position));
            }
            self.snapshot.range(&self.tables.rows, from..=to)
        });
        let rows = entries.map(|entry| {
            let (key, id) = entry.into_inner().map_err(failed)?;
            let broken = || damaged("a row of `rows`");
            let position = keys::position_of(&key).ok_or_else(broken)?;
            let id = String::from_utf8(id.to_vec()).map_err(|_| broken())?;
            Ok((position, id))
        });
        // The row that the cursor names was on the page before.
        rows.filter(move |row| !matches!(row, Ok((position, _)) if Some(*position) == after))
    }
}
