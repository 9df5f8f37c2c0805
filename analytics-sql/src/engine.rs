//! Runs queries: one consistent view each, on threads of their own, within bounds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use futures::TryStreamExt;
use parking_lot::Mutex;
use prometheus::Registry;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use weir_records::{Erasure, Judged};

use crate::answer::{Answer, Part};
use crate::config::Config;
use crate::error::{Error, StartError};
use crate::feed;
use crate::guard::{self, Stop};
use crate::lake::{Reader, is_gone};
use crate::metrics::Metrics;
use crate::plan;
use crate::refresh;
use crate::session::{Sessions, Stores};
use crate::table::Messages;
use crate::tail::Tail;

/// Batches that wait for a slow reader of an answer.
const WAITING_BATCHES: usize = 2;
/// How long the end of the engine waits for what still runs.
const PATIENCE: Duration = Duration::from_secs(5);
/// Stack of a thread that plans queries as deep as they may be; only what is used of it
/// becomes memory.
const STACK: usize = 64 << 20;
/// How long a query waits for a newer version of the lake when a file of its own is gone,
/// and how often it looks.
const NEWER: Duration = Duration::from_secs(2);
const NEWER_LOOK: Duration = Duration::from_millis(20);
/// Where a running query sends its answer.
type Parts = mpsc::Sender<Result<Part, Error>>;
/// How much later than the query itself its caller gives up on it.
const GRACE: Duration = Duration::from_millis(500);

/// Answers SQL over the lake and the tail. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    sessions: Sessions,
    tail: Arc<Tail>,
    metrics: Arc<Metrics>,
    slots: Arc<Semaphore>,
    ready: Readiness,
    stop: CancellationToken,
    /// Both are taken when the engine goes.
    threads: Option<Runtime>,
    refresher: Mutex<Option<JoinHandle<()>>>,
}

/// Whether the rows of before the start are all there; set once.
#[derive(Clone, Default)]
pub(crate) struct Readiness(Arc<AtomicBool>);

impl Readiness {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A question.
#[derive(Clone)]
pub struct Query {
    /// Whose rows it may see.
    pub tenant: String,
    /// One reading statement.
    pub sql: String,
    /// Rows wanted at most; more are left out, and the answer says so.
    pub limit: Option<usize>,
}

impl Engine {
    /// Opens the lake and follows `weir.verdicts` from what the lake's writer has
    /// committed. Queries are answered once the rows of before are read back.
    ///
    /// # Errors
    /// The lake or the broker can't be read, or there are no threads to be had.
    pub async fn start(
        config: Config,
        bus: weir_bus::Config,
        registry: &Registry,
        stop: CancellationToken,
    ) -> Result<Self, StartError> {
        // In this order: rows committed after the offsets are read are in the lake that
        // is opened after, or still in the tail.
        let from = loop {
            match feed::offsets(&bus).await {
                Ok(from) => break from,
                Err(StartError::Bus(error)) => weir_bus::wait_if_away(error).await?,
                Err(error) => return Err(error),
            }
        };
        let partitions = from.keys().copied().collect();
        let engine = Self::open(config, partitions, registry, stop).await?;
        feed::follow(&engine, &bus, from, registry)?;
        Ok(engine)
    }

    /// Opens the lake, without a broker: rows of the tail come by [`offer`](Self::offer).
    ///
    /// # Errors
    /// The lake can't be read, or there are no threads to be had.
    #[doc(hidden)]
    pub async fn open(
        config: Config,
        partitions: BTreeSet<i32>,
        registry: &Registry,
        stop: CancellationToken,
    ) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::register(registry)?);
        let tail = Arc::new(Tail::new(
            config.tail_rows,
            config.tail_bytes,
            Arc::clone(&metrics),
        ));
        let stores = Arc::new(Stores::default());
        let threads = Builder::new_multi_thread()
            .worker_threads(config.threads.max(1))
            .thread_name("weir-query")
            .thread_stack_size(STACK)
            .enable_all()
            .build()?;
        let stop = stop.child_token();
        let inner = Arc::new(Inner {
            sessions: Sessions::new(&config, Arc::clone(&stores))?,
            slots: Arc::new(Semaphore::new(config.concurrent_queries.max(1))),
            ready: Readiness::default(),
            tail: Arc::clone(&tail),
            metrics: Arc::clone(&metrics),
            stop: stop.clone(),
            threads: Some(threads),
            refresher: Mutex::default(),
            config,
        });

