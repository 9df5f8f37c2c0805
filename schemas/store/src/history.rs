//! Judged messages: by id, by channel, by sender.

use async_trait::async_trait;
use jiff::Timestamp;
use weir_records::{Erasure, Judged, Source, Target};

use crate::{Cursor, Error};

/// Rows of a page at most; a larger limit means this one.
pub const MAX_PAGE: usize = 1_000;

/// Which part of a list.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// Rows at most, 1 to [`MAX_PAGE`].
    pub limit: usize,
    /// Where the page before ended; `None` starts at the newest.
    pub cursor: Option<Cursor>,
}

/// A part of a list.
#[derive(Debug, Clone)]
pub struct Page {
    /// Newest first, by `received_at`; the later source offset first among equals.
    pub rows: Vec<Judged>,
    /// Where the next page starts; `None` at the end of the list.
    pub next: Option<Cursor>,
}

/// What is to be erased of a tenant's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Erase {
    /// The message with that id.
    Message {
        /// The id.
        id: String,
        /// A message received after this is another one, which took the id.
        up_to: Timestamp,
    },
    /// What a sender said.
    Sender {
        /// The sender.
        name: String,
        /// The `received_at` of the last message to go.
        up_to: Timestamp,
    },
}

impl From<&Erasure> for Erase {
    fn from(erasure: &Erasure) -> Self {
        let up_to = erasure.up_to;
        match erasure.target.clone() {
            Target::Message(id) => Self::Message { id, up_to },
            Target::Sender(name) => Self::Sender { name, up_to },
        }
    }
}

/// What was erased.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erased {
    /// Messages that were there and are gone.
    pub messages: u64,
}

/// The history of judged messages.
///
/// The text of a message may run out before its verdict ([`crate::Retention`]): its row
/// then has an empty text, which no message was ever sent with, and no metadata.
///
/// The first verdict of a message stays: a second row with the same tenant and id,
/// from whatever offset, changes nothing.
#[async_trait]
pub trait History: Send + Sync + 'static {
    /// Writes rows of one source partition, in offset order, and moves the
    /// partition's fence with them; durable when it returns. Rows not above the fence
    /// are dropped. Answers how many were really written.
    ///
    /// The embedded store does this all or nothing. Over CQL a call that failed may have
    /// written some of the rows; the fence did not move, and the same call again writes
    /// the rest and nothing twice. There, two callers with the same rows at the same
    /// moment may both count them, and a row whose id Weir made ([`Message::id_made`]) is
    /// taken for the first of its id without a look, and counted by each call that writes it.
    ///
    /// [`Message::id_made`]: weir_records::Message::id_made
    ///
    /// # Errors
    /// [`Error::Refused`] when the rows are not of that partition, not in order, or
    /// one of them can never be stored, also where it lies below the fence: nothing was
    /// written then, unless only the database itself could tell. Otherwise when the store fails.
    async fn write(&self, partition: i32, rows: &[Judged]) -> Result<usize, Error>;

    /// Writes one row whatever the fence of its partition says, and moves no fence; the
    /// way of a row that was given up and is settled by hand. Durable when it returns.
    /// Answers whether it was written: not, where its id is held or its time is over.
    /// Over CQL, callers with the very same row at the same time may both be told so.
    ///
    /// # Errors
    /// [`Error::Refused`] when it can never be stored. Otherwise when the store fails;
    /// the same call again then writes what is missing.
    async fn put(&self, row: &Judged) -> Result<bool, Error>;

    /// The last source offset held of that partition.
    ///
    /// # Errors
    /// When the store fails.
    async fn fence(&self, partition: i32) -> Result<Option<i64>, Error>;

    /// The message with that id.
    ///
    /// # Errors
    /// When the store fails.
    async fn message(&self, tenant: &str, id: &str) -> Result<Option<Judged>, Error>;

    /// Where the message with that id came from; cheap where there is none.
    ///
    /// # Errors
    /// When the store fails.
    async fn source(&self, tenant: &str, id: &str) -> Result<Option<Source>, Error>;

    /// A channel's messages, newest first. Pages stay apart while messages arrive.
    ///
    /// # Errors
    /// [`Error::Cursor`] for a cursor of another list; otherwise when the store fails.
    async fn channel(&self, tenant: &str, channel: &str, page: &PageRequest)
    -> Result<Page, Error>;

    /// A sender's messages, newest first. Pages stay apart while messages arrive.
    ///
    /// # Errors
    /// [`Error::Cursor`] for a cursor of another list; otherwise when the store fails.
    async fn sender(&self, tenant: &str, sender: &str, page: &PageRequest) -> Result<Page, Error>;

    /// Erases messages: their records, the claims of their ids and their rows in every
    /// list. In steps: a call that failed has erased some of them, and the same call
    /// again erases the rest and counts only those.
    ///
    /// What comes again from the topic, at the same place, stays erased. A message that
    /// is sent again with the id of an erased one is a new message.
    ///
    /// On the embedded store no file holds what was erased when this returns. Over CQL
    /// no query answers it; how long the database's files keep it is in the
    /// documentation of [`crate::cql`].
    ///
    /// # Errors
    /// When the store fails.
    async fn erase(&self, tenant: &str, what: &Erase) -> Result<Erased, Error>;

    /// As [`erase`](Self::erase), for what was on its way when that was called: no answer
    /// has it when this returns. The embedded store takes it out of its files by and by, so
    /// this waits for no merge and no copy of them.
    ///
    /// # Errors
    /// As there.
    async fn erase_late(&self, tenant: &str, what: &Erase) -> Result<Erased, Error> {
        self.erase(tenant, what).await
    }
}
