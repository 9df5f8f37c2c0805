//! The verdicts of ids that producers chose: one that is sent again may have been judged a
//! moment ago, long ago, or before a restart.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::join_all;
use weir_auth::door::{Code, Problem};
use weir_records::Judged;

use super::check::Checked;
use crate::ingest::Inner;
use crate::recent::generations::Key;

/// Questions to the history at a time.
const LOOKUPS: usize = 32;

/// Judged messages by id.
pub(super) type Stored = HashMap<String, Judged>;

/// An id that a producer chose.
struct Asked<'a> {
    key: Key,
    id: &'a str,
    /// It is remembered: without its verdict the answer is `pending`.
    known: bool,
}

/// Finds the messages that were judged under these ids. Almost always that is none, and
/// costs one cheap question for each id that the producer chose.
///
/// # Errors
/// The history can't be read now: whether a message is new can't be told.
pub(super) async fn look_up(
    inner: &Inner,
    tenant: &str,
    messages: &[Result<Checked<'_>, Problem>],
) -> Result<Stored, Problem> {
    let asked: Vec<Asked<'_>> = messages
        .iter()
        .flatten()
        .filter_map(Checked::id)
        .map(|id| {
            let key = inner.recent.hashes().key(tenant, id);
            let known = inner.recent.is_known(key);
            Asked { key, id, known }
        })
        .collect();
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
                Ok(found) => {
                    stored.extend(found.map(|judged| (judged.message.id.clone(), judged)));
                }
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
) -> Result<Option<Judged>, weir_store::Error> {
    if let Some(fresh) = inner.verdicts.get(asked.key, tenant, asked.id) {
        return Ok(Some(fresh));
    }
    if !history || inner.history.source(tenant, asked.id).await?.is_none() {
        return Ok(None);
    }
    inner.history.message(tenant, asked.id).await
}
