//! The header of a record batch (format version "magic" 2) and what a produced batch must satisfy.
//!
//! The format is Kafka's: <https://kafka.apache.org/documentation/#recordbatch>. The CRC-32C covers
//! everything from the attributes on, so base offset and leader epoch can be set without touching it.

use bytes::Bytes;
use kafka_protocol::ResponseError;

use super::records;

/// Bytes of a batch header.
pub(crate) const HEADER: usize = 61;
/// Bytes before the part that the header's length field counts.
const LENGTH_BASE: usize = 12;
/// Where the part starts that the CRC covers.
const CRC_FROM: usize = 21;
const ATTRIBUTES: usize = 21;
const MAX_TIMESTAMP: usize = 35;
const LOG_APPEND_TIME: u16 = 1 << 3;
const TRANSACTIONAL: u16 = 1 << 4;
const CONTROL: u16 = 1 << 5;

/// The fields of a batch header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) base_offset: i64,
    /// Bytes of the whole batch, header included.
    pub(crate) bytes: usize,
    pub(crate) magic: i8,
    pub(crate) crc: u32,
    pub(crate) attributes: u16,
    pub(crate) last_offset_delta: i32,
    pub(crate) base_timestamp: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    pub(crate) count: i32,
}

fn field<const N: usize>(batch: &[u8], at: usize) -> [u8; N] {
    // Callers have checked that the header is there.
    std::array::from_fn(|index| batch.get(at + index).copied().unwrap_or_default())
}

impl Header {
    /// Reads a header; `None` when there are too few bytes or its length field is impossible.
    pub(crate) fn parse(batch: &[u8]) -> Option<Self> {
        if batch.len() < HEADER {
            return None;
        }
        let length = usize::try_from(i32::from_be_bytes(field(batch, 8))).ok()?;
        let bytes = length + LENGTH_BASE;
        if bytes < HEADER {
            return None;
        }
        Some(Self {
            base_offset: i64::from_be_bytes(field(batch, 0)),
            bytes,
            magic: i8::from_be_bytes(field(batch, 16)),
            crc: u32::from_be_bytes(field(batch, 17)),
            attributes: u16::from_be_bytes(field(batch, ATTRIBUTES)),
            last_offset_delta: i32::from_be_bytes(field(batch, 23)),
            base_timestamp: i64::from_be_bytes(field(batch, 27)),
            max_timestamp: i64::from_be_bytes(field(batch, MAX_TIMESTAMP)),
            producer_id: i64::from_be_bytes(field(batch, 43)),
            producer_epoch: i16::from_be_bytes(field(batch, 51)),
            base_sequence: i32::from_be_bytes(field(batch, 53)),
            count: i32::from_be_bytes(field(batch, 57)),
        })
    }

    /// Offset of the last record.
    pub(crate) fn last_offset(&self) -> i64 {
        self.base_offset
            .saturating_add(i64::from(self.last_offset_delta))
    }

    /// Offset after the last record.
    pub(crate) fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// Compression codec: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
    pub(crate) fn codec(&self) -> u16 {
        self.attributes & 0b111
    }

    /// Whether the broker's clock stamped the records.
    pub(crate) fn log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    /// Whether an idempotent producer sent it.
    pub(crate) fn idempotent(&self) -> bool {
        self.producer_id >= 0
    }

    /// Sequence number of the last record; sequence numbers wrap at 2^31.
    pub(crate) fn last_sequence(&self) -> i32 {
        add_sequence(self.base_sequence, self.last_offset_delta)
    }

    /// Whether the stored bytes are what was stored. `batch` starts with this header.
    pub(crate) fn intact(&self, batch: &[u8]) -> bool {
        self.magic == 2
            && self.last_offset_delta >= 0
            && batch
                .get(CRC_FROM..self.bytes)
                .is_some_and(|body| crc32c::crc32c(body) == self.crc)
    }
}