        let reader = Reader::new(&inner.config.lake)?;
        reader.register(&*stores);
        let every = inner.config.refresh();
        let first = inner.spawn(refresh::first(reader, partitions.clone(), tail));
        let reader = first.await.map_err(|e| StartError::Threads(e.into()))??;
        let tail = Arc::clone(&inner.tail);
        let refresher = inner.spawn(refresh::run(reader, partitions, tail, metrics, every, stop));
        *inner.refresher.lock() = Some(refresher);
        Ok(Self { inner })
    }

    /// Puts rows into the tail; see [`open`](Self::open). Blocks while the tail is full.
    #[doc(hidden)]
    pub fn offer(&self, rows: Vec<Judged>) {
        feed::push(&self.inner.tail, rows);
    }

    /// Takes rows out of the tail, as a record of `weir.erasures` does.
    #[doc(hidden)]
    pub fn erase(&self, erasures: &[Erasure]) {
        feed::erase(&self.inner.tail, erasures);
    }

    /// Says that the rows of before are all there.
    #[doc(hidden)]
    pub fn set_ready(&self) {
        self.inner.ready.set();
    }

    /// Whether the rows of before the start are all there.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.inner.ready.0.load(Ordering::Acquire)
    }

    /// The bounds it runs with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(crate) fn readiness(&self) -> Readiness {
        self.inner.ready.clone()
    }

    pub(crate) fn tail(&self) -> &Arc<Tail> {
        &self.inner.tail
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.inner.metrics
    }

    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.inner.stop
    }

    /// Runs a query until its first rows, or its end, are near: its schema is known when
    /// this answers. Dropping the answer stops the query.
    ///
    /// # Errors
    /// Every [`Error`]; [`Error::Overloaded`] at once, without waiting for a slot.
    pub async fn query(&self, query: Query) -> Result<Answer, Error> {
        let refuse = |error: Error| {
            self.inner
                .metrics
                .refused
                .with_label_values(&[error.code()])
                .inc();
            error
        };
        if query.sql.len() > self.inner.config.query_bytes {
            let most = self.inner.config.query_bytes;
            return Err(refuse(Error::TooLarge(format!(
                "the query is longer than {most} bytes"
            ))));
        }
        if !self.ready() {
            return Err(refuse(Error::Unavailable));
        }
        let slot = Arc::clone(&self.inner.slots)
            .try_acquire_owned()
            .map_err(|_| refuse(Error::Overloaded))?;
        let slot = Arc::new(slot);

        let timeout = self.inner.config.timeout();
        let stop = Stop::at(Instant::now() + timeout);
        let (send, receive) = mpsc::channel(WAITING_BATCHES);
        let task = {
            let (inner, stop) = (Arc::clone(&self.inner), stop.clone());
            async move {
                // Held until the query really has ended, whoever still waits for it, and
                // free again before its caller hears of the end.
                let end = inner.attend(&query, &stop, &send, &slot).await;
                drop(slot);
                // Whoever has left does not need to know.
                let _ = timeout_at((Instant::now() + GRACE).into(), send.send(end)).await;
            }
        };
        drop(self.inner.spawn(task));
        let mut answer = Answer::new(receive, stop.clone(), timeout, GRACE);
        answer.head().await?;
        Ok(answer)
    }
}

