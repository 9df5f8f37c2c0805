//! Who calls, once that is known.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use weir_store::Scope;

use crate::door::{Code, Problem};
use crate::limits::CallerLimit;

/// A person or a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Logged in with a password; sends as itself.
    User,
    /// Holds an API key; may name any sender.
    Key,
}

/// An authenticated caller. Holds no secret.
#[derive(Clone)]
pub struct Caller {
    /// Whose messages it deals with.
    pub tenant: String,
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
    /// The user name, or the key's label.
    pub name: String,
    /// The user name, or the key's id: what limits are counted by.
    pub id: String,
    /// Person or program.
    pub kind: Kind,
    pub(crate) limit: Option<Arc<CallerLimit>>,
}

impl Caller {
    /// A caller without a rate limit, for work inside the process.
    #[must_use]
    pub fn unlimited(
        kind: Kind,
        tenant: impl Into<String>,
        id: impl Into<String>,
        scopes: impl IntoIterator<Item = Scope>,
    ) -> Self {
        let id = id.into();
        Self {
            tenant: tenant.into(),
            scopes: scopes.into_iter().collect(),
            name: id.clone(),
            id,
            kind,
            limit: None,
        }
    }

    /// Whether the caller may do that.
    #[must_use]
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// Refuses a caller who may not do that.
    ///
    /// # Errors
    /// A 403 that names the missing scope.
    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.has(scope) {
            return Ok(());
        }
        Err(Problem::new(
            Code::Forbidden,
            format!("this credential lacks the scope `{scope}`"),
        ))
    }

    /// Counts `n` more messages or requests against this caller's limit. The
    /// [`Authenticated`](crate::door::Authenticated) extractor has counted one, so a
    /// batch of `n` messages counts `n - 1` more.
    ///
    /// # Errors
    /// A 429 with `Retry-After`; then nothing was counted.
    pub fn admit(&self, n: u32) -> Result<(), Problem> {
        match &self.limit {
            Some(limit) => limit.take(n).map_err(Problem::from),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("kind", &self.kind)
            .field("id", &self.id)
            .field("tenant", &self.tenant)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}
