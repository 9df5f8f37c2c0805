//! Time, memory, rows, size and number of queries are bounded, for certain.

use std::time::{Duration, Instant};

use weir_analytics_sql::{Error, Query};

use crate::support::{Lake, config, number, offer, open, query, refused, rows, run, table};

/// Far more than any stop should take, on any machine.
const GENEROUS: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn endless_queries_are_stopped_and_free_their_slot() {
    let lake = Lake::new();
    let mut config = config(&lake);
    config.timeout_seconds = 1;
    config.concurrent_queries = 1;
    config.threads = 1;
    let engine = open(config).await;
    offer(&engine, rows("a", 0, 0..1000)).await;
    let big = "generate_series(1, 1000000000)";
    for sql in [
        // Gives row after row.
        format!("SELECT count(*) FROM {big} a, {big} b"),
        format!("SELECT * FROM {big} a CROSS JOIN {big} b WHERE a.value + b.value < 0"),
        // Turns rows down without end, and gives none.
        "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 1000000000) b WHERE a.value * b.value = -1"
            .to_owned(),
        "SELECT count(*) FROM generate_series(1, 100000) a LEFT JOIN generate_series(1, 1000000000) b \
         ON a.value > b.value + 2000000000"
            .to_owned(),
        // One key for all: the hash join is a cross join.
        "SELECT count(*) FROM (SELECT value, 1 k FROM generate_series(1, 100000)) a JOIN \
         (SELECT value, 1 k FROM generate_series(1, 1000000000)) b ON a.k = b.k AND a.value + b.value = -1"
            .to_owned(),
        "SELECT count(*) FROM messages a, messages b, messages c, messages d WHERE a.text > b.text AND c.text > d.text"
            .to_owned(),
        format!("SELECT sum(value) FROM {big} WHERE value % 7 = 9"),
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r".to_owned(),
        format!("SELECT sum(m) FROM (SELECT max(value) OVER (ORDER BY value) m FROM {big})"),
        format!("EXPLAIN ANALYZE SELECT count(*) FROM {big} a, {big} b"),
    ] {
        let begun = Instant::now();
        let error = refused(&engine, "a", &sql).await;
        // A recursion may meet its memory's end first.
        assert!(matches!(error, Error::Timeout(_) | Error::TooLarge(_)), "{sql}: {error:?}");
        assert!(begun.elapsed() < GENEROUS, "{sql} took {:?}", begun.elapsed());
        // The one slot comes back.
        loop {
            match run(&engine, "a", "SELECT 1").await {
                Ok(_) => break,
                Err(Error::Overloaded) if begun.elapsed() < GENEROUS => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("after {sql}: {error:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_an_answer_stops_its_query() {
    let lake = Lake::new();
    let mut config = config(&lake);
    config.timeout_seconds = 3600;
    config.concurrent_queries = 1;
    let engine = open(config).await;
    let endless =
        "SELECT a.value FROM generate_series(1, 1000) a, generate_series(1, 1000000000) b";
    let mut answer = engine.query(query("a", endless)).await.unwrap();
    assert!(answer.next().await.unwrap().is_some());
    assert_eq!(refused(&engine, "a", "SELECT 1").await, Error::Overloaded);
    drop(answer);
    let begun = Instant::now();
    while run(&engine, "a", "SELECT 1").await.is_err() {
        assert!(begun.elapsed() < GENEROUS);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_for_one_query_and_for_all() {
    let lake = Lake::new();
    let mut config = config(&lake);
    config.memory_bytes = 16 << 20;
    config.memory_total_bytes = 64 << 20;
    let engine = open(config).await;
    // Scattered, because values in order are grouped and joined without memory.
    let scattered = "(SELECT value * 7919 % 100000007 AS v FROM generate_series(1, 4000000))";
    for sql in [
        format!("SELECT v FROM {scattered} ORDER BY v"),
        format!("SELECT max(n) FROM (SELECT v, count(*) n FROM {scattered} GROUP BY v)"),
        format!("SELECT count(DISTINCT v) FROM {scattered}"),
        format!(
            "SELECT max(n * v) FROM (SELECT v, row_number() OVER (ORDER BY v) n FROM {scattered})"
        ),
        "SELECT array_agg(value) FROM generate_series(1, 4000000)".to_owned(),
        format!("SELECT count(*) FROM {scattered} a JOIN {scattered} b ON a.v = b.v + 1"),
    ] {
        let error = refused(&engine, "a", &sql).await;
        assert!(matches!(error, Error::TooLarge(_)), "{sql}: {error:?}");
    }
    // Each doubling is a projection of its own.
    let mut text = "SELECT 'xxxxxxxxxxxxxxxx' || random() AS s".to_owned();
    for _ in 0..40 {
        text = format!("SELECT s || s AS s FROM ({text})");
    }
    let error = refused(&engine, "a", &format!("SELECT length(s) FROM ({text})")).await;
    assert!(matches!(error, Error::TooLarge(_)), "{error:?}");
    // And the memory is given back.
    assert_eq!(
        number(
            &engine,
            "a",
            "SELECT count(DISTINCT value) FROM generate_series(1, 10000)"
        )
        .await,
        10_000
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn all_queries_together_share_one_bound() {
    let lake = Lake::new();
    let mut config = config(&lake);
    config.memory_bytes = 1 << 30;
    config.memory_total_bytes = 16 << 20;
    let engine = open(config).await;
    let error = refused(
        &engine,
        "a",
        "SELECT array_agg(value) FROM generate_series(1, 4000000)",
    )
    .await;
    assert!(matches!(error, Error::TooLarge(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_bounded_in_rows_and_bytes_and_never_cut_in_silence() {
    let lake = Lake::new();
    let mut config = config(&lake);
    config.result_rows = 5_000;
    config.result_bytes = 1 << 20;
    let engine = open(config).await;
    offer(&engine, rows("a", 0, 0..5000)).await;
    assert_eq!(
        run(&engine, "a", "SELECT message_id FROM messages")
            .await
            .map(|b| b.iter().map(|b| b.num_rows()).sum()),
        Ok(5000)
    );
    for sql in [
        "SELECT value FROM generate_series(1, 5001)",
        "SELECT * FROM messages UNION ALL SELECT * FROM messages",
        "SELECT text || text || text || text, message_id || text || text || text || text || text || text || text \
         || text || text || text || text || text || text || text || text || text || text FROM messages",
    ] {
        let error = refused(&engine, "a", sql).await;
        assert!(matches!(error, Error::TooLarge(_)), "{sql}: {error:?}");
    }

    for (limit, rows, truncated) in [(10, 10, true), (5000, 5000, false), (9999, 5000, false)] {
        let mut answer = engine
            .query(Query {
                limit: Some(limit),
                ..query("a", "SELECT message_id FROM messages")
            })
            .await
            .unwrap();
        let mut seen = 0;
        while let Some(batch) = answer.next().await.unwrap() {
            seen += batch.num_rows();
        }
        assert_eq!(
            (seen, answer.truncated()),
            (rows, truncated),
            "limit {limit}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_that_grow_by_themselves_are_refused_before_they_are_planned() {
    let lake = Lake::new();
    let engine = open(config(&lake)).await;
    let begun = Instant::now();
    let doubling = |first: &str, last: i32| {
        let mut sql = format!("WITH t0 AS ({first})");
        for i in 1..=last {
            let before = i - 1;
            sql.push_str(&format!(
                ", t{i} AS (SELECT * FROM t{before} UNION ALL SELECT * FROM t{before})"
            ));
        }
        format!("{sql} SELECT count(*) FROM t{last}")
    };
    for sql in [
        doubling("SELECT * FROM messages", 60),
        doubling("SELECT 1", 60),
        doubling("SELECT * FROM messages", 8),
        format!(
            "SELECT count(*) FROM messages m0{}",
            ", messages".repeat(300)
        ),
        format!("SELECT '{}'", "x".repeat(70_000)),
    ] {
        let error = refused(&engine, "a", &sql).await;
        let start: String = sql.chars().take(60).collect();
        assert!(matches!(error, Error::TooLarge(_)), "{start}: {error:?}");
    }
    assert!(begun.elapsed() < GENEROUS, "{:?}", begun.elapsed());
    // What is only large is answered.
    assert_eq!(number(&engine, "a", &doubling("SELECT 1", 5)).await, 32);
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_queries_are_answered_or_refused_and_never_end_the_process() {
    let lake = Lake::new();
    let mut config = config(&lake);
    config.query_bytes = 1 << 20;
    let engine = open(config).await;
    let nest = |open: &str, middle: &str, close: &str, n: usize| {
        format!("SELECT {}{middle}{}", open.repeat(n), close.repeat(n))
    };
    for n in [60, 300, 5000] {
        for sql in [
            nest("(", "1", ")", n),
            nest("(SELECT ", "1", ")", n),
            nest("- ", "1", "", n),
            nest("NOT ", "true", "", n),
            nest("abs(", "1", ")", n),
            nest("CASE WHEN true THEN ", "1", " END", n),
            nest("[", "1", "]", n),
            format!("SELECT 1{}", " + 1".repeat(n)),
            format!("SELECT 'a'{}", " || 'a'".repeat(n)),
            format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(n)),
            format!("SELECT 1{}", " UNION SELECT 1".repeat(n)),
            format!("SELECT 1{}", " EXCEPT SELECT 1".repeat(n)),
            format!(
                "SELECT count(*) FROM messages WHERE 1 = 1{}",
                " AND \"offset\" > 1".repeat(n)
            ),
            format!(
                "SELECT count(*) FROM messages WHERE 1 = 1{}",
                " OR text = channel".repeat(n)
            ),
            format!(
                "SELECT count(*) FROM messages WHERE \"offset\" IN (1{})",
                ", 1".repeat(n)
            ),
            format!(
                "SELECT * FROM {}messages{}",
                "(SELECT * FROM ".repeat(n),
                ")".repeat(n)
            ),
            format!(
                "SELECT * FROM {}(SELECT 1) a{}",
                "(".repeat(n),
                " CROSS JOIN (SELECT 1) b)".repeat(n)
            ),
            format!("{}SELECT 1", "EXPLAIN ".repeat(n)),
            format!("SELECT 1 {}", "-- x\n".repeat(n)),
        ] {
            let start: String = sql.chars().take(60).collect();
            match run(&engine, "a", &sql).await {
                Ok(_) | Err(Error::TooLarge(_) | Error::Invalid(_) | Error::Timeout(_)) => {}
                Err(error) => panic!("{start}: {error:?}"),
            }
        }
    }
    assert!(run(&engine, "a", "SELECT 1").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_of_a_fixed_length_never_takes_that_much_memory() {
    let lake = Lake::new();
    let engine = open(config(&lake)).await;
    offer(&engine, rows("a", 0, 0..10)).await;
    let huge = "BIGINT[1000000000][100000]";
    for sql in [
        format!("SELECT CAST(NULL AS {huge})"),
        format!("SELECT TRY_CAST(NULL AS {huge})"),
        format!("SELECT * FROM messages WHERE CAST(NULL AS {huge}) IS NOT NULL"),
        format!("SELECT (SELECT CAST(NULL AS {huge}))"),
        format!("WITH a AS (SELECT CAST(NULL AS {huge}) AS x) SELECT count(x) FROM a"),
        format!("SELECT * FROM generate_series(1, cardinality(CAST(NULL AS {huge})))"),
        format!("VALUES (CAST(NULL AS {huge}))"),
        format!("SELECT 1 LIMIT cardinality(CAST(NULL AS {huge}))"),
        format!("EXPLAIN SELECT CAST(NULL AS {huge})"),
        "SELECT CAST(NULL AS BIGINT[1000000000][])".to_owned(),
        "SELECT arrow_cast(NULL, 'FixedSizeList(100000, FixedSizeList(1000000000, Int64))')"
            .to_owned(),
        "SELECT arrow_cast(text, 'FixedSizeBinary(2000000000)') FROM messages".to_owned(),
    ] {
        let error = refused(&engine, "a", &sql).await;
        assert!(matches!(error, Error::Invalid(_)), "{sql}: {error:?}");
    }
    let deep = format!("SELECT CAST(NULL AS BIGINT{})", "[]".repeat(2_000));
    let error = refused(&engine, "a", &deep).await;
    assert!(
        matches!(error, Error::TooLarge(_) | Error::Invalid(_)),
        "{error:?}"
    );
    assert!(
        run(&engine, "a", "SELECT CAST([1] AS BIGINT[])")
            .await
            .is_ok()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_that_lengthen_text_are_bounded_each_time() {
    let lake = Lake::new();
    let engine = open(config(&lake)).await;
    offer(&engine, rows("a", 0, 0..2000)).await;
    let times = |call: &str, value: &str, n: usize| {
        (0..n).fold(value.to_owned(), |inner, _| call.replace('@', &inner))
    };
    let many = "x".repeat(50);
    for call in [
        format!("replace(@, 'x', '{many}')"),
        format!("regexp_replace(@, 'x', '{many}', 'g')"),
        format!("array_to_string(string_to_array(@, NULL), '{many}')"),
        "CAST(string_to_array(@, NULL) AS VARCHAR)".to_owned(),
        "CAST(regexp_match(@, '(((((((((.*)))))))))') AS VARCHAR)".to_owned(),
    ] {
        for from in ["", " FROM messages"] {
            let value = if from.is_empty() {
                "'xxxx'"
            } else {
                "'xxxx' || text"
            };
            let sql = format!("SELECT length({}){from}", times(&call, value, 12));
            let error = refused(&engine, "a", &sql).await;
            assert!(matches!(error, Error::TooLarge(_)), "{sql}: {error:?}");
            let name = call.split('(').find(|n| *n != "CAST").unwrap();
            let name = if name == "array_to_string" {
                "_to_"
            } else {
                name
            };
            assert!(error.to_string().contains(name), "{sql}: {error}");
        }
    }
    // Twice forty thousand bytes, of constants.
    let long = format!("replace('{}', 'x', '{}')", "x".repeat(400), "y".repeat(100));
    let error = refused(
        &engine,
        "a",
        &format!("SELECT length(concat({long}, {long}))"),
    )
    .await;
    assert!(matches!(error, Error::TooLarge(_)), "{error:?}");
    assert!(error.to_string().contains("`concat`"), "{error}");
    let calls: String = (0..100)
        .map(|n| format!("replace(text, 'a', 'b') AS c{n}, "))
        .collect();
    let error = refused(&engine, "a", &format!("SELECT {calls} 1 FROM messages")).await;
    assert!(matches!(error, Error::TooLarge(_)), "{error:?}");
    let long = "y".repeat(40_000);
    let slow = format!("SELECT levenshtein(y, reverse(y)) FROM (SELECT '{long}' AS y)");
    let error = refused(&engine, "a", &slow).await;
    assert!(matches!(error, Error::TooLarge(_)), "{error:?}");
    assert!(error.to_string().contains("`levenshtein`"), "{error}");
    let between = format!("SELECT string_agg(text, '{long}') FROM messages");
    let error = refused(&engine, "a", &between).await;
    assert!(matches!(error, Error::Invalid(_)), "{error:?}");

    // As they are meant, they answer what they did.
    for (sql, answer) in [
        ("SELECT replace('a-b-c', '-', '+')", "a+b+c"),
        (
            "SELECT regexp_replace('a1b22', '[0-9]+', '<\\0>', 'g')",
            "a<1>b<22>",
        ),
        (
            "SELECT array_to_string(string_to_array('a b', ' '), ', ')",
            "a, b",
        ),
        ("SELECT concat('a', NULL, 'b')", "ab"),
        ("SELECT concat_ws('-', 'a', NULL, 'b')", "a-b"),
        ("SELECT to_char(DATE '2026-01-02', '%Y/%m')", "2026/01"),
        ("SELECT levenshtein('kitten', 'sitting')", "3"),
        (
            "SELECT max(replace(text, ' of a', '')) FROM messages WHERE \"offset\" < 5",
            "text 4",
        ),
    ] {
        let found = table(&engine, "a", sql).await;
        assert_eq!(found, [[answer.to_owned()]], "{sql}");
    }
    // Rows that together could pass the bound, and do not, are taken in parts: each could
    // become a hundred thousand bytes.
    let parts = format!(
        "SELECT count(*) FROM messages WHERE replace(text, '#', '{}') = text",
        "z".repeat(6_000)
    );
    assert_eq!(number(&engine, "a", &parts).await, 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_regular_expression_is_one_for_all_rows() {
    let lake = Lake::new();
    let engine = open(config(&lake)).await;
    offer(&engine, rows("a", 0, 0..10)).await;
    for sql in [
        "SELECT * FROM messages WHERE text ~ message_id",
        "SELECT * FROM messages WHERE text !~* ('a' || message_id)",
        "SELECT regexp_replace(text, message_id, '') FROM messages",
        "SELECT regexp_match(text, message_id) FROM messages",
        "SELECT regexp_like(text, message_id) FROM messages",
        "SELECT regexp_count(text, CAST(random() AS VARCHAR)) FROM messages",
        "SELECT * FROM messages a JOIN messages b ON a.text ~ b.text",
    ] {
        let error = refused(&engine, "a", sql).await;
        assert!(matches!(error, Error::Invalid(_)), "{sql}: {error:?}");
    }
    let sql = "SELECT count(*) FROM messages WHERE text ~ concat('^text', ' [0-4] ') AND regexp_like(text, 'a$')";
    assert_eq!(number(&engine, "a", sql).await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_rows_of_before_are_read_nothing_is_answered() {
    let lake = Lake::new();
    let engine = weir_analytics_sql::Engine::open(
        config(&lake),
        (0..4).collect(),
        &prometheus::Registry::new(),
        tokio_util::sync::CancellationToken::new(),
    )
    .await
    .unwrap();
    assert_eq!(refused(&engine, "a", "SELECT 1").await, Error::Unavailable);
    engine.set_ready();
    assert!(run(&engine, "a", "SELECT 1").await.is_ok());
}
