//! Several stores on the same tables, as several processes have them.

use std::collections::BTreeMap;

use weir_records::Judged;
use weir_store::{Accounts, Scope};
use weir_store::{CreateError, History, PageRequest, User};

use crate::backend::{Cql, run};
use crate::rows::{With, row};

const ALL: PageRequest = PageRequest {
    limit: 1_000,
    cursor: None,
};

#[tokio::test]
async fn an_id_sent_to_several_channels_at_once_is_one_message() {
    run(async |cql: &Cql| {
        const IDS: i64 = 60;
        let mut writers = Vec::new();
        for partition in 0..4 {
            let store = cql.store().await;
            writers.push(tokio::spawn(async move {
                let rows: Vec<Judged> = (0..IDS)
                    .map(|n| {
                        // Received one after the other, as the way in does it.
                        row(&format!("m{n}"), n)
                            .at(1_772_323_200_000_000 + n * 10 + i64::from(partition))
                            .on_partition(partition)
                            .in_channel(&format!("channel-{partition}"))
                    })
                    .collect();
                store.write(partition, &rows).await.unwrap()
            }));
        }
        let mut written = 0;
        for writer in writers {
            written += writer.await.unwrap();
        }
        // Those that wrote at the same moment may each count theirs.
        assert!((IDS as usize..=4 * IDS as usize).contains(&written));

        let store = cql.store().await;
        let mut listed = BTreeMap::new();
        for partition in 0..4 {
            let channel = format!("channel-{partition}");
            let page = store.channel("acme", &channel, &ALL).await.unwrap();
            for row in page.rows {
                assert_eq!(row.source.partition, partition);
                let twice = listed.insert(row.message.id.clone(), row);
                assert!(twice.is_none(), "one message is in one channel");
            }
            assert_eq!(store.fence(partition).await.unwrap(), Some(IDS - 1));
        }
        assert_eq!(listed.len(), IDS as usize);
        for (id, listed) in listed {
            let source = store.source("acme", &id).await.unwrap();
            assert_eq!(source, Some(listed.source));
            assert_eq!(store.message("acme", &id).await.unwrap(), Some(listed));
        }
        let page = store.sender("acme", "ada", &ALL).await.unwrap();
        assert_eq!(page.rows.len(), IDS as usize);
    })
    .await;
}

#[tokio::test]
async fn two_owners_of_a_partition_store_each_row_once() {
    run(async |cql: &Cql| {
        let (old, new) = (cql.store().await, cql.store().await);
        let rows: Vec<Judged> = (0..100).map(|n| row(&format!("m{n:03}"), n)).collect();
        let (late, ahead) = tokio::join!(
            async {
                let mut written = 0;
                for part in rows.chunks(7) {
                    written += old.write(0, part).await.unwrap();
                }
                written
            },
            async {
                let mut written = 0;
                for part in rows.chunks(20) {
                    written += new.write(0, part).await.unwrap();
                }
                written
            }
        );
        // Each counts what was nobody's when it looked.
        assert!((100..=200).contains(&(late + ahead)));
        assert_eq!(old.fence(0).await.unwrap(), Some(99));
        let mut expected = rows.clone();
        expected.reverse();
        let page = old.channel("acme", "lobby", &ALL).await.unwrap();
        assert_eq!(page.rows, expected);
    })
    .await;
}

#[tokio::test]
async fn the_highest_fence_stays_whoever_writes_last() {
    run(async |cql: &Cql| {
        let session = cql.session().await;
        let store = cql.store().await;
        store.write(0, &[row("a", 100)]).await.unwrap();
        // What a writer does that looked at the fence before that.
        let text = format!(
            "INSERT INTO {}.fences (source_partition, source_offset) VALUES (0, 5) \
             USING TIMESTAMP 6",
            cql.0.keyspace
        );
        session.query_unpaged(text, &[]).await.unwrap();
        assert_eq!(store.fence(0).await.unwrap(), Some(100));
        assert_eq!(store.write(0, &[row("b", 50)]).await.unwrap(), 0);
        assert_eq!(store.write(0, &[row("c", 101)]).await.unwrap(), 1);
        assert_eq!(store.fence(0).await.unwrap(), Some(101));
    })
    .await;
}

#[tokio::test]
async fn a_name_asked_for_in_several_processes_belongs_to_one() {
    run(async |cql: &Cql| {
        let mut calls = Vec::new();
        for n in 0..4 {
            let store = cql.store().await;
            let user = User {
                username: "grace".into(),
                email: format!("g{n}@example.org"),
                password_hash: "$argon2id$not-a-real-hash".into(),
                tenant: "acme".into(),
                scopes: [Scope::Read].into(),
                created_at: jiff::Timestamp::from_second(1_772_323_200).unwrap(),
                disabled: false,
            };
            calls.push(tokio::spawn(async move { store.create_user(&user).await }));
        }
        let mut made = 0;
        for call in calls {
            match call.await.unwrap() {
                Ok(()) => made += 1,
                Err(error) => assert!(matches!(error, CreateError::NameTaken), "{error}"),
            }
        }
        assert_eq!(made, 1);
        assert_eq!(cql.store().await.users().await.unwrap().len(), 1);
    })
    .await;
}
