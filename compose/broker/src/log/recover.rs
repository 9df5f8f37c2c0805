//! Opening a partition: from its checkpoint, and by scanning what came after it.
//!
//! What it keeps true:
//! - Only what follows the checkpoint is scanned, so a start is quick however long the log is.
//! - A torn tail (what a crash left half written) is cut. It can only lie beyond the [`marker`], and
//!   nothing beyond it was acknowledged before the marker was set, except what a power failure took
//!   from the marker itself, which lags by at most its write-back; intact batches are kept either way.
//! - Damage before the marker is in acknowledged records. It is kept and logged, reading it answers
//!   `CORRUPT_MESSAGE`, and offsets go on after it: never reused, never silently skipped.
//! - Producers' sequence numbers are rebuilt from the checkpoint and the scanned batches.
//!
//! [`marker`]: super::marker

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use super::batch::Header;
use super::marker::{Marker, Synced};
use super::partition::{CHECKPOINT, Checkpoint, Writer, now_ms};
use super::producers::Producers;
use super::segment::{Entry, INDEX_EVERY, Newest, Saved, Segment};
use crate::state_file;

const CHUNK: usize = 1 << 20;

/// An opened partition.
pub(crate) struct Opened {
    pub(crate) start: i64,
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) writer: Writer,
    /// Whether something was scanned, so that a new checkpoint is worth writing.
    pub(crate) scanned: bool,
}

/// Opens the partition in `folder`, which is made when it is missing.
pub(crate) fn open(folder: &Path) -> io::Result<Opened> {
    fs::create_dir_all(folder)?;
    let checkpoint = match state_file::read::<Checkpoint>(&folder.join(CHECKPOINT)) {
        Ok(checkpoint) => checkpoint,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            tracing::warn!(folder = %folder.display(), "the checkpoint is damaged: scanning the whole partition");
            None
        }
        Err(error) => return Err(error),
    };
    let (marker, synced) = Marker::open(folder)?;
    let mut scanned = checkpoint.is_none();
    let Checkpoint {
        start,
        segments: saved,
        mut producers,
    } = checkpoint.unwrap_or_default();
    let saved_end = saved.last().map_or(start, |last| last.next);
    let (mut segments, unsaved) = on_disk(folder, start, &saved)?;

    let last = segments.pop();
    let mut to_scan: Vec<Arc<Segment>> = last.into_iter().collect();
    to_scan.extend(
        unsaved
            .into_iter()
            .map(|base| Arc::new(Segment::empty(folder, base))),
    );
    let count = to_scan.len();
    for (at, segment) in to_scan.into_iter().enumerate() {
        let before = segment.size();
        let synced = synced.filter(|synced| synced.segment == segment.base);
        let scan = Scan {
            segment: &segment,
            synced,
            last: at + 1 == count,
        };
        scan.run(&mut producers)?;
        scanned |= segment.size() != before || at > 0;
        segments.push(segment);
    }
    let start = segments
        .first()
        .map_or(start, |first| first.base.max(start));
    let end = segments.last().map_or(start, |last| last.next());
    let acknowledged = synced
        .map_or(saved_end, |synced| synced.next.max(saved_end))
        .max(start);
    if segments.is_empty() || end < acknowledged {
        if end < acknowledged {
            tracing::error!(
                folder = %folder.display(), end, acknowledged,
                "acknowledged records are missing from the log; going on after them"
            );
        }
        segments.push(Arc::new(Segment::empty(folder, acknowledged)));
        scanned = true;
    }
    // There is one now: either it was on disk, or it was just added.
    let Some(active) = segments.last().cloned() else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let file = active.activate()?;
    if scanned {
        // What a killed broker wrote but did not sync is shown from now on, so it must be durable.
        file.sync_data()?;
        state_file::sync_folder(folder)?;
    }
    Ok(Opened {
        start,
        segments,
        writer: Writer::new(file, marker, active, producers),
        scanned,
    })
}

/// The segments of the checkpoint that are still there, and those made after it.
fn on_disk(
    folder: &Path,
    start: i64,
    saved: &[Saved],
) -> io::Result<(Vec<Arc<Segment>>, BTreeSet<i64>)> {
    let mut bases = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let base = name
            .to_str()
            .and_then(|name| name.strip_suffix(".log"))
            .and_then(|base| base.parse::<i64>().ok());
        bases.extend(base);
    }
    let mut segments = Vec::new();
    let last = saved.last().map(|last| last.base);
    for one in saved {
        if !bases.remove(&one.base) {
            tracing::error!(folder = %folder.display(), segment = one.base, "a segment file is missing");
            continue;
        }
        segments.push(Arc::new(Segment::new(folder, *one)));
    }
    // Left over from a deletion that a crash cut short: the log start had moved already.
    for base in bases
        .iter()
        .filter(|base| last.is_some_and(|last| **base < last))
    {
        tracing::info!(folder = %folder.display(), segment = base, start, "removing a deleted segment");
        Segment::empty(folder, *base).remove()?;
    }
    bases.retain(|base| last.is_none_or(|last| *base > last));
    Ok((segments, bases))
}

