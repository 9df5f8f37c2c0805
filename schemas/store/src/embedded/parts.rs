//! The parts of a day that a list has rows in.
//!
//! Rows of all lists lie together by the part of the day in which they were received. So
//! what is written now lies apart from everything before, and is never merged with it: a
//! write costs the same however much is stored. The entry that says that a list has rows on
//! a day says in which of its parts, so that a reader looks nowhere else.

use super::damaged;
use crate::Error;

const DAY: i64 = 86_400_000_000;
pub(super) const TEN_MINUTES: i64 = 600_000_000;
/// Bytes of [`Parts`]: a bit for each ten minutes of a day.
const BYTES: usize = (DAY / TEN_MINUTES) as usize / 8;

/// Which ten minutes of its day a moment, in microseconds since 1970, lies in.
pub(super) fn part(microseconds: i64) -> u8 {
    // 0 to 143.
    u8::try_from(microseconds.rem_euclid(DAY) / TEN_MINUTES).unwrap_or(u8::MAX)
}

/// Parts of a day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Parts([u8; BYTES]);

impl Parts {
    /// One of them.
    pub(super) fn one(part: u8) -> Self {
        let mut parts = Self::default();
        if let Some(byte) = parts.0.get_mut(usize::from(part / 8)) {
            *byte = 1 << (part % 8);
        }
        parts
    }

    /// Those of both.
    pub(super) fn and(mut self, others: Self) -> Self {
        for (byte, other) in self.0.iter_mut().zip(others.0) {
            *byte |= other;
        }
        self
    }

    /// Whether all of those are among them.
    pub(super) fn have(self, others: Self) -> bool {
        self.and(others) == self
    }

    /// The last of the day first.
    pub(super) fn newest_first(self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).rev().filter(move |part| {
            let byte = self.0.get(usize::from(part / 8));
            byte.is_some_and(|byte| byte & 1 << (part % 8) != 0)
        })
    }

    /// As they are stored.
    pub(super) const fn bytes(self) -> [u8; BYTES] {
        self.0
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Self, Error> {
        let bytes = bytes.try_into().map_err(|_| damaged("a day in `lists`"))?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_144_parts_also_before_1970() {
        let at = [0, TEN_MINUTES - 1, TEN_MINUTES, DAY - 1, DAY, -1, -DAY];
        assert_eq!(at.map(part), [0, 0, 1, 143, 0, 143, 0]);
    }

    #[test]
    fn parts_are_kept_and_come_newest_first() {
        let all = [0, 7, 8, 143].map(Parts::one);
        let parts = all.into_iter().fold(Parts::default(), Parts::and);
        assert_eq!(parts.newest_first().collect::<Vec<_>>(), [143, 8, 7, 0]);
        assert_eq!(Parts::read(&parts.bytes()).unwrap(), parts);
        assert!(all.iter().all(|one| parts.have(*one)) && !parts.have(Parts::one(9)));
        assert!(Parts::read(&[]).is_err());
    }
}
