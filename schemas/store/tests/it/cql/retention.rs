//! How long rows live.

use jiff::Timestamp;
use scylla::client::session::Session;
use weir_records::Judged;
use weir_store::cql::{Config, Retention};
use weir_store::{History, PageRequest};

use crate::backend::{Cql, run_with};
use crate::rows::{HOUR, With, row};

const DAY: i32 = 86_400;

fn ten_days(config: &mut Config) {
    config.retention = Retention {
        days: 10,
        tenants: [("globex".to_owned(), 0)].into(),
    };
}

fn one_day(config: &mut Config) {
    config.retention.days = 1;
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
        ];
        assert_eq!(store.write(0, &rows).await.unwrap(), 3);
        assert_eq!(store.fence(0).await.unwrap(), Some(4));
        assert_eq!(store.source("acme", "over").await.unwrap(), None);
        let all = PageRequest {
            limit: 10,
            cursor: None,
        };
        let page = store.channel("acme", "lobby", &all).await.unwrap();
        assert_eq!(page.rows, [rows[2].clone(), rows[1].clone()]);

        let keyspace = &cql.0.keyspace;
        for (tenant, id, life) in [
            ("acme", "old", Some(DAY)),
            ("acme", "new", Some(10 * DAY)),
            ("globex", "old", None),
        ] {
            for column in ["messages/record", "sources/source"] {
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
                    "{table} {tenant} {id}: {left:?}"
                );
            }
        }
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
