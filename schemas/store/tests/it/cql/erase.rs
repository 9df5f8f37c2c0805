//! Erasing against writers that come late, and what is left in the tables.

use scylla::client::session::Session;
use scylla::value::{CqlValue, Row};
use weir_records::Judged;
use weir_store::{Erase, History, PageRequest};

use super::crash::{Done, go_down};
use crate::backend::{Cql, run, run_with};
use crate::rows::{HOUR, MIDNIGHT, With, row};

const ALL: PageRequest = PageRequest {
    limit: 1_000,
    cursor: None,
};

fn message(id: &str) -> Erase {
    Erase::Message {
        id: id.into(),
        up_to: jiff::Timestamp::MAX,
    }
}

fn ada() -> Erase {
    Erase::Sender {
        name: "ada".into(),
        up_to: jiff::Timestamp::MAX,
    }
}

/// Every cell of the history that can be queried, as text.
async fn everything(session: &Session, keyspace: &str) -> Vec<String> {
    let mut cells = Vec::new();
    for table in ["messages", "sources", "channel_messages", "sender_messages"] {
        let text = format!("SELECT * FROM {keyspace}.{table}");
        let answer = session.query_unpaged(text, &[]).await.unwrap();
        let answer = answer.into_rows_result().unwrap();
        for row in answer.rows::<Row>().unwrap() {
            let columns = row.unwrap().columns.into_iter().flatten();
            cells.extend(columns.map(|value| match value {
                CqlValue::Blob(bytes) => format!("{table} {}", String::from_utf8_lossy(&bytes)),
                value => format!("{table} {value:?}"),
            }));
        }
    }
    cells
}

