//! Brings the tables to the version that this build needs; however often, and however
//! many at once.
//!
//! One holder at a time works, decided by a lightweight transaction on a row that runs
//! out by itself, so a holder that went down holds up nobody for longer than a minute.
//! Losing the lock half-way does no harm: every statement may run twice, and each waits
//! until all nodes agree on the schema.
//!
//! Two holders of different nodes could make the same table twice on servers without a
//! schema log of their own (Apache Cassandra up to 5.0), and the lock's own table can't
//! be made under the lock. So everybody sends what changes the schema to the same node,
//! the one with the smallest id, and that node does one thing after the other.
//!
//! `ScyllaDB` is not among the servers that the tests run on. What is done for it alone (a
//! keyspace without tablets) follows its documentation and is not tried on one.

use std::sync::Arc;
use std::time::Duration;

use scylla::client::session::Session;
use scylla::policies::load_balancing::{
    LoadBalancingPolicy, NodeIdentifier, SingleTargetLoadBalancingPolicy,
};
use scylla::response::query_result::QueryResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::Statement;
use scylla::value::CqlTimestamp;
use tokio::time::{Instant, sleep};

use super::config::Config;
use super::failure::{contended, failed};
use super::schema::{self, Change, LOCK, STEPS, Step, VERSION};
use super::session::connect_to_change;
use super::statements::applied;
use crate::Error;

/// How long the lock stays when its holder goes down. Renewed before each statement.
const LOCK_SECONDS: u32 = 60;
/// How long a statement that changes the schema may take.
const STATEMENT: Duration = Duration::from_secs(40);
/// How long another's migration is waited for.
const PATIENCE: Duration = Duration::from_secs(180);
/// How often its end is looked for.
const LOOK: Duration = Duration::from_millis(200);

/// What a migration did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migrated {
    /// The version before; 0 where there were no tables.
    pub from: u32,
    /// The version now.
    pub to: u32,
}

/// Makes the keyspace and the tables, or brings them up to date. Where others do the
/// same at the moment, waits for them.
///
/// # Errors
/// [`Error::Setting`]; [`Error::NewerFormat`] where a later Weir has been at it;
/// [`Error::Unavailable`] when the database can't be reached, or another migration did
/// not end within three minutes.
pub async fn migrate(config: &Config) -> Result<Migrated, Error> {
    let session = connect_to_change(config).await?;
    let migration = Migration {
        holder: session.session_id().to_string(),
        node: one_node(&session),
        session: &session,
        config,
    };
    migration.agreement().await?;
    match schema::check(&session, config).await {
        // Nothing to do.
        Ok(()) => {
            return Ok(Migrated {
                from: VERSION,
                to: VERSION,
            });
        }
        Err(Error::OlderFormat { .. }) => {}
        Err(error) => return Err(error),
    }
    let tablets = schema::has_tablets(&session).await?;
    for statement in schema::keyspace(config, tablets) {
        migration.change(&statement).await?;
    }
    migration.lock().await?;
    let done = migration.work().await;
    migration.unlock().await;
    done
}

/// The node that all migrations send their changes to.
fn one_node(session: &Session) -> Option<Arc<dyn LoadBalancingPolicy>> {
    let state = session.get_cluster_state();
    let nodes = state.get_nodes_info().iter();
    let node = nodes
        .filter(|node| node.is_connected())
        .min_by_key(|node| node.host_id)?;
    Some(SingleTargetLoadBalancingPolicy::new(
        NodeIdentifier::HostId(node.host_id),
        None,
    ))
}

struct Migration<'a> {
    session: &'a Session,
    config: &'a Config,
    holder: String,
    node: Option<Arc<dyn LoadBalancingPolicy>>,
}

