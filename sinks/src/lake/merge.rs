//! Small files of a date into larger ones, without changing what the table says.
//!
//! Files of like size are merged once there are enough of them, so that a row is
//! written again only when its file has grown several times: about once for each
//! factor of eight between a flush and the target. A date that is over is merged
//! whatever the count.

use std::collections::BTreeMap;

use deltalake::kernel::LogicalFileView;

use super::files::Files;
use super::rewrite::{Rewritten, date, rewrite};
use super::{Config, Error};

/// A date that is over is merged when its newest file is this old.
const QUIET_MILLIS: i64 = 600_000;
/// Files up to this size are alike; above it, those within a factor of eight are.
const SMALLEST: u64 = 16 << 10;

/// What the choice of files depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    /// Days since 1970-01-01.
    date: i32,
    bytes: u64,
    /// Milliseconds since 1970-01-01.
    modified: i64,
}

/// Files of one date to be merged into one.
pub(crate) struct Plan {
    date: i32,
    inputs: Vec<LogicalFileView>,
}

impl Plan {
    /// What to merge next, if anything. `now` is in milliseconds since 1970-01-01.
    pub(crate) fn choose(
        files: impl Iterator<Item = LogicalFileView>,
        now: i64,
        config: &Config,
    ) -> Option<Self> {
        let (views, candidates): (Vec<_>, Vec<_>) = files
            .filter(|view| view.deletion_vector_descriptor().is_none())
            .filter_map(|view| {
                let candidate = Candidate {
                    date: date(&view)?,
                    bytes: u64::try_from(view.size()).unwrap_or(0),
                    modified: view.modification_time(),
                };
                Some((view, candidate))
            })
            .unzip();
        let chosen = choose(&candidates, now, config);
        let date = candidates[*chosen.first()?].date;
        Some(Self {
            date,
            inputs: chosen
                .into_iter()
                .map(|index| views[index].clone())
                .collect(),
        })
    }

    /// Reads the files and writes their rows again, sorted run by run.
    pub(crate) async fn run(self, files: &Files) -> Result<Rewritten, Error> {
        rewrite(files, self.date, &self.inputs, false, Ok).await
    }
}

/// The indices of the files to merge; none when there is nothing to do.
fn choose(files: &[Candidate], now: i64, config: &Config) -> Vec<usize> {
    let today = now.div_euclid(86_400_000);
    let mut alike: BTreeMap<(u32, i32), Vec<usize>> = BTreeMap::new();
    let mut over: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    for (index, file) in files.iter().enumerate() {
        if file.bytes >= config.target_bytes / 2 {
            continue;
        }
        alike
            .entry((class(file.bytes), file.date))
            .or_default()
            .push(index);
        if i64::from(file.date) < today {
            over.entry(file.date).or_default().push(index);
        }
    }
    // The smallest files first: they are the most.
    let enough = alike
        .into_values()
        .find(|group| group.len() >= config.merge_files.max(2));
    let quiet = |group: &Vec<usize>| {
        group
            .iter()
            .all(|index| now - files[*index].modified >= QUIET_MILLIS)
    };
    let group = enough.or_else(|| {
        over.into_values()
            .find(|group| group.len() >= 2 && quiet(group))
    });
    fitting(group.unwrap_or_default(), files, config.target_bytes)
}

/// As many of the group, smallest first, as the target holds; two at least.
fn fitting(mut group: Vec<usize>, files: &[Candidate], target: u64) -> Vec<usize> {
    group.sort_by_key(|index| files[*index].bytes);
    let mut sum = 0;
    let fit = group
        .iter()
        .take_while(|index| {
            sum += files[**index].bytes;
            sum <= target
        })
        .count();
    // Two files below half of the target always fit.
    group.truncate(fit.max(2));
    group
}

/// Files of the same class are within a factor of eight in size.
fn class(bytes: u64) -> u32 {
    (bytes / SMALLEST).max(1).ilog2() / 3
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;

    fn file(date: i32, bytes: u64) -> Candidate {
        Candidate {
            date,
            bytes,
            modified: i64::from(date) * DAY,
        }
    }

    #[test]
    fn files_of_like_size_are_merged_when_there_are_enough() {
        let config = Config::default();
        let mut files = vec![file(10, 20 << 10); 15];
        files.push(file(10, 5 << 20));
        assert_eq!(choose(&files, 10 * DAY, &config), Vec::<usize>::new());
        files.push(file(10, 20 << 10));
        let chosen = choose(&files, 10 * DAY, &config);
        assert_eq!(chosen.len(), 16);
        assert!(!chosen.contains(&15), "the large file stays");
    }

    #[test]
    fn files_of_another_date_stay_apart() {
        let config = Config::default();
        let mut files = vec![file(10, 20 << 10); 12];
        files.extend(vec![file(11, 20 << 10); 12]);
        assert_eq!(choose(&files, 10 * DAY, &config), Vec::<usize>::new());
    }

    #[test]
    fn a_date_that_is_over_and_quiet_is_merged_whatever_the_count() {
        let config = Config::default();
        let files = [
            file(10, 20 << 10),
            file(10, 9 << 20),
            file(11, 1 << 10),
            file(10, 60 << 20),
        ];
        let later = 11 * DAY;
        assert_eq!(choose(&files, later, &config), vec![0, 1]);
        let busy = files.clone().map(|file| Candidate {
            modified: later - 1,
            ..file
        });
        assert_eq!(choose(&busy, later, &config), Vec::<usize>::new());
    }

    #[test]
    fn a_merge_stays_within_the_target() {
        let config = Config::default();
        let files = vec![file(10, 9 << 20); 20];
        let chosen = choose(&files, 10 * DAY, &config);
        assert_eq!(chosen.len(), 7, "seven times nine MiB fit into 64");
    }
}
