//! Reading the history: by id, and lists page by page.
//!
//! A list is walked bucket by bucket, newest first, by way of the index: no bucket is
//! asked for that does not exist. It holds no records but their ids, so a page is one
//! read of a bucket and one of each record, all at once. A row whose record is not there
//! has been erased, or is being written: it is passed over.

use std::cmp::Reverse;
use std::collections::VecDeque;

use futures::stream::{self, StreamExt as _};
use scylla::response::query_result::QueryRowsResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use weir_records::{Judged, Source};

use super::Store;
use super::buckets::{self, Kind, LAST_MINUTE, WHOLE_DAY};
use super::failure::{damaged, failed};
use super::write::{Claimed, fits};
use crate::cursor::{List, Position};
use crate::{Cursor, Error, MAX_PAGE, Page, PageRequest, record};

/// Entries of the index in one read.
const ENTRIES: i32 = 60;
/// Minutes of a split day that are read at once.
const MINUTES_AT_ONCE: usize = 4;
/// Before everything that there is.
const NEWEST: Position = Position {
    received_at: i64::MAX,
    offset: i64::MAX,
    partition: i32::MAX,
};

/// Record, text and metadata, as far as they are there.
type Kept = (Option<Vec<u8>>, Option<String>, Option<String>);

/// A row of a list.
pub(super) struct Pointer {
    pub(super) position: Position,
    pub(super) id: String,
}

impl Store {
    pub(super) async fn query(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<QueryRowsResult, Error> {
        self.session
            .execute_unpaged(statement, values)
            .await
            .map_err(failed)?
            .into_rows_result()
            .map_err(failed)
    }

    /// The message with that id; with an empty text where that has run out.
    pub(super) async fn judged(&self, tenant: &str, id: &str) -> Result<Option<Judged>, Error> {
        if !fits(tenant, id) {
            return Ok(None);
        }
        let answer = self.query(&self.statements.message, (tenant, id)).await?;
        let found: Option<Kept> = answer
            .maybe_first_row()
            .map_err(|_| damaged("a row of `messages`"))?;
        let Some((Some(found), text, metadata)) = found else {
            return Ok(None);
        };
        let mut row = record::read(&found)?;
        // The records of the first version of the tables have theirs in them.
        if row.message.text.is_empty() {
            row.message.text = text.unwrap_or_default();
            row.message.metadata = metadata.filter(|metadata| !metadata.is_empty());
        }
        Ok(Some(row))
    }

    pub(super) async fn read_source(
        &self,
        tenant: &str,
        id: &str,
    ) -> Result<Option<Source>, Error> {
        if !fits(tenant, id) {
            return Ok(None);
        }
        Ok(match self.read_claim(tenant, id).await? {
            Some(Claimed::By(source)) => Some(source),
            Some(Claimed::Erased(_)) | None => None,
        })
    }

    /// Whose the id is.
    pub(super) async fn read_claim(
        &self,
        tenant: &str,
        id: &str,
    ) -> Result<Option<Claimed>, Error> {
        let answer = self.query(&self.statements.source, (tenant, id)).await?;
        let claim: Option<((i32, i64),)> = answer
            .maybe_first_row()
            .map_err(|_| damaged("a row of `sources`"))?;
        Ok(claim.map(|(cell,)| Claimed::of(cell)))
    }

    pub(super) async fn page(
        &self,
        kind: Kind,
        tenant: &str,
        name: &str,
        request: &PageRequest,
    ) -> Result<Page, Error> {
        let list = List {
            kind: kind.name(),
            tenant,
            name,
        };
        let mut before = match &request.cursor {
            Some(cursor) => cursor.position(&list).ok_or(Error::Cursor)?,
            None => NEWEST,
        };
        let walk = Walk {
            store: self,
            kind,
            list,
        };
        let limit = request.limit.clamp(1, MAX_PAGE);
        let mut page = Page {
            rows: Vec::with_capacity(limit.min(100)),
            next: None,
        };
        if !fits(tenant, name) {
            return Ok(page);
        }
        let mut last = None;
        let mut days = walk.days(buckets::day(before.received_at)).await?;
        let mut further = days.len() == ENTRIES as usize;
        loop {
            let Some((day, split)) = days.pop_front() else {
                return Ok(page);
            };
            loop {
                // One more than fit, to know whether there is a next page.
                let room = limit - page.rows.len();
                let mut pointers = walk.pointers(day, split, before, room + 1).await?;
                let more = pointers.len() > room;
                pointers.truncate(room);
                for (position, record) in walk.records(&pointers).await? {
                    before = position;
                    if let Some(record) = record {
                        page.rows.push(record);
                        last = Some(position);
                    }
                }
                if more && page.rows.len() == limit {
                    page.next = last.map(|last| Cursor::new(&list, last));
                    return Ok(page);
                }
                if !more {
                    break;
                }
            }
            if days.is_empty() && further {
                days = walk.days(day.saturating_sub(1)).await?;
                further = days.len() == ENTRIES as usize;
            }
        }
    }
}

/// A walk through one list.
pub(super) struct Walk<'a> {
    pub(super) store: &'a Store,
    pub(super) kind: Kind,
    pub(super) list: List<'a>,
}

