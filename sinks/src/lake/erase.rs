//! Erasures in the files: which can hold rows that are to be forgotten, and their
//! rewriting without them. Then the old files go from the disk at once, with all others
//! that the table has replaced and that are old enough to hold such rows.
//!
//! Nothing here commits; see [`super::merge`].

use std::collections::HashSet;

use arrow::compute::filter_record_batch;
use arrow::compute::kernels::boolean::not;
use deltalake::kernel::LogicalFileView;
use deltalake::logstore::LogStoreRef;
use deltalake::table::state::DeltaTableState;
use futures::TryStreamExt as _;
use weir_records::columns::{self, IDENTITY};
use weir_records::{Erasure, Erasures, Target};

use super::Error;
use super::files::Files;
use super::read;
use super::rewrite::{date, date_in, delete, rewrite};
use super::select::{BYTES, Bounds, FILES, Round};

/// Clocks of two machines differ by less.
const SKEW_MILLIS: i64 = 3_600_000;

/// What an erasure has done to the lake.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erased {
    /// Rows that are gone, those included that were not in a file yet.
    pub rows: usize,
    /// Files that were written again without them, or dropped.
    pub files_rewritten: usize,
    /// Files deleted from the storage: those, and others that the table did not use any more.
    pub files_removed: usize,
}

/// One erasure, and which files it has not been looked for in.
#[derive(Clone)]
struct Need {
    erasure: Erasure,
    /// Only files of this time or later, in milliseconds; `None`: all.
    since: Option<i64>,
}

/// Erasures that are looked for together.
#[derive(Clone, Default)]
pub(crate) struct Search {
    needs: Vec<Need>,
    all: Erasures,
    /// The last date, in days since 1970-01-01, that rows to be erased can have.
    until: i32,
    /// The offset of the last of them in their topic, if they come from there.
    pub(crate) mark: Option<i64>,
    /// Files that need no look any more.
    pub(crate) searched: HashSet<String>,
}

impl Search {
    /// Adds an erasure that no file was searched for.
    pub(crate) fn add(&mut self, erasure: Erasure) {
        self.push(erasure, None);
    }

    /// Adds the erasure at that offset of its topic. The table was searched for those up
    /// to `mark`; only a writer that did not know of them yet can have added rows since.
    pub(crate) fn add_at(&mut self, offset: i64, erasure: Erasure, mark: Option<i64>) {
        let since = mark
            .is_some_and(|mark| offset <= mark)
            .then(|| erasure.requested_at.as_millisecond() - SKEW_MILLIS);
        self.push(erasure, since);
        self.mark = self.mark.max(Some(offset));
    }

    fn push(&mut self, erasure: Erasure, since: Option<i64>) {
        let day = erasure.up_to.as_second().div_euclid(86_400);
        let day = i32::try_from(day).unwrap_or(i32::MAX);
        self.until = if self.is_empty() {
            day
        } else {
            day.max(self.until)
        };
        self.all.insert(&erasure);
        self.needs.push(Need { erasure, since });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.needs.is_empty()
    }

    /// Looks through files that can hold such rows, and writes those that do without them.
    pub(crate) async fn run(
        &self,
        files: &Files,
        views: Vec<LogicalFileView>,
    ) -> Result<Round, Error> {
        let mut round = Round {
            all: true,
            ..Round::default()
        };
        let (mut looked, mut bytes) = (0, 0);
        for view in views {
            if self.searched.contains(view.path().as_ref()) || !self.concerns(&view) {
                continue;
            }
            if looked >= FILES || bytes >= BYTES {
                round.all = false;
                break;
            }
            looked += 1;
            match date(&view) {
                Some(date) if self.found_in(files, &view).await? => {
                    let keep = |batch| {
                        let erased = columns::erased(&batch, &self.all)?;
                        Ok(filter_record_batch(&batch, &not(&erased)?)?)
                    };
                    let inputs = std::slice::from_ref(&view);
                    round
                        .rewritten
                        .push(rewrite(files, date, inputs, true, keep).await?);
                    bytes += view.size();
                }
                _ => round.clean.push(view.path().into_owned()),
            }
        }
        Ok(round)
    }

    fn concerns(&self, view: &LogicalFileView) -> bool {
        if view.deletion_vector_descriptor().is_some()
            || date(view).is_some_and(|date| date > self.until)
        {
            return false;
        }
        let bounds = Bounds::of(view);
        self.needs.iter().any(|need| {
            let (column, name) = match &need.erasure.target {
                Target::Sender(sender) => ("sender", sender),
                Target::Message(id) => ("message_id", id),
            };
            need.since
                .is_none_or(|since| view.modification_time() >= since)
                && bounds.may_hold("tenant", &need.erasure.tenant)
                && bounds.may_hold(column, name)
        })
    }

    async fn found_in(&self, files: &Files, view: &LogicalFileView) -> Result<bool, Error> {
        let mut batches = read::columns(files.store(), view, &IDENTITY).await?;
        while let Some(batch) = batches.try_next().await? {
            if columns::erased(&batch, &self.all)?.true_count() > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Deletes the files that this version of the table has replaced and that may hold
    /// erased rows: also those of earlier merges, for which readers are else given time.
    pub(crate) async fn purge(
        &self,
        files: &Files,
        log: &LogStoreRef,
        state: &DeltaTableState,
    ) -> Result<usize, Error> {
        let mut gone = Vec::new();
        let mut tombstones = state.all_tombstones(log.as_ref());
        while let Some(tombstone) = tombstones.try_next().await? {
            let path = tombstone.path().into_owned();
            if date_in(&path).is_none_or(|date| date <= self.until) {
                gone.push(path);
            }
        }
        drop(tombstones);
        let present: HashSet<String> = state
            .log_data()
            .into_iter()
            .map(|view| view.path().into_owned())
            .collect();
        let gone = gone
            .iter()
            .map(String::as_str)
            .filter(|path| !present.contains(*path));
        Ok(delete(files, gone).await?)
    }
}
