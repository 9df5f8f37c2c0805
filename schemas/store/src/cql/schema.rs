//! The tables, as the steps that lead to them. A step that was released never changes;
//! what comes later is a new one. Each statement may run twice.

use std::time::Duration;

use scylla::client::session::Session;
use scylla::errors::ExecutionError;
use scylla::statement::Statement;

use super::config::Config;
use super::failure::{damaged, failed, is_invalid};
use crate::{Error, Retention};

/// The version that this build needs, and the newest that it knows.
pub(super) const VERSION: u32 = 2;
/// The partition of `schema_migrations` that names the steps which were done.
pub(super) const STEPS: &str = "schema";
/// Its partition for whoever is at it.
pub(super) const LOCK: &str = "lock";

/// How often a table that is listed is asked again, every 100 ms.
const LISTED: u32 = 50;

/// Every table but `schema_migrations`.
const TABLES: [&str; 10] = [
    "sources",
    "messages",
    "channel_messages",
    "sender_messages",
    "list_days",
    "list_minutes",
    "fences",
    "users",
    "keys",
    "tenant_keys",
];

/// One step: from the version before to this one.
pub(super) struct Step {
    pub(super) version: u32,
    pub(super) name: &'static str,
    pub(super) changes: Vec<Change>,
}

/// What a step does; each may be done twice.
pub(super) enum Change {
    /// A statement.
    Run(String),
    /// A column that is added where it is missing: not every server knows how to say so.
    Add {
        table: &'static str,
        column: &'static str,
        of: &'static str,
    },
}

/// All steps, oldest first.
pub(super) fn steps(config: &Config) -> Vec<Step> {
    let (keyspace, days) = (&config.keyspace, window_days(&config.retention));
    let text = |column| Change::Add {
        table: "messages",
        column,
        of: "text",
    };
    vec![
        Step {
            version: 1,
            name: "history, accounts and keys",
            changes: first(keyspace, days).into_iter().map(Change::Run).collect(),
        },
        Step {
            version: 2,
            name: "texts that run out before their verdicts",
            changes: vec![
                text("text"),
                text("metadata"),
                // A file with much that has run out is written anew.
                Change::Run(format!(
                    "ALTER TABLE {keyspace}.messages WITH compaction = {{{}, \
                     'tombstone_threshold': '0.2', 'tombstone_compaction_interval': '86400', \
                     'unchecked_tombstone_compaction': 'true'}}",
                    windows(days)
                )),
            ],
        },
    ]
}

/// How files are compacted whose rows run out.
fn windows(days: u32) -> String {
    format!(
        "'class': 'TimeWindowCompactionStrategy', \
         'compaction_window_unit': 'DAYS', 'compaction_window_size': {days}"
    )
}

/// What has to be there before a step can be noted; `tablets`: on a server that has them.
pub(super) fn keyspace(config: &Config, tablets: bool) -> [String; 2] {
    let Config {
        keyspace,
        replication,
        ..
    } = config;
    // ScyllaDB puts a new keyspace on tablets by default, and until 2025.4 decides nothing there.
    let without = if tablets {
        " AND tablets = {'enabled': false}"
    } else {
        ""
    };
    [
        format!(
            "CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = \
             {{'class': 'NetworkTopologyStrategy', 'replication_factor': {replication}}}{without}"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.schema_migrations (\
             scope text, version int, name text, holder text, done_at timestamp, \
             PRIMARY KEY ((scope), version))"
        ),
    ]
}

fn first(keyspace: &str, days: u32) -> Vec<String> {
    let windows = format!("compaction = {{{}}}", windows(days));
    let list = |owner: &str| {
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.{owner}_messages (\
             tenant text, {owner} text, day int, minute int, \
             received_at bigint, source_offset bigint, source_partition int, id text, \
             PRIMARY KEY ((tenant, {owner}, day, minute), received_at, source_offset, source_partition)) \
             WITH CLUSTERING ORDER BY (received_at DESC, source_offset DESC, source_partition DESC) \
             AND {windows}"
        )
    };
    vec![
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.sources (\
             tenant text, id text, source frozen<tuple<int, bigint>>, \
             PRIMARY KEY ((tenant, id))) WITH {windows}"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.messages (\
             tenant text, id text, record blob, PRIMARY KEY ((tenant, id))) WITH {windows}"
        ),
        list("channel"),
        list("sender"),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.list_days (\
             kind text, tenant text, name text, day int, split boolean, \
             PRIMARY KEY ((kind, tenant, name), day)) WITH CLUSTERING ORDER BY (day DESC)"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.list_minutes (\
             kind text, tenant text, name text, day int, minute int, \
             PRIMARY KEY ((kind, tenant, name, day), minute)) \
             WITH CLUSTERING ORDER BY (minute DESC) AND {windows}"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.fences (\
             source_partition int PRIMARY KEY, source_offset bigint)"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.users (\
             shelf tinyint, item text, name text, value text, \
             PRIMARY KEY ((shelf), item, name))"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.keys (\
             shelf tinyint, id text, value text, PRIMARY KEY ((shelf), id))"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.tenant_keys (\
             tenant text, id text, PRIMARY KEY ((tenant), id))"
        ),
    ]
}

