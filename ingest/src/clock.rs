//! The time at which messages were received: never before one that was given out, also
//! when the system's clock is set back, and also after a restart.
//!
//! History sorts a channel by this time and then by source offset. While the clock is
//! behind, messages get the last time again and stay in order by their offsets. Weir's
//! own ids begin with the same time. An erasure takes what was received up to a moment:
//! nothing that comes after it may be received at that moment, or it would be lost.

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
    /// Now, or the last time that was given out or seen, if that is later.
    pub(crate) fn now(&self) -> Timestamp {
        self.not_before(Timestamp::now())
    }

    /// A message was received then, by whatever process.
    pub(crate) fn saw(&self, received_at: Timestamp) {
        self.last
            .fetch_max(received_at.as_microsecond(), Ordering::Relaxed);
    }

    /// What is received from now on, here, is received after that moment.
    pub(crate) fn pass(&self, moment: Timestamp) {
        self.last
            .fetch_max(moment.as_microsecond() + 1, Ordering::Relaxed);
    }

    fn not_before(&self, clock: Timestamp) -> Timestamp {
        let now = clock.as_microsecond();
        let last = self.last.load(Ordering::Relaxed);
        if last > now.saturating_add(FURTHEST) {
            // Whoever else is here at this moment does the same.
            self.last.store(now, Ordering::Relaxed);
            return clock;
        }
        let last = self.last.fetch_max(now, Ordering::Relaxed).max(now);
        Timestamp::from_microsecond(last).unwrap_or(clock)
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn a_clock_that_is_set_back_stands_still_until_it_is_right_again() {
        let clock = Clock::default();
        let noon: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        let minutes = |n| noon + SignedDuration::from_mins(n);
        assert_eq!(clock.not_before(noon), noon);
        assert_eq!(clock.not_before(minutes(-60)), noon);
        assert_eq!(clock.not_before(minutes(-1)), noon);
        assert_eq!(clock.not_before(minutes(1)), minutes(1));
    }

    #[test]
    fn what_was_seen_counts_as_given_out() {
        let clock = Clock::default();
        let noon: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        clock.saw(noon);
        assert_eq!(clock.not_before(noon - SignedDuration::from_hours(1)), noon);
    }

    #[test]
    fn a_moment_that_was_passed_does_not_come_again() {
        let clock = Clock::default();
        let noon: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        clock.pass(noon);
        assert!(clock.not_before(noon) > noon);
        assert!(clock.not_before(noon - SignedDuration::from_hours(1)) > noon);
    }

    #[test]
    fn a_time_far_ahead_is_not_waited_for() {
        let clock = Clock::default();
        let noon: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        clock.saw(noon + SignedDuration::from_hours(24 * 365));
        assert_eq!(clock.not_before(noon), noon);
        assert_eq!(clock.not_before(noon), noon);
    }
}
