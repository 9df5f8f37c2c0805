//! The times at which messages were received: each after every one that was given out or
//! seen before, also when the system's clock is set back, and also after a restart.
//!
//! History sorts a channel by this time, and Weir's own ids begin with it: both are in the
//! order of arrival. An erasure takes what was received up to a moment: nothing that comes
//! after it may be received at that moment, or it would be lost.
//!
//! Each message takes a microsecond of its own, so the times run ahead of the clock only
//! while more than a million messages a second arrive at one process, which is more than one
//! takes; the 1,000 of a batch are ahead by a millisecond at most.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;

/// A clock that is further ahead than this was wrong itself: it is not waited for.
const FURTHEST: i64 = 24 * 3_600 * 1_000_000;

/// Microseconds since 1970-01-01 UTC that only grow.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    last: AtomicI64,
}

impl Clock {
    /// So many moments from now on, each a microsecond after the one before; nobody else
    /// gets one of them.
    pub(crate) fn take(&self, count: usize) -> impl Iterator<Item = Timestamp> + use<> {
        self.take_from(Timestamp::now(), count)
    }

    /// A message was received then, by whatever process, or that moment was passed in another
    /// way: what is received here from now on is received after it.
    pub(crate) fn saw(&self, moment: Timestamp) {
        self.last
            .fetch_max(moment.as_microsecond(), Ordering::Relaxed);
    }

    fn take_from(&self, clock: Timestamp, count: usize) -> impl Iterator<Item = Timestamp> + use<> {
        let now = clock.as_microsecond();
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let first = |last: i64| {
            if last > now.saturating_add(FURTHEST) {
                now
            } else {
                now.max(last.saturating_add(1))
            }
        };
        let taken = |last| Some(first(last).saturating_add(count - 1));
        let (Ok(last) | Err(last)) =
            self.last
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken);
        let first = first(last);
        // The bound on how far it is ahead keeps it a time.
        (first..first.saturating_add(count))
            .map(move |at| Timestamp::from_microsecond(at).unwrap_or(clock))
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn noon() -> Timestamp {
        "2026-11-23T12:00:00Z".parse().unwrap()
    }

    fn micros(n: i64) -> Timestamp {
        noon() + SignedDuration::from_micros(n)
    }

    fn one(clock: &Clock, now: Timestamp) -> Timestamp {
        clock.take_from(now, 1).next().unwrap()
    }

    #[test]
    fn a_clock_that_is_set_back_goes_on_by_the_least_until_it_is_right_again() {
        let clock = Clock::default();
        let minutes = |n| noon() + SignedDuration::from_mins(n);
        assert_eq!(one(&clock, noon()), noon());
        assert_eq!(one(&clock, minutes(-60)), micros(1));
        assert_eq!(one(&clock, minutes(-1)), micros(2));
        assert_eq!(one(&clock, micros(2)), micros(3));
        assert_eq!(one(&clock, minutes(1)), minutes(1));
    }

    #[test]
    fn moments_are_given_out_once() {
        let clock = Clock::default();
        let batch: Vec<_> = clock.take_from(noon(), 3).collect();
        assert_eq!(batch, [micros(0), micros(1), micros(2)]);
        assert_eq!(clock.take_from(noon(), 0).count(), 0);
        assert_eq!(one(&clock, noon()), micros(3));
        let all = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    for _ in 0..100 {
                        let taken = clock.take_from(noon(), 5);
                        all.lock().unwrap().extend(taken);
                    }
                });
            }
        });
        let mut all = all.into_inner().unwrap();
        all.sort_unstable();
        assert!(all.into_iter().eq((4..2_004).map(micros)));
    }

    #[test]
    fn what_was_seen_does_not_come_again() {
        let clock = Clock::default();
        clock.saw(noon());
        assert!(one(&clock, noon()) > noon());
        assert!(one(&clock, noon() - SignedDuration::from_hours(1)) > noon());
    }

    #[test]
    fn a_time_far_ahead_is_not_waited_for() {
        let clock = Clock::default();
        clock.saw(noon() + SignedDuration::from_hours(24 * 365));
        assert_eq!(one(&clock, noon()), noon());
        assert_eq!(one(&clock, noon()), micros(1));
    }
}
