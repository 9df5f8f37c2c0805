//! What a partition remembers of its idempotent producers, so that a retry is recognised.
//!
//! As in Kafka: the last five batches of each producer. It is part of every checkpoint and is brought
//! up to date from the log after it, so a retry over a SIGKILL is recognised too. Bounded: idle
//! producers are forgotten, and of too many the longest idle.

use std::collections::{HashMap, VecDeque};

use kafka_protocol::ResponseError;
use serde::{Deserialize, Serialize};

use super::batch::{Header, add_sequence};

const REMEMBERED: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Batch {
    first: i32,
    last: i32,
    offset: i64,
}

/// One producer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Producer {
    epoch: i16,
    /// When it last appended, by the broker's clock (milliseconds).
    seen: i64,
    batches: VecDeque<Batch>,
}

/// All producers of a partition.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Producers(HashMap<i64, Producer>);

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Append,
    /// It is stored already, from this offset on.
    Duplicate(i64),
}

impl Producers {
    /// Judges a batch by its producer's epoch and sequence numbers.
    ///
    /// # Errors
    /// An old epoch, or a gap in the sequence.
    pub(crate) fn decide(&self, header: &Header) -> Result<Decision, ResponseError> {
        if !header.idempotent() {
            return Ok(Decision::Append);
        }
        let Some(producer) = self.0.get(&header.producer_id) else {
            // Never seen, or forgotten since: like Kafka, begin anywhere.
            return Ok(Decision::Append);
        };
        if header.producer_epoch < producer.epoch {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        let in_order = if header.producer_epoch > producer.epoch {
            header.base_sequence == 0
        } else {
            let (first, last) = (header.base_sequence, header.last_sequence());
            if let Some(same) = producer
                .batches
                .iter()
                .find(|batch| batch.first == first && batch.last == last)
            {
                return Ok(Decision::Duplicate(same.offset));
            }
            producer
                .batches
                .back()
                .is_none_or(|batch| add_sequence(batch.last, 1) == first)
        };
        if in_order {
            Ok(Decision::Append)
        } else {
            Err(ResponseError::OutOfOrderSequenceNumber)
        }
    }

    /// Takes note of an appended batch. Answers what was known before, for [`Self::restore`].
    pub(crate) fn appended(&mut self, header: &Header, offset: i64, now: i64) -> Option<Before> {
        if !header.idempotent() {
            return None;
        }
        let before = self.0.get(&header.producer_id).cloned();
        let producer = self
            .0
            .entry(header.producer_id)
            .or_insert_with(|| Producer {
                epoch: header.producer_epoch,
                seen: now,
                batches: VecDeque::with_capacity(REMEMBERED),
            });
        if producer.epoch != header.producer_epoch {
            producer.epoch = header.producer_epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == REMEMBERED {
            producer.batches.pop_front();
        }
        producer.batches.push_back(Batch {
            first: header.base_sequence,
            last: header.last_sequence(),
            offset,
        });
        producer.seen = now;
        Some(Before {
            id: header.producer_id,
            producer: before,
        })
    }

    /// Takes one [`Self::appended`] back; call in the reverse order.
    pub(crate) fn restore(&mut self, before: Before) {
        match before.producer {
            Some(producer) => self.0.insert(before.id, producer),
            None => self.0.remove(&before.id),
        };
    }

    /// Forgets who was last seen before `oldest`, and beyond `most` the longest idle.
    pub(crate) fn expire(&mut self, oldest: i64, most: usize) {
        self.0.retain(|_, producer| producer.seen >= oldest);
        if self.0.len() > most {
            let mut seen: Vec<i64> = self.0.values().map(|producer| producer.seen).collect();
            let (_, limit, _) = seen.select_nth_unstable(self.0.len() - most);
            let limit = *limit;
            self.0.retain(|_, producer| producer.seen >= limit);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// What was known of a producer before an append that may fail.
#[derive(Debug)]
pub(crate) struct Before {
    id: i64,
    producer: Option<Producer>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::batch::tests::batch;
    use super::*;

    fn header(epoch: i16, sequence: i32, count: usize) -> Header {
        let values = vec![b"x".as_slice(); count];
        Header::parse(&batch(&values, (7, epoch, sequence), 0)).unwrap()
    }

    #[test]
    fn a_retry_is_recognised_and_a_gap_refused() {
        let mut producers = Producers::default();
        for (index, sequence) in [0, 2, 4, 6, 8, 10].into_iter().enumerate() {
            let header = header(0, sequence, 2);
            assert_eq!(producers.decide(&header), Ok(Decision::Append));
            producers.appended(&header, i64::try_from(index).unwrap() * 2, 0);
        }
        assert_eq!(
            producers.decide(&header(0, 10, 2)),
            Ok(Decision::Duplicate(10))
        );
        assert_eq!(
            producers.decide(&header(0, 2, 2)),
            Ok(Decision::Duplicate(2))
        );
        // Older than the last five, and ahead of the next: both are out of order.
        assert_eq!(
            producers.decide(&header(0, 0, 2)),
            Err(ResponseError::OutOfOrderSequenceNumber)
        );
        assert_eq!(
            producers.decide(&header(0, 13, 2)),
            Err(ResponseError::OutOfOrderSequenceNumber)
        );
        assert_eq!(producers.decide(&header(0, 12, 2)), Ok(Decision::Append));
        // A new epoch begins at 0, and fences the old one.
        assert_eq!(
            producers.decide(&header(1, 5, 1)),
            Err(ResponseError::OutOfOrderSequenceNumber)
        );
        producers.appended(&header(1, 0, 1), 12, 0);
        assert_eq!(
            producers.decide(&header(0, 12, 2)),
            Err(ResponseError::InvalidProducerEpoch)
        );
    }

    #[test]
    fn a_failed_append_leaves_no_trace() {
        let mut producers = Producers::default();
        producers.appended(&header(0, 0, 1), 0, 0);
        let known = producers.clone();
        let first = producers.appended(&header(0, 1, 1), 1, 5).unwrap();
        let second = producers.appended(&header(0, 2, 1), 2, 6).unwrap();
        producers.restore(second);
        producers.restore(first);
        assert_eq!(producers, known);
    }

    #[test]
    fn memory_is_bounded() {
        let mut producers = Producers::default();
        for id in 0..100_i64 {
            let mut header = header(0, 0, 1);
            header.producer_id = id;
            producers.appended(&header, id, id);
        }
        producers.expire(10, 20);
        assert_eq!(producers.len(), 20);
        assert!(producers.0.contains_key(&99) && !producers.0.contains_key(&79));
    }
}
