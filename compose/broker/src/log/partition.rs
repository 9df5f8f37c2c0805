//! One partition: its segments, its watermarks, and the one place that appends to it.
//!
//! What it keeps true: offsets are contiguous; the end that readers see (the high watermark) moves only
//! after fdatasync; what fails to be written or synced is taken back from the file and from memory
//! before anything else is appended, so an acknowledged record is never among bytes whose sync failed.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, IoSlice, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use parking_lot::{Mutex, RwLock};
use prometheus::IntGauge;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

use super::batch::{Checked, HEADER, stored_header};
use super::marker::{Marker, Synced};
use super::producers::{Before, Decision, Producers};
use super::segment::{Entry, INDEX_EVERY, Newest, Saved, Segment};
use super::settings::Settings;
use crate::config::Limits;
use crate::metrics::Metrics;
use crate::state_file;

/// Name of a partition's recovery checkpoint.
pub(crate) const CHECKPOINT: &str = "checkpoint";

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Everything that need not be scanned again: the state at one moment, all of it synced.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    pub(crate) start: i64,
    pub(crate) segments: Vec<Saved>,
    pub(crate) producers: Producers,
}

/// Where a batch was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) base_offset: i64,
    /// Milliseconds where the broker stamped the records, else -1.
    pub(crate) append_time: i64,
}

/// One batch on its way into a partition.
pub(crate) struct Job {
    pub(crate) partition: Arc<Partition>,
    pub(crate) batch: Checked,
    pub(crate) reply: Option<oneshot::Sender<Result<Appended, ResponseError>>>,
    /// Share of the bound on bytes in flight; given back when the batch is done.
    pub(crate) permit: Arc<OwnedSemaphorePermit>,
}

struct Piece {
    header: [u8; HEADER],
    batch: Bytes,
    records: u64,
    _permit: Arc<OwnedSemaphorePermit>,
}

type Reply = (
    Option<oneshot::Sender<Result<Appended, ResponseError>>>,
    Appended,
);

/// What only the appending side knows.
pub(crate) struct Writer {
    pub(crate) file: Arc<File>,
    pub(crate) marker: Marker,
    pub(crate) segment: Arc<Segment>,
    pub(crate) producers: Producers,
    /// Bytes of the active segment, staged ones included.
    pub(crate) written: u64,
    /// Offset of the next record, staged ones included.
    pub(crate) next: i64,
    pub(crate) newest: Newest,
    pub(crate) last_entry: u64,
    pub(crate) since_checkpoint: u64,
    pieces: Vec<Piece>,
    replies: Vec<Reply>,
    entries: Vec<Entry>,
    undo: Vec<Before>,
    /// The file may be longer than what is synced, and must be cut before the next append.
    cut: bool,
}

impl Writer {
    /// A writer that goes on after `segment`'s readable bytes.
    pub(crate) fn new(
        file: Arc<File>,
        marker: Marker,
        segment: Arc<Segment>,
        producers: Producers,
    ) -> Self {
        Self {
            file,
            marker,
            producers,
            written: segment.size(),
            next: segment.next(),
            newest: segment.newest(),
            last_entry: segment.size(),
            since_checkpoint: 0,
            pieces: Vec::new(),
            replies: Vec::new(),
            entries: Vec::new(),
            undo: Vec::new(),
            cut: false,
            segment,
        }
    }
}

/// Where a sequential reader will go on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hint {
    pub(crate) offset: i64,
    pub(crate) segment: i64,
    pub(crate) position: u64,
}

/// One partition.
pub(crate) struct Partition {
    pub(crate) topic: Arc<str>,
    pub(crate) index: i32,
    pub(crate) shard: usize,
    pub(crate) folder: PathBuf,
    pub(crate) settings: Arc<RwLock<Settings>>,
    pub(crate) segments: RwLock<Vec<Arc<Segment>>>,
    pub(crate) hints: Mutex<VecDeque<Hint>>,
    pub(crate) start: AtomicI64,
    pub(crate) end: AtomicI64,
    pub(crate) writer: Mutex<Writer>,
    pub(crate) waiters: Mutex<HashMap<u64, Arc<Notify>>>,
    pub(crate) closed: AtomicBool,
    pub(crate) limits: Arc<Limits>,
    pub(crate) metrics: Metrics,
    pub(crate) log_bytes: IntGauge,
}

impl Partition {
    /// Offset of the first record kept.
    pub(crate) fn start(&self) -> i64 {
        self.start.load(Ordering::Acquire)
    }

    /// Offset after the last synced record: the high watermark.
    pub(crate) fn end(&self) -> i64 {
        self.end.load(Ordering::Acquire)
    }

