//! A tenant sees its own rows, and nothing of another's: not by any query, not in an
//! error, not in a plan.

use weir_analytics_sql::Engine;

use crate::support::{Lake, cells, config, judged, number, offer, open, run, table};

/// Only in the other tenant's rows.
const SECRET: &str = "xyzzy";

/// Tenant `a` has numbers as texts, `b` has secrets; both in the lake and in the tail.
async fn shared() -> (Lake, Engine) {
    let mut lake = Lake::new();
    let of = |offset: i64| {
        if offset % 2 == 0 {
            judged("a", 0, offset, &offset.to_string())
        } else {
            let mut row = judged("b", 0, offset, &format!("{SECRET} {offset}"));
            row.message.channel = format!("{SECRET}-channel");
            row.message.sender = Some(format!("{SECRET}-sender"));
            row
        }
    };
    lake.commit(&(0..100).map(of).collect::<Vec<_>>()).await;
    let engine = open(config(&lake)).await;
    offer(&engine, (100..200).map(of).collect()).await;
    (lake, engine)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_query_reaches_another_tenants_rows() {
    let (_lake, engine) = shared().await;
    let hostile = [
        "SELECT * FROM messages",
        "SELECT * FROM messages WHERE tenant = 'b'",
        "SELECT * FROM messages WHERE tenant = 'b' OR true",
        "SELECT * FROM messages WHERE tenant <> 'a' OR 1 = 1 OR tenant IS NOT NULL",
        "SELECT * FROM messages WHERE NOT (tenant = 'a')",
        "SELECT * FROM weir.public.messages m WHERE m.tenant IN ('a', 'b')",
        "SELECT * FROM public.messages UNION ALL SELECT * FROM messages WHERE tenant = 'b'",
        "SELECT * FROM (SELECT * FROM messages) x WHERE x.tenant = 'b' OR x.tenant = 'a'",
        "WITH messages AS (SELECT * FROM messages) SELECT * FROM messages",
        "WITH m AS (SELECT * FROM messages WHERE tenant = 'b') SELECT * FROM m",
        "SELECT * FROM messages a JOIN messages b ON a.\"offset\" + 1 = b.\"offset\"",
        "SELECT * FROM messages a FULL JOIN messages b ON a.\"offset\" = b.\"offset\" + 1",
        "SELECT * FROM messages a LEFT JOIN messages b ON b.tenant = 'b'",
        "SELECT (SELECT max(text) FROM messages WHERE tenant = 'b'), min(text), max(text), max(channel) FROM messages",
        "SELECT * FROM messages WHERE EXISTS (SELECT 1 FROM messages b WHERE b.tenant = 'b')",
        "SELECT * FROM messages WHERE text IN (SELECT text FROM messages WHERE tenant = 'b')",
        "SELECT * FROM messages EXCEPT SELECT * FROM messages WHERE tenant = 'a'",
        "SELECT DISTINCT tenant, channel, sender FROM messages",
        "SELECT tenant, count(*) FROM messages GROUP BY CUBE(tenant)",
        "SELECT array_agg(text), string_agg(tenant, ','), array_agg(DISTINCT sender) FROM messages",
        "SELECT first_value(text ORDER BY text DESC), last_value(text ORDER BY text), nth_value(text, 1) FROM messages",
        "SELECT lag(text) OVER (ORDER BY \"offset\"), lead(text) OVER (ORDER BY \"offset\") FROM messages",
        "SELECT * FROM messages ORDER BY tenant DESC LIMIT 3",
        "SELECT 'a' AS tenant, text FROM messages",
        "SELECT tenant AS text FROM (SELECT 'b' AS tenant) UNION SELECT text FROM messages WHERE false",
        "SELECT * FROM messages TABLESAMPLE SYSTEM (100)",
        "SELECT * FROM messages, LATERAL (SELECT * FROM messages i WHERE i.\"offset\" = messages.\"offset\" + 1) n",
        "WITH RECURSIVE r AS (SELECT * FROM messages UNION ALL SELECT r.* FROM r JOIN messages m ON false) SELECT * FROM r",
        "TABLE messages",
        "VALUES ((SELECT max(text) FROM messages))",
        "EXPLAIN SELECT * FROM messages WHERE tenant = 'b' AND date > '2020-01-01'",
        "EXPLAIN VERBOSE SELECT * FROM messages",
        "EXPLAIN ANALYZE SELECT max(text) FROM messages",
        "EXPLAIN ANALYZE VERBOSE SELECT * FROM messages a JOIN messages b ON a.text = b.text",
        "EXPLAIN FORMAT TREE SELECT * FROM messages",
        "DESCRIBE messages",
        "DESCRIBE SELECT * FROM messages",
        "SHOW TABLES",
        "SHOW COLUMNS FROM messages",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM information_schema.columns",
        "SELECT * FROM information_schema.views",
        "SELECT * FROM information_schema.schemata",
    ];
    let mut answered = 0;
    for sql in hostile {
        // Refusing is fine; answering or failing with another's row is not.
        let words = match run(&engine, "a", sql).await {
            Ok(batches) => {
                answered += 1;
                format!("{:?}", cells(&batches))
            }
            Err(error) => error.to_string(),
        };
        assert!(!words.contains(SECRET), "{sql}: {words}");
        assert!(!words.contains("b-0-"), "{sql}: {words}");
    }
    assert!(
        answered > hostile.len() * 3 / 4,
        "only {answered} were answered"
    );

    assert_eq!(
        number(&engine, "a", "SELECT count(*) FROM messages").await,
        100
    );
    assert_eq!(
        number(&engine, "b", "SELECT count(*) FROM messages").await,
        100
    );
    assert_eq!(
        number(&engine, "c", "SELECT count(*) FROM messages").await,
        0
    );
    assert_eq!(
        number(&engine, "a' OR 'a' = 'a", "SELECT count(*) FROM messages").await,
        0
    );
    assert_eq!(
        number(
            &engine,
            "a",
            "SELECT count(*) FROM messages WHERE tenant = 'b' OR true"
        )
        .await,
        100
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_computation_that_would_fail_on_another_tenants_row_does_not_fail() {
    let (_lake, engine) = shared().await;
    // On tenant `b`'s rows each of these would fail, and the error would quote the row.
    for sql in [
        "SELECT count(*) FROM messages WHERE CAST(text AS INT) >= 0",
        "SELECT sum(CAST(text AS BIGINT)) FROM messages WHERE text <> ''",
        "SELECT count(*) FROM messages WHERE tenant = 'a' AND 10 / (CASE WHEN tenant = 'b' THEN 0 ELSE 1 END) > 1",
        "SELECT count(*) FROM messages WHERE 10 / (CASE WHEN text LIKE 'xyzzy%' THEN 0 ELSE 1 END) > 1",
        "SELECT count(*) FROM messages a JOIN messages b ON CAST(a.text AS INT) = CAST(b.text AS INT)",
        "SELECT max(CAST(text AS INT)) OVER () FROM messages LIMIT 1",
        "SELECT text FROM messages ORDER BY CAST(text AS INT) DESC LIMIT 1",
        "SELECT count(*) FROM (SELECT CAST(text AS INT) n FROM messages) WHERE n > 5",
    ] {
        let answer = run(&engine, "a", sql).await;
        assert!(answer.is_ok(), "{sql}: {}", answer.unwrap_err());
    }
    let error = run(&engine, "b", "SELECT CAST(text AS INT) FROM messages")
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains(SECRET),
        "the test's own premise: {error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_messages_and_its_description_exist() {
    let (_lake, engine) = shared().await;
    let tables = table(
        &engine,
        "a",
        "SELECT table_catalog, table_schema, table_name FROM information_schema.tables \
         WHERE table_schema <> 'information_schema'",
    )
    .await;
    assert_eq!(tables, [["weir", "public", "messages"]]);
    let columns = table(
        &engine,
        "a",
        "SELECT DISTINCT table_name FROM information_schema.columns WHERE table_schema <> 'information_schema'",
    )
    .await;
    assert_eq!(columns, [["messages"]]);
    let described = table(&engine, "a", "DESCRIBE messages").await;
    assert_eq!(described[0][0], "tenant");
    assert_eq!(
        described.len(),
        weir_records::columns::MESSAGES.fields().len()
    );
}
