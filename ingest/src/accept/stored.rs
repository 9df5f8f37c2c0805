//! The verdicts of ids that producers chose: one that is sent again may have been judged a
//! moment ago, long ago, or before a restart.
//!
//! A stored message is compared as soon as it is read, and of it only the verdict stays: the
//! texts of a batch's ids are never in memory all at once.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::join_all;
use weir_auth::door::{Code, Problem};
use weir_records::{Judged, Verdict};

use super::check::Checked;
use crate::ingest::Inner;
use crate::recent::generations::Key;

/// Questions to the history at a time.
const LOOKUPS: usize = 32;

/// What was judged before, by the place of the message in the request.
pub(super) type Stored = HashMap<usize, Before>;

/// What a message's id was judged for.
pub(super) enum Before {
    /// This message.
    Judged(Box<Verdict>),
    /// Another one.
    Conflict,
}

/// An id that a producer chose.
struct Asked<'a> {
    index: usize,
    key: Key,
    id: &'a str,
    checked: &'a Checked<'a>,
    /// It is remembered: without its verdict the answer is `pending`.
    known: bool,
}

/// Finds what was judged under these ids. Almost always that is nothing, and costs one cheap
/// question for each id that the producer chose.
///
/// # Errors
/// The history can't be read now: whether a message is new can't be told.
pub(super) async fn look_up(
    inner: &Inner,
    tenant: &str,
    messages: &[Result<Checked<'_>, Problem>],
) -> Result<Stored, Problem> {
    let chosen = messages.iter().enumerate().filter_map(|(index, message)| {
        let checked = message.as_ref().ok()?;
        let id = checked.id()?;
        let key = inner.recent.hashes().key(tenant, id);
        let known = inner.recent.is_known(key);
        Some(Asked {
            index,
            key,
            id,
            checked,
            known,
        })
    });
    let asked: Vec<Asked<'_>> = chosen.collect();
    let mut stored = Stored::new();
    let mut away = false;
    for part in asked.chunks(LOOKUPS) {
        let mut questions = Vec::with_capacity(part.len());
        for asked in part {
            // Once is enough to learn that a verdict can't be read now.
            questions.push(one(inner, tenant, asked, !(asked.known && away)));
        }
        for (asked, found) in part.iter().zip(join_all(questions).await) {
            match found {
                Ok(found) => stored.extend(found.map(|before| (asked.index, before))),
                Err(error) if asked.known => {
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!(%error, "the history can't be read; what is known is pending");
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "the history can't be read");
                    let detail = "whether the id is new can't be told now; send the message again";
                    let problem = Problem::new(Code::Unavailable, detail);
                    return Err(problem.retry_after(Duration::from_secs(1)));
                }
            }
        }
    }
    Ok(stored)
}

async fn one(
    inner: &Inner,
    tenant: &str,
    asked: &Asked<'_>,
    history: bool,
) -> Result<Option<Before>, weir_store::Error> {
    let (key, id) = (asked.key, asked.id);
    if let Some(fresh) = inner.verdicts.get(key, tenant, id) {
        return Ok(Some(asked.compare(inner, tenant, fresh)));
    }
    if !history {
        return Ok(None);
    }
    // The cheap question first; of a judged id it is not enough that there is nothing.
    let judged = inner.recent.source(key).is_some();
    if !judged && inner.history.source(tenant, id).await?.is_none() {
        return Ok(None);
    }
    let stored = inner.stored(key, tenant, id).await?;
    Ok(stored.map(|stored| asked.compare(inner, tenant, stored)))
}

impl Asked<'_> {
    fn compare(&self, inner: &Inner, tenant: &str, stored: Judged) -> Before {
        if self.checked.is(&stored.message) && !self.differs(inner, tenant, &stored) {
            Before::Judged(Box::new(stored.verdict))
        } else {
            Before::Conflict
        }
    }

    /// Whether it has another text than a stored message whose own has run out: what it said
    /// may be remembered for longer.
    fn differs(&self, inner: &Inner, tenant: &str, stored: &Judged) -> bool {
        let identity = || {
            let (content, sender) = (self.checked.content(), self.checked.sender());
            inner.recent.identify(tenant, self.id, content, sender)
        };
        stored.message.text.is_empty() && inner.recent.differs(&identity())
    }
}