    pub(crate) fn closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Has `notify` told once when the partition changes. `id` is the waiting connection.
    pub(crate) fn watch(&self, id: u64, notify: &Arc<Notify>) {
        self.waiters.lock().insert(id, Arc::clone(notify));
    }

    pub(crate) fn unwatch(&self, id: u64) {
        self.waiters.lock().remove(&id);
    }

    pub(crate) fn wake(&self) {
        for (_, waiter) in self.waiters.lock().drain() {
            waiter.notify_one();
        }
    }

    /// Takes a batch in, to be written by the next [`Self::commit`]. Answers at once what needs no write.
    pub(crate) fn stage(&self, job: Job) {
        let mut writer = self.writer.lock();
        let settled = self.judge(&mut writer, &job);
        match settled {
            Err(error) => answer(job.reply, Err(error)),
            Ok(Decision::Duplicate(base_offset)) => {
                let appended = Appended {
                    base_offset,
                    append_time: -1,
                };
                if base_offset < self.end() {
                    answer(job.reply, Ok(appended));
                } else {
                    // A retry of what is staged: it stands and falls with it.
                    writer.replies.push((job.reply, appended));
                }
            }
            Ok(Decision::Append) => push(&mut writer, job),
        }
    }

    fn judge(&self, writer: &mut Writer, job: &Job) -> Result<Decision, ResponseError> {
        if self.closed() {
            return Err(ResponseError::UnknownTopicOrPartition);
        }
        self.repair(writer)?;
        let decision = writer.producers.decide(&job.batch.header)?;
        let segment_bytes = self.settings.read().segment_bytes;
        if decision == Decision::Append
            && writer.written > 0
            && writer.written + job.batch.bytes.len() as u64 > segment_bytes
        {
            self.commit_locked(writer);
            self.repair(writer)?;
            if writer.written > 0 {
                self.roll(writer)
                    .map_err(|error| self.storage_error("can't begin a segment", &error))?;
            }
            // The commit may have failed and taken a batch of this producer back.
            return writer.producers.decide(&job.batch.header);
        }
        Ok(decision)
    }

    fn storage_error(&self, what: &'static str, error: &io::Error) -> ResponseError {
        tracing::error!(topic = %self.topic, partition = self.index, %error, "{what}");
        self.metrics.refuse("storage");
        ResponseError::KafkaStorageError
    }

    /// Cuts off what a failed write left behind.
    pub(super) fn repair(&self, writer: &mut Writer) -> Result<(), ResponseError> {
        if writer.cut {
            let size = writer.segment.size();
            writer
                .file
                .set_len(size)
                .map_err(|error| self.storage_error("can't cut back a failed append", &error))?;
            writer.cut = false;
        }
        Ok(())
    }

    /// Writes and syncs what is staged, shows it to readers and answers. Blocks on the disk.
    pub(crate) fn commit(&self) {
        self.commit_locked(&mut self.writer.lock());
    }

    pub(super) fn commit_locked(&self, writer: &mut Writer) {
        if !writer.pieces.is_empty() {
            if let Err(error) = self.write_and_sync(writer) {
                self.take_back(writer, &error);
                return;
            }
            self.publish(writer);
        }
        for (reply, appended) in writer.replies.drain(..) {
            answer(reply, Ok(appended));
        }
        if writer.producers.len() > self.limits.producers.saturating_mul(2) {
            self.forget_producers(writer);
        }
        if writer.since_checkpoint >= self.limits.checkpoint_bytes {
            self.checkpoint(writer);
        }
    }

