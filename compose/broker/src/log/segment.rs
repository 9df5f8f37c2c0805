//! One segment: a file of record batches, and its sparse index on disk.
//!
//! What it keeps true: readers see synced bytes only; the index is a help and never a truth (an entry
//! that is missing costs a longer scan, a wrong one is caught by the batch it points to); memory holds
//! a few numbers and the index entries since the last checkpoint.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::batch::{HEADER, Header};

/// Bytes of log between two index entries.
pub(crate) const INDEX_EVERY: u64 = 32 << 10;
const ENTRY: usize = 24;

/// The batch with the largest time stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Newest {
    /// Milliseconds; -1 for none.
    pub(crate) timestamp: i64,
    /// The batch's base offset.
    pub(crate) offset: i64,
}

impl Newest {
    pub(crate) const NONE: Self = Self {
        timestamp: -1,
        offset: -1,
    };

    pub(crate) fn update(&mut self, header: &Header, base_offset: i64) {
        if header.max_timestamp > self.timestamp {
            *self = Self {
                timestamp: header.max_timestamp,
                offset: base_offset,
            };
        }
    }
}

/// One index entry: a batch, and the largest time stamp of the segment before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) offset: i64,
    pub(crate) position: u64,
    pub(crate) newest_before: i64,
}

impl Entry {
    fn encode(&self) -> [u8; ENTRY] {
        let mut out = [0; ENTRY];
        let (offset, rest) = out.split_at_mut(8);
        let (position, newest) = rest.split_at_mut(8);
        offset.copy_from_slice(&self.offset.to_be_bytes());
        position.copy_from_slice(&self.position.to_be_bytes());
        newest.copy_from_slice(&self.newest_before.to_be_bytes());
        out
    }

    fn decode(bytes: [u8; ENTRY]) -> Self {
        let word = |at: usize| std::array::from_fn(|index| bytes[at + index]);
        Self {
            offset: i64::from_be_bytes(word(0)),
            position: u64::from_be_bytes(word(8)),
            newest_before: i64::from_be_bytes(word(16)),
        }
    }
}

/// What a checkpoint says of a segment.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Saved {
    pub(crate) base: i64,
    pub(crate) next: i64,
    pub(crate) size: u64,
    pub(crate) newest: Newest,
    pub(crate) indexed: u64,
}

/// One segment, as readers see it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base: i64,
    folder: PathBuf,
    size: AtomicU64,
    next: AtomicI64,
    newest: Mutex<Newest>,
    /// The handle while it is written to; later it is opened for each read, so that handles don't grow.
    active: Mutex<Option<Arc<File>>>,
    /// Index entries on disk.
    indexed: AtomicU64,
    /// Index entries not yet on disk.
    tail: Mutex<Vec<Entry>>,
}

impl Segment {
    pub(crate) fn new(folder: &Path, saved: Saved) -> Self {
        Self {
            base: saved.base,
            folder: folder.to_owned(),
            size: AtomicU64::new(saved.size),
            next: AtomicI64::new(saved.next),
            newest: Mutex::new(saved.newest),
            active: Mutex::new(None),
            indexed: AtomicU64::new(saved.indexed),
            tail: Mutex::new(Vec::new()),
        }
    }

    /// An empty one that begins at `base`.
    pub(crate) fn empty(folder: &Path, base: i64) -> Self {
        Self::new(
            folder,
            Saved {
                base,
                next: base,
                size: 0,
                newest: Newest::NONE,
                indexed: 0,
            },
        )
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join(format!("{:020}.log", self.base))
    }

    fn index_path(&self) -> PathBuf {
        self.folder.join(format!("{:020}.index", self.base))
    }

    pub(crate) fn saved(&self) -> Saved {
        Saved {
            base: self.base,
            next: self.next(),
            size: self.size(),
            newest: self.newest(),
            indexed: self.indexed.load(Ordering::Acquire),
        }
    }

    /// Readable bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Offset after the last readable record.
    pub(crate) fn next(&self) -> i64 {
        self.next.load(Ordering::Acquire)
    }

