//! Reading a partition: stored bytes by offset, and offsets by time stamp.
//!
//! What it keeps true: only synced, whole, intact batches are handed out. Each batch must have the CRC
//! and the base offset it was stored with; where one doesn't, the reader gets what is before it, and
//! `CORRUPT_MESSAGE` when it asks for the damaged one. Everything here blocks on the disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use kafka_protocol::ResponseError;

use super::batch::Header;
use super::partition::{Hint, Partition};
use super::records;
use super::segment::{Segment, read_header};

const HINTS: usize = 16;

/// Where a batch begins.
struct Place {
    segment: Arc<Segment>,
    file: Arc<File>,
    position: u64,
    /// Base offset of the batch there.
    base: i64,
}

impl Partition {
    /// Appends to `out` the batches from the one that holds `offset`, up to `most` bytes; with
    /// `whole_first`, the first one even if it is larger. Nothing at the end of the log.
    ///
    /// # Errors
    /// `OffsetOutOfRange`, `CorruptMessage`, `KafkaStorageError`.
    pub(crate) fn read(
        &self,
        offset: i64,
        most: usize,
        whole_first: bool,
        out: &mut Vec<u8>,
    ) -> Result<usize, ResponseError> {
        let end = self.end();
        if offset < self.start() || offset > end {
            return Err(ResponseError::OffsetOutOfRange);
        }
        if offset == end {
            return Ok(0);
        }
        let place = self
            .place(offset)
            .map_err(|error| self.read_error(offset, &error))?;
        let begin = out.len();
        let read = self
            .fill(&place, end, most, whole_first, out)
            .map_err(|error| self.read_error(offset, &error));
        let Ok(bytes) = read else {
            out.truncate(begin);
            return read;
        };
        self.metrics.fetched_bytes.inc_by(bytes as u64);
        Ok(bytes)
    }

    fn read_error(&self, offset: i64, error: &io::Error) -> ResponseError {
        if self.closed() {
            return ResponseError::UnknownTopicOrPartition;
        }
        if offset < self.start() {
            // Retention was quicker.
            return ResponseError::OffsetOutOfRange;
        }
        tracing::error!(topic = %self.topic, partition = self.index, offset, %error, "can't read the log");
        if error.kind() == io::ErrorKind::InvalidData {
            self.metrics.refuse("corrupt");
            ResponseError::CorruptMessage
        } else {
            self.metrics.refuse("storage");
            ResponseError::KafkaStorageError
        }
    }

    /// Nothing at or above `end`: a segment shows synced batches a moment before the
    /// partition does, and a reader that had them would ask for an offset out of range.
    fn fill(
        &self,
        place: &Place,
        end_offset: i64,
        most: usize,
        whole_first: bool,
        out: &mut Vec<u8>,
    ) -> io::Result<usize> {
        let left = usize::try_from(place.segment.size().saturating_sub(place.position))
            .unwrap_or(usize::MAX);
        let begin = out.len();
        // Even the smallest fetch must see how large the first batch is.
        let least = if whole_first { super::batch::HEADER } else { 0 };
        append(&place.file, place.position, most.max(least).min(left), out)?;
        let (mut end, mut next) = (begin, place.base);
        loop {
            let rest = out.get(end..).unwrap_or_default();
            let Some(header) = Header::parse(rest) else {
                if end == begin && rest.len() >= super::batch::HEADER {
                    return Err(damaged());
                }
                break;
            };
            let first = end == begin;
            if header.base_offset >= end_offset {
                break;
            }
            if header.base_offset != next || header.bytes > left - (end - begin) {
                if first { return Err(damaged()) } else { break }
            }
            if header.bytes > rest.len() {
                if !(first && whole_first) {
                    break;
                }
                let missing = header.bytes - rest.len();
                let from = place.position + rest.len() as u64;
                append(&place.file, from, missing, out)?;
                continue;
            }
            if !header.intact(rest) {
                if first { return Err(damaged()) } else { break }
            }
            end += header.bytes;
            next = header.next_offset();
        }
        if end == begin && whole_first && left < super::batch::HEADER {
            return Err(damaged());
        }
        out.truncate(end);
        if end > begin {
            let position = place.position + (end - begin) as u64;
            self.remember(Hint {
                offset: next,
                segment: place.segment.base,
                position,
            });
        }
        Ok(end - begin)
    }

    fn remember(&self, hint: Hint) {
        let mut hints = self.hints.lock();
        if hints.len() == HINTS {
            hints.pop_front();
        }
        hints.push_back(hint);
    }

