//! How long rows live.

use jiff::Timestamp;
use scylla::client::session::Session;
use weir_records::Judged;
use weir_store::cql::Config;
use weir_store::{Days, History, PageRequest, Retention};

use crate::backend::{Cql, run_with};
use crate::rows::{HOUR, With, row};

const DAY: i32 = 86_400;

fn ten_days(config: &mut Config) {
    let days = |text_days, verdict_days| Days {
        text_days: Some(text_days),
        verdict_days: Some(verdict_days),
    };
    config.retention = Retention {
        tenants: [
            ("globex".to_owned(), days(0, 0)),
            ("initech".to_owned(), days(3, 10)),
        ]
        .into(),
        ..Retention::of_days(10)
    };
}

fn one_day(config: &mut Config) {
    config.retention = Retention::of_days(1);
}

fn twenty_years(config: &mut Config) {
    config.retention = Retention::of_days(7_300);
    config.retention.text_days = 7_299;
}

fn texts_a_day(config: &mut Config) {
    config.retention.text_days = 1;
}

/// What is left of a row when its text has run out.
fn without_text(row: &Judged) -> Judged {
    let mut row = row.clone();
    row.message.text.clear();
    row.message.metadata = None;
    row
}

async fn ttl(session: &Session, text: String) -> Option<i32> {
    let answer = session.query_unpaged(text, &[]).await.unwrap();
    let row: (Option<i32>,) = answer.into_rows_result().unwrap().first_row().unwrap();
    row.0
}

/// Received so many hours ago.
fn aged(id: &str, offset: i64, hours: i64) -> Judged {
    row(id, offset).at(Timestamp::now().as_microsecond() - hours * HOUR)
}

#[tokio::test]
async fn a_row_lives_for_its_tenants_retention_from_when_it_was_received() {
    run_with(ten_days, async |cql: &Cql| {
        let (store, session) = (cql.store().await, cql.session().await);
        let rows = [
            aged("over", 1, 241),
            aged("old", 2, 216),
            aged("new", 3, 0),
            aged("old", 4, 9_000).in_tenant("globex"),
            aged("old", 5, 96).in_tenant("initech"),
            aged("new", 6, 48).in_tenant("initech"),
        ];
        assert_eq!(store.write(0, &rows).await.unwrap(), 5);
        assert_eq!(store.fence(0).await.unwrap(), Some(6));
        assert_eq!(store.source("acme", "over").await.unwrap(), None);
        let all = PageRequest {
            limit: 10,
            cursor: None,
        };
        let page = store.channel("acme", "lobby", &all).await.unwrap();
        assert_eq!(page.rows, [rows[2].clone(), rows[1].clone()]);
        let page = store.channel("initech", "lobby", &all).await.unwrap();
        assert_eq!(page.rows, [rows[5].clone(), without_text(&rows[4])]);

        let keyspace = &cql.0.keyspace;
        for (tenant, id, life, text) in [
            ("acme", "old", Some(DAY), Some(DAY)),
            ("acme", "new", Some(10 * DAY), Some(10 * DAY)),
            ("globex", "old", None, None),
            ("initech", "new", Some(8 * DAY), Some(DAY)),
        ] {
            for (column, life) in [
                ("messages/record", life),
                ("sources/source", life),
                ("messages/text", text),
                ("messages/metadata", text),
            ] {
                let (table, column) = column.split_once('/').unwrap();
                let left = ttl(
                    &session,
                    format!(
                        "SELECT TTL({column}) FROM {keyspace}.{table} \
                     WHERE tenant = '{tenant}' AND id = '{id}'"
                    ),
                )
                .await;
                // A test may be slow.
                let about = |left: i32, life: i32| (life - 600..=life).contains(&left);
                assert!(
                    match (left, life) {
                        (Some(left), Some(life)) => about(left, life),
                        (left, life) => left == life,
                    },
                    "{table} {column} {tenant} {id}: {left:?}"
                );
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_retention_beyond_what_the_server_writes_refuses_no_row() {
    run_with(twenty_years, async |cql: &Cql| {
        let (store, session) = (cql.store().await, cql.session().await);
        let row = aged("m", 1, 0);
        assert_eq!(store.write(0, std::slice::from_ref(&row)).await.unwrap(), 1);
        assert_eq!(store.message("acme", "m").await.unwrap(), Some(row));
        let keyspace = &cql.0.keyspace;
        let text = format!("SELECT TTL(record) FROM {keyspace}.messages");
        let end = Timestamp::now().as_second() + i64::from(ttl(&session, text).await.unwrap());
        let last: Timestamp = "2038-01-18T00:00:00Z".parse().unwrap();
        // A test may be slow.
        assert!((0..600).contains(&(last.as_second() - end + 2)), "{end}");
    })
    .await;
}

#[tokio::test]
async fn a_row_that_has_run_out_is_gone_from_everywhere() {
    run_with(one_day, async |cql: &Cql| {
        let store = cql.store().await;
        // It has some seconds left: enough to be seen, unless the machine is very slow.
        let seconds = 1_000_000;
        let life = i64::from(DAY) * seconds;
        let row = row("m", 1).at(Timestamp::now().as_microsecond() - life + 15 * seconds);
        assert_eq!(store.write(0, std::slice::from_ref(&row)).await.unwrap(), 1);
        let all = PageRequest {
            limit: 10,
            cursor: None,
        };
        loop {
            let page = store.channel("acme", "lobby", &all).await.unwrap();
            if page.rows.is_empty() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        // Each table counts its own seconds.
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        assert_eq!(store.message("acme", "m").await.unwrap(), None);
        assert_eq!(store.source("acme", "m").await.unwrap(), None);
        let page = store.sender("acme", "ada", &all).await.unwrap();
        assert!(page.rows.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_text_that_has_run_out_leaves_its_verdict() {
    run_with(texts_a_day, async |cql: &Cql| {
        let (store, session) = (cql.store().await, cql.session().await);
        let left = 15;
        let at = Timestamp::now().as_microsecond() - i64::from(DAY - left) * 1_000_000;
        let row = row("m", 1).at(at);
        store.write(0, std::slice::from_ref(&row)).await.unwrap();
        loop {
            let found = store.message("acme", "m").await.unwrap().unwrap();
            if found != row {
                assert_eq!(found, without_text(&row));
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
        let all = PageRequest {
            limit: 10,
            cursor: None,
        };
        for page in [
            store.channel("acme", "lobby", &all).await.unwrap(),
            store.sender("acme", "ada", &all).await.unwrap(),
        ] {
            assert_eq!(page.rows, [without_text(&row)]);
        }
        assert_eq!(store.source("acme", "m").await.unwrap(), Some(row.source));
        // Nothing else in the row has it.
        let text = format!("SELECT * FROM {}.messages", cql.0.keyspace);
        let answer = session.query_unpaged(text, &[]).await.unwrap();
        let answer = answer.into_rows_result().unwrap();
        let cells: scylla::value::Row = answer.single_row().unwrap();
        let cells: Vec<_> = cells.columns.into_iter().flatten().collect();
        assert_eq!(cells.len(), 3, "tenant, id and record");
        for cell in cells {
            let bytes = cell.into_blob().unwrap_or_default();
            assert!(!String::from_utf8_lossy(&bytes).contains("words of m"));
        }
    })
    .await;
}