/// Adds to a sequence number, which wraps from 2^31 - 1 to 0.
pub(crate) fn add_sequence(sequence: i32, delta: i32) -> i32 {
    let sum = i64::from(sequence) + i64::from(delta);
    i32::try_from(sum % (i64::from(i32::MAX) + 1)).unwrap_or_default()
}

/// What a topic demands of a produced batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Demand {
    /// `max.message.bytes` of the topic.
    pub(crate) max_bytes: usize,
    /// Stamp the batch with this time (milliseconds) instead of the producer's.
    pub(crate) append_time: Option<i64>,
}

/// A batch that may be appended.
#[derive(Debug, Clone)]
pub(crate) struct Checked {
    pub(crate) header: Header,
    pub(crate) bytes: Bytes,
}

/// Checks what a producer sent for one partition: exactly one whole batch, intact, with as many
/// records as it says. Compressed records are not unpacked.
///
/// # Errors
/// The protocol's error for the partition.
pub(crate) fn check(bytes: Bytes, demand: Demand) -> Result<Checked, ResponseError> {
    if bytes.len() > demand.max_bytes {
        return Err(ResponseError::MessageTooLarge);
    }
    if bytes.get(16).is_some_and(|magic| *magic != 2) {
        return Err(ResponseError::UnsupportedForMessageFormat);
    }
    let header = Header::parse(&bytes).ok_or(ResponseError::CorruptMessage)?;
    if header.bytes > bytes.len() || !header.intact(&bytes) {
        return Err(ResponseError::CorruptMessage);
    }
    let one_batch = header.bytes == bytes.len();
    let counted = header.count > 0 && header.count == header.last_offset_delta.saturating_add(1);
    let plain = header.attributes & (TRANSACTIONAL | CONTROL) == 0 && header.codec() <= 4;
    let sequenced =
        !header.idempotent() || (header.base_sequence >= 0 && header.producer_epoch >= 0);
    let records_fit = header.codec() != 0
        || bytes
            .get(HEADER..)
            .is_some_and(|body| records::well_formed(body, header.count));
    if !(one_batch && counted && plain && sequenced && records_fit) {
        return Err(ResponseError::InvalidRecord);
    }
    Ok(match demand.append_time {
        Some(now) => stamped(header, &bytes, now),
        None => Checked { header, bytes },
    })
}

/// Sets the time-stamp type and the largest time stamp, and the CRC that follows from them.
fn stamped(mut header: Header, bytes: &Bytes, now: i64) -> Checked {
    let mut copy = bytes.to_vec();
    header.attributes |= LOG_APPEND_TIME;
    header.max_timestamp = now;
    put(&mut copy, ATTRIBUTES, &header.attributes.to_be_bytes());
    put(&mut copy, MAX_TIMESTAMP, &now.to_be_bytes());
    header.crc = crc32c::crc32c(copy.get(CRC_FROM..).unwrap_or_default());
    put(&mut copy, 17, &header.crc.to_be_bytes());
    Checked {
        header,
        bytes: Bytes::from(copy),
    }
}

