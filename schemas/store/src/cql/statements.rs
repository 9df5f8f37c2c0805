//! What is ever said to the tables, prepared once.
//!
//! Every statement names its whole partition key, so that it goes to a node that has
//! the row. All but those that decide about accounts may be sent twice: the same values
//! write the same cells.

use scylla::client::execution_profile::ExecutionProfileHandle;
use scylla::client::session::Session;
use scylla::response::query_result::QueryResult;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::Row;

use super::buckets::Kind;
use super::config::Config;
use super::failure::{damaged, failed};
use super::session::Connected;
use crate::Error;

/// The statements of the history.
pub(super) struct Statements {
    pub(super) put_source: PreparedStatement,
    pub(super) let_go: PreparedStatement,
    pub(super) source: PreparedStatement,
    pub(super) put_message: PreparedStatement,
    pub(super) put_record: PreparedStatement,
    pub(super) put_text: PreparedStatement,
    pub(super) erase_message: PreparedStatement,
    pub(super) message: PreparedStatement,
    pub(super) put_fence: PreparedStatement,
    pub(super) fence: PreparedStatement,
    pub(super) put_day: PreparedStatement,
    pub(super) split_day: PreparedStatement,
    pub(super) day: PreparedStatement,
    pub(super) days: PreparedStatement,
    pub(super) put_minute: PreparedStatement,
    pub(super) minutes: PreparedStatement,
    pub(super) channels: List,
    pub(super) senders: List,
    pub(super) people: People,
    pub(super) keys: Keys,
}

/// The statements of one of the two lists.
pub(super) struct List {
    pub(super) put: PreparedStatement,
    pub(super) erase: PreparedStatement,
    pub(super) page: PreparedStatement,
    pub(super) count: PreparedStatement,
}

/// The statements of the users.
pub(super) struct People {
    pub(super) create: PreparedStatement,
    pub(super) change: PreparedStatement,
    pub(super) free: PreparedStatement,
    pub(super) one: PreparedStatement,
    /// The same, after what is being decided has been.
    pub(super) one_decided: PreparedStatement,
    pub(super) all: PreparedStatement,
}

/// The statements of the API keys.
pub(super) struct Keys {
    pub(super) create: PreparedStatement,
    pub(super) change: PreparedStatement,
    pub(super) put_of_tenant: PreparedStatement,
    pub(super) one: PreparedStatement,
    pub(super) shelf: PreparedStatement,
    pub(super) of_tenant: PreparedStatement,
}

impl Statements {
    /// The lists of that kind.
    pub(super) const fn list(&self, kind: Kind) -> &List {
        match kind {
            Kind::Channel => &self.channels,
            Kind::Sender => &self.senders,
        }
    }

    pub(super) async fn prepare(connected: &Connected, config: &Config) -> Result<Self, Error> {
        let preparer = Preparer {
            session: &connected.session,
            reads: &connected.reads,
            config,
        };
        let (read, write, decide) = (
            |text| preparer.read(text),
            |text| preparer.write(text),
            |text| preparer.decide(text),
        );
        Ok(Self {
            put_source: write(
                "INSERT INTO {keyspace}.sources (tenant, id, source) VALUES (?, ?, ?) \
                 USING TTL ? AND TIMESTAMP ?",
            )
            .await?,
            let_go: write(
                "DELETE FROM {keyspace}.sources USING TIMESTAMP ? WHERE tenant = ? AND id = ?",
            )
            .await?,
            source: read("SELECT source FROM {keyspace}.sources WHERE tenant = ? AND id = ?")
                .await?,
            put_message: write(
                "INSERT INTO {keyspace}.messages (tenant, id, record, text, metadata) \
                 VALUES (?, ?, ?, ?, ?) USING TTL ? AND TIMESTAMP ?",
            )
            .await?,
            put_record: write(
                "INSERT INTO {keyspace}.messages (tenant, id, record) VALUES (?, ?, ?) \
                 USING TTL ? AND TIMESTAMP ?",
            )
            .await?,
            put_text: write(
                "UPDATE {keyspace}.messages USING TTL ? AND TIMESTAMP ? \
                 SET text = ?, metadata = ? WHERE tenant = ? AND id = ?",
            )
            .await?,
            erase_message: write(
                "DELETE FROM {keyspace}.messages USING TIMESTAMP ? WHERE tenant = ? AND id = ?",
            )
            .await?,
            message: read(
                "SELECT record, text, metadata FROM {keyspace}.messages \
                 WHERE tenant = ? AND id = ?",
            )
            .await?,
            put_fence: write(
                "INSERT INTO {keyspace}.fences (source_partition, source_offset) VALUES (?, ?) \
                 USING TIMESTAMP ?",
            )
            .await?,
            fence: read("SELECT source_offset FROM {keyspace}.fences WHERE source_partition = ?")
                .await?,
            put_day: write(
                "INSERT INTO {keyspace}.list_days (kind, tenant, name, day) VALUES (?, ?, ?, ?) \
                 USING TTL ?",
            )
            .await?,
            split_day: write(
                "INSERT INTO {keyspace}.list_days (kind, tenant, name, day, split) \
                 VALUES (?, ?, ?, ?, true) USING TTL ?",
            )
            .await?,
            day: read(
                "SELECT split FROM {keyspace}.list_days \
                 WHERE kind = ? AND tenant = ? AND name = ? AND day = ?",
            )
            .await?,
            days: read(
                "SELECT day, split FROM {keyspace}.list_days \
                 WHERE kind = ? AND tenant = ? AND name = ? AND day <= ? LIMIT ?",
            )
            .await?,
            put_minute: write(
                "INSERT INTO {keyspace}.list_minutes (kind, tenant, name, day, minute) \
                 VALUES (?, ?, ?, ?, ?) USING TTL ?",
            )
            .await?,
            minutes: read(
                "SELECT minute FROM {keyspace}.list_minutes \
                 WHERE kind = ? AND tenant = ? AND name = ? AND day = ? AND minute <= ? LIMIT ?",
            )
            .await?,
            channels: preparer.list(Kind::Channel).await?,
            senders: preparer.list(Kind::Sender).await?,
            people: People {
                create: decide(
                    "INSERT INTO {keyspace}.users (shelf, item, name, value) VALUES (0, ?, ?, ?) \
                     IF NOT EXISTS",
                )
                .await?,
                change: decide(
                    "UPDATE {keyspace}.users SET value = ? \
                     WHERE shelf = 0 AND item = ? AND name = ? IF value = ?",
                )
                .await?,
                free: decide(
                    "DELETE FROM {keyspace}.users WHERE shelf = 0 AND item = ? AND name = ?",
                )
                .await?,
                one: read(PERSON).await?,
                one_decided: {
                    let mut statement = read(PERSON).await?;
                    statement.set_consistency(config.serial_consistency.into());
                    statement
                },
                all: read("SELECT value FROM {keyspace}.users WHERE shelf = 0 AND item = ?")
                    .await?,
            },
            keys: Keys {
                create: decide(
                    "INSERT INTO {keyspace}.keys (shelf, id, value) VALUES (?, ?, ?) IF NOT EXISTS",
                )
                .await?,
                change: decide(
                    "UPDATE {keyspace}.keys SET value = ? WHERE shelf = ? AND id = ? IF EXISTS",
                )
                .await?,
                put_of_tenant: write(
                    "INSERT INTO {keyspace}.tenant_keys (tenant, id) VALUES (?, ?)",
                )
                .await?,
                one: read("SELECT value FROM {keyspace}.keys WHERE shelf = ? AND id = ?").await?,
                shelf: read("SELECT value FROM {keyspace}.keys WHERE shelf = ?").await?,
                of_tenant: read("SELECT id FROM {keyspace}.tenant_keys WHERE tenant = ?").await?,
            },
        })
    }
}

