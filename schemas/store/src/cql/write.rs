//! Writing the history: whose the ids are, records, lists, then the fence.
//!
//! No two of them are one transaction, so each may be the last before a crash. The fence
//! stands behind everything that it says is there; whatever lies beyond it comes again
//! from the topic, finds that its id is its own and writes the rest, or, where Weir made the
//! id, writes all of it once more. Read [`super`] for why this
//! stores every row once.

use std::collections::HashSet;
use std::future::Future;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use tokio::time::{Duration, Instant, sleep};
use weir_records::{Judged, Message, Source};

use super::Store;
use super::failure::{BY_DATABASE, contended, damaged, failed, row_failed};
use super::life::{self, Life};
use super::schema;
use super::statements::{Statements, applied};
use super::together::Cells;
use crate::{Error, record};

/// The longest partition key that every server takes.
const LONGEST_KEY: usize = u16::MAX as usize;
/// What the numbers in a key, and the lengths of its parts, add to it at most.
pub(super) const AROUND: usize = 48;
/// The longest record: far above what the topic takes, below what a server takes.
const LONGEST_RECORD: usize = 8 << 20;

/// How long it is remembered that a message was erased, in seconds: as long as the tables
/// remember what was removed from them, ten days by default. No writer is stopped longer.
pub(super) const MARK_SECONDS: i32 = 10 * 86_400;

/// A row with all that is written of it.
pub(super) struct Row<'a> {
    pub(super) message: &'a Message,
    pub(super) source: Source,
    pub(super) life: Life,
    record: Vec<u8>,
    /// Weir made its id for it, so that no earlier row has it.
    first: bool,
}

/// Whose an id is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// Nobody's yet.
    New,
    /// This row's already: an earlier call did not get through.
    Ours,
    /// Another message's.
    Taken,
}

impl Store {
    pub(super) async fn write_rows(&self, partition: i32, rows: &[Judged]) -> Result<usize, Error> {
        if rows.iter().any(|row| row.source.partition != partition) {
            return Err(Error::Refused(
                "its partition is not the one that is written",
            ));
        }
        if !rows.is_sorted_by(|a, b| a.source.offset < b.source.offset) {
            return Err(Error::Refused("its offset does not follow the one before"));
        }
        let Some(last) = rows.last() else {
            return Ok(0);
        };
        // Also of those below the fence: one that was refused before is refused again, until
        // whoever gives it up has done so.
        let mut rows = self.fitting(rows)?;
        let fence = self.read_fence(partition).await?;
        if Some(last.source.offset) <= fence {
            return Ok(0);
        }
        rows.retain(|row| Some(row.source.offset) > fence);
        match self.store(&rows).await {
            Ok(written) => {
                self.move_fence(partition, last.source.offset).await?;
                Ok(written)
            }
            Err(error) => Err(self.refused(&rows, error).await?),
        }
    }

    /// One row, past the fence: claimed like any other, so that it can't be there twice.
    pub(super) async fn put_row(&self, row: &Judged) -> Result<bool, Error> {
        let (tenant, id) = (&row.message.tenant, &row.message.id);
        let mut rows = self.fitting(std::slice::from_ref(row))?;
        let Some(first) = rows.first_mut() else {
            return Ok(false);
        };
        // Its message may have been sent once more since it was given up.
        first.first = false;
        let held = self.judged(tenant, id).await?.is_some();
        let new = match self.store(&rows).await {
            Ok(new) => new,
            Err(error) => return Err(self.refused(&rows, error).await?),
        };
        // A claim of its own without a record is what a crash has left.
        Ok(new > 0 || (!held && self.read_source(tenant, id).await? == Some(row.source)))
    }

