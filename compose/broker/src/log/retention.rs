//! Removing old records: by age, by size, or on request. Always whole segments; the log start moves
//! first and durably, so that a crash in between leaves files to remove and never a hole. A segment
//! goes when its newest record is too old, so none may take in records for long: it is closed when its
//! first record is `segment.ms` old.
//!
//! Who deletes records on request may mean it: the active segment is then closed, so that its file goes
//! with its last deleted record and not when it is full.

use std::sync::atomic::Ordering;

use kafka_protocol::ResponseError;
use parking_lot::MutexGuard;

use super::partition::{Partition, Writer, now_ms};

impl Partition {
    /// Removes the records before `offset` (-1: all). Answers the new log start.
    ///
    /// # Errors
    /// The offset is beyond the end.
    pub(crate) fn delete_records(&self, offset: i64) -> Result<i64, ResponseError> {
        let mut writer = self.settled()?;
        let offset = if offset == -1 { self.end() } else { offset };
        if offset < 0 || offset > self.end() {
            return Err(ResponseError::OffsetOutOfRange);
        }
        if offset > self.start().max(writer.segment.base)
            && let Err(error) = self.roll(&mut writer)
        {
            // The records are deleted all the same; their bytes go when the segment is full.
            tracing::warn!(topic = %self.topic, partition = self.index, %error, "can't begin a segment");
        }
        self.move_start(&mut writer, offset);
        Ok(self.start())
    }

    /// Applies the topic's retention and forgets idle producers.
    pub(crate) fn retain(&self) {
        let Ok(mut writer) = self.settled() else {
            return;
        };
        let settings = *self.settings.read();
        let old = now_ms().saturating_sub(settings.segment_ms);
        let first = writer.segment.first_timestamp();
        if first.is_some_and(|first| (0..old).contains(&first))
            && let Err(error) = self.roll(&mut writer)
        {
            tracing::warn!(topic = %self.topic, partition = self.index, %error, "can't begin a segment");
        }
        let oldest = settings.retention_ms.map(|ms| now_ms().saturating_sub(ms));
        let mut total: u64 = self
            .segments
            .read()
            .iter()
            .map(|segment| segment.size())
            .sum();
        let mut keep_from = self.start();
        let segments = self.segments.read().clone();
        for segment in &segments {
            let active = segment.base == writer.segment.base;
            let expired = segment.size() > 0
                && oldest.is_some_and(|oldest| (0..oldest).contains(&segment.newest().timestamp));
            let beyond = !active
                && settings
                    .retention_bytes
                    .is_some_and(|most| total.saturating_sub(segment.size()) >= most);
            if !expired && !beyond {
                break;
            }
            if active && self.roll(&mut writer).is_err() {
                break;
            }
            total -= segment.size();
            keep_from = segment.next().max(keep_from);
        }
        if keep_from > self.start() {
            tracing::info!(topic = %self.topic, partition = self.index, start = keep_from, "retention moved the log start");
            self.move_start(&mut writer, keep_from);
        }
    }

    /// The writer with nothing staged: neither a new segment nor a checkpoint may know of
    /// records that a kill would still take away.
    fn settled(&self) -> Result<MutexGuard<'_, Writer>, ResponseError> {
        let mut writer = self.writer.lock();
        if self.closed() {
            return Err(ResponseError::UnknownTopicOrPartition);
        }
        self.commit_locked(&mut writer);
        self.repair(&mut writer)?;
        Ok(writer)
    }

    fn move_start(&self, writer: &mut Writer, offset: i64) {
        if offset <= self.start() {
            return;
        }
        self.start.store(offset, Ordering::Release);
        let gone = {
            let mut segments = self.segments.write();
            let active = writer.segment.base;
            let gone = segments
                .iter()
                .take_while(|one| one.next() <= offset && one.base != active)
                .count();
            segments.drain(..gone).collect::<Vec<_>>()
        };
        self.checkpoint(writer);
        for segment in gone {
            self.log_bytes
                .sub(i64::try_from(segment.size()).unwrap_or_default());
            if let Err(error) = segment.remove() {
                tracing::warn!(topic = %self.topic, partition = self.index, %error, "can't remove a segment");
            }
        }
    }
}