fn put(batch: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = batch.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// The header bytes as they are stored: with the assigned base offset, and leader epoch 0.
pub(crate) fn stored_header(bytes: &[u8], base_offset: i64) -> [u8; HEADER] {
    let mut header: [u8; HEADER] = field(bytes, 0);
    put(&mut header, 0, &base_offset.to_be_bytes());
    put(&mut header, 12, &0_i32.to_be_bytes());
    header
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;

    /// One uncompressed batch of `values`, as a producer sends it.
    pub(crate) fn batch(values: &[&[u8]], producer: (i64, i16, i32), timestamp: i64) -> Bytes {
        let mut body = Vec::new();
        for (index, value) in values.iter().enumerate() {
            let mut record = vec![0_u8]; // attributes
            records::tests::put_varint(&mut record, 0); // time-stamp delta
            records::tests::put_varint(&mut record, i64::try_from(index).unwrap());
            records::tests::put_varint(&mut record, -1); // no key
            records::tests::put_varint(&mut record, i64::try_from(value.len()).unwrap());
            record.extend_from_slice(value);
            records::tests::put_varint(&mut record, 0); // no headers
            records::tests::put_varint(&mut body, i64::try_from(record.len()).unwrap());
            body.extend_from_slice(&record);
        }
        let count = i32::try_from(values.len()).unwrap();
        let mut batch = Vec::new();
        batch.extend_from_slice(&0_i64.to_be_bytes());
        batch.extend_from_slice(
            &i32::try_from(body.len() + HEADER - LENGTH_BASE)
                .unwrap()
                .to_be_bytes(),
        );
        batch.extend_from_slice(&0_i32.to_be_bytes());
        batch.push(2);
        batch.extend_from_slice(&0_u32.to_be_bytes());
        batch.extend_from_slice(&0_u16.to_be_bytes());
        batch.extend_from_slice(&(count - 1).to_be_bytes());
        batch.extend_from_slice(&timestamp.to_be_bytes());
        batch.extend_from_slice(&timestamp.to_be_bytes());
        batch.extend_from_slice(&producer.0.to_be_bytes());
        batch.extend_from_slice(&producer.1.to_be_bytes());
        batch.extend_from_slice(&producer.2.to_be_bytes());
        batch.extend_from_slice(&count.to_be_bytes());
        batch.extend_from_slice(&body);
        let crc = crc32c::crc32c(&batch[CRC_FROM..]);
        batch[17..21].copy_from_slice(&crc.to_be_bytes());
        Bytes::from(batch)
    }

    fn demand() -> Demand {
        Demand {
            max_bytes: 1_048_588,
            append_time: None,
        }
    }

    #[test]
    fn a_whole_batch_passes_and_any_flipped_bit_of_it_does_not() {
        let good = batch(&[b"one", b"two"], (-1, -1, -1), 7);
        let checked = check(good.clone(), demand()).unwrap();
        assert_eq!((checked.header.count, checked.header.max_timestamp), (2, 7));
        // Base offset and leader epoch are the broker's to set, all else is covered.
        for at in (8..12).chain(16..good.len()) {
            let mut bad = good.to_vec();
            bad[at] ^= 0x10;
            assert!(check(Bytes::from(bad), demand()).is_err(), "byte {at}");
        }
    }

    #[test]
    fn what_is_not_one_plain_batch_is_refused() {
        let good = batch(&[b"one"], (-1, -1, -1), 7);
        let too_small = Demand {
            max_bytes: good.len() - 1,
            ..demand()
        };
        assert_eq!(
            check(good.clone(), too_small).unwrap_err(),
            ResponseError::MessageTooLarge
        );
        assert_eq!(
            check(good.slice(..good.len() - 1), demand()).unwrap_err(),
            ResponseError::CorruptMessage
        );
        assert_eq!(
            check(Bytes::new(), demand()).unwrap_err(),
            ResponseError::CorruptMessage
        );
        let two = [good.clone(), good.clone()].concat();
        assert_eq!(
            check(Bytes::from(two), demand()).unwrap_err(),
            ResponseError::InvalidRecord
        );
        let mut miscounted = good.to_vec();
        miscounted[57..61].copy_from_slice(&9_i32.to_be_bytes());
        let crc = crc32c::crc32c(&miscounted[CRC_FROM..]);
        miscounted[17..21].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(
            check(Bytes::from(miscounted), demand()).unwrap_err(),
            ResponseError::InvalidRecord
        );
    }

    #[test]
    fn a_stamped_batch_is_intact_again() {
        let good = batch(&[b"one"], (-1, -1, -1), 7);
        let stamped = check(
            good,
            Demand {
                append_time: Some(99),
                ..demand()
            },
        )
        .unwrap();
        let header = Header::parse(&stamped.bytes).unwrap();
        assert!(header.intact(&stamped.bytes) && header.log_append_time());
        assert_eq!(header.max_timestamp, 99);
    }

    #[test]
    fn sequence_numbers_wrap() {
        assert_eq!(add_sequence(i32::MAX, 1), 0);
        assert_eq!(add_sequence(5, 3), 8);
    }
}