    /// What a failed write of rows means, after the claim of a row that is refused alone
    /// was taken back.
    async fn refused(&self, rows: &[Row<'_>], error: Error) -> Result<Error, Error> {
        if !matches!(error, Error::Refused(BY_DATABASE)) {
            return Ok(error);
        }
        // It refuses every row while a table is missing.
        if !schema::complete(&self.session, &self.config).await? {
            return Ok(Error::Unavailable("a table is missing".into()));
        }
        if let [row] = rows {
            self.let_go(row).await?;
        }
        Ok(Error::Refused(BY_DATABASE))
    }

    /// The rows to be written, the first of each id: none when one of them can't be.
    fn fitting<'a>(&self, rows: &'a [Judged]) -> Result<Vec<Row<'a>>, Error> {
        let now = Timestamp::now().as_microsecond();
        let mut seen = HashSet::new();
        let mut fitting = Vec::new();
        for row in rows {
            let message = &row.message;
            let parts = [&message.id, &message.channel]
                .into_iter()
                .chain(&message.sender);
            for part in parts {
                if !fits(&message.tenant, part) {
                    return Err(Error::Refused(
                        "its tenant, channel, sender or id is too long",
                    ));
                }
            }
            let record = record::without_text(row);
            let said = message.text.len() + message.metadata.as_ref().map_or(0, String::len);
            if record.len() + said > LONGEST_RECORD {
                return Err(Error::Refused("it is too large"));
            }
            let received_at = message.received_at.as_microsecond();
            let life = life::of_row(&self.config.retention, &message.tenant, received_at, now);
            let first = seen.insert((&message.tenant, &message.id));
            if let Some(life) = life.filter(|_| first) {
                fitting.push(Row {
                    message,
                    source: row.source,
                    record,
                    life,
                    first: message.id_made,
                });
            }
        }
        Ok(fitting)
    }

    /// Writes all but the fence and answers how many ids were nobody's before.
    async fn store(&self, rows: &[Row<'_>]) -> Result<usize, Error> {
        let claims = self
            .each(rows.iter().map(|row| self.claim_or_trust(row)).collect())
            .await?;
        let new = claims.iter().filter(|claim| **claim == Claim::New).count();
        let (ours, claims): (Vec<&Row<'_>>, Vec<Claim>) = rows
            .iter()
            .zip(claims)
            .filter(|(_, claim)| *claim != Claim::Taken)
            .unzip();
        let records = self.each(
            ours.iter()
                .zip(claims)
                .map(|(row, claim)| self.record(row, claim))
                .collect(),
        );
        let records = records.await?.into_iter().flatten().collect();
        // First, so that a row of a list always has somebody whose the id is.
        self.put_cells(records).await?;
        self.put_lists(&ours).await?;
        Ok(new)
    }

    /// As [`claim`](Self::claim), but a row that is its id's first is new. If an earlier call
    /// did not get through with it, all of it is written again, the same.
    async fn claim_or_trust(&self, row: &Row<'_>) -> Result<Claim, Error> {
        if row.first {
            return Ok(Claim::New);
        }
        self.claim(row).await
    }

    /// Looks whose the id is. It is this row's from when its record is written, which puts
    /// down both.
    async fn claim(&self, row: &Row<'_>) -> Result<Claim, Error> {
        let held = self
            .read_claim(&row.message.tenant, &row.message.id)
            .await?;
        Ok(match held {
            None => Claim::New,
            Some(Claimed::By(source)) if source == row.source => Claim::Ours,
            Some(Claimed::By(_)) => Claim::Taken,
            // This very row, and somebody who comes late with it.
            Some(Claimed::Erased(source)) if source == row.source => Claim::Taken,
            Some(Claimed::Erased(_)) => Claim::New,
        })
    }

    /// Takes back a row that is given up, if it is there: sent again, it is another message.
    async fn let_go(&self, row: &Row<'_>) -> Result<(), Error> {
        if self.claim(row).await? != Claim::Ours {
            return Ok(());
        }
        let (tenant, id) = (&row.message.tenant, &row.message.id);
        let values = (row.life.timestamp, tenant, id);
        tokio::try_join!(
            self.put(&self.statements.let_go, values),
            self.put(&self.statements.erase_message, values)
        )?;
        Ok(())
    }

    /// The record and whose the id is; nothing where they are there.
    async fn record<'a>(
        &'a self,
        row: &'a Row<'_>,
        claim: Claim,
    ) -> Result<Option<Cells<'a>>, Error> {
        let (tenant, id) = (&row.message.tenant, &row.message.id);
        // The one that is there may already have been read: it stays.
        if claim == Claim::Ours && self.judged(tenant, id).await?.is_some() {
            return Ok(None);
        }
        let Life {
            ttl,
            text_ttl,
            timestamp,
        } = row.life;
        let text = &row.message.text;
        // Where there is none, it is empty. Left out, it would leave that of another message
        // with the same id, whose writer did not see this one; a null would be a removal.
        let metadata = row.message.metadata.as_deref().unwrap_or_default();
        let keys = 2 * (tenant.len() + id.len() + AROUND);
        let bytes = keys + row.record.len() + text.len() + metadata.len();
        let Statements {
            put_source,
            put_record,
            put_text,
            put_message,
            ..
        } = &self.statements;
        let own = Claimed::By(row.source).cell();
        let cells = Cells::new(bytes).and(put_source, (tenant, id, own, ttl, timestamp));
        let record = (tenant, id, &row.record, ttl, timestamp);
        Ok(Some(match text_ttl {
            None => cells.and(put_record, record),
            Some(text_ttl) if text_ttl == ttl => {
                let whole = (tenant, id, &row.record, text, metadata, ttl, timestamp);
                cells.and(put_message, whole)
            }
            Some(text_ttl) => {
                let said = (text_ttl, timestamp, text, metadata, tenant, id);
                cells.and(put_record, record).and(put_text, said)
            }
        }))
    }

    /// The last offset of that partition behind which everything is there.
    pub(super) async fn read_fence(&self, partition: i32) -> Result<Option<i64>, Error> {
        let answer = self.query(&self.statements.fence, (partition,)).await?;
        let fence: Option<(i64,)> = answer
            .maybe_first_row()
            .map_err(|_| damaged("a row of `fences`"))?;
        Ok(fence.map(|(offset,)| offset))
    }

    /// Moves the fence up. Its cell bears the offset as its time, and of two writes of a
    /// cell the one with the later time stays: so the highest offset does, whoever comes
    /// last, without asking anybody.
    async fn move_fence(&self, partition: i32, offset: i64) -> Result<(), Error> {
        let timestamp = offset.saturating_add(1).max(1);
        self.session
            .execute_unpaged(&self.statements.put_fence, (partition, offset, timestamp))
            .await
            .map_err(failed)?;
        Ok(())
    }

    pub(super) async fn put(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<(), Error> {
        self.session
            .execute_unpaged(statement, values)
            .await
            .map_err(row_failed)?;
        Ok(())
    }

    /// A write with a condition, again while others decide about the same row. Answers
    /// whether it was done.
    pub(super) async fn decide(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<bool, Error> {
        let give_up = Instant::now() + self.patience;
        loop {
            match self.session.execute_unpaged(statement, &values).await {
                Ok(answer) => return applied(answer),
                Err(error) if contended(&error) && Instant::now() < give_up => pause().await,
                Err(error) => return Err(row_failed(error)),
            }
        }
    }

    /// Runs all of them, some at once, and answers in their order.
    pub(super) async fn each<T, F>(&self, work: Vec<F>) -> Result<Vec<T>, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        stream::iter(work)
            .buffered(self.config.concurrency)
            .try_collect()
            .await
    }
}

/// Whether a server takes a key of these. What it does not take is not there.
pub(super) const fn fits(tenant: &str, name: &str) -> bool {
    tenant.len() + name.len() + AROUND <= LONGEST_KEY
}

/// Waits a little, not as long as the others that wait.
pub(super) async fn pause() {
    let some = jiff::Timestamp::now().subsec_microsecond().unsigned_abs() % 40;
    sleep(Duration::from_millis(10 + u64::from(some))).await;
}

/// What `sources` says about an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claimed {
    /// It is that row's.
    By(Source),
    /// It was that row's, which was erased.
    Erased(Source),
}

impl Claimed {
    /// As `sources` keeps it: partition and offset; the partition of an erased row as its
    /// complement, which is below 0.
    pub(super) const fn cell(self) -> (i32, i64) {
        match self {
            Self::By(source) => (source.partition, source.offset),
            Self::Erased(source) => (!source.partition, source.offset),
        }
    }

    pub(super) const fn of((partition, offset): (i32, i64)) -> Self {
        if partition < 0 {
            let partition = !partition;
            Self::Erased(Source { partition, offset })
        } else {
            Self::By(Source { partition, offset })
        }
    }
}
