//! Which of the waiting rows go through the model together: rows of similar length,
//! up to a budget of tokens, padding included.

use std::collections::{BTreeMap, BTreeSet};

/// Rows of one pass at most.
pub(crate) const MAX_ROWS: usize = 64;

/// Batches that may pass by a row before it must be in the next.
const PATIENCE: u64 = 16;

/// Waiting rows, sorted by length.
#[derive(Debug)]
pub(crate) struct Ready<T> {
    /// By length, then by arrival; with the number of batches formed before it came.
    rows: BTreeMap<(usize, u64), (u64, T)>,
    /// The same keys by arrival.
    arrivals: BTreeSet<(u64, usize)>,
    arrived: u64,
    formed: u64,
}

impl<T> Ready<T> {
    pub(crate) const fn new() -> Self {
        Self {
            rows: BTreeMap::new(),
            arrivals: BTreeSet::new(),
            arrived: 0,
            formed: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds a row of so many tokens.
    pub(crate) fn push(&mut self, length: usize, row: T) {
        self.rows.insert((length, self.arrived), (self.formed, row));
        self.arrivals.insert((self.arrived, length));
        self.arrived += 1;
    }

    /// Takes the next batch: from the shortest row upwards, or from the oldest where
    /// that has been passed by too often. Its rows times its longest stay within
    /// `tokens` unless it is a single row.
    pub(crate) fn take(&mut self, tokens: usize, rows: usize) -> Vec<T> {
        let Some(start) = self.start() else {
            return Vec::new();
        };
        let keys: Vec<(usize, u64)> = self
            .rows
            .range(start..)
            .map(|(key, _)| *key)
            .take(rows.clamp(1, MAX_ROWS))
            .enumerate()
            .take_while(|(at, (length, _))| *at == 0 || (at + 1) * length <= tokens)
            .map(|(_, key)| key)
            .collect();
        self.formed += 1;
        keys.into_iter()
            .filter_map(|key| self.remove(key))
            .collect()
    }

    fn start(&self) -> Option<(usize, u64)> {
        let (seen, length) = *self.arrivals.first()?;
        let oldest = (length, seen);
        let passed = self.formed - self.rows.get(&oldest)?.0;
        if passed > PATIENCE {
            return Some(oldest);
        }
        self.rows.keys().next().copied()
    }

    fn remove(&mut self, key: (usize, u64)) -> Option<T> {
        self.arrivals.remove(&(key.1, key.0));
        self.rows.remove(&key).map(|(_, row)| row)
    }

    /// Takes everything.
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.arrivals.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(lengths: &[usize]) -> Ready<usize> {
        let mut ready = Ready::new();
        for length in lengths {
            ready.push(*length, *length);
        }
        ready
    }

    #[test]
    fn a_batch_holds_similar_lengths_within_the_budget() {
        let mut ready = filled(&[30, 5, 6, 31, 5, 100]);
        assert_eq!(ready.take(18, 64), [5, 5, 6]);
        assert_eq!(ready.take(64, 64), [30, 31]);
        assert_eq!(
            ready.take(64, 64),
            [100],
            "a row above the budget goes alone"
        );
        assert!(ready.take(64, 64).is_empty());
        assert!(ready.is_empty());
    }

    #[test]
    fn a_batch_never_holds_more_rows_than_asked_for() {
        let mut ready = filled(&[4; 10]);
        assert_eq!(ready.take(1_000, 3).len(), 3);
        assert_eq!(ready.take(1_000, 0).len(), 1);
        assert_eq!(ready.len(), 6);
    }

    #[test]
    fn a_long_row_is_not_passed_by_for_ever() {
        let mut ready = filled(&[90]);
        let mut waited = 0;
        loop {
            ready.push(4, 4);
            ready.push(4, 4);
            if ready.take(8, 64).contains(&90) {
                break;
            }
            waited += 1;
            assert!(waited < 100, "the long row starves");
        }
        assert!(waited > 0);
    }
}
