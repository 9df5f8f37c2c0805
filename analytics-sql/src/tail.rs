//! The verdicts that the lake does not hold yet, beside the snapshot of the lake that
//! says which.
//!
//! One lock guards both, and [`Tail::view`] takes both under it. So whatever the
//! writer does meanwhile, a view is a pair in which every row is there once:
//! - a row is kept only if its source offset is above the last one held or fenced
//!   for its partition, so a repeated verdict changes nothing;
//! - when a new snapshot comes in, the rows at or below its fence go out with it;
//! - a row of a partition whose fence is not known yet waits outside;
//! - a row that was erased goes out, and does not come in when it is read again.
//!
//! Bounded in rows and bytes: at the bound, [`Tail::push`] blocks its caller.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::kernels::boolean::not;
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use jiff::Timestamp;
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::Notify;
use weir_records::{Erasure, Erasures, Judged, columns};

use crate::lake::Snapshot;
use crate::metrics::Metrics;

/// Rows of a chunk: small enough to cut, large enough to scan.
const CHUNK_ROWS: usize = 4096;
/// What a decoded row takes beside its strings.
const ROW_BYTES: usize = size_of::<Judged>() + 128;

pub(crate) struct Tail {
    state: Mutex<State>,
    /// Signalled when rows went out, a fence came in, or the tail closed.
    changed: Condvar,
    /// Wakes who refreshes the lake before its time.
    pub(crate) wake: Notify,
    rows: usize,
    bytes: usize,
    metrics: Arc<Metrics>,
    started: Timestamp,
}

#[derive(Default)]
struct State {
    snapshot: Option<Arc<Snapshot>>,
    parts: BTreeMap<i32, Part>,
    rows: usize,
    bytes: usize,
    full: bool,
    closed: bool,
    erased: Erasures,
}

/// One partition's rows, in order of their source offsets.
struct Part {
    chunks: VecDeque<Chunk>,
    /// Not yet in columns.
    fresh: Vec<Judged>,
    fresh_bytes: usize,
    /// The last source offset held or fenced.
    last: i64,
}

struct Chunk {
    batch: RecordBatch,
    bytes: usize,
}

/// What one query reads.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) snapshot: Option<Arc<Snapshot>>,
    /// Rows of the tail, a list for each partition.
    pub(crate) tail: Vec<Vec<RecordBatch>>,
}

