//! The loop around a stage: poll, handle, dead letters, commit.
//!
//! One OS thread owns the consumer and the stage, so that nothing of either needs a
//! lock, and the order of things is the order of the code in [`run`].

mod commits;
mod context;
mod letters;
mod metrics;
mod rebalance;
mod retry;
mod run;
mod runtime;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use self::commits::Commits;
use self::context::{Context, Member};
use self::letters::Letters;
use self::metrics::Metrics;
use self::run::Run;
use self::runtime::Runtime;
use crate::config::Config;
use crate::error::Error;
use crate::position::Positions;
use crate::producer::Producer;
use crate::stage::{Outcome, Stage};

/// Reads a topic as a member of a group, and drives one stage.
#[derive(Debug, Clone)]
pub struct Worker {
    /// The brokers.
    pub config: Config,
    /// The consumer group.
    pub group: &'static str,
    /// The topic.
    pub topic: &'static str,
    /// Records that the stage takes at a time, at most. What is there is handed on at
    /// once, however little it is.
    pub max_records: usize,
    /// Time between two calls of [`Stage::tick`].
    pub tick: Duration,
}

impl Worker {
    /// Starts the thread. It ends, after `stop` is cancelled, within about 5 s: the call
    /// that runs gets a moment to end, then the stage finishes, its offsets are
    /// committed and the group is left.
    ///
    /// Stages run on the tokio runtime of the caller if that has several threads, else
    /// on one of the worker's own.
    ///
    /// The thread itself answers with an error only where the consumer can't go on.
    ///
    /// # Errors
    /// A setting is refused, the group has a worker with this registry already, or there
    /// is no thread to be had.
    pub fn spawn(
        self,
        stage: impl Stage,
        producer: Producer,
        registry: &Registry,
        stop: CancellationToken,
    ) -> Result<JoinHandle<Result<(), Error>>, Error> {
        let metrics = Metrics::register(registry, self.group, stage.name())?;
        let positions = Positions::new(self.group, registry)?;
        let mut client = self.config.consumer(self.group)?;
        client.set("enable.partition.eof", "false");
        let consumer = client
            .create_with_context(Context::new(self.group))
            .map_err(|error| Error::kafka("making a consumer", &error))?;
        let consumer = Arc::new(Member(consumer));
        let (commits, committer) = Commits::start(Arc::clone(&consumer), self.topic)?;
        let runtime = Runtime::current_or_own()?;
        let letters = Letters::new(producer, stage.name(), self.topic, metrics.dead.clone());
        let run = Run {
            consumer,
            stage,
            letters,
            runtime,
            metrics,
            positions,
            commits,
            committer,
            batch: Vec::new(),
            held: false,
            owed: Outcome::default(),
            failing: retry::Failing::default(),
            next_tick: Instant::now() + self.tick,
            next_measure: Instant::now(),
            worker: self,
            stop,
        };
        let thread = std::thread::Builder::new().name(run.worker.group.to_owned());
        Ok(thread.spawn(move || run.run())?)
    }
}
