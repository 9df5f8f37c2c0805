//! How long messages are kept: what was said, and what was decided about it.
//!
//! Days are counted from when a message was received. After `text_days` its text and
//! metadata are gone and the rest stays: ids, names, times, scores, the verdict, and the
//! spans, which are numbers. After `verdict_days` all of it is gone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Error;

/// The longest life that every server takes, in days: 20 years of 365.
const LONGEST: u32 = 20 * 365;

/// How long messages are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Days that texts are kept; 0: for good, where `verdict_days` is 0 as well.
    pub text_days: u32,
    /// Days that verdicts are kept; 0: for good.
    pub verdict_days: u32,
    /// Tenants of which it is something else.
    pub tenants: BTreeMap<String, Days>,
}

/// What is different for one tenant; what is left out is as for all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Days {
    /// Days that texts are kept; 0: for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_days: Option<u32>,
    /// Days that verdicts are kept; 0: for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict_days: Option<u32>,
}

impl Retention {
    /// Texts and verdicts of all tenants for so many days; 0: for good.
    #[must_use]
    pub const fn of_days(days: u32) -> Self {
        Self {
            text_days: days,
            verdict_days: days,
            tenants: BTreeMap::new(),
        }
    }

    /// Refuses what can't work: more than 7,300 days, and texts that would outlive
    /// their verdicts.
    ///
    /// # Errors
    /// [`Error::Setting`] with the name of the first one.
    pub fn check(&self) -> Result<(), Error> {
        check("retention", "", (self.text_days, self.verdict_days))?;
        for tenant in self.tenants.keys() {
            check(
                "retention.tenants",
                &format!(" of `{tenant}`"),
                self.of(tenant),
            )?;
        }
        Ok(())
    }

    /// Days for texts and for verdicts of that tenant; 0: for good.
    #[must_use]
    pub fn of(&self, tenant: &str) -> (u32, u32) {
        let own = self.tenants.get(tenant).copied().unwrap_or_default();
        (
            own.text_days.unwrap_or(self.text_days),
            own.verdict_days.unwrap_or(self.verdict_days),
        )
    }
}

fn check(setting: &'static str, of: &str, (text, verdict): (u32, u32)) -> Result<(), Error> {
    let reason = if text.max(verdict) > LONGEST {
        format!("`text_days` and `verdict_days`{of} must be 7,300 or less, or 0 for good")
    } else if verdict != 0 && (text == 0 || text > verdict) {
        format!("`text_days`{of} is above `verdict_days`: no text outlives its verdict")
    } else {
        return Ok(());
    };
    Err(Error::Setting { setting, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text_days: u32, verdict_days: u32) -> Retention {
        Retention {
            text_days,
            verdict_days,
            ..Retention::default()
        }
    }

    #[test]
    fn texts_that_would_outlive_their_verdicts_are_refused_by_name() {
        for good in [of(0, 0), of(30, 0), of(30, 30), of(1, 7_300)] {
            good.check().unwrap();
        }
        for wrong in [of(0, 30), of(31, 30), of(7_301, 0), of(1, 7_301)] {
            let error = wrong.check().unwrap_err().to_string();
            assert!(
                error.contains("`retention`") && error.contains("text_days"),
                "{error}"
            );
        }
        let mut tenants = of(30, 60);
        let days = Days {
            verdict_days: Some(20),
            ..Days::default()
        };
        tenants.tenants.insert("acme".to_owned(), days);
        let error = tenants.check().unwrap_err().to_string();
        assert!(
            error.contains("retention.tenants") && error.contains("acme"),
            "{error}"
        );
    }

    #[test]
    fn a_tenant_has_what_is_not_its_own_from_all() {
        let mut all = of(30, 60);
        let days = Days {
            text_days: Some(0),
            verdict_days: Some(0),
        };
        all.tenants.insert("acme".to_owned(), days);
        let days = Days {
            text_days: Some(7),
            ..Days::default()
        };
        all.tenants.insert("globex".to_owned(), days);
        all.check().unwrap();
        assert_eq!(
            [all.of("acme"), all.of("globex"), all.of("initech")],
            [(0, 0), (7, 60), (30, 60)]
        );
    }
}
