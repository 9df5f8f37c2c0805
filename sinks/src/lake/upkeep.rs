//! What the table needs besides rows: checkpoints, a bounded log, merged files, and
//! the removal of files that nobody can read any more. One job at a time, on the
//! runtime, never in the way of rows; a job that fails is tried again later.
//!
//! Nothing here commits: a merge hands its result to the writer, so that one process
//! has one committer.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use deltalake::logstore::object_store::{Error as StoreError, ObjectStoreExt as _, path::Path};
use deltalake::logstore::{LogStoreRef, ObjectStoreRef};
use deltalake::operations::vacuum::VacuumMode;
use deltalake::{DeltaTable, checkpoints};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::files::Files;
use super::merge::Plan;
use super::retention::{Keeper, Over};
use super::rewrite::Rewritten;
use super::select::Round;
use super::table::Table;
use super::{Config, Error, store};

/// Clean-up is looked at this often at least, however long files are kept.
const CLEANUP_AT_MOST: Duration = Duration::from_mins(30);
/// Retention is looked at this often, once there is nothing left to do.
const RETENTION_EVERY: Duration = Duration::from_hours(1);
/// The wait after a job that failed.
const AFTER_FAILURE: Duration = Duration::from_mins(1);
/// The same for an erasure, which somebody waits for: twice as long after each failure.
const AFTER_ERASURE: Duration = Duration::from_secs(2);

/// What a job brought.
pub(crate) enum Finished {
    /// A merge to be committed.
    Merged(Rewritten),
    /// Files without what is to be forgotten, to be committed.
    Searched(Round),
    /// So many files were deleted after an erasure.
    Purged(usize),
    /// Files without what is too old, to be committed.
    Retained(Round),
    /// The log has a checkpoint at this version.
    Checkpoint(u64),
    /// So many files were deleted.
    Removed(usize),
}

/// The background work of a table.
pub(crate) struct Upkeep {
    runtime: Handle,
    job: Option<JoinHandle<Result<Finished, Error>>>,
    /// Whether the job is one of the writer's.
    own: bool,
    stop: CancellationToken,
    next: Instant,
    checkpoint: u64,
    cleaned: Option<Instant>,
    retained: Option<Instant>,
    /// Until when the writer's jobs wait, and for how long that was.
    pause: Option<(Instant, Duration)>,
}

impl Upkeep {
    /// Work for a table whose last checkpoint is looked up.
    pub(crate) async fn new(table: &Table) -> Self {
        Self {
            runtime: Handle::current(),
            job: None,
            own: false,
            stop: CancellationToken::new(),
            next: Instant::now(),
            checkpoint: last_checkpoint(&table.store()).await,
            cleaned: None,
            retained: None,
            pause: None,
        }
    }

    /// The result of the job, once it is over.
    pub(crate) async fn finished(&mut self) -> Option<Result<Finished, Error>> {
        let job = self.job.take_if(|job| job.is_finished())?;
        let result = match job.await {
            Ok(result) => result,
            Err(error) => Err(error.into()),
        };
        match &result {
            Ok(Finished::Checkpoint(version)) => self.checkpoint = *version,
            Ok(Finished::Removed(_)) => self.cleaned = Some(Instant::now()),
            Ok(Finished::Retained(round)) if round.all => self.retained = Some(Instant::now()),
            Ok(_) => {}
            // Stopped by us.
            Err(Error::Stopped) => return None,
            // The writer's jobs have a pause of their own, and keep nothing else waiting.
            Err(_) if self.own => {}
            // Not at once again: what failed may need an operator.
            Err(_) => self.next = Instant::now() + AFTER_FAILURE,
        }
        if self.own && result.is_ok() {
            self.pause = None;
        }
        Some(result)
    }

    /// Whether it is time to look for work.
    pub(crate) fn is_due(&self) -> bool {
        self.job.is_none() && Instant::now() >= self.next
    }

    /// Starts the most urgent job, if there is one.
    pub(crate) fn start(
        &mut self,
        table: &Table,
        files: &Files,
        config: &Config,
        keeper: &mut Keeper,
    ) {
        self.next = Instant::now() + config.upkeep;
        self.own = false;
        let now = jiff::Timestamp::now().as_millisecond();
        let period = (config.retention / 2).min(CLEANUP_AT_MOST);
        self.job = if table.version() >= self.checkpoint + config.checkpoint_commits {
            Some(self.spawn(checkpoint(table.log(), config.checkpoint_commits)))
        } else if self.cleaned.is_none_or(|at| at.elapsed() >= period) {
            let folder = table.folder().map(std::path::Path::to_owned);
            Some(self.spawn(clean(table.log(), folder, config.retention)))
        } else if let Some(over) = self.over(table, keeper, now) {
            let files = files.clone();
            Some(self.spawn(async move { Ok(Finished::Retained(over.run(&files).await?)) }))
        } else {
            let files = files.clone();
            Plan::choose(table.files(), now, config).map(|plan| {
                self.spawn(async move { Ok(Finished::Merged(plan.run(&files).await?)) })
            })
        };
    }

