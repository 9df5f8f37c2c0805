//! The keys of the tables: parts that sort as their values do and never run into
//! one another.
//!
//! A text part is its bytes with every zero byte written as `00 FF`, ended by
//! `00 00`; so no text is the start of another, and the keys of one tenant, channel
//! or sender are one range that nobody else's name can reach. What must come newest
//! first is written as the complement of its big-endian bytes.

use crate::Error;
use crate::cursor::Position;

/// The storage engine's longest key.
const LONGEST: usize = u16::MAX as usize;
/// Bytes of a [`Position`] in a key.
pub(super) const POSITION: usize = 8 + 8 + 4;

/// The start of the keys of all channels' buckets.
pub(super) const ALL_CHANNELS: [u8; 1] = [Kind::Channel.buckets()];

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

    /// First byte of the keys of the rows.
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

/// The key that says that the bucket exists.
pub(super) fn bucket(kind: Kind, tenant: &str, name: &str, day: i32) -> Vec<u8> {
    let mut key = buckets(kind, tenant, name);
    key.extend(newest_first_day(day));
    key
}

/// The day in a key made by [`bucket`].
pub(super) fn day_of(key: &[u8]) -> Option<i32> {
    let bytes = *key.last_chunk::<4>()?;
    Some((!u32::from_be_bytes(bytes) ^ (1 << 31)).cast_signed())
}

/// The start of the keys of one bucket's rows.
pub(super) fn rows(kind: Kind, tenant: &str, name: &str, day: i32) -> Vec<u8> {
    let mut key = prefix(kind.rows(), tenant, name);
    key.extend(newest_first_day(day));
    key
}

/// The key of one row of a list.
pub(super) fn row(kind: Kind, tenant: &str, name: &str, position: Position) -> Vec<u8> {
    let mut key = rows(kind, tenant, name, day(position.received_at));
    key.extend(position_bytes(position));
    key
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

/// Of the days that have rows, by tenant, oldest first: two indexes over the channels'
/// buckets, for what runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Days on which there are rows.
    Verdicts,
    /// Days on which there are rows with a text.
    Texts,
}

impl Due {
    /// First byte of the keys.
    const fn tag(self) -> u8 {
        match self {
            Self::Verdicts => b'V',
            Self::Texts => b'T',
        }
    }

    /// The first key of a tenant, as long as its day is this one or later.
    pub(super) fn from(self, tenant: &str, day: i32) -> Vec<u8> {
        let mut key = vec![self.tag()];
        text(&mut key, tenant);
        key.extend(oldest_first(day));
        key
    }

    /// Behind every key of a tenant, or before those of all.
    pub(super) fn behind(self, tenant: Option<&str>) -> Vec<u8> {
        let mut key = vec![self.tag()];
        if let Some(tenant) = tenant {
            text(&mut key, tenant);
            // Behind the two zeros that end the name.
            key.pop();
            key.push(1);
        }
        key
    }

    /// Behind all of its keys.
    pub(super) fn end(self) -> Vec<u8> {
        vec![self.tag() + 1]
    }

    /// The key of a channel's day.
    pub(super) fn key(self, tenant: &str, channel: &str, day: i32) -> Vec<u8> {
        let mut key = self.from(tenant, day);
        text(&mut key, channel);
        key
    }

    /// Tenant, channel and day in a key.
    pub(super) fn parts(self, key: &[u8]) -> Option<(String, String, i32)> {
        let (tenant, rest) = untext(key.strip_prefix(&[self.tag()])?)?;
        let (day, rest) = rest.split_first_chunk::<4>()?;
        let (channel, _) = untext(rest)?;
        let day = (u32::from_be_bytes(*day) ^ (1 << 31)).cast_signed();
        Some((tenant, channel, day))
    }
}

/// The keys of both indexes for a channel's bucket; none for a sender's.
pub(super) fn days_of(bucket: &[u8]) -> Option<[Vec<u8>; 2]> {
    let rest = bucket.strip_prefix(&[Kind::Channel.buckets()])?;
    let (tenant, rest) = untext(rest)?;
    let (channel, _) = untext(rest)?;
    let day = day_of(bucket)?;
    Some([Due::Verdicts, Due::Texts].map(|due| due.key(&tenant, &channel, day)))
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

fn text(key: &mut Vec<u8>, part: &str) {
    for &byte in part.as_bytes() {
        key.push(byte);
        if byte == 0 {
            key.push(0xFF);
        }
    }
    key.extend([0, 0]);
}

/// The text at the start of a key, and what follows it.
fn untext(key: &[u8]) -> Option<(String, &[u8])> {
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

fn oldest_first(number: i32) -> [u8; 4] {
    (number.cast_unsigned() ^ (1 << 31)).to_be_bytes()
}

fn newest_first(number: i64) -> [u8; 8] {
    (!(number.cast_unsigned() ^ (1 << 63))).to_be_bytes()
}

fn newest_first_day(number: i32) -> [u8; 4] {
    (!(number.cast_unsigned() ^ (1 << 31))).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Names made to run into each other: few characters, among them the escaped one.
    fn name() -> impl Strategy<Value = String> {
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
            let one = rows(Kind::Sender, &t1, &n1, day1);
            let position = Position { received_at: i64::from(day2) * 86_400_000_000, offset: 7, partition: 0 };
            let two = row(Kind::Sender, &t2, &n2, position);
            prop_assert_eq!(two.starts_with(&one), t1 == t2 && n1 == n2 && day1 == day2);
            prop_assert_eq!(message(&t1, &n1) == message(&t2, &n2), t1 == t2 && n1 == n2);
        }

        #[test]
        fn later_rows_sort_first(a: (i64, i64, i32), b: (i64, i64, i32)) {
            let position = |(received_at, offset, partition)| Position { received_at, offset, partition };
            let key = |p| row(Kind::Channel, "t", "c", position(p));
            prop_assert_eq!(key(a).cmp(&key(b)), position(b).cmp(&position(a)));
            prop_assert_eq!(position_of(&key(a)), Some(position(a)));
            prop_assert_eq!(day_of(&bucket(Kind::Channel, "t", "c", a.2)), Some(a.2));
        }

        #[test]
        fn fences_name_their_partition(partition: i32) {
            prop_assert_eq!(fence_of(&fence(partition)), Some(partition));
        }
    }

    proptest! {
        #[test]
        fn days_that_run_out_are_found_by_tenant_oldest_first(
            (t1, n1, t2, n2) in (name(), name(), name(), name()), day1: i32, day2: i32,
        ) {
            for due in [Due::Verdicts, Due::Texts] {
                let (one, two) = (due.key(&t1, &n1, day1), due.key(&t2, &n2, day2));
                prop_assert_eq!(due.parts(&one), Some((t1.clone(), n1.clone(), day1)));
                prop_assert!(one >= due.behind(None) && one < due.end());
                let mine = due.from(&t1, i32::MIN)..due.behind(Some(&t1));
                prop_assert!(mine.contains(&one));
                prop_assert_eq!(mine.contains(&two), t1 == t2);
                if t1 == t2 && day1 < day2 {
                    prop_assert!(one < two && one < due.from(&t1, day2));
                }
            }
            let both = days_of(&bucket(Kind::Channel, &t1, &n1, day1));
            prop_assert_eq!(both, Some([Due::Verdicts, Due::Texts].map(|due| due.key(&t1, &n1, day1))));
            prop_assert_eq!(days_of(&bucket(Kind::Sender, &t1, &n1, day1)), None);
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
