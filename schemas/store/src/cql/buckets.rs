//! Which partition a row of a list goes to, and what is known of the partitions.
//!
//! A list has a bucket for each day. A day that grows beyond what a partition should
//! hold is split: what comes then goes to buckets of a minute each. Both kinds lie in
//! the same table, and the index says which days and minutes there are. A reader merges
//! the two, and a row that a replay put into the other kind is the same row there; so
//! nothing depends on who splits, or when.
//!
//! Only what is durable is remembered here: a writer that has not yet written an entry
//! of the index leaves it to every other writer to write it too.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;

/// The minute of the bucket that holds a day's first rows.
pub(super) const WHOLE_DAY: i32 = -1;
/// The last minute of a day.
pub(super) const LAST_MINUTE: i32 = 24 * 60 - 1;
/// Days of lists that are remembered, about 200 bytes each.
const REMEMBERED: usize = 50_000;

const MINUTE: i64 = 60_000_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// Two lists of messages are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
}

/// One day of one list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ListDay {
    pub(super) kind: Kind,
    pub(super) tenant: String,
    pub(super) name: String,
    pub(super) day: i32,
}

/// Days since 1970-01-01, UTC, of microseconds since then.
pub(super) fn day(microseconds: i64) -> i32 {
    // An i64 of microseconds is some 107 million days.
    i32::try_from(microseconds.div_euclid(DAY)).unwrap_or(i32::MAX)
}

/// Minutes since midnight, UTC.
pub(super) fn minute(microseconds: i64) -> i32 {
    i32::try_from(microseconds.rem_euclid(DAY) / MINUTE).unwrap_or(LAST_MINUTE)
}

/// Microseconds since 1970 of the end of a day.
pub(super) const fn end_of(day: i32) -> i64 {
    (day as i64 + 1) * DAY
}

/// Where a row goes, and which entries the index needs first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// [`WHOLE_DAY`] or a minute.
    pub(super) minute: i32,
    /// The entry that the day is split may be missing.
    pub(super) split: bool,
    /// The entry of the minute may be missing.
    pub(super) new: bool,
}

/// What this process knows about the lists it writes.
pub(super) struct Tallies {
    limit: u32,
    lists: Mutex<HashMap<ListDay, Tally>>,
}

#[derive(Default)]
struct Tally {
    /// Rows that were there when this process came, and those that it has placed since.
    rows: u32,
    /// The index says that the day is split.
    split: bool,
    /// Minutes that the index has.
    minutes: HashSet<i32>,
}

impl Tallies {
    /// With `limit` rows in a day, as far as this process knows, before the day is split.
    pub(super) fn new(limit: u32) -> Self {
        Self {
            limit,
            lists: Mutex::default(),
        }
    }

    /// Whether the index is known to have that day.
    pub(super) fn knows(&self, list: &ListDay) -> bool {
        self.lists.lock().contains_key(list)
    }

    /// Notes that the index has that day, whether it says that the day is split, and how
    /// many rows its bucket holds.
    pub(super) fn learn(&self, list: ListDay, split: bool, rows: u32) {
        let mut lists = self.lists.lock();
        if lists.len() >= REMEMBERED {
            forget(&mut lists, list.day, self.limit);
        }
        let tally = lists.entry(list).or_default();
        tally.split |= split;
        tally.rows = tally.rows.max(rows);
    }

    /// Notes that the index has that minute, and so that the day is split.
    pub(super) fn learn_minute(&self, list: &ListDay, minute: i32) {
        if let Some(tally) = self.lists.lock().get_mut(list) {
            tally.split = true;
            tally.minutes.insert(minute);
        }
    }

    /// Counts a row in and says where it goes.
    pub(super) fn place(&self, list: &ListDay, minute: i32) -> Place {
        let mut lists = self.lists.lock();
        // A list forgotten since its day was looked up is counted from the start.
        let tally = lists.entry(list.clone()).or_default();
        tally.rows = tally.rows.saturating_add(1);
        if tally.split || tally.rows > self.limit {
            Place {
                minute,
                split: !tally.split,
                new: !tally.minutes.contains(&minute),
            }
        } else {
            Place {
                minute: WHOLE_DAY,
                split: false,
                new: false,
            }
        }
    }
}

