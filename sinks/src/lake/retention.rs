//! How long messages are kept: after so many days the text goes, after so many more the
//! row. By whole dates, so that a file is looked at once for each of its two ends and
//! not every hour: a day's rows go when the last of them is old enough.
//!
//! Which files were dealt with is remembered in memory. After a restart each old file is
//! read once, the columns that matter only.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray as _, BooleanArray, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use deltalake::kernel::LogicalFileView;
use futures::TryStreamExt as _;
use weir_records::columns::MESSAGES;

use super::Error;
use super::files::Files;
use super::read;
use super::rewrite::{Rewritten, date, rewrite};
use super::select::{BYTES, Bounds, FILES, Round};

/// Days that something is kept. 0: for good.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Days {
    /// The text of a message.
    pub text_days: u32,
    /// A message with its verdict.
    pub verdict_days: u32,
}

/// How long messages are kept, counted from the end of the UTC date they were received on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retention {
    /// For tenants that are not named.
    pub default: Days,
    /// For those that are.
    pub tenants: BTreeMap<String, Days>,
}

impl Retention {
    /// Whether everything is kept for good.
    #[must_use]
    pub fn is_for_good(&self) -> bool {
        self.tenants
            .values()
            .chain([&self.default])
            .all(|days| *days == Days::default())
    }

    fn of(&self, tenant: &str) -> Days {
        self.tenants.get(tenant).copied().unwrap_or(self.default)
    }
}

/// What is due for rows of a certain age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Nothing,
    Blank,
    Remove,
}

impl Days {
    /// `age`: whole days since the end of the row's date.
    fn due(self, age: i64) -> Due {
        let over = |days: u32| days > 0 && age >= i64::from(days);
        if over(self.verdict_days) {
            Due::Remove
        } else if over(self.text_days) {
            Due::Blank
        } else {
            Due::Nothing
        }
    }
}

/// What is due in a file: for the tenants that are not named, then for each that is.
type Rules = Vec<Due>;

/// Retention, and what of it was applied to which file.
#[derive(Default)]
pub(crate) struct Keeper {
    keep: Arc<Retention>,
    applied: HashMap<String, Rules>,
}

/// A search for what is over.
pub(crate) struct Over {
    keep: Arc<Retention>,
    /// Files with what is due in them, whether that is everything, and their age in days.
    files: Vec<(LogicalFileView, bool, i64)>,
    all: bool,
}

impl Keeper {
    pub(crate) fn new(keep: Retention) -> Self {
        Self {
            keep: Arc::new(keep),
            applied: HashMap::new(),
        }
    }

    /// What to look at next, if anything. `now` is in milliseconds since 1970-01-01.
    pub(crate) fn plan(
        &mut self,
        files: impl Iterator<Item = LogicalFileView>,
        now: i64,
    ) -> Option<Over> {
        if self.keep.is_for_good() {
            return None;
        }
        let today = now.div_euclid(86_400_000);
        let mut present = HashMap::with_capacity(self.applied.len());
        let mut chosen = Vec::new();
        let (mut bytes, mut all) = (0, true);
        for view in files {
            let Some(date) = date(&view) else { continue };
            let age = today - i64::from(date) - 1;
            let path = view.path().into_owned();
            let rules = self.rules(age);
            if let Some(applied) = self.applied.remove(&path) {
                let done = applied == rules;
                present.insert(path, applied);
                if done {
                    continue;
                }
            }
            if rules.iter().all(|due| *due == Due::Nothing) {
                continue;
            }
            let (least, most) = self.range(&Bounds::of(&view), age);
            if most == Due::Nothing || view.deletion_vector_descriptor().is_some() {
                continue;
            }
            if chosen.len() >= FILES || bytes >= BYTES {
                all = false;
                continue;
            }
            bytes += view.size();
            chosen.push((view, least == Due::Remove, age));
        }
        self.applied = present;
        (!chosen.is_empty()).then(|| Over {
            keep: Arc::clone(&self.keep),
            files: chosen,
            all,
        })
    }