impl Tail {
    pub(crate) fn new(rows: usize, bytes: usize, metrics: Arc<Metrics>) -> Self {
        metrics.lake_version.set(-1);
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            wake: Notify::new(),
            rows,
            bytes,
            metrics,
            started: Timestamp::now(),
        }
    }

    /// Takes rows in; those already held are dropped. Blocks while the tail is full or
    /// a partition's fence is unknown; answers at once after [`close`](Self::close).
    ///
    /// # Errors
    /// Only if the columns and the record disagree.
    pub(crate) fn push(&self, rows: Vec<Judged>) -> Result<(), ArrowError> {
        let mut state = self.state.lock();
        for row in rows {
            self.admit(&mut state, row.source.partition);
            if state.closed {
                break;
            }
            let received = row.message.received_at;
            let bytes = weight(&row);
            let erased = state.erased.cover(&row.message);
            // The partition was made by `admit`.
            let Some(part) = state.parts.get_mut(&row.source.partition) else {
                continue;
            };
            if row.source.offset <= part.last {
                self.metrics.tail_repeated.inc();
                continue;
            }
            part.last = row.source.offset;
            if erased {
                continue;
            }
            part.fresh.push(row);
            part.fresh_bytes += bytes;
            let chunk = part.fresh.len() >= CHUNK_ROWS;
            let grown = if chunk { part.seal()? } else { 0 };
            state.rows += 1;
            state.bytes = (state.bytes + bytes).saturating_add_signed(grown);
            if received >= self.started {
                let age = Timestamp::now().duration_since(received).as_secs_f64();
                self.metrics.accept_to_queryable.observe(age.max(0.0));
            }
        }
        self.show(&state);
        Ok(())
    }

    /// Takes the rows out that these cover, and lets none of them in again.
    ///
    /// # Errors
    /// Only if the columns and the record disagree.
    pub(crate) fn erase(&self, erasures: &[Erasure]) -> Result<(), ArrowError> {
        let mut state = self.state.lock();
        let state = &mut *state;
        for erasure in erasures {
            state.erased.insert(erasure);
        }
        for part in state.parts.values_mut() {
            let (rows, bytes) = part.erase(&state.erased)?;
            state.rows -= rows;
            state.bytes = state.bytes.saturating_sub(bytes);
        }
        self.show(state);
        self.changed.notify_all();
        Ok(())
    }

    /// The version of the lake that queries read; `None` before there is one.
    pub(crate) fn version(&self) -> Option<u64> {
        self.state.lock().snapshot.as_ref()?.version
    }

    /// Waits until a row of that partition may come in.
    fn admit(&self, state: &mut MutexGuard<'_, State>, partition: i32) {
        loop {
            let known = state.knows(partition);
            let full = state.rows >= self.rows || state.bytes >= self.bytes;
            if state.closed || (known && !full) {
                break;
            }
            state.full = full;
            self.show(state);
            self.wake.notify_one();
            // The time-out only repeats the wake, should a refresh have failed.
            self.changed.wait_for(state, Duration::from_millis(200));
        }
        state.full = false;
    }

    /// Puts a newer snapshot in, and takes the rows out that it holds.
    pub(crate) fn install(&self, snapshot: Arc<Snapshot>) {
        let mut gone = Vec::new();
        let mut state = self.state.lock();
        for (&partition, &fence) in &snapshot.fences {
            let part = state.parts.entry(partition).or_insert_with(Part::new);
            let Some(fence) = fence else { continue };
            let (rows, bytes) = part.forget(fence, &mut gone);
            state.rows -= rows;
            state.bytes = state.bytes.saturating_sub(bytes);
        }
        self.metrics.lake_version.set(
            snapshot
                .version
                .and_then(|v| i64::try_from(v).ok())
                .unwrap_or(-1),
        );
        state.snapshot = Some(snapshot);
        self.show(&state);
        self.changed.notify_all();
        // The memory is given back after the lock is.
        drop(state);
        drop(gone);
    }

    /// What a query reads, from now on unchanged.
    ///
    /// # Errors
    /// Only if the columns and the record disagree.
    pub(crate) fn view(&self) -> Result<View, ArrowError> {
        let mut state = self.state.lock();
        let mut tail = Vec::with_capacity(state.parts.len());
        let mut grown = 0;
        for part in state.parts.values_mut() {
            grown += part.seal()?;
            let batches: Vec<RecordBatch> = part.chunks.iter().map(|c| c.batch.clone()).collect();
            if !batches.is_empty() {
                tail.push(batches);
            }
        }
        state.bytes = state.bytes.saturating_add_signed(grown);
        Ok(View {
            snapshot: state.snapshot.clone(),
            tail,
        })
    }

    /// Partitions that a snapshot must bring the fence of.
    pub(crate) fn partitions(&self) -> BTreeSet<i32> {
        self.state.lock().parts.keys().copied().collect()
    }

    /// Whether the tail waits for the lake.
    pub(crate) fn full(&self) -> bool {
        self.state.lock().full
    }

    /// Lets every waiting [`push`](Self::push) go, now and later.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    fn show(&self, state: &State) {
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.tail_rows.set(gauge(state.rows));
        self.metrics.tail_bytes.set(gauge(state.bytes));
        self.metrics.tail_full.set(i64::from(state.full));
    }
}

impl State {
    /// Whether the snapshot says up to where it holds this partition; asks for it if not.
    fn knows(&mut self, partition: i32) -> bool {
        self.parts.entry(partition).or_insert_with(Part::new);
        self.snapshot
            .as_ref()
            .is_some_and(|s| s.fences.contains_key(&partition))
    }
}

impl Part {
    const fn new() -> Self {
        Self {
            chunks: VecDeque::new(),
            fresh: Vec::new(),
            fresh_bytes: 0,
            last: i64::MIN,
        }
    }