/// Makes room: the small and the old go first, since it is the count of the large ones
/// that keeps their partitions bounded.
fn forget(lists: &mut HashMap<ListDay, Tally>, today: i32, limit: u32) {
    let newest = lists.keys().map(|list| list.day).fold(today, i32::max);
    let mut least = limit / 100;
    while lists.len() > REMEMBERED / 2 {
        lists.retain(|list, tally| {
            list.day >= newest.saturating_sub(1) && (tally.split || tally.rows >= least)
        });
        if least > limit {
            lists.clear();
        }
        least = least.saturating_mul(4).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(name: &str, day: i32) -> ListDay {
        ListDay {
            kind: Kind::Channel,
            tenant: "acme".into(),
            name: name.into(),
            day,
        }
    }

    proptest! {
        #[test]
        fn a_moment_lies_in_its_day_and_minute(at in -i64::MAX / 4..i64::MAX / 4) {
            let (day, minute) = (day(at), minute(at));
            prop_assert!((0..=LAST_MINUTE).contains(&minute));
            let start = end_of(day) - DAY + i64::from(minute) * MINUTE;
            prop_assert!((start..start + MINUTE).contains(&at));
        }

        #[test]
        fn earlier_rows_never_lie_in_a_later_bucket(a: i32, b: i32) {
            let at = |n: i32| i64::from(n) * 1_000_000;
            let bucket = |n| (day(at(n)), minute(at(n)));
            prop_assert_eq!(bucket(a).cmp(&bucket(b)).then(a.cmp(&b)), a.cmp(&b));
        }
    }

    #[test]
    fn a_day_is_split_once_it_is_full() {
        let (tallies, lobby) = (Tallies::new(2), list("lobby", 1));
        tallies.learn(lobby.clone(), false, 0);
        for _ in 0..2 {
            assert_eq!(tallies.place(&lobby, 7).minute, WHOLE_DAY);
        }
        let split = Place {
            minute: 7,
            split: true,
            new: true,
        };
        assert_eq!(tallies.place(&lobby, 7), split);
        assert_eq!(tallies.place(&lobby, 7), split, "not written yet");
        tallies.learn_minute(&lobby, 7);
        let known = Place {
            split: false,
            new: false,
            ..split
        };
        assert_eq!(tallies.place(&lobby, 7), known);
        assert!(tallies.place(&lobby, 8).new);
        assert_eq!(
            tallies.place(&list("lobby", 2), 7).minute,
            WHOLE_DAY,
            "another day"
        );
    }

    #[test]
    fn what_a_day_held_before_counts() {
        let (tallies, lobby) = (Tallies::new(2), list("lobby", 1));
        tallies.learn(lobby.clone(), false, 1);
        assert_eq!(tallies.place(&lobby, 7).minute, WHOLE_DAY);
        assert_eq!(tallies.place(&lobby, 7).minute, 7);
    }

    #[test]
    fn a_day_that_the_index_says_is_split_stays_so() {
        let (tallies, lobby) = (Tallies::new(2), list("lobby", 1));
        tallies.learn(lobby.clone(), true, 0);
        assert_eq!(tallies.place(&lobby, 7).minute, 7);
    }

    #[test]
    fn memory_is_bounded_and_the_large_lists_are_remembered() {
        let (tallies, large) = (Tallies::new(1_000), list("large", 1));
        tallies.learn(large.clone(), false, 0);
        for _ in 0..900 {
            tallies.place(&large, 0);
        }
        for n in 0..3 * REMEMBERED {
            tallies.learn(list(&format!("small-{n}"), 1), false, 0);
        }
        assert!(tallies.lists.lock().len() <= REMEMBERED);
        for _ in 900..1_000 {
            assert_eq!(tallies.place(&large, 0).minute, WHOLE_DAY);
        }
        assert_eq!(
            tallies.place(&large, 0).minute,
            0,
            "its rows were counted on"
        );
    }

    #[test]
    fn lists_of_days_gone_by_are_forgotten_first() {
        let (tallies, today) = (Tallies::new(1), list("lobby", 3));
        tallies.learn(today.clone(), true, 0);
        for n in 1..REMEMBERED {
            tallies.learn(list(&format!("old-{n}"), 1), true, 0);
        }
        tallies.learn(list("new", 3), false, 0);
        assert!(tallies.knows(&today));
        assert!(!tallies.knows(&list("old-1", 1)));
    }
}
