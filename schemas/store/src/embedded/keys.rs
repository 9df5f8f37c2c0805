//! The keys of the tables: parts that sort as their values do and never run into
//! one another.
//!
//! A text part is its bytes with every zero byte written as `00 FF`, ended by
//! `00 00`; so no text is the start of another, and the keys of one tenant, channel
//! or sender are one range that nobody else's name can reach. What must come newest
//! first is written as the complement of its big-endian bytes.

use super::parts::part;
use crate::Error;
use crate::cursor::Position;

/// The storage engine's longest key.
const LONGEST: usize = u16::MAX as usize;
/// Bytes of a [`Position`] in a key.
pub(super) const POSITION: usize = 8 + 8 + 4;

/// The start of the keys of all channels' buckets.
pub(super) const ALL_CHANNELS: [u8; 1] = [Kind::Channel.buckets()];
/// First bytes of the keys of buckets.
pub(super) const BUCKETS: [u8; 2] = [Kind::Channel.buckets(), Kind::Sender.buckets()];
/// First bytes of the keys of rows in format 2.
pub(super) const SECOND_ROWS: [u8; 2] = [Kind::Channel.rows(), Kind::Sender.rows()];

/// Two lists of messages are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Channel,
    Sender,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::Sender => "sender",
        }
    }

    /// In the keys of the rows.
    const fn rows(self) -> u8 {
        match self {
            Self::Channel => b'c',
            Self::Sender => b's',
        }
    }

    /// First byte of the keys that name the existing buckets.
    const fn buckets(self) -> u8 {
        match self {
            Self::Channel => b'C',
            Self::Sender => b'S',
        }
    }
}

/// The key of a message.
pub(super) fn message(tenant: &str, id: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(tenant.len() + id.len() + 4);
    text(&mut key, tenant);
    text(&mut key, id);
    key
}

/// The start of the keys of a list's buckets.
pub(super) fn buckets(kind: Kind, tenant: &str, name: &str) -> Vec<u8> {
    prefix(kind.buckets(), tenant, name)
}

/// The key that says that the bucket exists, and in which parts of the day.
pub(super) fn bucket(kind: Kind, tenant: &str, name: &str, day: i32) -> Vec<u8> {
    let mut key = buckets(kind, tenant, name);
    key.extend(newest_first_day(day));
    key
}

/// Tenant, name and day in a key made by [`bucket`].
pub(super) fn bucket_of(kind: Kind, key: &[u8]) -> Option<(String, String, i32)> {
    let (tenant, rest) = untext(key.strip_prefix(&[kind.buckets()])?)?;
    let (name, _) = untext(rest)?;
    Some((tenant, name, day_of(key)?))
}

/// The day in a key made by [`bucket`].
pub(super) fn day_of(key: &[u8]) -> Option<i32> {
    let bytes = *key.last_chunk::<4>()?;
    Some((!u32::from_be_bytes(bytes) ^ (1 << 31)).cast_signed())
}

/// The start of the keys of a list's rows of one part of a day.
pub(super) fn rows(kind: Kind, tenant: &str, name: &str, day: i32, part: u8) -> Vec<u8> {
    let names = tenant.len() + name.len() + 4;
    let mut key = Vec::with_capacity(4 + 1 + 1 + names + POSITION);
    key.extend(oldest_first(day));
    key.extend([part, kind.rows()]);
    text(&mut key, tenant);
    text(&mut key, name);
    key
}

/// The key of one row of a list.
pub(super) fn row(kind: Kind, tenant: &str, name: &str, position: Position) -> Vec<u8> {
    let at = position.received_at;
    let mut key = rows(kind, tenant, name, day(at), part(at));
    key.extend(position_bytes(position));
    key
}

/// The longest key of a row of that list.
pub(super) fn longest(kind: Kind, tenant: &str, name: &str) -> Vec<u8> {
    let mut key = rows(kind, tenant, name, 0, 0);
    key.extend([0; POSITION]);
    key
}