    pub(crate) fn newest(&self) -> Newest {
        *self.newest.lock()
    }

    /// Opens the file for appending and keeps the handle for readers.
    pub(crate) fn activate(&self) -> io::Result<Arc<File>> {
        let file = Arc::new(
            File::options()
                .read(true)
                .append(true)
                .create(true)
                .open(self.path())?,
        );
        *self.active.lock() = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Lets the handle go: nothing is appended any more.
    pub(crate) fn seal(&self) {
        *self.active.lock() = None;
    }

    /// A handle to read with.
    pub(crate) fn open(&self) -> io::Result<Arc<File>> {
        if let Some(file) = self.active.lock().as_ref() {
            return Ok(Arc::clone(file));
        }
        File::open(self.path()).map(Arc::new)
    }

    /// Shows synced bytes to readers.
    pub(crate) fn publish(&self, size: u64, next: i64, newest: Newest, entries: &mut Vec<Entry>) {
        self.tail.lock().append(entries);
        *self.newest.lock() = newest;
        self.next.store(next, Ordering::Release);
        self.size.store(size, Ordering::Release);
    }

    /// Writes the index entries that are only in memory, durably.
    pub(crate) fn flush_index(&self) -> io::Result<()> {
        let tail = self.tail.lock().clone();
        if tail.is_empty() {
            return Ok(());
        }
        let indexed = self.indexed.load(Ordering::Acquire);
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.index_path())?;
        let bytes: Vec<u8> = tail.iter().flat_map(Entry::encode).collect();
        file.write_all_at(&bytes, indexed * ENTRY as u64)?;
        file.sync_data()?;
        self.indexed
            .store(indexed + tail.len() as u64, Ordering::Release);
        self.tail.lock().drain(..tail.len());
        Ok(())
    }

    /// The last index entry that `before` accepts, or the start of the segment.
    ///
    /// `before` must hold for a prefix of the entries.
    pub(crate) fn seek(&self, before: impl Fn(&Entry) -> bool) -> Entry {
        let start = Entry {
            offset: self.base,
            position: 0,
            newest_before: -1,
        };
        {
            let tail = self.tail.lock();
            if let Some(entry) = tail
                .partition_point(&before)
                .checked_sub(1)
                .and_then(|at| tail.get(at))
            {
                return *entry;
            }
        }
        let indexed = self.indexed.load(Ordering::Acquire);
        if indexed == 0 {
            return start;
        }
        let size = self.size();
        let found = File::open(self.index_path()).ok().and_then(|file| {
            let (mut low, mut high, mut best) = (0, indexed, None);
            while low < high {
                let middle = low + (high - low) / 2;
                let mut bytes = [0; ENTRY];
                file.read_exact_at(&mut bytes, middle * ENTRY as u64).ok()?;
                let entry = Entry::decode(bytes);
                if before(&entry) {
                    best = Some(entry);
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            best
        });
        // Without an index the segment is scanned from its start.
        found
            .filter(|entry| {
                entry.position < size
                    && self
                        .header_at(entry.position)
                        .is_some_and(|at| at.base_offset == entry.offset)
            })
            .unwrap_or(start)
    }

    /// The time stamp of the first batch, in milliseconds; `None` when nothing is readable.
    pub(crate) fn first_timestamp(&self) -> Option<i64> {
        let header = (self.size() > 0).then(|| self.header_at(0))??;
        Some(header.max_timestamp)
    }

    fn header_at(&self, position: u64) -> Option<Header> {
        read_header(&*self.open().ok()?, position).ok().flatten()
    }

    /// Removes its files.
    pub(crate) fn remove(&self) -> io::Result<()> {
        for path in [self.index_path(), self.path()] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The batch header at `position`; `None` when there is none.
pub(crate) fn read_header(file: &File, position: u64) -> io::Result<Option<Header>> {
    let mut bytes = [0; HEADER];
    match file.read_exact_at(&mut bytes, position) {
        Ok(()) => Ok(Header::parse(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}