    /// What is too old, if it is time to look.
    fn over(&mut self, table: &Table, keeper: &mut Keeper, now: i64) -> Option<Over> {
        if self
            .retained
            .is_some_and(|at| at.elapsed() < RETENTION_EVERY)
        {
            return None;
        }
        let over = keeper.plan(table.files(), now);
        if over.is_none() {
            self.retained = Some(Instant::now());
        }
        over
    }

    /// Whether a job of the writer's may be started.
    pub(crate) fn is_free(&self) -> bool {
        self.job.is_none() && self.pause.is_none_or(|(until, _)| Instant::now() >= until)
    }

    /// Something failed: the writer's jobs wait.
    pub(crate) fn hold_back(&mut self) {
        let pause = self
            .pause
            .map_or(AFTER_ERASURE, |(_, pause)| (pause * 2).min(AFTER_FAILURE));
        self.pause = Some((Instant::now() + pause, pause));
    }

    /// Starts a job of the writer's own.
    pub(crate) fn run(
        &mut self,
        job: impl Future<Output = Result<Finished, Error>> + Send + 'static,
    ) {
        self.own = true;
        self.job = Some(self.spawn(job));
    }

    fn spawn(
        &self,
        job: impl Future<Output = Result<Finished, Error>> + Send + 'static,
    ) -> JoinHandle<Result<Finished, Error>> {
        let (runtime, stop) = (self.runtime.clone(), self.stop.clone());
        // The table library blocks its thread in places; not one that serves others.
        self.runtime.spawn_blocking(move || {
            runtime.block_on(async {
                tokio::select! {
                    result = job => result,
                    () = stop.cancelled() => Err(Error::Stopped),
                }
            })
        })
    }

    /// Lets the job come to its end, or ends it: the runtime may go away next.
    pub(crate) async fn rest(&mut self) {
        if !self.job_ends_within(Duration::from_secs(1)).await {
            self.stop.cancel();
            self.job_ends_within(Duration::from_secs(1)).await;
            self.stop = CancellationToken::new();
        }
    }

    async fn job_ends_within(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while self.job.as_ref().is_some_and(|job| !job.is_finished()) {
            if Instant::now() >= end {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Writes a checkpoint of the newest version, then lets go of the log before it.
async fn checkpoint(log: LogStoreRef, commits: u64) -> Result<Finished, Error> {
    let store = log.object_store(None);
    let mut table = DeltaTable::new(log);
    table.load().await?;
    let version = table.snapshot()?.version();
    let last = last_checkpoint(&store).await;
    // Another writer of this table may have been first.
    if version < last + commits {
        return Ok(Finished::Checkpoint(last));
    }
    checkpoints::create_checkpoint(&table, None).await?;
    checkpoints::cleanup_metadata(&table, None).await?;
    Ok(Finished::Checkpoint(version))
}

/// The version of the last checkpoint; 0 without one.
async fn last_checkpoint(store: &ObjectStoreRef) -> u64 {
    let path = Path::from("_delta_log/_last_checkpoint");
    let Ok(found) = store.get(&path).await else {
        return 0;
    };
    let Ok(bytes) = found.bytes().await else {
        return 0;
    };
    serde_json::from_slice::<serde_json::Value>(&bytes)
        .ok()
        .and_then(|hint| hint.get("version")?.as_u64())
        .unwrap_or(0)
}

/// Deletes what the table has not used for as long as `retention`: files that a merge
/// replaced, files that were written and never committed, halves of files.
async fn clean(
    log: LogStoreRef,
    folder: Option<std::path::PathBuf>,
    retention: Duration,
) -> Result<Finished, Error> {
    let store = log.object_store(None);
    let mut table = DeltaTable::new(Arc::clone(&log));
    table.load().await?;
    // As a dry run: its two commits about the deletion would only make the log longer.
    let (_, found) = table
        .vacuum()
        .with_mode(VacuumMode::Full)
        .with_dry_run(true)
        .await?;
    // What was committed since the look is no longer forgotten.
    let mut table = DeltaTable::new(log);
    table.load().await?;
    let present: HashSet<String> = table
        .snapshot()?
        .log_data()
        .iter()
        .map(|view| view.path().into_owned())
        .collect();
    let mut removed = 0;
    for file in found
        .files_deleted
        .into_iter()
        .filter(|file| !present.contains(file))
    {
        let path = Path::parse(&file).unwrap_or_else(|_| Path::from(file));
        match store.delete(&path).await {
            Ok(()) => removed += 1,
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(folder) = folder {
        removed += tokio::task::spawn_blocking(move || store::sweep(&folder, retention))
            .await?
            .map_err(|source| StoreError::Generic {
                store: "durable folder",
                source: source.into(),
            })?;
    }
    Ok(Finished::Removed(removed))
}
