//! The writer's part in erasing and in retention: it filters what comes, has the files
//! searched in the background, commits what that brings, and has the old files deleted.
//!
//! An erasure is known to the filter before the files are searched, so no row gets
//! behind the search. Its offset is committed last, when the old files are deleted: who
//! reads it there may rely on both.

use std::collections::HashSet;

use deltalake::kernel::{Action, Transaction};
use deltalake::protocol::DeltaOperation;
use jiff::Timestamp;
use tokio::sync::oneshot;
use weir_records::topic::{LAKE_ERASURES, LAKE_REWRITE};

use super::erase::{Erased, Search};
use super::eraser::Request;
use super::files::Files;
use super::retention::Keeper;
use super::select::Round;
use super::table::Table;
use super::upkeep::Finished;
use super::writer::Writer;
use super::{Config, Error};

/// Erasures under way, and those that wait for them.
#[derive(Default)]
pub(super) struct Erasing {
    /// Being looked for.
    search: Option<Search>,
    /// The next search.
    next: Search,
    replies: Vec<oneshot::Sender<Erased>>,
    next_replies: Vec<oneshot::Sender<Erased>>,
    done: Erased,
    next_done: Erased,
    /// The files are through; the old ones are still to be deleted.
    purge: bool,
    /// All files were searched: after the deletion, the search is over.
    last: bool,
}

impl Erasing {
    /// Whether there is something to start.
    fn is_wanted(&self) -> bool {
        self.search.is_some() || !self.next.is_empty() || !self.next_replies.is_empty()
    }
}

impl Writer {
    /// Learns of new erasures: from now on no row that they cover gets in.
    pub(super) async fn learn(&mut self) -> Result<(), Error> {
        if self.stale && self.encoded.is_some() && self.eraser.has_requests() {
            // The commit of these files may have come through, and then they are not ours to
            // delete.
            self.reload().await?;
        }
        let requests = self.eraser.take();
        if requests.is_empty() {
            return Ok(());
        }
        let erasing = &mut self.erasing;
        for request in requests {
            match request {
                Request::Read(offset, erasure) => {
                    self.erased.insert(&erasure);
                    erasing.next.add_at(offset, erasure, self.mark);
                }
                Request::Asked(erasures, reply) => {
                    for erasure in erasures {
                        self.erased.insert(&erasure);
                        erasing.next.add(erasure);
                    }
                    erasing.next_replies.push(reply);
                }
            }
        }
        let dropped = self.buffer.erase(&self.erased);
        erasing.next_done.rows += dropped;
        self.metrics.erased.inc_by(dropped as u64);
        if dropped > 0
            && let Some(encoded) = self.encoded.take()
        {
            // Files that were to be committed with those rows.
            let paths = encoded.adds.iter().map(|add| add.path.as_str());
            super::rewrite::delete(&self.files, paths).await?;
        }
        Ok(())
    }

    /// Starts the next piece of work of an erasure, if there is one.
    pub(super) async fn start_erasing(&mut self) -> Result<(), Error> {
        if self.stale && self.erasing.is_wanted() {
            // Files that came meanwhile are to be searched as well.
            self.reload().await?;
        }
        let erasing = &mut self.erasing;
        if erasing.search.is_none() && !(erasing.next.is_empty() && erasing.next_replies.is_empty())
        {
            erasing.search = Some(std::mem::take(&mut erasing.next));
            erasing.replies = std::mem::take(&mut erasing.next_replies);
            erasing.done = std::mem::take(&mut erasing.next_done);
            erasing.last = false;
            erasing.purge = false;
        }
        let Some(search) = erasing.search.clone() else {
            return Ok(());
        };
        let files = self.files.clone();
        if erasing.purge {
            let (log, state) = (self.table.log(), self.table.state().clone());
            self.upkeep.run(async move {
                let removed = search.purge(&files, &log, &state).await?;
                Ok(Finished::Purged(removed))
            });
        } else {
            let views = self.table.files().collect();
            self.upkeep
                .run(async move { Ok(Finished::Searched(search.run(&files, views).await?)) });
        }
        Ok(())
    }

    /// Commits what a search has brought.
    pub(super) async fn commit_erasure(&mut self, round: Round) -> Result<(), Error> {
        if self.stale {
            self.reload().await?;
        }
        let Some(search) = &mut self.erasing.search else {
            return Ok(());
        };
        match commit(&mut self.table, &self.files, &self.config, &round).await {
            Ok(committed) => {
                self.stale |= !committed.alone;
                search.searched.extend(round.clean.iter().cloned());
                for rewritten in &round.rewritten {
                    search
                        .searched
                        .extend(rewritten.outputs().map(str::to_owned));
                }
                let rows = rows(&round);
                self.metrics.erased.inc_by(rows as u64);
                self.erasing.done.rows += rows;
                self.erasing.done.files_rewritten += round.rewritten.len();
                self.erasing.purge = true;
                self.erasing.last = round.all;
                Ok(())
            }
            Err(error) => {
                self.stale = true;
                // Another writer came between: the search is made again on what is there now.
                if error.is_conflict() {
                    Ok(())
                } else {
                    Err(error)
                }
            }
        }
    }

