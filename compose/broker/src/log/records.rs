//! Looking into a batch: whether uncompressed records are well formed, and which record answers a
//! time stamp. Unpacking is bounded, so that a small batch can't blow up memory.

use std::io::Read;

use super::batch::{HEADER, Header};

/// A batch that unpacks to more is answered as a whole instead of by record.
const MAX_UNPACKED: u64 = 64 << 20;

/// Reads one zig-zag variable-length integer.
fn varint(buffer: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = buffer.split_first()?;
        *buffer = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            #[allow(clippy::cast_possible_wrap)]
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

/// Takes the bytes of one record off the front.
fn record<'a>(body: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint(body)?).ok()?;
    let (record, rest) = body.split_at_checked(length)?;
    *body = rest;
    Some(record)
}

/// Whether `body` is exactly `count` records, numbered from 0.
pub(crate) fn well_formed(mut body: &[u8], count: i32) -> bool {
    for index in 0..i64::from(count) {
        let numbered = record(&mut body).and_then(|record| {
            let mut fields = record.get(1..)?;
            varint(&mut fields)?;
            varint(&mut fields)
        });
        if numbered != Some(index) {
            return false;
        }
    }
    body.is_empty()
}

/// The first record of a batch from the offset `from` on whose time stamp (milliseconds) `wanted`
/// accepts: offset and time stamp.
///
/// A batch that can't be unpacked within bounds answers with its first offset.
pub(crate) fn find(
    header: &Header,
    batch: &[u8],
    from: i64,
    wanted: impl Fn(i64) -> bool,
) -> Option<(i64, i64)> {
    if header.log_append_time() {
        let first = header.base_offset.max(from);
        let found = first <= header.last_offset() && wanted(header.max_timestamp);
        return found.then_some((first, header.max_timestamp));
    }
    let Some(body) = batch
        .get(HEADER..header.bytes)
        .and_then(|body| unpacked(header.codec(), body))
    else {
        return Some((header.base_offset, header.base_timestamp));
    };
    let mut rest = body.as_slice();
    while let Some(record) = record(&mut rest) {
        let mut fields = record.get(1..)?;
        let timestamp = header.base_timestamp.checked_add(varint(&mut fields)?)?;
        let offset = header.base_offset.checked_add(varint(&mut fields)?)?;
        if offset >= from && wanted(timestamp) {
            return Some((offset, timestamp));
        }
    }
    None
}

fn unpacked(codec: u16, body: &[u8]) -> Option<Vec<u8>> {
    match codec {
        0 => Some(body.to_vec()),
        1 => bounded(flate2::read::GzDecoder::new(body)),
        2 => snappy(body),
        3 => bounded(lz4_flex::frame::FrameDecoder::new(body)),
        4 => bounded(zstd::stream::read::Decoder::with_buffer(body).ok()?),
        _ => None,
    }
}

fn bounded(reader: impl Read) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    reader.take(MAX_UNPACKED + 1).read_to_end(&mut out).ok()?;
    (out.len() as u64 <= MAX_UNPACKED).then_some(out)
}

/// Raw snappy, or the framing of the Java client (xerial): a magic, two versions, then sized blocks.
fn snappy(body: &[u8]) -> Option<Vec<u8>> {
    const XERIAL: &[u8] = b"\x82SNAPPY\0";
    let Some(framed) = body.strip_prefix(XERIAL) else {
        return raw_snappy(body);
    };
    let mut rest = framed.get(8..)?;
    let mut out = Vec::new();
    while let Some((size, tail)) = rest.split_first_chunk::<4>() {
        let (block, tail) =
            tail.split_at_checked(usize::try_from(u32::from_be_bytes(*size)).ok()?)?;
        out.extend_from_slice(&raw_snappy(block)?);
        if out.len() as u64 > MAX_UNPACKED {
            return None;
        }
        rest = tail;
    }
    Some(out)
}

fn raw_snappy(block: &[u8]) -> Option<Vec<u8>> {
    if snap::raw::decompress_len(block).ok()? as u64 > MAX_UNPACKED {
        return None;
    }
    snap::raw::Decoder::new().decompress_vec(block).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::super::batch::tests::batch;
    use super::*;

    pub(crate) fn put_varint(out: &mut Vec<u8>, value: i64) {
        let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
        while rest >= 0x80 {
            out.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
            rest >>= 7;
        }
        out.push(u8::try_from(rest).unwrap());
    }

    #[test]
    fn varints_come_back() {
        for value in [
            0,
            -1,
            1,
            63,
            64,
            -65,
            i64::from(i32::MAX),
            i64::MIN,
            i64::MAX,
        ] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(varint(&mut out.as_slice()), Some(value));
        }
        assert_eq!(varint(&mut [0x80; 11].as_slice()), None);
    }

    #[test]
    fn records_must_be_as_many_as_counted() {
        let two = batch(&[b"a", b"bb"], (-1, -1, -1), 0);
        assert!(well_formed(&two[HEADER..], 2));
        assert!(!well_formed(&two[HEADER..], 1));
        assert!(!well_formed(&two[HEADER..], 3));
        assert!(!well_formed(&two[HEADER..two.len() - 1], 2));
    }

    #[test]
    fn the_record_of_a_time_is_found() {
        let bytes = batch(&[b"a", b"b"], (-1, -1, -1), 50);
        let header = Header::parse(&bytes).unwrap();
        assert_eq!(find(&header, &bytes, 0, |at| at >= 50), Some((0, 50)));
        assert_eq!(find(&header, &bytes, 0, |at| at > 50), None);
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        for _ in 0..(MAX_UNPACKED / (1 << 20) + 1) {
            std::io::Write::write_all(&mut bomb, &vec![0; 1 << 20]).unwrap();
        }
        assert_eq!(unpacked(1, &bomb.finish().unwrap()), None);
    }
}
