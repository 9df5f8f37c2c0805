//! Lists whose days are split into minutes.

use scylla::client::session::Session;
use weir_records::Judged;
use weir_store::cql::{Config, Store};
use weir_store::{History, PageRequest};

use crate::backend::{Cql, run, run_with};
use crate::rows::{HOUR, MIDNIGHT, With, row};

const MINUTE: i64 = HOUR / 60;

async fn walk(store: &Store, limit: usize) -> Vec<String> {
    let (mut ids, mut cursor) = (Vec::new(), None);
    loop {
        let request = PageRequest { limit, cursor };
        let page = store.channel("acme", "lobby", &request).await.unwrap();
        assert!(page.next.is_none() || page.rows.len() == limit);
        ids.extend(page.rows.into_iter().map(|row| row.message.id));
        cursor = page.next;
        if cursor.is_none() {
            return ids;
        }
    }
}

async fn minutes(session: &Session, cql: &Cql) -> Vec<i32> {
    let text = format!(
        "SELECT minute FROM {}.list_minutes WHERE kind = 'channel' AND tenant = 'acme' \
         AND name = 'lobby' AND day = ?",
        cql.0.keyspace
    );
    let day = i32::try_from(MIDNIGHT / (24 * HOUR)).unwrap();
    let answer = session.query_unpaged(text, (day,)).await.unwrap();
    let answer = answer.into_rows_result().unwrap();
    answer
        .rows::<(i32,)>()
        .unwrap()
        .map(|row| row.unwrap().0)
        .collect()
}

/// Two a minute for over two hours, in the order of their offsets but for some that
/// another clock stamped half an hour earlier.
fn spread() -> Vec<Judged> {
    (0..280)
        .map(|n| {
            let back = if n % 10 == 9 { 30 * MINUTE } else { 0 };
            row(&format!("m{n:03}"), n).at(MIDNIGHT + HOUR + n * MINUTE / 2 - back)
        })
        .collect()
}

fn newest_first(mut rows: Vec<Judged>) -> Vec<String> {
    rows.sort_by_key(|row| std::cmp::Reverse((row.message.received_at, row.source.offset)));
    rows.into_iter().map(|row| row.message.id).collect()
}

/// So that a few rows split a day.
fn small(config: &mut Config) {
    config.day_rows = 20;
}

#[tokio::test]
async fn pages_of_a_split_day_hold_every_row_once_newest_first() {
    run_with(small, async |cql: &Cql| {
        let (store, session) = (cql.store().await, cql.session().await);
        let rows = spread();
        for part in rows[..200].chunks(50) {
            store.write(0, part).await.unwrap();
        }
        assert!(
            minutes(&session, cql).await.len() > 60,
            "more than one read of the index"
        );
        // A new process knows of the split, though not of the rows.
        let store = cql.store().await;
        store.write(0, &rows[200..]).await.unwrap();

        let expected = newest_first(rows);
        for limit in [1, 7, 279, 280, 1_000] {
            assert_eq!(walk(&store, limit).await, expected, "limit {limit}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_row_in_both_kinds_of_bucket_is_listed_once() {
    run_with(small, async |cql: &Cql| {
        let (store, session) = (cql.store().await, cql.session().await);
        let rows = spread();
        store.write(0, &rows).await.unwrap();
        // As if a first try, by a process that had not split the day, had stopped.
        let text = format!(
            "INSERT INTO {}.channel_messages (tenant, channel, day, minute, received_at, \
             source_offset, source_partition, id) VALUES ('acme', 'lobby', ?, -1, ?, ?, 0, ?)",
            cql.0.keyspace
        );
        let text = session.prepare(text).await.unwrap();
        for row in &rows[200..260] {
            let received_at = row.message.received_at.as_microsecond();
            let day = i32::try_from(received_at / (24 * HOUR)).unwrap();
            let values = (day, received_at, row.source.offset, &row.message.id);
            session.execute_unpaged(&text, values).await.unwrap();
        }
        let expected = newest_first(rows);
        for limit in [1, 13, 1_000] {
            assert_eq!(walk(&store, limit).await, expected, "limit {limit}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_day_that_many_starts_have_filled_is_split_as_one_that_a_single_one_has() {
    run_with(small, async |cql: &Cql| {
        let session = cql.session().await;
        let rows = spread();
        for (start, part) in rows.chunks(8).enumerate() {
            // Each by a process that was started for it.
            let store = cql.store().await;
            store.write(0, part).await.unwrap();
            let split = !minutes(&session, cql).await.is_empty();
            assert_eq!(split, start >= 2, "after {} rows", (start + 1) * 8);
            if start == 4 {
                break;
            }
        }
        let text = format!(
            "SELECT count(*) FROM {}.channel_messages WHERE tenant = 'acme' \
             AND channel = 'lobby' AND day = ? AND minute = -1",
            cql.0.keyspace
        );
        let day = i32::try_from(MIDNIGHT / (24 * HOUR)).unwrap();
        let answer = session.query_unpaged(text, (day,)).await.unwrap();
        let (held,): (i64,) = answer.into_rows_result().unwrap().single_row().unwrap();
        assert_eq!(held, 20);
        let store = cql.store().await;
        assert_eq!(walk(&store, 100).await, newest_first(rows[..40].to_vec()));
    })
    .await;
}

#[tokio::test]
async fn rows_with_the_longest_ids_are_written_together() {
    run(async |cql: &Cql| {
        let store = cql.store().await;
        let rows: Vec<Judged> = (0..1_000).map(|n| row(&format!("{n:0128}"), n)).collect();
        assert_eq!(store.write(0, &rows).await.unwrap(), 1_000);
        assert_eq!(walk(&store, 1_000).await, newest_first(rows));
    })
    .await;
}

#[tokio::test]
async fn an_ordinary_day_is_not_split() {
    run(async |cql: &Cql| {
        let (store, session) = (cql.store().await, cql.session().await);
        store.write(0, &spread()).await.unwrap();
        assert!(minutes(&session, cql).await.is_empty());
        assert_eq!(walk(&store, 100).await, newest_first(spread()));
    })
    .await;
}

#[tokio::test]
async fn a_list_of_more_days_than_one_read_of_the_index_is_walked_to_its_end() {
    run(async |cql: &Cql| {
        let store = cql.store().await;
        let rows: Vec<Judged> = (0..130)
            .map(|n| row(&format!("m{n:03}"), n).at(MIDNIGHT + n * 48 * HOUR))
            .collect();
        store.write(0, &rows).await.unwrap();
        let expected = newest_first(rows);
        for limit in [9, 65, 130] {
            assert_eq!(walk(&store, limit).await, expected, "limit {limit}");
        }
    })
    .await;
}