impl Walk<'_> {
    /// Days that have rows, from that one on, newest first, and whether they are split.
    async fn days(&self, from: i32) -> Result<VecDeque<(i32, bool)>, Error> {
        let List { kind, tenant, name } = self.list;
        let statement = &self.store.statements.days;
        let values = (kind, tenant, name, from, ENTRIES);
        let broken = || damaged("a row of `list_days`");
        self.store
            .query(statement, values)
            .await?
            .rows::<(i32, Option<bool>)>()
            .map_err(|_| broken())?
            .map(|row| {
                let (day, split) = row.map_err(|_| broken())?;
                Ok((day, split.unwrap_or(false)))
            })
            .collect()
    }

    /// At most `wanted` rows behind `before`, which moves on to the last of them; none at
    /// the end of the list.
    pub(super) async fn next(
        &self,
        before: &mut Position,
        wanted: usize,
    ) -> Result<Vec<Pointer>, Error> {
        let mut from = buckets::day(before.received_at);
        loop {
            let days = self.days(from).await?;
            for (day, split) in &days {
                let pointers = self.pointers(*day, *split, *before, wanted).await?;
                if let Some(last) = pointers.last() {
                    *before = last.position;
                    return Ok(pointers);
                }
            }
            match days.back() {
                Some((day, _)) if days.len() == ENTRIES as usize => from = day.saturating_sub(1),
                _ => return Ok(Vec::new()),
            }
        }
    }

    /// At most `wanted` rows of one day behind `before`, newest first.
    async fn pointers(
        &self,
        day: i32,
        split: bool,
        before: Position,
        wanted: usize,
    ) -> Result<Vec<Pointer>, Error> {
        let whole = self.bucket(day, WHOLE_DAY, before, wanted);
        if !split {
            return whole.await;
        }
        let (whole, minutes) = tokio::try_join!(whole, self.minutes(day, before, wanted))?;
        let mut rows: Vec<Pointer> = whole.into_iter().chain(minutes).collect();
        rows.sort_by_key(|row| Reverse(row.position));
        // A replay may have put a row into a minute that the first try put into the day.
        rows.dedup_by_key(|row| row.position);
        rows.truncate(wanted);
        Ok(rows)
    }

    /// At least `wanted` rows of the minutes of a split day, or all.
    async fn minutes(
        &self,
        day: i32,
        before: Position,
        wanted: usize,
    ) -> Result<Vec<Pointer>, Error> {
        let mut from = if buckets::day(before.received_at) == day {
            buckets::minute(before.received_at)
        } else {
            LAST_MINUTE
        };
        let mut rows = Vec::new();
        loop {
            let minutes = self.minutes_from(day, from).await?;
            let reads: Vec<_> = minutes
                .iter()
                .map(|minute| self.bucket(day, *minute, before, wanted))
                .collect();
            let mut reads = stream::iter(reads).buffered(MINUTES_AT_ONCE);
            while let Some(bucket) = reads.next().await {
                rows.extend(bucket?);
                if rows.len() >= wanted {
                    return Ok(rows);
                }
            }
            match minutes.last() {
                Some(last) if minutes.len() == ENTRIES as usize => from = last - 1,
                _ => return Ok(rows),
            }
        }
    }

    async fn minutes_from(&self, day: i32, from: i32) -> Result<Vec<i32>, Error> {
        let List { kind, tenant, name } = self.list;
        let statement = &self.store.statements.minutes;
        let values = (kind, tenant, name, day, from, ENTRIES);
        let broken = || damaged("a row of `list_minutes`");
        self.store
            .query(statement, values)
            .await?
            .rows::<(i32,)>()
            .map_err(|_| broken())?
            .map(|row| row.map(|(minute,)| minute).map_err(|_| broken()))
            .collect()
    }

    /// At most `wanted` rows of one bucket behind `before`, newest first.
    async fn bucket(
        &self,
        day: i32,
        minute: i32,
        before: Position,
        wanted: usize,
    ) -> Result<Vec<Pointer>, Error> {
        let List { tenant, name, .. } = self.list;
        let Position {
            received_at,
            offset,
            partition,
        } = before;
        let wanted = i32::try_from(wanted).unwrap_or(i32::MAX);
        let values = (
            tenant,
            name,
            day,
            minute,
            received_at,
            offset,
            partition,
            wanted,
        );
        let broken = || damaged("a row of a list");
        let statement = &self.store.statements.list(self.kind).page;
        self.store
            .query(statement, values)
            .await?
            .rows::<(i64, i64, i32, String)>()
            .map_err(|_| broken())?
            .map(|row| {
                let (received_at, offset, partition, id) = row.map_err(|_| broken())?;
                let position = Position {
                    received_at,
                    offset,
                    partition,
                };
                Ok(Pointer { position, id })
            })
            .collect()
    }

    /// The records of those rows, where they are there and the row is theirs.
    async fn records(
        &self,
        pointers: &[Pointer],
    ) -> Result<Vec<(Position, Option<Judged>)>, Error> {
        let reads = pointers.iter().map(|pointer| async move {
            let record = self.store.judged(self.list.tenant, &pointer.id).await?;
            let Position {
                offset, partition, ..
            } = pointer.position;
            let own = Source { partition, offset };
            let record = record.filter(|record| record.source == own);
            Ok((pointer.position, record))
        });
        self.store.each(reads.collect()).await
    }
}
