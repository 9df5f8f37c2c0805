//! The store on ScyllaDB or Apache Cassandra.
//!
//! ```text
//! sources           tenant, id                          → source       whose the id is
//! messages          tenant, id                          → record, text, metadata
//! channel_messages  tenant, channel, day, minute | received, offset, partition → id
//! sender_messages   tenant, sender,  day, minute | received, offset, partition → id
//! list_days         kind, tenant, name      | day       → split        index of the lists
//! list_minutes      kind, tenant, name, day | minute
//! fences            source partition                    → offset       a register that only grows
//! users             shelf 0 | name or e-mail address                   by decision
//! keys, tenant_keys shelf | id; tenant | id                            by decision
//! ```
//!
//! What stands before `|` is the partition. Every statement names it whole; there are no
//! materialised views, no secondary indexes and no filtering. A record, and with it the
//! text, is stored once; lists hold ids. So a message costs a third of the space that a
//! copy in each list would take, is erased in one place, and reads the same everywhere.
//!
//! # Every row once, without transactions
//!
//! A write of rows does, each step for all of them before the next:
//!
//! 1. drop what is not above the fence, and all but the first row of an id;
//! 2. look up in `sources` whose each id is, and drop those of another row; an id that Weir
//!    made for this very row is nobody else's, and is not looked up;
//! 3. for the ids that are nobody's yet, or this very row's: put the record and, in the
//!    same change of the same partition, the row's own partition and offset in `sources`;
//! 4. put the row of each list, under keys that only depend on the row;
//! 5. move the fence up to the last offset.
//!
//! Partitions that the same nodes have are written in one request ([`together`]).
//!
//! - *A crash between any two steps* leaves the fence where it was. The rows come again
//!   from the topic, find that their ids are their own, or made for them, and do the rest;
//!   what is there already is written again with the same key, the same value and the same
//!   time, which changes nothing. The same value, because of two verdicts on one row the
//!   topic always brings the same one first.
//! - *The same id at another offset*, in the same partition or in another, a second or a
//!   year later, is another's: it is dropped everywhere, and the fence passes it.
//! - *The same id of two channels at the same moment*, in two sinks of which neither sees
//!   the other's yet: both write. The cells of the one received later stay, the rows that
//!   the other has in lists point to a record that is not theirs, and no reader shows
//!   them. So there is one message, the same one for everybody; but who reads in between
//!   may see the first. The way in and the processor turn such a pair into a conflict
//!   long before, unless both are within a moment of each other on different machines.
//! - *A writer that comes late*, stopped for an hour with rows in its hands, has read a
//!   fence and owners that may have changed since. Its rows are there already, the same
//!   ones; what was erased meanwhile stays so, because all its cells bear the moment at
//!   which the message was received ([`life`]), and lose against any later erasure.
//! - *Its fence* loses too: the cell of a fence bears the offset as its time, so the
//!   highest offset stays whoever writes last, without agreement. Nothing may ever write
//!   that cell with another time, or delete it with a larger one than it should have.
//!
//! Cells of a row must not bear the source offset as their time, tempting as it is: the
//! compaction sorts files by the time of their cells, and those of two partitions can't
//! be compared.
//!
//! There is no lightweight transaction on the way of a message. With one for each id,
//! which also settles who was first at the same moment, a node took a fifth of the rows.
//!
//! # Partitions stay small
//!
//! A row of a list has 20 bytes of keys, an id of 128 at most, and some 25 of Cassandra's
//! own: 200 bytes, to be generous. At most 100 MB a partition are 500,000 rows.
//!
//! - A bucket is a day, as long as that is small: a process that begins with a day counts
//!   what is there, and once that and its own rows are `day_rows` (50,000), the day is split
//!   and what follows goes to minutes ([`buckets`]). So a process adds that many at most,
//!   and one that is started anew nothing where there are as many. Ten processes at the same
//!   time, of which none knows of the others' rows: 10 × 50,000 × 200 B = 100 MB.
//! - A minute of 100 MB takes 500,000 / 60 = 8,300 messages a second of one channel.
//!   All of a channel's messages are in one partition of the topic, and one processor
//!   judges some thousand of them a second: a fraction of that.
//! - The index has 60 bytes for each day of a list, 22 KB a year, and for each minute of
//!   a split day, 86 KB a day, in a partition a day.
//! - `messages` and `sources` have a partition for each message, `fences` for each
//!   partition of the topic; see [`accounts`] for those of the accounts.
//!
//! Days, not minutes, for lists that are not busy: most channels and nearly all senders
//! have a few messages a day, and a page of theirs reads a few buckets instead of one
//! for each message.
//!
//! # Retention
//!
//! Each row lives for as long as the tenant keeps verdicts, counted from when the message
//! was received: one that is read back late does not live longer, and one that would be
//! over is not written. Its text and metadata are cells of their own, written in the same
//! request, which live for as long as the tenant keeps texts; the record is without them.
//!
//! Nothing lives beyond 2038-01-18, because Apache Cassandra refuses what would, unless its
//! files are in a format that it does not begin with (`storage_compatibility_mode: NONE`).
//! What would has its life cut to that, and a store says so when it is opened; for good
//! (0 days) is not cut.
//!
//! What has run out is in no answer from that second on. Files are compacted by time
//! windows, a thirtieth of the verdicts' retention each, and dropped whole ten days
//! (`gc_grace_seconds`) after all in them is over. Texts that run out before their
//! verdicts leave a file in which they are a fifth or more when it is written anew, at
//! most a day after those ten days; `nodetool garbagecollect` does it at once.
//!
//! The window is chosen when the tables are made; changing the retention later works, but
//! the window is the operator's to alter. A changed retention is that of messages written
//! from then on, and of the lists of the day on which it changes.
//!
//! # Erasure
//!
//! What is erased is in no answer any more once the call returns, from every node that a
//! read asks; see [`erase`] for what keeps it away. Files keep it for longer, as those of
//! any such database do:
//!
//! - the removal is written beside what it removes, and the two meet when their files are
//!   merged. Files of past windows are not merged by themselves, so an operator has it
//!   done: `nodetool flush` and then `nodetool garbagecollect KEYSPACE` on every node of
//!   Apache Cassandra, `nodetool compact KEYSPACE` on those of ScyllaDB. Without that
//!   the text lies in the file of its window until its retention drops that file;
//! - the log of a node (`commitlog`) keeps it until its tables were flushed and the
//!   segment is used again; so does the store of hints, for three hours at most;
//! - snapshots and backups keep it until they are deleted, also those that the server
//!   makes by itself when a table is dropped (`auto_snapshot`);
//! - the index of the lists, which has no texts, keeps the name of the sender and the days
//!   on which there was something, for as long as the retention says.
//!
//! Removals are kept for ten days (`gc_grace_seconds`): a node that was away for longer
//! must be rebuilt, not started, or it brings back what it did not hear was erased.
//! Erasing more than 100,000 messages of one day of one list makes a page of that day
//! read as many removals, which Apache Cassandra refuses (`tombstone_failure_threshold`)
//! until they were compacted away. Erasing once more then fails as well; the sinks, which
//! do that for what they were writing, write on and try it again from time to time.
//!
//! # When nodes are away
//!
//! Reads and writes need more than half of the copies in the datacenter
//! (`LOCAL_QUORUM`), go to a node that has the row, and reads that take too long to a
//! second one. What can't be reached is [`Error::Unavailable`]: nothing is remembered
//! here that a later try would have to mend. A single node that is killed, or loses its
//! power, loses what it acknowledged last, unless it runs with `commitlog_sync: batch`;
//! see [`durability`].

