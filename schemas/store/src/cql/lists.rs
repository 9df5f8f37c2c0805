//! Writing the lists: which bucket, its entries in the index, then the rows.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use weir_records::Source;

use super::Store;
use super::buckets::{self, Kind, ListDay, WHOLE_DAY};
use super::failure::{damaged, failed, given_up};
use super::life::{self, Life};
use super::together::Cells;
use super::write::{AROUND, Row};
use crate::Error;
use crate::cursor::Position;

/// Rows in one request: with the longest ids 36 KiB, of the 50 that Apache Cassandra takes.
const AT_ONCE: usize = 200;

/// A row of a list.
#[derive(Clone, Copy)]
struct Pointer<'a> {
    position: Position,
    id: &'a str,
    life: Life,
}

impl Store {
    /// Writes the rows into the list of their channel and, where they have one, of their
    /// sender.
    pub(super) async fn put_lists(&self, rows: &[&Row<'_>]) -> Result<(), Error> {
        let now = Timestamp::now().as_microsecond();
        let mut pointers: BTreeMap<ListDay, Vec<Pointer<'_>>> = BTreeMap::new();
        for row in rows {
            let message = row.message;
            let received_at = message.received_at.as_microsecond();
            let Source { partition, offset } = row.source;
            let channel = (Kind::Channel, &message.channel);
            let sender = message.sender.as_ref().map(|name| (Kind::Sender, name));
            for (kind, name) in [channel].into_iter().chain(sender) {
                let list = ListDay {
                    kind,
                    tenant: message.tenant.clone(),
                    name: name.clone(),
                    day: buckets::day(received_at),
                };
                let pointer = Pointer {
                    position: Position {
                        received_at,
                        offset,
                        partition,
                    },
                    id: &message.id,
                    life: row.life,
                };
                pointers.entry(list).or_default().push(pointer);
            }
        }
        let days = pointers.keys().filter(|list| !self.tallies.knows(list));
        self.each(days.map(|list| self.begin_day(list, now)).collect())
            .await?;

        let mut minutes = BTreeSet::new();
        let mut puts = Vec::new();
        for (list, pointers) in &pointers {
            let mut buckets: BTreeMap<i32, Vec<Pointer<'_>>> = BTreeMap::new();
            for pointer in pointers {
                let place = self
                    .tallies
                    .place(list, buckets::minute(pointer.position.received_at));
                if place.split || place.new {
                    minutes.insert((list, place.minute, place.split));
                }
                buckets.entry(place.minute).or_default().push(*pointer);
            }
            for (minute, pointers) in buckets {
                let parts = pointers.chunks(AT_ONCE);
                puts.extend(parts.map(|part| self.pointers(list, minute, part)));
            }
        }
        // Before the rows: what the index does not have, no reader finds.
        let minutes = minutes
            .into_iter()
            .map(|(list, minute, split)| self.begin_minute(list, minute, split, now));
        self.each(minutes.collect()).await?;
        self.put_cells(puts).await
    }

    /// Makes sure that the index has the day, and learns whether it is split and how much
    /// others, or this process before it was started anew, have put there.
    async fn begin_day(&self, list: &ListDay, now: i64) -> Result<(), Error> {
        let (kind, tenant, name, day) = (list.kind.name(), &list.tenant, &list.name, list.day);
        let known = self.read_day(list.kind, tenant, name, day).await?;
        let split = known == Some(true);
        // Also where it is there: the retention may have grown since it was written.
        let ttl = life::of_day(&self.config.retention, &list.tenant, list.day, now);
        let put = if split {
            &self.statements.split_day
        } else {
            &self.statements.put_day
        };
        self.put(put, (kind, tenant, name, day, ttl)).await?;
        let rows = match known {
            Some(false) => self.count_day(list).await?,
            Some(true) | None => 0,
        };
        self.tallies.learn(list.clone(), split, rows);
        Ok(())
    }

    /// Rows in the bucket of a day. One that a node gives up counting, for what was erased in
    /// it, is as good as full.
    async fn count_day(&self, list: &ListDay) -> Result<u32, Error> {
        let count = &self.statements.list(list.kind).count;
        let bucket = (&list.tenant, &list.name, list.day, WHOLE_DAY);
        let answer = match self.session.execute_unpaged(count, bucket).await {
            Err(error) if given_up(&error) => {
                tracing::debug!(%error, "the rows of a day could not be counted; it is split");
                return Ok(u32::MAX);
            }
            answer => answer.map_err(failed)?,
        };
        let (rows,): (i64,) = answer
            .into_rows_result()
            .map_err(failed)?
            .single_row()
            .map_err(|_| damaged("a count of a list"))?;
        Ok(u32::try_from(rows).unwrap_or(u32::MAX))
    }

    /// Whether the index has the day, and says that it is split.
    pub(super) async fn read_day(
        &self,
        kind: Kind,
        tenant: &str,
        name: &str,
        day: i32,
    ) -> Result<Option<bool>, Error> {
        let key = (kind.name(), tenant, name, day);
        let answer = self.query(&self.statements.day, key).await?;
        let found: Option<(Option<bool>,)> = answer
            .maybe_first_row()
            .map_err(|_| damaged("a row of `list_days`"))?;
        Ok(found.map(|(split,)| split.unwrap_or(false)))
    }

    /// Makes sure that the index has the minute, and that the day is split.
    async fn begin_minute(
        &self,
        list: &ListDay,
        minute: i32,
        split: bool,
        now: i64,
    ) -> Result<(), Error> {
        let ttl = life::of_day(&self.config.retention, &list.tenant, list.day, now);
        let (kind, tenant, name) = (list.kind.name(), &list.tenant, &list.name);
        if split {
            let values = (kind, tenant, name, list.day, ttl);
            self.put(&self.statements.split_day, values).await?;
        }
        let values = (kind, tenant, name, list.day, minute, ttl);
        self.put(&self.statements.put_minute, values).await?;
        self.tallies.learn_minute(list, minute);
        Ok(())
    }

    /// Rows of one bucket.
    fn pointers<'a>(
        &'a self,
        list: &'a ListDay,
        minute: i32,
        pointers: &[Pointer<'a>],
    ) -> Cells<'a> {
        let put = &self.statements.list(list.kind).put;
        let (tenant, name, day) = (&list.tenant, &list.name, list.day);
        let keys = tenant.len() + name.len();
        let bytes = pointers
            .iter()
            .map(|pointer| keys + AROUND + pointer.id.len());
        let none = Cells::new(bytes.sum());
        pointers.iter().fold(none, |cells, pointer| {
            let Position {
                received_at: at,
                offset,
                partition,
            } = pointer.position;
            let Life { ttl, timestamp, .. } = pointer.life;
            let id = pointer.id;
            let values = (
                tenant, name, day, minute, at, offset, partition, id, ttl, timestamp,
            );
            cells.and(put, values)
        })
    }
}