    /// These files need no look before more is due in them.
    pub(crate) fn applied<'a>(&mut self, paths: impl Iterator<Item = &'a str>, now: i64) {
        let today = now.div_euclid(86_400_000);
        for path in paths {
            if let Some(date) = super::rewrite::date_in(path) {
                let rules = self.rules(today - i64::from(date) - 1);
                self.applied.insert(path.to_owned(), rules);
            }
        }
    }

    fn rules(&self, age: i64) -> Rules {
        std::iter::once(self.keep.default)
            .chain(self.keep.tenants.values().copied())
            .map(|days| days.due(age))
            .collect()
    }

    /// The least and the most that is due for any tenant that the file may hold.
    fn range(&self, bounds: &Bounds, age: i64) -> (Due, Due) {
        if let Some(only) = bounds.only("tenant") {
            let due = self.keep.of(only).due(age);
            return (due, due);
        }
        let default = self.keep.default.due(age);
        let named = self
            .keep
            .tenants
            .iter()
            .filter(|(tenant, _)| bounds.may_hold("tenant", tenant))
            .map(|(_, days)| days.due(age));
        named.fold((default, default), |(least, most), due| {
            (least.min(due), most.max(due))
        })
    }
}

impl Over {
    /// Writes the files again without what is over.
    pub(crate) async fn run(self, files: &Files) -> Result<Round, Error> {
        let mut round = Round {
            all: self.all,
            ..Round::default()
        };
        for (view, whole, age) in &self.files {
            if *whole {
                round.rewritten.push(Rewritten::gone(view));
                continue;
            }
            match date(view) {
                Some(date) if self.found_in(files, view, *age).await? => {
                    let mut blanked = 0;
                    let change = |batch| self.change(&batch, *age, &mut blanked);
                    let inputs = std::slice::from_ref(view);
                    round
                        .rewritten
                        .push(rewrite(files, date, inputs, true, change).await?);
                    round.changed += blanked;
                }
                _ => round.clean.push(view.path().into_owned()),
            }
        }
        Ok(round)
    }

    async fn found_in(
        &self,
        files: &Files,
        view: &LogicalFileView,
        age: i64,
    ) -> Result<bool, Error> {
        let mut batches = read::columns(files.store(), view, &["tenant", "text"]).await?;
        while let Some(batch) = batches.try_next().await? {
            let (tenants, texts) = (text(&batch, "tenant")?, text(&batch, "text")?);
            let over = |row| match self.keep.of(tenants.value(row)).due(age) {
                Due::Nothing => false,
                Due::Blank => !texts.value(row).is_empty(),
                Due::Remove => true,
            };
            if (0..batch.num_rows()).any(over) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn change(
        &self,
        batch: &RecordBatch,
        age: i64,
        blanked: &mut usize,
    ) -> Result<RecordBatch, Error> {
        let (tenants, texts) = (text(batch, "tenant")?, text(batch, "text")?);
        let due: Vec<Due> = tenants
            .iter()
            .map(|tenant| self.keep.of(tenant.unwrap_or_default()).due(age))
            .collect();
        let kept: StringArray = texts
            .iter()
            .zip(&due)
            .map(|(text, due)| match due {
                Due::Blank => {
                    *blanked += usize::from(text.is_some_and(|text| !text.is_empty()));
                    Some("")
                }
                _ => text,
            })
            .collect();
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        columns[MESSAGES.index_of("text")?] = Arc::new(kept);
        let batch = RecordBatch::try_new(Arc::clone(&MESSAGES), columns)?;
        let stays: BooleanArray = due.iter().map(|due| Some(*due != Due::Remove)).collect();
        Ok(filter_record_batch(&batch, &stays)?)
    }
}

fn text<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringArray, ArrowError> {
    batch
        .column_by_name(name)
        .and_then(|column| column.as_string_opt())
        .ok_or_else(|| ArrowError::SchemaError(format!("no text column `{name}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_comes_with_its_day_and_never_for_good() {
        let days = Days {
            text_days: 7,
            verdict_days: 30,
        };
        assert_eq!(days.due(-1), Due::Nothing);
        assert_eq!(days.due(6), Due::Nothing);
        assert_eq!(days.due(7), Due::Blank);
        assert_eq!(days.due(29), Due::Blank);
        assert_eq!(days.due(30), Due::Remove);
        assert_eq!(Days::default().due(100_000), Due::Nothing);
        let text_longer = Days {
            text_days: 60,
            verdict_days: 30,
        };
        assert_eq!(text_longer.due(30), Due::Remove);
    }
}