    /// The old files are gone. If that was all, says so in the table.
    pub(super) async fn purged(&mut self, removed: usize) -> Result<(), Error> {
        self.metrics.removed.inc_by(removed as u64);
        self.erasing.done.files_removed += removed;
        if !self.erasing.last {
            self.erasing.purge = false;
            return Ok(());
        }
        let mark = self.erasing.search.as_ref().and_then(|search| search.mark);
        match commit_mark(&mut self.table, mark).await {
            Ok(committed) => self.stale |= !committed.alone,
            // Looked for old files and tried once more.
            Err(error) => {
                self.stale = true;
                return if error.is_conflict() {
                    Ok(())
                } else {
                    Err(error)
                };
            }
        }
        self.mark = self.mark.max(mark);
        let erasing = &mut self.erasing;
        erasing.purge = false;
        erasing.search = None;
        let done = std::mem::take(&mut erasing.done);
        if done.rows > 0 {
            tracing::info!(
                rows = done.rows,
                files_rewritten = done.files_rewritten,
                files_removed = done.files_removed,
                "rows were erased from the lake"
            );
        }
        for reply in erasing.replies.drain(..) {
            // Whoever asked may have gone.
            let _ = reply.send(done);
        }
        Ok(())
    }

    /// Commits what retention has brought.
    pub(super) async fn commit_retention(&mut self, round: Round) -> Result<(), Error> {
        if self.stale {
            self.reload().await?;
        }
        let committed = match commit(&mut self.table, &self.files, &self.config, &round).await {
            Ok(committed) => committed,
            Err(error) => {
                self.stale = true;
                return if error.is_conflict() {
                    Ok(())
                } else {
                    Err(error)
                };
            }
        };
        self.stale |= !committed.alone;
        let now = Timestamp::now().as_millisecond();
        let outputs = round.rewritten.iter().flat_map(|one| one.outputs());
        let clean = round.clean.iter().map(String::as_str);
        self.keeper.applied(clean.chain(outputs), now);
        self.metrics
            .expired
            .inc_by((rows(&round) + round.changed) as u64);
        Ok(())
    }

    pub(super) fn keeper(config: &Config) -> Keeper {
        Keeper::new(config.keep.clone())
    }
}

fn rows(round: &Round) -> usize {
    round.rewritten.iter().map(|one| one.dropped).sum()
}

/// What became of a commit of rewritten files.
pub(super) struct Done {
    /// Whether no other commit came between.
    pub(super) alone: bool,
}

/// Commits that the erasures up to this offset are done with.
async fn commit_mark(table: &mut Table, mark: Option<i64>) -> Result<Done, Error> {
    let held = table.erased().await?;
    let Some(mark) = mark.filter(|mark| held.is_none_or(|held| held < *mark)) else {
        return Ok(Done { alone: true });
    };
    let transactions = vec![Transaction::new(LAKE_ERASURES, mark)];
    // Without its condition: the log must not name who was erased.
    let operation = DeltaOperation::Delete { predicate: None };
    let committed = table.commit(Vec::new(), transactions, operation).await?;
    Ok(Done {
        alone: committed.alone,
    })
}

/// Commits rewritten files. Files that are not committed are deleted, but for those of a
/// commit whose answer was lost.
pub(super) async fn commit(
    table: &mut Table,
    files: &Files,
    config: &Config,
    round: &Round,
) -> Result<Done, Error> {
    if round.rewritten.is_empty() {
        return Ok(Done { alone: true });
    }
    // The files were read of an older version: each must still be there.
    let present: HashSet<String> = table.files().map(|view| view.path().into_owned()).collect();
    let gone = round.rewritten.iter().any(|rewritten| {
        !rewritten.inputs.is_subset(&present) || rewritten.at.elapsed() > config.retention / 2
    });
    if gone {
        discard(files, round).await;
        return Err(Error::Replaced);
    }
    let version = i64::try_from(table.version()).unwrap_or(i64::MAX);
    let transactions = vec![Transaction::new(LAKE_REWRITE, version)];
    let actions: Vec<Action> = round
        .rewritten
        .iter()
        .flat_map(|rewritten| rewritten.actions.iter().cloned())
        .collect();
    // Without its condition: the log must not name who was erased.
    let operation = DeltaOperation::Delete { predicate: None };
    match table.commit(actions, transactions, operation).await {
        Ok(committed) => Ok(Done {
            alone: committed.alone,
        }),
        Err(error) => {
            if error.is_conflict() {
                discard(files, round).await;
            }
            Err(error)
        }
    }
}

async fn discard(files: &Files, round: &Round) {
    for rewritten in &round.rewritten {
        rewritten.discard(files).await;
    }
}

/// Erases in a table that no writer of this process holds.
pub(super) async fn erase_alone(
    config: &Config,
    erasures: Vec<weir_records::Erasure>,
) -> Result<Erased, Error> {
    let mut table = Table::open(config).await?;
    let files = Files::new(&table)?;
    let mut search = Search::default();
    for erasure in erasures {
        search.add(erasure);
    }
    let mut done = Erased::default();
    loop {
        let round = search.run(&files, table.files().collect()).await?;
        match commit(&mut table, &files, config, &round).await {
            Ok(_) => {}
            Err(error) if error.is_conflict() => {
                table.refresh().await?;
                continue;
            }
            Err(error) => return Err(error),
        }
        search.searched.extend(round.clean.iter().cloned());
        for rewritten in &round.rewritten {
            search
                .searched
                .extend(rewritten.outputs().map(str::to_owned));
        }
        done.rows += rows(&round);
        done.files_rewritten += round.rewritten.len();
        done.files_removed += search.purge(&files, &table.log(), table.state()).await?;
        if round.all {
            return Ok(done);
        }
    }
}