    fn segment_of(&self, offset: i64) -> io::Result<Arc<Segment>> {
        let segments = self.segments.read();
        let at = segments.partition_point(|segment| segment.base <= offset);
        at.checked_sub(1)
            .and_then(|at| segments.get(at))
            .cloned()
            .ok_or_else(damaged)
    }

    fn place(&self, offset: i64) -> io::Result<Place> {
        let segment = self.segment_of(offset)?;
        if offset >= segment.next() {
            // A hole that damage left: never skip it silently.
            return Err(damaged());
        }
        let file = segment.open()?;
        let hint = {
            let mut hints = self.hints.lock();
            let found = hints
                .iter()
                .position(|hint| hint.offset == offset && hint.segment == segment.base);
            found.and_then(|at| hints.remove(at))
        };
        if let Some(hint) = hint {
            return Ok(Place {
                segment,
                file,
                position: hint.position,
                base: offset,
            });
        }
        let entry = segment.seek(|entry| entry.offset <= offset);
        let mut place = Place {
            segment,
            file,
            position: entry.position,
            base: entry.offset,
        };
        while let Some(header) = place.header()? {
            if header.last_offset() >= offset {
                return Ok(place);
            }
            place.position += header.bytes as u64;
            place.base = header.next_offset();
        }
        Err(damaged())
    }

    /// The first record at or after `timestamp` (milliseconds): offset and time stamp.
    pub(crate) fn by_time(&self, timestamp: i64) -> Result<Option<(i64, i64)>, ResponseError> {
        self.find_by_time(timestamp)
            .map_err(|error| self.read_error(self.start(), &error))
    }

    fn find_by_time(&self, timestamp: i64) -> io::Result<Option<(i64, i64)>> {
        let (start, end) = (self.start(), self.end());
        let segments = self.segments.read().clone();
        for segment in segments
            .into_iter()
            .filter(|one| one.next() > start && one.newest().timestamp >= timestamp)
        {
            let entry = segment.seek(|entry| entry.newest_before < timestamp);
            let file = segment.open()?;
            let mut place = Place {
                segment,
                file,
                position: entry.position,
                base: entry.offset,
            };
            while let Some(header) = place.header()? {
                if header.max_timestamp >= timestamp && header.last_offset() >= start {
                    let wanted = |at| at >= timestamp;
                    if let Some(found) = place.find(&header, start, wanted)? {
                        return Ok(Some(found).filter(|(offset, _)| *offset < end));
                    }
                }
                place.position += header.bytes as u64;
                place.base = header.next_offset();
            }
        }
        Ok(None)
    }

    /// The record with the largest time stamp: offset and time stamp.
    pub(crate) fn newest(&self) -> Result<Option<(i64, i64)>, ResponseError> {
        self.find_newest()
            .map_err(|error| self.read_error(self.start(), &error))
    }

    fn find_newest(&self) -> io::Result<Option<(i64, i64)>> {
        let (start, end) = (self.start(), self.end());
        let segments = self.segments.read().clone();
        let with_records = segments
            .into_iter()
            .filter(|one| one.size() > 0 && one.next() > start);
        // The earliest of equals.
        let Some(segment) = with_records.rev().max_by_key(|one| one.newest().timestamp) else {
            return Ok(None);
        };
        let newest = segment.newest();
        let Ok(place) = self.place(newest.offset) else {
            return Ok(None);
        };
        let Some(header) = place.header()? else {
            return Err(damaged());
        };
        let found = place.find(&header, start, |at| at >= newest.timestamp)?;
        Ok(found.filter(|(offset, _)| *offset < end))
    }
}

impl Place {
    /// The header here; `None` at the end of the segment.
    fn header(&self) -> io::Result<Option<Header>> {
        let left = self.segment.size().saturating_sub(self.position);
        if left == 0 {
            return Ok(None);
        }
        match read_header(&self.file, self.position)? {
            Some(header) if header.base_offset == self.base && header.bytes as u64 <= left => {
                Ok(Some(header))
            }
            _ => Err(damaged()),
        }
    }

    fn find(
        &self,
        header: &Header,
        from: i64,
        wanted: impl Fn(i64) -> bool,
    ) -> io::Result<Option<(i64, i64)>> {
        let mut batch = Vec::new();
        append(&self.file, self.position, header.bytes, &mut batch)?;
        if !header.intact(&batch) {
            return Err(damaged());
        }
        Ok(records::find(header, &batch, from, wanted))
    }
}

fn append(file: &File, position: u64, bytes: usize, out: &mut Vec<u8>) -> io::Result<()> {
    let begin = out.len();
    out.resize(begin + bytes, 0);
    file.read_exact_at(out.get_mut(begin..).unwrap_or_default(), position)
}

fn damaged() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the stored bytes are not what was stored",
    )
}