struct Scan<'a> {
    segment: &'a Segment,
    /// Where the synced part of this segment ends, as far as is known.
    synced: Option<Synced>,
    /// Nothing follows it.
    last: bool,
}

/// What the scan knows so far.
struct State {
    position: u64,
    next: i64,
    newest: Newest,
    last_entry: u64,
    entries: Vec<Entry>,
}

impl Scan<'_> {
    fn run(&self, producers: &mut Producers) -> io::Result<()> {
        let file = File::options()
            .read(true)
            .write(true)
            .open(self.segment.path())?;
        let size = file.metadata()?.len();
        let mut from = self.segment.size();
        let (mut next, mut newest) = (self.segment.next(), self.segment.newest());
        if size < from {
            tracing::error!(segment = %self.segment.path().display(), size, expected = from, "a segment was cut short");
            (from, next, newest) = (0, self.segment.base, Newest::NONE);
        }
        let mut state = State {
            position: from,
            next,
            newest,
            last_entry: from,
            entries: Vec::new(),
        };
        let now = now_ms();
        let mut window = Window {
            file: &file,
            size,
            begin: from,
            bytes: Vec::new(),
        };
        while state.position < size {
            let Some(header) = window.batch(state.position, state.next)? else {
                if !self.step_over(&mut window, &mut state)? {
                    break;
                }
                continue;
            };
            producers.appended(&header, header.base_offset, now);
            state.take(&header);
        }
        if state.position < size {
            tracing::warn!(
                segment = %self.segment.path().display(), from = state.position, to = size,
                "cutting a torn tail"
            );
            file.set_len(state.position)?;
            file.sync_all()?;
        }
        let State {
            position,
            next,
            newest,
            mut entries,
            ..
        } = state;
        self.segment.publish(position, next, newest, &mut entries);
        Ok(())
    }

    /// Goes on after damage. Answers false where it is a torn tail instead.
    fn step_over(&self, window: &mut Window<'_>, state: &mut State) -> io::Result<bool> {
        let acknowledged = match self.synced {
            Some(synced) => synced.position,
            None if self.last => 0,
            None => window.size,
        };
        if state.position >= acknowledged {
            return Ok(false);
        }
        let (damaged, offset) = (state.position, state.next);
        // Where only the body is damaged, its header still leads to the next batch.
        let header = window.header(state.position)?;
        let follower = match header {
            Some(header) if header.base_offset == state.next && header.last_offset_delta >= 0 => {
                let position = state.position + header.bytes as u64;
                let at_end = position == window.size;
                let next = header.next_offset();
                let sound = at_end || window.batch(position, next)?.is_some();
                sound.then_some((position, next))
            }
            _ => None,
        };
        let after = follower.or(self.synced.map(|synced| (synced.position, synced.next)));
        (state.position, state.next) = after.unwrap_or((window.size, state.next));
        tracing::error!(
            segment = %self.segment.path().display(), from = damaged, to = state.position, offset,
            "acknowledged records are damaged; they stay and can't be read"
        );
        Ok(true)
    }
}

impl State {
    fn take(&mut self, header: &Header) {
        if self.position >= self.last_entry + INDEX_EVERY {
            self.last_entry = self.position;
            let entry = Entry {
                offset: header.base_offset,
                position: self.position,
                newest_before: self.newest.timestamp,
            };
            self.entries.push(entry);
        }
        self.newest.update(header, header.base_offset);
        self.position += header.bytes as u64;
        self.next = header.next_offset();
    }
}

/// Reads a file in large pieces.
struct Window<'a> {
    file: &'a File,
    size: u64,
    begin: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// Up to `bytes` from `position` on; fewer at the end of the file.
    fn at(&mut self, position: u64, bytes: usize) -> io::Result<&[u8]> {
        let left = usize::try_from(self.size.saturating_sub(position)).unwrap_or(usize::MAX);
        let bytes = bytes.min(left);
        let end = self.begin + self.bytes.len() as u64;
        if position < self.begin || position + bytes as u64 > end {
            self.bytes.resize(bytes.max(CHUNK).min(left), 0);
            self.begin = position;
            self.file.read_exact_at(&mut self.bytes, position)?;
        }
        let from = usize::try_from(position - self.begin).unwrap_or(usize::MAX);
        Ok(self.bytes.get(from..from + bytes).unwrap_or_default())
    }

    fn header(&mut self, position: u64) -> io::Result<Option<Header>> {
        Ok(Header::parse(self.at(position, super::batch::HEADER)?)
            .filter(|header| header.bytes as u64 <= self.size - position))
    }

    /// The header of the intact batch at `position` that begins with `offset`.
    fn batch(&mut self, position: u64, offset: i64) -> io::Result<Option<Header>> {
        let Some(header) = self
            .header(position)?
            .filter(|header| header.base_offset == offset)
        else {
            return Ok(None);
        };
        let batch = self.at(position, header.bytes)?;
        Ok(header.intact(batch).then_some(header))
    }
}