/// Of the key of a row in format 2, which was kind, tenant, name, day and position: the key
/// of its bucket, its key of today, and its position.
pub(super) fn of_second(key: &[u8]) -> Option<(Vec<u8>, Vec<u8>, Position)> {
    let kind = [Kind::Channel, Kind::Sender]
        .into_iter()
        .find(|kind| key.first() == Some(&kind.rows()))?;
    let (tenant, rest) = untext(key.get(1..)?)?;
    let (name, _) = untext(rest)?;
    let position = position_of(key)?;
    let day = day(position.received_at);
    let bucket = bucket(kind, &tenant, &name, day);
    Some((bucket, row(kind, &tenant, &name, position), position))
}

/// A position as it ends the key of a row.
pub(super) fn position_bytes(position: Position) -> [u8; POSITION] {
    let mut bytes = [0; POSITION];
    bytes[..8].copy_from_slice(&newest_first(position.received_at));
    bytes[8..16].copy_from_slice(&newest_first(position.offset));
    bytes[16..].copy_from_slice(&newest_first_day(position.partition));
    bytes
}

/// The position in a key made by [`row`].
pub(super) fn position_of(key: &[u8]) -> Option<Position> {
    let bytes: &[u8; POSITION] = key.last_chunk()?;
    let number = |at: usize| -> Option<i64> {
        let bytes = *bytes[at..].first_chunk::<8>()?;
        Some((!u64::from_be_bytes(bytes) ^ (1 << 63)).cast_signed())
    };
    Some(Position {
        received_at: number(0)?,
        offset: number(8)?,
        partition: day_of(bytes)?,
    })
}

/// Days since 1970-01-01, UTC, of microseconds since then.
pub(super) fn day(microseconds: i64) -> i32 {
    let days = microseconds.div_euclid(86_400_000_000);
    // An i64 of microseconds is some 107 million days.
    i32::try_from(days).unwrap_or(i32::MAX)
}

/// The key of a partition's fence.
pub(super) fn fence(partition: i32) -> Vec<u8> {
    let mut key = b"fence/".to_vec();
    key.extend(partition.to_be_bytes());
    key
}

/// The partition in a key made by [`fence`].
pub(super) fn fence_of(key: &[u8]) -> Option<i32> {
    let bytes = key.strip_prefix(b"fence/")?;
    Some(i32::from_be_bytes(bytes.try_into().ok()?))
}

/// A key of the accounts: a tag and text parts.
pub(super) fn account(tag: u8, parts: &[&str]) -> Vec<u8> {
    let mut key = vec![tag];
    for part in parts {
        text(&mut key, part);
    }
    key
}

/// Refuses a key that the engine would not take.
pub(super) fn fits(key: Vec<u8>) -> Result<Vec<u8>, Error> {
    if key.len() > LONGEST {
        return Err(Error::Refused(
            "its tenant, channel, sender or id is too long",
        ));
    }
    Ok(key)
}

fn prefix(tag: u8, tenant: &str, name: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + tenant.len() + name.len() + 4 + 4 + POSITION);
    key.push(tag);
    text(&mut key, tenant);
    text(&mut key, name);
    key
}

pub(super) fn text(key: &mut Vec<u8>, part: &str) {
    for &byte in part.as_bytes() {
        key.push(byte);
        if byte == 0 {
            key.push(0xFF);
        }
    }
    key.extend([0, 0]);
}

/// The text at the start of a key, and what follows it.
pub(super) fn untext(key: &[u8]) -> Option<(String, &[u8])> {
    let mut part = Vec::new();
    let mut rest = key;
    loop {
        match rest {
            [0, 0, rest @ ..] => return Some((String::from_utf8(part).ok()?, rest)),
            [0, 0xFF, behind @ ..] => {
                part.push(0);
                rest = behind;
            }
            [0, ..] | [] => return None,
            [byte, behind @ ..] => {
                part.push(*byte);
                rest = behind;
            }
        }
    }
}

pub(super) fn oldest_first(number: i32) -> [u8; 4] {
    (number.cast_unsigned() ^ (1 << 31)).to_be_bytes()
}