/// Days of one window of the compaction: some thirty windows make up a retention, so that
/// what has run out is dropped in whole files; a month each where nothing runs out.
fn window_days(retention: &Retention) -> u32 {
    match retention.verdict_days {
        0 => 30,
        days => days.div_ceil(30),
    }
}

/// Whether the server is a `ScyllaDB` that has tablets: only those have this column.
pub(super) async fn has_tablets(session: &Session) -> Result<bool, Error> {
    let text = "SELECT initial_tablets FROM system_schema.scylla_keyspaces LIMIT 1";
    match session.query_unpaged(text, &[]).await {
        Ok(_) => Ok(true),
        Err(error) if is_invalid(&error) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

/// Whether the table has that column.
pub(super) async fn has(
    session: &Session,
    config: &Config,
    table: &str,
    column: &str,
) -> Result<bool, Error> {
    let text = "SELECT column_name FROM system_schema.columns \
                WHERE keyspace_name = ? AND table_name = ? AND column_name = ?";
    let answer: Result<_, ExecutionError> = session
        .query_unpaged(text, (&config.keyspace, table, column))
        .await;
    let answer = answer.map_err(failed)?.into_rows_result().map_err(failed)?;
    Ok(answer.rows_num() > 0)
}

/// The version that the database has; 0 where there is none.
pub(super) async fn version(session: &Session, config: &Config) -> Result<u32, Error> {
    let tables = tables(session, config).await?;
    if !tables.iter().any(|table| table == "schema_migrations") {
        return Ok(0);
    }
    let keyspace = &config.keyspace;
    let mut last = Statement::new(format!(
        "SELECT version FROM {keyspace}.schema_migrations WHERE scope = '{STEPS}' \
         ORDER BY version DESC LIMIT 1"
    ));
    // The steps are noted by decision, so they are read with it.
    last.set_consistency(config.serial_consistency.into());
    let mut tries = 0;
    let answer = loop {
        match session.query_unpaged(last.clone(), &[]).await {
            // A node lists a table some moments before it knows it.
            Err(error) if is_invalid(&error) && tries < LISTED => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            answer => break answer.map_err(failed)?,
        }
    };
    let version: Option<(i32,)> = answer
        .into_rows_result()
        .map_err(failed)?
        .maybe_first_row()
        .map_err(|_| damaged("a row of `schema_migrations`"))?;
    Ok(version.map_or(0, |(version,)| version.unsigned_abs()))
}

/// Refuses a database that this build does not know, or that is not ready for it.
pub(super) async fn check(session: &Session, config: &Config) -> Result<(), Error> {
    let found = version(session, config).await?;
    match found {
        VERSION => Ok(()),
        newer if newer > VERSION => Err(Error::NewerFormat {
            found,
            known: VERSION,
        }),
        _ => Err(Error::OlderFormat {
            found,
            known: VERSION,
        }),
    }
}

/// Whether every table is there: then a row that is refused is itself at fault.
pub(super) async fn complete(session: &Session, config: &Config) -> Result<bool, Error> {
    let found = tables(session, config).await?;
    Ok(TABLES
        .iter()
        .all(|table| found.iter().any(|name| name == table)))
}

async fn tables(session: &Session, config: &Config) -> Result<Vec<String>, Error> {
    let answer: Result<_, ExecutionError> = session
        .query_unpaged(
            format!(
                "SELECT table_name FROM system_schema.tables WHERE keyspace_name = '{}'",
                config.keyspace
            ),
            &[],
        )
        .await;
    let answer = answer.map_err(failed)?.into_rows_result().map_err(failed)?;
    answer
        .rows::<(String,)>()
        .map_err(failed)?
        .map(|row| row.map(|(table,)| table).map_err(failed))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_lead_to_the_version_that_is_needed_one_by_one() {
        let versions: Vec<u32> = steps(&Config::default())
            .iter()
            .map(|step| step.version)
            .collect();
        assert_eq!(versions, (1..=VERSION).collect::<Vec<_>>());
    }

    #[test]
    fn a_new_keyspace_is_without_tablets_where_there_are_any() {
        let without = |tablets| {
            let [keyspace, _] = keyspace(&Config::default(), tablets);
            assert!(
                keyspace.starts_with("CREATE KEYSPACE IF NOT EXISTS weir WITH replication = {")
            );
            keyspace.ends_with("} AND tablets = {'enabled': false}")
        };
        assert!(without(true) && !without(false));
    }

    #[test]
    fn every_table_is_made_and_every_change_may_be_made_twice() {
        let mut made = Vec::new();
        for step in steps(&Config::default()) {
            for change in step.changes {
                match change {
                    Change::Run(text) if text.starts_with("CREATE") => made.push(text),
                    Change::Run(text) => assert!(text.contains(" WITH "), "{text}"),
                    Change::Add { table, .. } => assert!(TABLES.contains(&table)),
                }
            }
        }
        assert!(made.iter().all(|text| text.contains("IF NOT EXISTS")));
        for table in TABLES {
            let name = format!(" weir.{table} (");
            assert!(made.iter().any(|text| text.contains(&name)), "{table}");
        }
        assert_eq!(made.len(), TABLES.len());
    }

    #[test]
    fn a_retention_has_at_most_some_thirty_windows() {
        let window = |days| window_days(&Retention::of_days(days));
        assert_eq!(
            [window(0), window(1), window(30), window(31), window(365)],
            [30, 1, 1, 2, 13]
        );
    }
}