const PERSON: &str = "SELECT value FROM {keyspace}.users WHERE shelf = 0 AND item = ? AND name = ?";

struct Preparer<'a> {
    session: &'a Session,
    reads: &'a ExecutionProfileHandle,
    config: &'a Config,
}

impl Preparer<'_> {
    /// A read: also sent to a second node when the first is slow.
    async fn read(&self, text: &str) -> Result<PreparedStatement, Error> {
        let mut statement = self.write(text).await?;
        statement.set_execution_profile_handle(Some(self.reads.clone()));
        // The tables' columns don't change under a running Weir.
        statement.set_use_cached_result_metadata(true);
        Ok(statement)
    }

    /// A write that may be sent twice.
    async fn write(&self, text: &str) -> Result<PreparedStatement, Error> {
        let mut statement = self.decide(text).await?;
        statement.set_is_idempotent(true);
        Ok(statement)
    }

    /// A write that is done only where its condition holds, and never sent twice.
    async fn decide(&self, text: &str) -> Result<PreparedStatement, Error> {
        let text = text.replace("{keyspace}", &self.config.keyspace);
        self.session.prepare(text).await.map_err(failed)
    }

    async fn list(&self, kind: Kind) -> Result<List, Error> {
        let owner = kind.name();
        let put = format!(
            "INSERT INTO {{keyspace}}.{owner}_messages (tenant, {owner}, day, minute, \
             received_at, source_offset, source_partition, id) VALUES (?, ?, ?, ?, ?, ?, ?, ?) \
             USING TTL ? AND TIMESTAMP ?"
        );
        let erase = format!(
            "DELETE FROM {{keyspace}}.{owner}_messages USING TIMESTAMP ? \
             WHERE tenant = ? AND {owner} = ? AND day = ? AND minute = ? \
             AND received_at = ? AND source_offset = ? AND source_partition = ?"
        );
        let page = format!(
            "SELECT received_at, source_offset, source_partition, id \
             FROM {{keyspace}}.{owner}_messages \
             WHERE tenant = ? AND {owner} = ? AND day = ? AND minute = ? \
             AND (received_at, source_offset, source_partition) < (?, ?, ?) LIMIT ?"
        );
        let count = format!(
            "SELECT count(*) FROM {{keyspace}}.{owner}_messages \
             WHERE tenant = ? AND {owner} = ? AND day = ? AND minute = ?"
        );
        Ok(List {
            put: self.write(&put).await?,
            erase: self.write(&erase).await?,
            page: self.read(&page).await?,
            count: self.read(&count).await?,
        })
    }
}

/// Whether a write with a condition was done. The columns of the answer depend on the
/// server and on the outcome, so this one is found by name.
pub(super) fn applied(answer: QueryResult) -> Result<bool, Error> {
    let broken = || damaged("the answer to a write with a condition");
    let answer = answer.into_rows_result().map_err(|_| broken())?;
    let row: Row = answer.first_row().map_err(|_| broken())?;
    let mut columns = answer.column_specs().iter().zip(row.columns);
    columns
        .find(|(spec, _)| spec.name() == "[applied]")
        .and_then(|(_, value)| value?.as_boolean())
        .ok_or_else(broken)
}