impl Inner {
    /// Runs something on the threads of queries.
    fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        match &self.threads {
            Some(threads) => threads.spawn(task),
            // They are there until the engine is dropped, and then nobody asks.
            None => tokio::spawn(task),
        }
    }

    /// Runs a query to its end; answers the last part to send.
    async fn attend(
        &self,
        query: &Query,
        stop: &Stop,
        send: &Parts,
        slot: &Arc<OwnedSemaphorePermit>,
    ) -> Result<Part, Error> {
        self.metrics.running.inc();
        let timer = self.metrics.query_seconds.start_timer();
        let result = tokio::select! {
            biased;
            () = stop.reached() => Err(Error::Timeout(self.config.timeout())),
            () = self.stop.cancelled() => Err(Error::Unavailable),
            result = self.answer(query, stop, send, slot) => result,
        };
        timer.observe_duration();
        self.metrics.running.dec();
        result.map_err(|error| {
            // What a stopped node says is only that it was stopped.
            let error = if stop.overdue() {
                Error::Timeout(self.config.timeout())
            } else {
                error
            };
            self.metrics
                .refused
                .with_label_values(&[error.code()])
                .inc();
            tracing::debug!(code = error.code(), "a query was not answered");
            error
        })
    }

    /// Plans on a thread that may be kept: constants are computed while planning, and
    /// nothing can stop that. Whoever waits is answered at the deadline all the same, the
    /// threads of queries go on, and the slot stays taken until the planning has ended.
    async fn plan(
        &self,
        query: &Query,
        stop: &Stop,
        slot: &Arc<OwnedSemaphorePermit>,
    ) -> Result<(Arc<dyn ExecutionPlan>, Arc<TaskContext>), Error> {
        let view = self
            .tail
            .view()
            .map_err(|_| Error::internal("columns", None))?;
        let state = self
            .sessions
            .open(Messages::new(query.tenant.clone(), view))
            .map_err(|e| Error::of(&e, &query.sql))?;
        let (query, stop, slot) = (query.clone(), stop.clone(), Arc::clone(slot));
        let (nodes, bytes) = (self.config.plan_nodes, self.config.memory_bytes);
        let timeout = self.config.timeout();
        let planning = move || {
            let _slot = slot;
            let explain = |e: &DataFusionError| Error::of(e, &query.sql);
            let planned = async {
                let logical = plan::logical(&query.sql, &state, query.limit, nodes).await?;
                let logical = guard::conditions(logical, &stop).map_err(|e| explain(&e))?;
                let physical = state
                    .query_planner()
                    .create_physical_plan(&logical, &state)
                    .await
                    .map_err(|e| explain(&e))?;
                let physical = guard::nodes(physical, &stop, bytes).map_err(|e| explain(&e))?;
                Ok::<_, Error>((physical, state.task_ctx()))
            };
            Handle::current().block_on(async {
                tokio::select! {
                    biased;
                    () = stop.reached() => Err(Error::Timeout(timeout)),
                    planned = planned => planned,
                }
            })
        };
        match tokio::task::spawn_blocking(planning).await {
            Ok(planned) => planned,
            Err(_) => Err(Error::internal("panic", None)),
        }
    }

    /// Runs the query, and once more if a file of its snapshot is gone: erasures delete
    /// what they have rewritten without waiting for readers.
    async fn answer(
        &self,
        query: &Query,
        stop: &Stop,
        send: &Parts,
        slot: &Arc<OwnedSemaphorePermit>,
    ) -> Result<Part, Error> {
        let mut sent = Sent::default();
        let version = self.tail.version();
        let result = self.run(query, stop, send, slot, &mut sent).await;
        if result.is_ok() || !sent.gone {
            return result;
        }
        sent.again = true;
        let begun = Instant::now();
        while self.tail.version() == version && begun.elapsed() < NEWER {
            self.tail.wake.notify_one();
            tokio::time::sleep(NEWER_LOOK).await;
        }
        self.run(query, stop, send, slot, &mut sent).await
    }

    async fn run(
        &self,
        query: &Query,
        stop: &Stop,
        send: &Parts,
        slot: &Arc<OwnedSemaphorePermit>,
        sent: &mut Sent,
    ) -> Result<Part, Error> {
        let explain = |e: &DataFusionError, sent: &mut Sent| {
            // Told and logged only if it is there to stay.
            if is_gone(e) && !sent.rows && !sent.again {
                sent.gone = true;
                return Error::Internal;
            }
            Error::of(e, &query.sql)
        };
        let (physical, context) = self.plan(query, stop, slot).await?;

        if !std::mem::replace(&mut sent.schema, true)
            && send
                .send(Ok(Part::Schema(physical.schema())))
                .await
                .is_err()
        {
            return Ok(Part::End { more: false });
        }
        let mut stream = datafusion::physical_plan::execute_stream(physical, context)
            .map_err(|e| explain(&e, sent))?;
        let (mut rows, mut bytes) = (0, 0);
        let wanted = query.limit.unwrap_or(usize::MAX);
        let mut more = false;
        while let Some(mut batch) = stream.try_next().await.map_err(|e| explain(&e, sent))? {
            if batch.num_rows() > wanted - rows {
                batch = batch.slice(0, wanted - rows);
                more = true;
            }
            rows += batch.num_rows();
            bytes += sliced_bytes(&batch);
            if rows > self.config.result_rows || bytes > self.config.result_bytes {
                return Err(Error::TooLarge(format!(
                    "the answer has more than {} rows or {} MiB; add a LIMIT, or group",
                    self.config.result_rows,
                    self.config.result_bytes >> 20
                )));
            }
            self.metrics.rows_returned.inc_by(batch.num_rows() as u64);
            if batch.num_rows() > 0 {
                sent.rows = true;
                if send.send(Ok(Part::Rows(batch))).await.is_err() {
                    break;
                }
            }
            if more {
                break;
            }
        }
        Ok(Part::End { more })
    }
}

/// How far an answer has got.
#[derive(Default)]
struct Sent {
    schema: bool,
    rows: bool,
    /// A file of the snapshot was not there any more, and no row was sent.
    gone: bool,
    /// It is the second time.
    again: bool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tail.close();
        let refresher = self.refresher.get_mut().take();
        let Some(threads) = self.threads.take() else {
            return;
        };
        // A thread of its own may wait: for a look at the lake to end, whose reader takes an
        // end in the middle for a crash. Whoever drops the engine may not.
        let end = move || {
            if let Some(refresher) = refresher {
                let _ = threads.block_on(async { timeout(PATIENCE, refresher).await });
            }
            threads.shutdown_timeout(PATIENCE);
        };
        // Without a thread to be had, the runtime ends with the closure, without waiting.
        let _ = std::thread::Builder::new()
            .name("weir-query-end".to_owned())
            .spawn(end);
    }
}

/// What the rows themselves take, without what a slice leaves out.
fn sliced_bytes(batch: &RecordBatch) -> usize {
    batch
        .columns()
        .iter()
        .map(|column| {
            let data = column.to_data();
            data.get_slice_memory_size()
                .unwrap_or_else(|_| column.get_array_memory_size())
        })
        .sum()
}