    fn write_and_sync(&self, writer: &Writer) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = writer
            .pieces
            .iter()
            .flat_map(|piece| [&piece.header, piece.batch.get(HEADER..).unwrap_or_default()])
            .map(IoSlice::new)
            .collect();
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            match (&*writer.file).write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let timer = self.metrics.sync_seconds.start_timer();
        writer.file.sync_data()?;
        timer.observe_duration();
        Ok(())
    }

    fn take_back(&self, writer: &mut Writer, error: &io::Error) {
        let refusal = self.storage_error("can't write to the log", error);
        while let Some(before) = writer.undo.pop() {
            writer.producers.restore(before);
        }
        writer.pieces.clear();
        writer.entries.clear();
        writer.written = writer.segment.size();
        writer.next = self.end();
        writer.newest = writer.segment.newest();
        writer.last_entry = writer.last_entry.min(writer.written);
        writer.cut = true;
        // Give the space back at once; a failure is tried again before the next append.
        let _ = self.repair(writer);
        for (reply, _) in writer.replies.drain(..) {
            answer(reply, Err(refusal));
        }
    }

    fn publish(&self, writer: &mut Writer) {
        let records = writer.pieces.iter().map(|piece| piece.records).sum::<u64>();
        let added = writer.written - writer.segment.size();
        writer.pieces.clear();
        writer.undo.clear();
        let (written, next, newest) = (writer.written, writer.next, writer.newest);
        writer
            .segment
            .publish(written, next, newest, &mut writer.entries);
        let synced = Synced {
            segment: writer.segment.base,
            position: written,
            next,
        };
        if let Err(error) = writer.marker.set(synced) {
            tracing::warn!(topic = %self.topic, partition = self.index, %error, "can't note what is synced");
        }
        self.end.store(next, Ordering::Release);
        self.wake();
        writer.since_checkpoint += added;
        self.metrics.produced_bytes.inc_by(added);
        self.metrics.produced_records.inc_by(records);
        self.log_bytes.add(i64::try_from(added).unwrap_or_default());
    }

    /// Begins a new segment; everything staged must be committed.
    pub(crate) fn roll(&self, writer: &mut Writer) -> io::Result<()> {
        let segment = Arc::new(Segment::empty(&self.folder, writer.next));
        let made = segment.activate().and_then(|file| {
            file.set_len(0)?;
            state_file::sync_folder(&self.folder).map(|()| file)
        });
        let file = made.inspect_err(|_| {
            // Left behind, it would hide what the segment before it still takes in.
            let _ = segment.remove();
        })?;
        self.segments.write().push(Arc::clone(&segment));
        let sealed = std::mem::replace(&mut writer.segment, segment);
        sealed.seal();
        writer.file = file;
        writer.written = 0;
        writer.last_entry = 0;
        writer.newest = Newest::NONE;
        if let Err(error) = sealed.flush_index() {
            tracing::warn!(topic = %self.topic, partition = self.index, %error, "can't write the index");
        }
        self.checkpoint(writer);
        Ok(())
    }

    /// Saves what a start need not scan again. A failure costs a longer start, so it is only logged.
    pub(crate) fn checkpoint(&self, writer: &mut Writer) {
        writer.since_checkpoint = 0;
        if let Err(error) = self.try_checkpoint(writer) {
            tracing::warn!(topic = %self.topic, partition = self.index, %error, "can't write a checkpoint");
        }
    }

    fn forget_producers(&self, writer: &mut Writer) {
        let idle = i64::try_from(self.limits.producer_idle.as_millis()).unwrap_or(i64::MAX);
        writer
            .producers
            .expire(now_ms().saturating_sub(idle), self.limits.producers);
    }

    fn try_checkpoint(&self, writer: &mut Writer) -> io::Result<()> {
        writer.segment.flush_index()?;
        self.forget_producers(writer);
        let checkpoint = Checkpoint {
            start: self.start(),
            segments: self
                .segments
                .read()
                .iter()
                .map(|segment| segment.saved())
                .collect(),
            producers: std::mem::take(&mut writer.producers),
        };
        let saved = state_file::write(&self.folder.join(CHECKPOINT), &checkpoint);
        writer.producers = checkpoint.producers;
        saved
    }
}

/// Gives a batch its offsets and keeps it for the next write.
fn push(writer: &mut Writer, job: Job) {
    let Job {
        batch,
        reply,
        permit,
        ..
    } = job;
    let (offset, size) = (writer.next, batch.bytes.len() as u64);
    if writer.written >= writer.last_entry + INDEX_EVERY {
        writer.last_entry = writer.written;
        let newest_before = writer.newest.timestamp;
        writer.entries.push(Entry {
            offset,
            position: writer.written,
            newest_before,
        });
    }
    writer
        .undo
        .extend(writer.producers.appended(&batch.header, offset, now_ms()));
    writer.newest.update(&batch.header, offset);
    writer.next += i64::from(batch.header.count);
    writer.written += size;
    let append_time = if batch.header.log_append_time() {
        batch.header.max_timestamp
    } else {
        -1
    };
    writer.replies.push((
        reply,
        Appended {
            base_offset: offset,
            append_time,
        },
    ));
    writer.pieces.push(Piece {
        header: stored_header(&batch.bytes, offset),
        records: u64::from(batch.header.count.unsigned_abs()),
        batch: batch.bytes,
        _permit: permit,
    });
}

fn answer(
    reply: Option<oneshot::Sender<Result<Appended, ResponseError>>>,
    result: Result<Appended, ResponseError>,
) {
    if let Some(reply) = reply {
        // The client may have gone.
        let _ = reply.send(result);
    }
}