fn newest_first(number: i64) -> [u8; 8] {
    (!(number.cast_unsigned() ^ (1 << 63))).to_be_bytes()
}

fn newest_first_day(number: i32) -> [u8; 4] {
    (!(number.cast_unsigned() ^ (1 << 31))).to_be_bytes()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::parts::TEN_MINUTES;
    use super::*;
    use proptest::prelude::*;

    /// Names made to run into each other: few characters, among them the escaped one.
    pub(in super::super) fn name() -> impl Strategy<Value = String> {
        proptest::collection::vec(
            prop_oneof![Just('\0'), Just('\u{1}'), Just('a'), Just('ÿ')],
            0..5,
        )
        .prop_map(|chars| chars.into_iter().collect())
    }

    proptest! {
        #[test]
        fn no_name_reaches_into_the_range_of_another(
            (t1, n1, t2, n2) in (name(), name(), name(), name()),
            day1 in -100_000..100_000, day2 in -100_000..100_000,
        ) {
            let one = buckets(Kind::Channel, &t1, &n1);
            let two = bucket(Kind::Channel, &t2, &n2, day2);
            prop_assert_eq!(two.starts_with(&one), t1 == t2 && n1 == n2);
            let one = rows(Kind::Sender, &t1, &n1, day1, 0);
            let position = Position { received_at: i64::from(day2) * 86_400_000_000, offset: 7, partition: 0 };
            let two = row(Kind::Sender, &t2, &n2, position);
            prop_assert_eq!(two.starts_with(&one), t1 == t2 && n1 == n2 && day1 == day2);
            prop_assert_eq!(longest(Kind::Sender, &t2, &n2).len(), two.len());
            prop_assert_eq!(message(&t1, &n1) == message(&t2, &n2), t1 == t2 && n1 == n2);
        }

        #[test]
        fn later_rows_sort_first_in_their_part_and_later_parts_last(
            a: (i64, i64, i32), b: (i64, i64, i32), near in 0..TEN_MINUTES,
        ) {
            let position = |(received_at, offset, partition)| Position { received_at, offset, partition };
            let key = |p| row(Kind::Channel, "t", "c", position(p));
            for b in [b, (a.0.saturating_add(near), b.1, b.2)] {
                let [one, two] = [a, b].map(|p| (day(p.0), part(p.0)));
                let inside = position(b).cmp(&position(a));
                prop_assert_eq!(key(a).cmp(&key(b)), one.cmp(&two).then(inside));
            }
            prop_assert_eq!(position_of(&key(a)), Some(position(a)));
            prop_assert_eq!(day_of(&bucket(Kind::Channel, "t", "c", a.2)), Some(a.2));
        }

        #[test]
        fn a_row_of_format_2_is_told_from_its_key(t in name(), n in name(), at: i64, offset: i64, partition: i32) {
            let position = Position { received_at: at, offset, partition };
            for kind in [Kind::Channel, Kind::Sender] {
                let mut second = prefix(kind.rows(), &t, &n);
                second.extend(newest_first_day(day(at)));
                second.extend(position_bytes(position));
                let now = (bucket(kind, &t, &n, day(at)), row(kind, &t, &n, position), position);
                prop_assert_eq!(of_second(&second), Some(now));
            }
        }

        #[test]
        fn fences_name_their_partition(partition: i32) {
            prop_assert_eq!(fence_of(&fence(partition)), Some(partition));
        }
    }

    #[test]
    fn days_begin_at_midnight_also_before_1970() {
        assert_eq!(day(0), 0);
        assert_eq!(day(-1), -1);
        assert_eq!(day(86_400_000_000 - 1), 0);
        assert_eq!(day(86_400_000_000), 1);
    }

    #[test]
    fn a_key_beyond_the_engine_is_refused() {
        assert!(fits(message("t", &"x".repeat(60_000))).is_ok());
        assert!(matches!(
            fits(message("t", &"x".repeat(70_000))),
            Err(Error::Refused(_))
        ));
    }
}