    /// Puts the fresh rows into columns, into the last chunk while that is small.
    /// Answers by how many bytes the tail grew, which may be negative.
    fn seal(&mut self) -> Result<isize, ArrowError> {
        if self.fresh.is_empty() {
            return Ok(0);
        }
        let mut batch = columns::batch(&self.fresh)?;
        let mut before = self.fresh_bytes;
        if let Some(last) = self.chunks.back()
            && last.batch.num_rows() + batch.num_rows() <= CHUNK_ROWS
        {
            batch = concat_batches(&columns::MESSAGES, [&last.batch, &batch])?;
            before += last.bytes;
            self.chunks.pop_back();
        }
        self.fresh.clear();
        self.fresh.shrink_to(CHUNK_ROWS);
        self.fresh_bytes = 0;
        let bytes = batch.get_array_memory_size();
        self.chunks.push_back(Chunk { batch, bytes });
        Ok(bytes.cast_signed() - before.cast_signed())
    }

    /// Lets the erased rows go. Answers how many rows and bytes.
    fn erase(&mut self, erased: &Erasures) -> Result<(usize, usize), ArrowError> {
        let (mut rows, mut bytes) = (0, 0);
        for chunk in &mut self.chunks {
            let out = columns::erased(&chunk.batch, erased)?;
            if out.true_count() == 0 {
                continue;
            }
            rows += out.true_count();
            // A copy: nothing of the erased rows stays in memory.
            chunk.batch = filter_record_batch(&chunk.batch, &not(&out)?)?;
            let before = chunk.bytes;
            chunk.bytes = chunk.batch.get_array_memory_size().min(before);
            bytes += before - chunk.bytes;
        }
        self.chunks.retain(|chunk| {
            let empty = chunk.batch.num_rows() == 0;
            bytes += if empty { chunk.bytes } else { 0 };
            !empty
        });
        let (fresh, mut freed) = (self.fresh.len(), 0);
        self.fresh.retain(|row| {
            let out = erased.cover(&row.message);
            freed += if out { weight(row) } else { 0 };
            !out
        });
        self.fresh_bytes = self.fresh_bytes.saturating_sub(freed);
        Ok((rows + fresh - self.fresh.len(), bytes + freed))
    }

    /// Lets the rows at or below `fence` go. Answers how many rows and bytes.
    fn forget(&mut self, fence: i64, gone: &mut Vec<RecordBatch>) -> (usize, usize) {
        self.last = self.last.max(fence);
        let (mut rows, mut bytes) = (0, 0);
        while let Some(chunk) = self.chunks.front_mut() {
            let held = chunk.upto(fence);
            rows += held;
            if held < chunk.batch.num_rows() {
                // A cut keeps the whole chunk's memory until its last row is gone.
                chunk.batch = chunk.batch.slice(held, chunk.batch.num_rows() - held);
                break;
            }
            bytes += chunk.bytes;
            gone.extend(self.chunks.pop_front().map(|c| c.batch));
        }
        let fresh = self.fresh.partition_point(|row| row.source.offset <= fence);
        if fresh > 0 {
            let freed: usize = self.fresh.drain(..fresh).map(|row| weight(&row)).sum();
            self.fresh_bytes = self.fresh_bytes.saturating_sub(freed);
            rows += fresh;
            bytes += freed;
        }
        (rows, bytes)
    }
}

impl Chunk {
    /// How many of its first rows have a source offset at or below `fence`.
    fn upto(&self, fence: i64) -> usize {
        let offsets = self
            .batch
            .column_by_name("offset")
            .and_then(|column| column.as_primitive_opt::<Int64Type>());
        offsets.map_or(0, |column| {
            column.values().partition_point(|&offset| offset <= fence)
        })
    }
}

/// About what a decoded row takes in memory.
fn weight(row: &Judged) -> usize {
    let message = &row.message;
    ROW_BYTES
        + message.tenant.len()
        + message.channel.len()
        + message.sender.as_ref().map_or(0, String::len)
        + message.id.len()
        + message.text.len()
        + message.metadata.as_ref().map_or(0, String::len)
        + row.verdict.model.len()
}
