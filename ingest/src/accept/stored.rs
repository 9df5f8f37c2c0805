//! Ids that producers chose and that are not remembered any more: they may stand for a
//! message that was judged long ago, or before a restart.

use std::collections::HashMap;
use std::time::Duration;

use futures::future::join_all;
use weir_auth::door::{Code, Problem};
use weir_records::Message;

use super::check::Checked;
use crate::ingest::Inner;
use crate::recent::generations::Key;

/// Questions to the history at a time.
const LOOKUPS: usize = 32;

/// Judged messages by id.
pub(super) type Stored = HashMap<String, Message>;

/// Finds the messages that are stored under these ids. Almost always that is none, and
/// costs one cheap question for each id that the producer chose.
///
/// # Errors
/// The history can't be read now: whether a message is new can't be told.
pub(super) async fn look_up(
    inner: &Inner,
    tenant: &str,
    messages: &[Result<Checked<'_>, Problem>],
) -> Result<Stored, Problem> {
    let mut unknown = Vec::new();
    for message in messages.iter().flatten() {
        if let Some(id) = message.id() {
            let key = inner.recent.hashes().key(tenant, id);
            if !inner.recent.is_known(key) {
                unknown.push((key, id));
            }
        }
    }
    let mut stored = Stored::new();
    for part in unknown.chunks(LOOKUPS) {
        let mut questions = Vec::with_capacity(part.len());
        for (key, id) in part {
            questions.push(one(inner, tenant, *key, id));
        }
        for found in join_all(questions).await {
            let found = found.map_err(|error| {
                tracing::error!(%error, "the history can't be read");
                let detail = "whether the id is new can't be told now; send the message again";
                Problem::new(Code::Unavailable, detail).retry_after(Duration::from_secs(1))
            })?;
            stored.extend(found.map(|message| (message.id.clone(), message)));
        }
    }
    Ok(stored)
}

async fn one(
    inner: &Inner,
    tenant: &str,
    key: Key,
    id: &str,
) -> Result<Option<Message>, weir_store::Error> {
    if let Some(fresh) = inner.verdicts.get(key, tenant, id) {
        return Ok(Some(fresh.message));
    }
    if inner.history.source(tenant, id).await?.is_none() {
        return Ok(None);
    }
    let judged = inner.history.message(tenant, id).await?;
    Ok(judged.map(|judged| judged.message))
}
