//! Writes that stopped half-way: what they left is put there by hand, then the same rows
//! come again.

use scylla::client::session::Session;
use weir_records::Judged;
use weir_store::{Error, History, PageRequest};

use crate::backend::{Cql, run};
use crate::rows::{With, row};

const ALL: PageRequest = PageRequest {
    limit: 1_000,
    cursor: None,
};

/// What a writer does before it goes down, one step after the other.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(super) enum Done {
    Nothing,
    Claim,
    Record,
    Index,
    Channel,
}

pub(super) async fn go_down(session: &Session, keyspace: &str, row: &Judged, after: Done) {
    let (message, source) = (&row.message, row.source);
    let received_at = message.received_at.as_microsecond();
    let day = i32::try_from(received_at / 86_400_000_000).unwrap();
    let id = &message.id;
    if after >= Done::Claim {
        claim(session, keyspace, id, (source.partition, source.offset)).await;
    }
    if after >= Done::Record {
        put_record(session, keyspace, row).await;
    }
    if after >= Done::Index {
        let text = format!(
            "INSERT INTO {keyspace}.list_days (kind, tenant, name, day) \
             VALUES ('channel', 'acme', 'lobby', {day})"
        );
        session.query_unpaged(text, &[]).await.unwrap();
    }
    if after >= Done::Channel {
        let text = format!(
            "INSERT INTO {keyspace}.channel_messages (tenant, channel, day, minute, received_at, \
             source_offset, source_partition, id) VALUES ('acme', 'lobby', {day}, -1, ?, ?, ?, ?) \
             USING TIMESTAMP {received_at}"
        );
        let values = (received_at, source.offset, source.partition, id);
        session.query_unpaged(text, values).await.unwrap();
    }
}

async fn claim(session: &Session, keyspace: &str, id: &str, source: (i32, i64)) {
    let text = format!(
        "INSERT INTO {keyspace}.sources (tenant, id, source) VALUES ('acme', ?, ?) USING TIMESTAMP 1"
    );
    session.query_unpaged(text, (id, source)).await.unwrap();
}

async fn put_record(session: &Session, keyspace: &str, row: &Judged) {
    let text = format!(
        "INSERT INTO {keyspace}.messages (tenant, id, record) VALUES ('acme', ?, ?) \
         USING TIMESTAMP {}",
        row.message.received_at.as_microsecond()
    );
    let record = row.clone().encode();
    let values = (&row.message.id, record);
    session.query_unpaged(text, values).await.unwrap();
}

#[tokio::test]
async fn a_write_that_stopped_anywhere_is_completed_by_its_replay() {
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
            let row = row(&format!("m{offset}"), offset).with_made_id(made);
            go_down(&session, &cql.0.keyspace, &row, after).await;
            let written = store.write(0, std::slice::from_ref(&row)).await.unwrap();
            // Nobody asks whether a row with a made id is there: this call has written it.
            let new = made || after == Done::Nothing;
            assert_eq!(written, usize::from(new), "{after:?}");

            let id = &row.message.id;
            assert_eq!(
                store.message("acme", id).await.unwrap().as_ref(),
                Some(&row)
            );
            assert_eq!(store.source("acme", id).await.unwrap(), Some(row.source));
            for page in [
                store.channel("acme", "lobby", &ALL).await.unwrap(),
                store.sender("acme", "ada", &ALL).await.unwrap(),
            ] {
                assert_eq!(page.rows.first(), Some(&row), "{after:?}");
                assert_eq!(page.rows.len(), offset as usize + 1, "{after:?}");
            }
            assert_eq!(store.fence(0).await.unwrap(), Some(offset));
        }
    })
    .await;
}

#[tokio::test]
async fn a_message_has_nothing_of_another_that_was_written_with_its_id_at_the_same_moment() {
    run(async |cql: &Cql| {
        let (store, session) = (cql.store().await, cql.session().await);
        let mut rows = [row("m", 1), row("n", 2).by(None)];
        for row in &mut rows {
            row.message.metadata = None;
            // What another writer puts there after this one has found that the id is nobody's.
            let text = format!(
                "INSERT INTO {}.messages (tenant, id, record, text, metadata) \
                 VALUES ('acme', ?, 0x00, 'theirs', '{{}}') USING TIMESTAMP 1",
                cql.0.keyspace
            );
            session
                .query_unpaged(text, (&row.message.id,))
                .await
                .unwrap();
        }
        store.write(0, &rows).await.unwrap();
        for row in rows {
            let stored = store.message("acme", &row.message.id).await.unwrap();
            assert_eq!(stored, Some(row));
        }
    })
    .await;
}

