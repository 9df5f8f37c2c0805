//! How long a row lives, and the time that its cells bear.
//!
//! A cell's time decides which of two writes of the same cell stays. Ours bear the
//! moment at which the message was received: a replay writes the very same cells again,
//! in whatever order and however late, and loses against everything done since. So a
//! writer that was stopped for an hour can't bring back a row that was erased meanwhile;
//! and old messages that are read back from the topic lie, in the time windows of the
//! compaction, with those of their own day.
//!
//! No life goes beyond [`LAST`], because Apache Cassandra refuses a cell that does.

use super::buckets;
use crate::Retention;

const DAY_SECONDS: i64 = 86_400;
/// The longest life that every server takes, in seconds.
const LONGEST: i64 = 20 * 365 * DAY_SECONDS;
/// When the longest lives end, in seconds since 1970: 2038-01-18T00:00:00Z, a day before the
/// last moment that Apache Cassandra writes in the format of its files that it begins with.
const LAST: i64 = 2_147_385_600;

/// What a row's cells bear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    /// Seconds to live; 0: for good.
    pub(super) ttl: i32,
    /// The same for its text; `None` where that is over.
    pub(super) text_ttl: Option<i32>,
    /// Microseconds since 1970.
    pub(super) timestamp: i64,
}

/// The life of a row received at that moment; `None` when it is over. Both times in
/// microseconds since 1970.
pub(super) fn of_row(
    retention: &Retention,
    tenant: &str,
    received_at: i64,
    now: i64,
) -> Option<Life> {
    let (text_days, verdict_days) = retention.of(tenant);
    Some(Life {
        ttl: seconds(verdict_days, received_at, now)?,
        text_ttl: seconds(text_days, received_at, now),
        // A clock ahead of ours must not make a cell that nothing can erase.
        timestamp: received_at.clamp(1, now.max(1)),
    })
}

/// Seconds to live of an entry of the index: a day longer than the last row in it.
pub(super) fn of_day(retention: &Retention, tenant: &str, day: i32, now: i64) -> i32 {
    let end = buckets::end_of(day.saturating_add(1));
    // Over already: what it points to is not written any more either.
    seconds(retention.of(tenant).1, end, now).unwrap_or(1)
}

/// Whether messages received now are gone before their retention is over.
pub(super) fn is_cut(retention: &Retention, now: i64) -> bool {
    let own = retention.tenants.keys().map(|tenant| retention.of(tenant));
    let longest = own
        .chain([(retention.text_days, retention.verdict_days)])
        .map(|(text, verdict)| text.max(verdict))
        .max();
    let days = i64::from(longest.unwrap_or_default());
    left(now) < days * DAY_SECONDS
}

/// Seconds until the end of the longest life that begins now.
fn left(now: i64) -> i64 {
    match LAST.saturating_sub(now.div_euclid(1_000_000)) {
        left if left > 0 => left.min(LONGEST),
        // By then every server is one that writes later moments as well.
        _ => LONGEST,
    }
}

fn seconds(days: u32, from: i64, now: i64) -> Option<i32> {
    if days == 0 {
        return Some(0);
    }
    let age = now.saturating_sub(from).div_euclid(1_000_000);
    let life = (i64::from(days) * DAY_SECONDS).saturating_sub(age);
    if life <= 0 {
        return None;
    }
    i32::try_from(life.min(left(now))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Days;

    const NOW: i64 = 1_772_323_200_000_000;
    const HOUR: i64 = 3_600_000_000;

    /// Texts a day, verdicts two; `globex` verdicts for good; `initech` nothing longer
    /// than a day.
    fn retention() -> Retention {
        let days = |verdict_days| Days {
            verdict_days: Some(verdict_days),
            ..Days::default()
        };
        Retention {
            text_days: 1,
            verdict_days: 2,
            tenants: [
                ("globex".to_owned(), days(0)),
                ("initech".to_owned(), days(1)),
            ]
            .into(),
        }
    }

    #[test]
    fn a_row_lives_from_when_it_was_received() {
        let ttl = |tenant, age: i64| {
            of_row(&retention(), tenant, NOW - age * HOUR, NOW).map(|life| life.ttl)
        };
        assert_eq!(ttl("acme", 0), Some(2 * 86_400));
        assert_eq!(ttl("acme", 47), Some(3_600));
        assert_eq!(ttl("acme", 48), None);
        assert_eq!(ttl("initech", 0), Some(86_400));
        assert_eq!(ttl("globex", 100_000), Some(0), "for good");
    }

    #[test]
    fn a_text_may_be_over_before_its_row() {
        let text = |tenant, age: i64| {
            of_row(&retention(), tenant, NOW - age * HOUR, NOW).map(|life| life.text_ttl)
        };
        assert_eq!(text("acme", 23), Some(Some(3_600)));
        assert_eq!(text("acme", 24), Some(None));
        assert_eq!(text("acme", 48), None);
        assert_eq!(text("globex", 24), Some(None));
    }

    #[test]
    fn a_day_outlives_its_rows() {
        for hour in 0..48 {
            let now = NOW + hour * HOUR;
            let row = of_row(&retention(), "acme", now, now).unwrap();
            assert!(of_day(&retention(), "acme", buckets::day(now), now) > row.ttl);
        }
        assert_eq!(of_day(&retention(), "globex", 0, NOW), 0);
        assert_eq!(of_day(&retention(), "acme", 0, NOW), 1);
    }

    #[test]
    fn a_cell_bears_the_moment_of_its_message_and_never_a_later_one_than_now() {
        let timestamp = |at| {
            of_row(&Retention::default(), "acme", at, NOW)
                .unwrap()
                .timestamp
        };
        assert_eq!(timestamp(NOW - HOUR), NOW - HOUR);
        assert_eq!(timestamp(NOW + HOUR), NOW);
        assert_eq!(timestamp(-HOUR), 1);
    }

    #[test]
    fn a_life_is_never_longer_than_the_servers_take() {
        let ttl = |now: i64| {
            let far = of_row(&retention(), "acme", now + 9_999 * 24 * HOUR, now).unwrap();
            i64::from(far.ttl)
        };
        assert_eq!(ttl(NOW) + NOW / 1_000_000, LAST);
        assert_eq!(ttl((LAST - 5) * 1_000_000), 5);
        // Rows are still written when it is over.
        assert_eq!(ttl((LAST + 5) * 1_000_000), LONGEST);
        assert_eq!(ttl(0), LONGEST);
    }

    #[test]
    fn a_retention_that_reaches_too_far_is_noticed() {
        let years = |years: u32| Retention::of_days(years * 365);
        assert!(!is_cut(&years(0), NOW) && !is_cut(&years(11), NOW));
        assert!(is_cut(&years(12), NOW));
        let mut own = years(1);
        let days = Days {
            verdict_days: Some(12 * 365),
            ..Days::default()
        };
        own.tenants.insert("acme".to_owned(), days);
        assert!(is_cut(&own, NOW));
    }
}