#[tokio::test]
async fn no_table_answers_what_was_erased() {
    run(async |cql: &Cql| {
        let (store, session) = (cql.store().await, cql.session().await);
        let rows: Vec<Judged> = (0..20).map(|n| row(&format!("m{n}"), n)).collect();
        store.write(0, &rows).await.unwrap();
        let other = row("other", 50).by(Some("bob"));
        store.write(0, std::slice::from_ref(&other)).await.unwrap();
        let cells = everything(&session, &cql.0.keyspace).await;
        assert!(cells.iter().any(|cell| cell.contains("words of m7")));

        assert_eq!(store.erase("acme", &ada()).await.unwrap().messages, 20);
        let cells = everything(&session, &cql.0.keyspace).await;
        assert!(cells.iter().any(|cell| cell.contains("words of other")));
        let left: Vec<&String> = cells
            .iter()
            .filter(|cell| cell.contains("words of m") || cell.contains("ada"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        let rows_of = |table: &str| {
            let table = format!("{table} ");
            let ids = cells.iter().filter(|cell| cell.starts_with(&table));
            ids.filter(|cell| cell.contains("\"m")).count()
        };
        assert_eq!(rows_of("channel_messages"), 0);
        assert_eq!(rows_of("sender_messages"), 0);
        assert_eq!(rows_of("messages"), 0);
        assert_eq!(rows_of("sources"), 20, "as marks that run out");
        let text = format!(
            "SELECT TTL(source) FROM {}.sources WHERE tenant = 'acme' AND id = 'm3'",
            cql.0.keyspace
        );
        let answer = session.query_unpaged(text, &[]).await.unwrap();
        let (ttl,): (Option<i32>,) = answer.into_rows_result().unwrap().first_row().unwrap();
        assert!(ttl.is_some_and(|ttl| ttl <= 10 * 86_400), "{ttl:?}");
    })
    .await;
}

#[tokio::test]
async fn a_writer_that_comes_late_brings_nothing_back_however_far_it_was() {
    run(async |cql: &Cql| {
        let (store, session) = (cql.store().await, cql.session().await);
        let steps = [
            Done::Nothing,
            Done::Claim,
            Done::Record,
            Done::Index,
            Done::Channel,
        ];
        let steps = [false, true].map(|made| steps.map(|after| (made, after)));
        for (offset, (made, after)) in (0..).zip(steps.concat()) {
            let late = row(&format!("m{offset}"), offset).with_made_id(made);
            // The fence stays where it was: as a writer has read it that stopped then.
            for done in [after, Done::Channel] {
                go_down(&session, &cql.0.keyspace, &late, done).await;
            }
            let id = &late.message.id;
            assert_eq!(store.erase("acme", &message(id)).await.unwrap().messages, 1);
            let written = store.write(0, std::slice::from_ref(&late)).await.unwrap();
            // With a made id it is written unseen, and in vain.
            assert_eq!(written, usize::from(made), "{after:?}");
            assert_eq!(store.message("acme", id).await.unwrap(), None);
            assert_eq!(store.source("acme", id).await.unwrap(), None);
            // The id is free for another message all the same.
            let next = row(id, 100 + offset).on_partition(1);
            let written = store.write(1, std::slice::from_ref(&next)).await.unwrap();
            assert_eq!(written, 1, "{after:?}");
            assert_eq!(
                store.message("acme", id).await.unwrap().as_ref(),
                Some(&next)
            );
            let page = store.channel("acme", "lobby", &ALL).await.unwrap();
            assert_eq!(page.rows.first(), Some(&next));
            assert_eq!(page.rows.len(), offset as usize + 1);
            // And that one is not the late writer's to take.
            store.write(0, std::slice::from_ref(&late)).await.unwrap();
            assert_eq!(
                store.message("acme", id).await.unwrap().as_ref(),
                Some(&next)
            );
        }
    })
    .await;
}

#[tokio::test]
async fn an_erasure_that_stopped_half_way_is_ended_by_the_next() {
    run(async |cql: &Cql| {
        let (store, session) = (cql.store().await, cql.session().await);
        let rows: Vec<Judged> = (0..4).map(|n| row(&format!("m{n}"), n)).collect();
        store.write(0, &rows).await.unwrap();
        // One whose record went, and one whose row in the channel's list went as well.
        for statement in [
            "DELETE FROM {}.messages WHERE tenant = 'acme' AND id IN ('m1', 'm2')".to_owned(),
            format!(
                "DELETE FROM {{}}.channel_messages WHERE tenant = 'acme' AND channel = 'lobby' \
                 AND day = {} AND minute = -1 AND received_at = {}",
                MIDNIGHT / (24 * HOUR),
                rows[2].message.received_at.as_microsecond()
            ),
        ] {
            let text = statement.replace("{}", &cql.0.keyspace);
            session.query_unpaged(text, &[]).await.unwrap();
        }
        assert_eq!(store.erase("acme", &ada()).await.unwrap().messages, 2);
        for row in &rows {
            let id = &row.message.id;
            assert_eq!(store.message("acme", id).await.unwrap(), None);
            assert_eq!(store.source("acme", id).await.unwrap(), None);
        }
        for page in [
            store.channel("acme", "lobby", &ALL).await.unwrap(),
            store.sender("acme", "ada", &ALL).await.unwrap(),
        ] {
            assert!(page.rows.is_empty());
        }
        let again: Vec<Judged> = (0..4).map(|n| row(&format!("m{n}"), 10 + n)).collect();
        assert_eq!(store.write(0, &again).await.unwrap(), 4);
    })
    .await;
}

#[tokio::test]
async fn rows_of_split_days_are_erased_in_either_bucket() {
    run_with(
        |config| config.day_rows = 20,
        async |cql: &Cql| {
            let store = cql.store().await;
            let rows: Vec<Judged> = (0..200)
                .map(|n| row(&format!("m{n}"), n).at(MIDNIGHT + n * HOUR / 60))
                .collect();
            for part in rows.chunks(10) {
                store.write(0, part).await.unwrap();
            }
            for one in [3, 150] {
                let id = &rows[one].message.id;
                assert_eq!(store.erase("acme", &message(id)).await.unwrap().messages, 1);
            }
            let page = store.channel("acme", "lobby", &ALL).await.unwrap();
            assert_eq!(page.rows.len(), 198);
            assert_eq!(store.erase("acme", &ada()).await.unwrap().messages, 198);
            let session = cql.session().await;
            for table in ["channel_messages", "sender_messages", "messages"] {
                let text = format!("SELECT COUNT(*) FROM {}.{table}", cql.0.keyspace);
                let answer = session.query_unpaged(text, &[]).await.unwrap();
                let (left,): (i64,) = answer.into_rows_result().unwrap().first_row().unwrap();
                assert_eq!(left, 0, "{table}");
            }
        },
    )
    .await;
}