#[tokio::test]
async fn a_verdict_that_was_there_stays_though_its_replay_has_another() {
    run(async |cql: &Cql| {
        let (store, session) = (cql.store().await, cql.session().await);
        let first = row("m", 1);
        go_down(&session, &cql.0.keyspace, &first, Done::Record).await;
        let mut again = first.clone();
        again.verdict.model = "another".into();
        store.write(0, &[again]).await.unwrap();
        let stored = store.message("acme", "m").await.unwrap();
        assert_eq!(stored.as_ref(), Some(&first));
        let page = store.channel("acme", "lobby", &ALL).await.unwrap();
        assert_eq!(page.rows, [first]);
    })
    .await;
}

#[tokio::test]
async fn an_id_that_another_message_claimed_is_dropped_everywhere() {
    run(async |cql: &Cql| {
        let (store, session) = (cql.store().await, cql.session().await);
        claim(&session, &cql.0.keyspace, "m", (9, 9)).await;
        let written = store.write(0, &[row("m", 1), row("n", 2)]).await.unwrap();
        assert_eq!(written, 1);
        assert_eq!(store.message("acme", "m").await.unwrap(), None);
        let page = store.channel("acme", "lobby", &ALL).await.unwrap();
        assert_eq!(page.rows, [row("n", 2)]);
        assert_eq!(store.fence(0).await.unwrap(), Some(2));
    })
    .await;
}

#[tokio::test]
async fn what_was_erased_stays_erased_when_its_writer_comes_late() {
    run(async |cql: &Cql| {
        let (store, session) = (cql.store().await, cql.session().await);
        let (late, next) = (row("late", 1), row("next", 2));
        go_down(&session, &cql.0.keyspace, &late, Done::Record).await;
        let text = format!(
            "DELETE FROM {}.messages WHERE tenant = 'acme' AND id = 'late'",
            cql.0.keyspace
        );
        session.query_unpaged(text, &[]).await.unwrap();
        store.write(0, &[late, next.clone()]).await.unwrap();
        assert_eq!(store.message("acme", "late").await.unwrap(), None);
        let page = PageRequest {
            limit: 1,
            cursor: None,
        };
        let page = store.channel("acme", "lobby", &page).await.unwrap();
        assert_eq!(page.rows, [next]);
        let rest = PageRequest {
            limit: 1,
            cursor: page.next,
        };
        let rest = store.channel("acme", "lobby", &rest).await.unwrap();
        assert!(rest.rows.is_empty() && rest.next.is_none());
    })
    .await;
}

#[tokio::test]
async fn a_row_that_the_database_refuses_is_refused_and_may_be_sent_again() {
    run(async |cql: &Cql| {
        let (store, session) = (cql.store().await, cql.session().await);
        let keyspace = &cql.0.keyspace;
        // The store knows its own limits, not those that an operator sets on the server.
        // This one refuses everything, which is as good for a single row.
        let change = |what: &str| format!("ALTER TABLE {keyspace}.messages {what} record");
        session.query_unpaged(change("DROP"), &[]).await.unwrap();
        let error = store.write(0, &[row("m", 1)]).await.unwrap_err();
        assert!(matches!(error, Error::Refused(_)), "{error:?}");
        assert_eq!(store.fence(0).await.unwrap(), None);
        assert_eq!(store.source("acme", "m").await.unwrap(), None);

        let add = format!("{} blob", change("ADD"));
        session.query_unpaged(add, &[]).await.unwrap();
        // Received since: what bears an older time than the change counts as dropped.
        let again = row("m", 2).at(jiff::Timestamp::now().as_microsecond());
        let written = store.write(0, std::slice::from_ref(&again)).await.unwrap();
        assert_eq!(written, 1);
        assert_eq!(store.message("acme", "m").await.unwrap(), Some(again));
    })
    .await;
}

#[tokio::test]
async fn a_missing_table_refuses_no_row_for_good() {
    run(async |cql: &Cql| {
        let (store, session) = (cql.store().await, cql.session().await);
        let text = format!("DROP TABLE {}.messages", cql.0.keyspace);
        session.query_unpaged(text, &[]).await.unwrap();
        let error = store.write(0, &[row("m", 1)]).await.unwrap_err();
        assert!(error.retriable(), "{error:?}");
    })
    .await;
}
