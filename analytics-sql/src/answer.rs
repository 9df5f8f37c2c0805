//! The answer of a query, batch by batch, while the query still runs.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::timeout_at;

use crate::error::Error;
use crate::guard::Stop;

/// What a running query sends.
pub(crate) enum Part {
    Schema(SchemaRef),
    Rows(RecordBatch),
    End { more: bool },
}

/// An answer that is complete only when [`next`](Self::next) has said `None`.
/// Dropping it stops the query.
pub struct Answer {
    parts: mpsc::Receiver<Result<Part, Error>>,
    stop: Stop,
    timeout: Duration,
    grace: Duration,
    schema: SchemaRef,
    more: Option<bool>,
}

impl Answer {
    pub(crate) fn new(
        parts: mpsc::Receiver<Result<Part, Error>>,
        stop: Stop,
        timeout: Duration,
        grace: Duration,
    ) -> Self {
        Self {
            parts,
            stop,
            timeout,
            grace,
            schema: Arc::new(Schema::empty()),
            more: None,
        }
    }

    /// Waits for the schema.
    pub(crate) async fn head(&mut self) -> Result<(), Error> {
        match self.part().await? {
            Part::Schema(schema) => {
                self.schema = schema;
                Ok(())
            }
            Part::Rows(_) | Part::End { .. } => Err(Error::internal("answer", None)),
        }
    }

    async fn part(&mut self) -> Result<Part, Error> {
        // The query ends itself at the deadline; this is for one that can't.
        let deadline = self.stop.deadline() + self.grace;
        match timeout_at(deadline.into(), self.parts.recv()).await {
            Ok(Some(part)) => part,
            // It ended without a word: it has panicked.
            Ok(None) => Err(Error::internal("panic", None)),
            Err(_) => Err(Error::Timeout(self.timeout)),
        }
    }

    /// The columns.
    #[must_use]
    pub const fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The next rows; `None` is the end.
    ///
    /// # Errors
    /// What was answered before an error is not the whole answer.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, Error> {
        if self.more.is_some() {
            return Ok(None);
        }
        match self.part().await? {
            Part::Rows(batch) => Ok(Some(batch)),
            Part::End { more } => {
                self.more = Some(more);
                Ok(None)
            }
            Part::Schema(_) => Err(Error::internal("answer", None)),
        }
    }

    /// After the end: whether the query's `limit` left rows out.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.more.unwrap_or_default()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.stop.leave();
    }
}
