//! Errors say what is wrong and where, in the query's own words.

use weir_analytics_sql::{Error, Fault};

use crate::support::{Lake, config, offer, open, refused, rows};

#[tokio::test(flavor = "multi_thread")]
async fn errors_quote_the_place() {
    let lake = Lake::new();
    let engine = open(config(&lake)).await;
    offer(&engine, rows("a", 0, 0..10)).await;
    let mut wrong = Vec::new();
    for (sql, at, says) in [
        (
            "SELEC 1",
            Some((1, 1)),
            "Expected: an SQL statement, found: SELEC",
        ),
        (
            "SELECT *\nFROM messages\nWHER text = ''",
            Some((3, 6)),
            "found: text",
        ),
        ("SELECT * FROM messages WHERE", Some((1, 29)), "EOF"),
        (
            "SELECT 'abc FROM messages",
            Some((1, 8)),
            "Unterminated string literal",
        ),
        (
            "SELECT chanel FROM messages",
            Some((1, 8)),
            "there is no column `chanel` here; did you mean `channel`?",
        ),
        (
            "SELECT text,\n  m.receved_at\nFROM messages m",
            Some((2, 3)),
            "did you mean `received_at`?",
        ),
        (
            "SELECT text FROM messages WHERE user = 'x'",
            Some((1, 33)),
            "there is no column `user` here; there are tenant, channel",
        ),
        (
            "SELECT * FROM mesages",
            Some((1, 15)),
            "there is no table `mesages`; did you mean `messages`?",
        ),
        (
            "SELECT * FROM users",
            Some((1, 15)),
            "there is no table `users`; the table to read is `messages`",
        ),
        ("SELECT countt(*) FROM messages", Some((1, 8)), "count"),
        ("SELECT * FROM read_csv('x')", Some((1, 15)), "read_csv"),
        ("SELECT text, count(*) FROM messages", Some((1, 8)), "text"),
        (
            "SELECT * FROM messages GROUP BY nothing",
            Some((1, 33)),
            "nothing",
        ),
        (
            "SELECT partition FROM messages a, messages b",
            Some((1, 8)),
            "mbiguous",
        ),
    ] {
        let error = refused(&engine, "a", sql).await;
        let Error::Invalid(fault) = &error else {
            panic!("{sql} is refused for another reason: {error:?}");
        };
        let Fault { detail, place } = &**fault;
        let found = place.as_ref().map(|place| (place.line, place.column));
        let marked = place.as_ref().is_none_or(|place| {
            let mark = place.excerpt.lines().last().unwrap();
            mark.chars().count() as u64 == place.column
        });
        if !detail.contains(says) || found != at || !marked {
            wrong.push(format!("{sql}\n  {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_on_the_way_say_what_failed_and_nothing_of_the_inside() {
    let lake = Lake::new();
    let engine = open(config(&lake)).await;
    offer(&engine, rows("a", 0, 0..10)).await;
    let mut wrong = Vec::new();
    for (sql, says) in [
        ("SELECT CAST(text AS INT) FROM messages", "text 0 of a"),
        ("SELECT 1 / (\"offset\" - \"offset\") FROM messages", "ivi"),
        ("SELECT text + 1 FROM messages", "text"),
        ("SELECT to_timestamp(text) FROM messages", "text 0 of a"),
        (
            "SELECT * FROM messages WHERE text ~ '('",
            "regular expression",
        ),
        // Larger than a compiled one may be.
        (
            "SELECT regexp_replace(text, '(\\w{200}){200}', '') FROM messages",
            "regular expression",
        ),
        (
            "SELECT * FROM messages WHERE text ~ '(\\w{200}){200}'",
            "egular expression",
        ),
        (
            "SELECT regexp_count(text, '(\\w{200}){200}') FROM messages",
            "egular expression",
        ),
    ] {
        let error = refused(&engine, "a", sql).await;
        let words = error.to_string();
        let inside = [
            "DataFusion",
            "datafusion",
            "backtrace",
            ".rs",
            "/root",
            "weir.public",
        ];
        if !matches!(error, Error::Invalid(_))
            || !words.contains(says)
            || inside.iter().any(|i| words.contains(i))
        {
            wrong.push(format!("{sql}\n  {error:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
