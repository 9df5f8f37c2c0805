//! Counts, in SQL, the rows of the messages that were accepted.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use arrow::array::AsArray as _;
use arrow::datatypes::Int64Type;

use crate::client::Client;
use crate::sql::query_batches;

/// Ids in one query.
const CHUNK: usize = 500;
const PAUSE: Duration = Duration::from_millis(250);

/// What `messages` holds of the accepted ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stored {
    /// Rows: more than ids means that one was stored twice.
    pub(super) rows: usize,
    /// Ids with a row.
    pub(super) ids: usize,
}

/// Waits until every id has a row, or the patience is over; then says what there is.
pub(super) async fn stored(client: &Client, ids: &[String], patience: Duration) -> Result<Stored> {
    let began = Instant::now();
    let mut sum = Stored::default();
    for chunk in ids.chunks(CHUNK) {
        let found = loop {
            let found = count(client, chunk).await?;
            if found.ids >= chunk.len() || began.elapsed() > patience {
                break found;
            }
            tokio::time::sleep(PAUSE).await;
        };
        sum.rows += found.rows;
        sum.ids += found.ids;
    }
    Ok(sum)
}

async fn count(client: &Client, ids: &[String]) -> Result<Stored> {
    let list: Vec<String> = ids
        .iter()
        .map(|id| format!("'{}'", id.replace('\'', "''")))
        .collect();
    let query = format!(
        "SELECT count(*) AS rows, count(DISTINCT message_id) AS ids FROM messages WHERE message_id IN ({})",
        list.join(",")
    );
    let batches = query_batches(client, &query).await?;
    let row = batches
        .iter()
        .find(|batch| batch.num_rows() > 0)
        .context("a count came back without a row")?;
    let number = |column: usize| {
        let counts = row.column(column).as_primitive_opt::<Int64Type>();
        counts
            .and_then(|counts| usize::try_from(counts.value(0)).ok())
            .context("a count is not a number")
    };
    Ok(Stored {
        rows: number(0)?,
        ids: number(1)?,
    })
}
