//! How long to wait before the next try, and what of it to log: the first failure, a
//! reminder each minute, and the end.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);
const REMIND: Duration = Duration::from_secs(60);

/// A stage's failures in a row.
#[derive(Default)]
pub(super) struct Failing {
    times: u32,
    logged: Option<Instant>,
}

impl Failing {
    /// It failed (again). Answers how long to wait.
    pub(super) fn again(&mut self, stage: &str, error: &dyn std::fmt::Display) -> Duration {
        let wait = FIRST.saturating_mul(1 << self.times.min(10)).min(LONGEST);
        self.times = self.times.saturating_add(1);
        if self.logged.is_none_or(|logged| logged.elapsed() >= REMIND) {
            self.logged = Some(Instant::now());
            tracing::warn!(stage, times = self.times, %error, "a stage failed; it is tried again");
        }
        wait
    }

    /// It went through.
    pub(super) fn over(&mut self, stage: &str) {
        if self.times > 0 {
            tracing::info!(stage, times = self.times, "the stage goes on");
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_begin_anew() {
        let mut failing = Failing::default();
        let waits: Vec<Duration> = (0..20).map(|_| failing.again("stage", &"why")).collect();
        assert_eq!(waits.first(), Some(&FIRST));
        assert!(waits.is_sorted());
        assert_eq!(waits.last(), Some(&LONGEST));
        failing.over("stage");
        assert_eq!(failing.again("stage", &"why"), FIRST);
    }
}
