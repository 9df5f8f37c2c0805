//! Migrations: repeatable, several at once, and never over a later version.

use scylla::client::session::Session;
use weir_store::cql::{Config, Migrated, Store, migrate};
use weir_store::{Error, History};

use super::crash::{Done, go_down};
use crate::backend::{Cql, run};
use crate::rows::row;

const MADE: Migrated = Migrated { from: 0, to: 2 };
const NOTHING: Migrated = Migrated { from: 2, to: 2 };

async fn count(session: &Session, cql: &Cql, scope: &str) -> i64 {
    let keyspace = &cql.0.keyspace;
    let text = format!("SELECT count(*) FROM {keyspace}.schema_migrations WHERE scope = '{scope}'");
    let answer = session.query_unpaged(text, &[]).await.unwrap();
    let row: (i64,) = answer.into_rows_result().unwrap().first_row().unwrap();
    row.0
}

#[tokio::test]
async fn a_second_migration_changes_nothing() {
    run(async |cql: &Cql| {
        assert_eq!(migrate(&cql.0).await.unwrap(), MADE);
        assert_eq!(migrate(&cql.0).await.unwrap(), NOTHING);
        Store::connect(&cql.0).await.unwrap();
        let session = cql.session().await;
        assert_eq!(count(&session, cql, "schema").await, 2);
        assert_eq!(count(&session, cql, "lock").await, 0, "it was given back");
    })
    .await;
}

#[tokio::test]
async fn several_at_once_make_the_tables_once() {
    run(async |cql: &Cql| {
        let (a, b, c) = tokio::join!(migrate(&cql.0), migrate(&cql.0), migrate(&cql.0));
        let mut done = [a.unwrap(), b.unwrap(), c.unwrap()];
        done.sort_by_key(|migrated| migrated.from);
        assert_eq!(done, [MADE, NOTHING, NOTHING]);
        assert_eq!(count(&cql.session().await, cql, "schema").await, 2);
    })
    .await;
}

#[tokio::test]
async fn the_lock_of_one_that_went_down_runs_out() {
    run(async |cql: &Cql| {
        let session = cql.session().await;
        let keyspace = &cql.0.keyspace;
        for text in [
            format!(
                "CREATE KEYSPACE {keyspace} WITH replication = \
                 {{'class': 'NetworkTopologyStrategy', 'replication_factor': 1}}"
            ),
            format!(
                "CREATE TABLE {keyspace}.schema_migrations (scope text, version int, name text, \
                 holder text, done_at timestamp, PRIMARY KEY ((scope), version))"
            ),
            format!(
                "INSERT INTO {keyspace}.schema_migrations (scope, version, holder) \
                 VALUES ('lock', 0, 'somebody') IF NOT EXISTS USING TTL 4"
            ),
        ] {
            session.query_unpaged(text, &[]).await.unwrap();
        }
        assert_eq!(migrate(&cql.0).await.unwrap(), MADE);
    })
    .await;
}

#[tokio::test]
async fn a_datacenter_that_is_not_there_is_a_wrong_setting_and_not_waited_for() {
    run(async |cql: &Cql| {
        cql.store().await;
        let config = Config {
            datacenter: "nowhere".into(),
            ..cql.0.clone()
        };
        for error in [
            Store::connect(&config).await.unwrap_err(),
            migrate(&config).await.unwrap_err(),
        ] {
            assert!(!error.retriable(), "{error}");
            let words = error.to_string();
            assert!(
                words.contains("`datacenter`") && words.contains("`datacenter1`"),
                "{words}"
            );
        }
        let config = Config {
            datacenter: "datacenter1".into(),
            ..config
        };
        Store::connect(&config).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_database_without_tables_says_what_to_run() {
    run(async |cql: &Cql| {
        let error = Store::connect(&cql.0).await.unwrap_err();
        assert!(
            matches!(error, Error::OlderFormat { found: 0, known: 2 }),
            "{error}"
        );
        assert!(error.to_string().contains("weir migrate"));
    })
    .await;
}

#[tokio::test]
async fn tables_of_the_first_version_are_upgraded_with_what_they_hold() {
    run(async |cql: &Cql| {
        migrate(&cql.0).await.unwrap();
        let (session, keyspace) = (cql.session().await, &cql.0.keyspace);
        // As the first version made and filled them: the text in the record.
        for text in [
            format!(
                "DELETE FROM {keyspace}.schema_migrations WHERE scope = 'schema' AND version = 2"
            ),
            format!("DROP TABLE {keyspace}.messages"),
            format!(
                "CREATE TABLE {keyspace}.messages (tenant text, id text, record blob, \
                 PRIMARY KEY ((tenant, id)))"
            ),
        ] {
            session.query_unpaged(text, &[]).await.unwrap();
        }
        let old = row("old", 1);
        go_down(&session, keyspace, &old, Done::Record).await;
        let error = Store::connect(&cql.0).await.unwrap_err();
        assert!(
            matches!(error, Error::OlderFormat { found: 1, known: 2 }),
            "{error}"
        );
        // One that stopped half-way.
        let text = format!("ALTER TABLE {keyspace}.messages ADD text text");
        session.query_unpaged(text, &[]).await.unwrap();
        let done = migrate(&cql.0).await.unwrap();
        assert_eq!(done, Migrated { from: 1, to: 2 });
        let store = Store::connect(&cql.0).await.unwrap();
        let new = row("new", 2);
        let written = store.write(0, &[old.clone(), new.clone()]).await.unwrap();
        assert_eq!(written, 1, "the old one was there");
        for row in [old, new] {
            let found = store.message("acme", &row.message.id).await.unwrap();
            assert_eq!(found, Some(row));
        }
    })
    .await;
}

#[tokio::test]
async fn the_tables_of_a_later_version_are_left_alone() {
    run(async |cql: &Cql| {
        migrate(&cql.0).await.unwrap();
        let text = format!(
            "INSERT INTO {}.schema_migrations (scope, version, name) \
             VALUES ('schema', 3, 'of a later Weir') IF NOT EXISTS",
            cql.0.keyspace
        );
        let session = cql.session().await;
        session.query_unpaged(text, &[]).await.unwrap();
        for error in [
            Store::connect(&cql.0).await.unwrap_err(),
            migrate(&cql.0).await.unwrap_err(),
        ] {
            assert!(
                matches!(error, Error::NewerFormat { found: 3, known: 2 }),
                "{error}"
            );
        }
    })
    .await;
}