mod accounts;
mod buckets;
mod config;
mod durability;
mod erase;
mod failure;
mod life;
mod lists;
mod migrate;
mod read;
mod schema;
mod session;
mod statements;
mod together;
mod write;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use scylla::client::session::Session;
use tokio::sync::Mutex;
use tokio::time::timeout;
use weir_records::{Judged, Source};

use self::buckets::{Kind, Tallies};
use self::failure::failed;
use self::statements::Statements;
use crate::{Erase, Erased, Error, History, Page, PageRequest};

pub use self::config::{Config, Consistency, SerialConsistency, Tls};
pub use self::migrate::{Migrated, migrate};

/// Accounts and history in a CQL database.
pub struct Store {
    session: Session,
    statements: Statements,
    config: Config,
    /// How long a decision may be fought for.
    patience: Duration,
    tallies: Tallies,
    /// One change of the accounts at a time.
    accounts: Mutex<()>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Connects to the database, whose tables [`migrate`] has made.
    ///
    /// # Errors
    /// [`Error::Setting`]; [`Error::OlderFormat`] and [`Error::NewerFormat`] where the
    /// tables are not those of this build; [`Error::Unavailable`] when the database
    /// can't be reached or does not let us in.
    pub async fn connect(config: &Config) -> Result<Arc<Self>, Error> {
        let connected = session::connect(config).await?;
        schema::check(&connected.session, config).await?;
        let patience = Duration::from_secs(config.write_seconds.into());
        // The driver waits for ever for a node that does not answer this.
        let statements = timeout(patience, Statements::prepare(&connected, config))
            .await
            .map_err(failed)??;
        durability::warn_of_loss(&connected.session, config).await;
        if life::is_cut(&config.retention, Timestamp::now().as_microsecond()) {
            tracing::warn!(
                "`retention` reaches beyond 2038-01-18, which is when the database drops what \
                 it is given now; 0 days keep it for good"
            );
        }
        Ok(Arc::new(Self {
            session: connected.session,
            statements,
            tallies: Tallies::new(config.day_rows),
            config: config.clone(),
            patience,
            accounts: Mutex::default(),
        }))
    }
}

#[async_trait]
impl History for Store {
    async fn write(&self, partition: i32, rows: &[Judged]) -> Result<usize, Error> {
        self.write_rows(partition, rows).await
    }

    async fn put(&self, row: &Judged) -> Result<bool, Error> {
        self.put_row(row).await
    }

    async fn fence(&self, partition: i32) -> Result<Option<i64>, Error> {
        self.read_fence(partition).await
    }

    async fn message(&self, tenant: &str, id: &str) -> Result<Option<Judged>, Error> {
        self.judged(tenant, id).await
    }

    async fn source(&self, tenant: &str, id: &str) -> Result<Option<Source>, Error> {
        self.read_source(tenant, id).await
    }

    async fn channel(
        &self,
        tenant: &str,
        channel: &str,
        page: &PageRequest,
    ) -> Result<Page, Error> {
        self.page(Kind::Channel, tenant, channel, page).await
    }

    async fn sender(&self, tenant: &str, sender: &str, page: &PageRequest) -> Result<Page, Error> {
        self.page(Kind::Sender, tenant, sender, page).await
    }

    async fn erase(&self, tenant: &str, what: &Erase) -> Result<Erased, Error> {
        self.erase_rows(tenant, what).await
    }
}
