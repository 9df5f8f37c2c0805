//! Which files can hold certain rows, by what the table's log says of them, and a bounded
//! search through those that can.

use deltalake::kernel::LogicalFileView;
use serde_json::Value;

use super::rewrite::Rewritten;

/// Files that one search reads at most, and bytes of files that it writes again at most,
/// before what it has found is committed.
pub(crate) const FILES: usize = 256;
pub(crate) const BYTES: i64 = 256 << 20;

/// What a search through some of the files has brought.
#[derive(Default)]
pub(crate) struct Round {
    /// Files written again, one at a time.
    pub(crate) rewritten: Vec<Rewritten>,
    /// Files that hold nothing of what was looked for, by their path in the table.
    pub(crate) clean: Vec<String>,
    /// Rows that stay with less in them.
    pub(crate) changed: usize,
    /// Whether no file is left to be searched.
    pub(crate) all: bool,
}

/// The least and greatest values of a file's columns.
pub(crate) struct Bounds(Option<Value>);

impl Bounds {
    pub(crate) fn of(view: &LogicalFileView) -> Self {
        Self(
            view.stats()
                .and_then(|stats| serde_json::from_str(&stats).ok()),
        )
    }

    /// Whether a row may have that text in that column. Bounds that are cut short still
    /// enclose it; where there are none, it may.
    pub(crate) fn may_hold(&self, column: &str, text: &str) -> bool {
        let least = self.side("minValues", column);
        let greatest = self.side("maxValues", column);
        least.is_none_or(|least| least <= text) && greatest.is_none_or(|most| text <= most)
    }

    /// The text that all rows have in that column, if it is one.
    pub(crate) fn only(&self, column: &str) -> Option<&str> {
        let least = self.side("minValues", column)?;
        (self.side("maxValues", column)? == least).then_some(least)
    }

    fn side(&self, side: &str, column: &str) -> Option<&str> {
        self.0.as_ref()?.get(side)?.get(column)?.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_left_out_only_if_its_bounds_say_so() {
        let bounds = |json: &str| Bounds(serde_json::from_str(json).ok());
        let known = bounds(r#"{"minValues":{"tenant":"b"},"maxValues":{"tenant":"d"}}"#);
        assert!(known.may_hold("tenant", "b") && known.may_hold("tenant", "d"));
        assert!(!known.may_hold("tenant", "a") && !known.may_hold("tenant", "e"));
        assert!(known.may_hold("sender", "a"), "no bounds");
        assert_eq!(known.only("tenant"), None);
        assert!(bounds("").may_hold("tenant", "a"));
        let one = bounds(r#"{"minValues":{"tenant":"b"},"maxValues":{"tenant":"b"}}"#);
        assert_eq!(one.only("tenant"), Some("b"));
    }
}