impl Migration<'_> {
    async fn work(&self) -> Result<Migrated, Error> {
        let from = schema::version(self.session, self.config).await?;
        if from > VERSION {
            return Err(Error::NewerFormat {
                found: from,
                known: VERSION,
            });
        }
        let steps = schema::steps(self.config);
        for step in steps.iter().filter(|step| step.version > from) {
            for change in &step.changes {
                self.renew().await?;
                match change {
                    Change::Run(text) => self.change(text).await?,
                    Change::Add { table, column, of } => self.add(table, column, of).await?,
                }
            }
            self.note(step).await?;
            tracing::info!(
                version = step.version,
                step = step.name,
                "the database was migrated"
            );
        }
        Ok(Migrated { from, to: VERSION })
    }

    /// Runs one statement that changes the schema, until all nodes agree on it.
    async fn change(&self, text: &str) -> Result<(), Error> {
        let mut statement = Statement::new(text);
        statement.set_request_timeout(Some(STATEMENT));
        statement.set_is_idempotent(true);
        statement.set_load_balancing_policy(self.node.clone());
        self.session
            .query_unpaged(statement, &[])
            .await
            .map_err(failed)?;
        // The driver waits only if the statement itself has changed something: not for what
        // another migration has made a moment before.
        self.agreement().await
    }

    /// Waits until all nodes that answer know the same tables: any of them may be asked next.
    async fn agreement(&self) -> Result<(), Error> {
        let agreed = self.session.await_schema_agreement().await;
        agreed.map(|_| ()).map_err(failed)
    }

    async fn add(&self, table: &str, column: &str, of: &str) -> Result<(), Error> {
        if schema::has(self.session, self.config, table, column).await? {
            return Ok(());
        }
        let keyspace = &self.config.keyspace;
        self.change(&format!("ALTER TABLE {keyspace}.{table} ADD {column} {of}"))
            .await
    }

    async fn note(&self, step: &Step) -> Result<(), Error> {
        let now = CqlTimestamp(jiff::Timestamp::now().as_millisecond());
        let version = i32::try_from(step.version).unwrap_or(i32::MAX);
        self.decide(
            "INSERT INTO {keyspace}.schema_migrations (scope, version, name, holder, done_at) \
             VALUES (?, ?, ?, ?, ?) IF NOT EXISTS",
            (STEPS, version, step.name, &self.holder, now),
        )
        .await?;
        Ok(())
    }

    async fn lock(&self) -> Result<(), Error> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let text = format!(
                "INSERT INTO {{keyspace}}.schema_migrations (scope, version, holder) \
                 VALUES (?, 0, ?) IF NOT EXISTS USING TTL {LOCK_SECONDS}"
            );
            // A try that lost against others may have taken the lock all the same.
            if self.decide(&text, (LOCK, &self.holder)).await? || self.renew().await.is_ok() {
                return Ok(());
            }
            if Instant::now() > give_up {
                return Err(Error::Unavailable(
                    "another migration of the database does not end".into(),
                ));
            }
            sleep(LOOK).await;
        }
    }

    /// Keeps the lock for another while.
    async fn renew(&self) -> Result<(), Error> {
        let text = format!(
            "UPDATE {{keyspace}}.schema_migrations USING TTL {LOCK_SECONDS} SET holder = ? \
             WHERE scope = ? AND version = 0 IF holder = ?"
        );
        let held = self
            .decide(&text, (&self.holder, LOCK, &self.holder))
            .await?;
        if held {
            Ok(())
        } else {
            Err(Error::Unavailable(
                "another migration of the database has taken over".into(),
            ))
        }
    }

    async fn unlock(&self) {
        let given_back = self
            .decide(
                "DELETE FROM {keyspace}.schema_migrations WHERE scope = ? AND version = 0 \
                 IF holder = ?",
                (LOCK, &self.holder),
            )
            .await;
        if let Err(error) = given_back {
            // It runs out by itself.
            tracing::warn!(%error, "the lock of the migration could not be given back");
        }
    }

    /// Whether the condition held. One that lost against others is asked again.
    async fn decide(&self, text: &str, values: impl SerializeRow) -> Result<bool, Error> {
        let text = text.replace("{keyspace}", &self.config.keyspace);
        let give_up = Instant::now() + PATIENCE;
        loop {
            let answer: Result<QueryResult, _> =
                self.session.query_unpaged(text.as_str(), &values).await;
            match answer {
                Ok(answer) => return applied(answer),
                Err(error) if contended(&error) && Instant::now() < give_up => sleep(LOOK).await,
                Err(error) => return Err(failed(error)),
            }
        }
    }
}
