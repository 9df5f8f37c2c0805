//! Whatever is not a read of `messages` is refused, and leaves nothing behind.

use weir_analytics_sql::Error;

use crate::support::{Lake, config, number, offer, open, refused, rows};

#[tokio::test(flavor = "multi_thread")]
async fn writes_settings_and_statements_are_refused() {
    let mut lake = Lake::new();
    lake.commit(&rows("a", 0, 0..10)).await;
    let engine = open(config(&lake)).await;
    let target = lake.folder.path().join("out");
    let target = target.to_str().unwrap();
    for sql in [
        "INSERT INTO messages SELECT * FROM messages",
        "INSERT INTO messages VALUES (1)",
        "INSERT OVERWRITE messages SELECT * FROM messages",
        "UPDATE messages SET text = ''",
        "DELETE FROM messages",
        "TRUNCATE TABLE messages",
        "MERGE INTO messages USING messages m ON true WHEN MATCHED THEN DELETE",
        "DROP TABLE messages",
        "ALTER TABLE messages ADD COLUMN x INT",
        "CREATE TABLE x AS SELECT * FROM messages",
        "CREATE TABLE x (a INT)",
        "CREATE VIEW x AS SELECT * FROM messages",
        "CREATE OR REPLACE VIEW messages AS SELECT 1",
        "CREATE SCHEMA x",
        "CREATE DATABASE x",
        "CREATE FUNCTION f() RETURNS INT RETURN 1",
        "CREATE INDEX i ON messages (text)",
        &format!("CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '{target}'"),
        &format!(
            "CREATE EXTERNAL TABLE x (a INT) STORED AS PARQUET LOCATION '{}'",
            lake.place()
        ),
        &format!("COPY (SELECT * FROM messages) TO '{target}.csv'"),
        &format!("COPY messages TO '{target}.parquet' STORED AS PARQUET"),
        &format!("EXPLAIN COPY messages TO '{target}.csv'"),
        &format!("EXPLAIN ANALYZE COPY messages TO '{target}.csv'"),
        "EXPLAIN ANALYZE INSERT INTO messages SELECT * FROM messages",
        "EXPLAIN CREATE TABLE x AS SELECT 1",
        "WITH x AS (INSERT INTO messages VALUES (1)) SELECT * FROM x",
        "SELECT * INTO x FROM messages",
        "SET datafusion.execution.batch_size = 1",
        "SET datafusion.runtime.memory_limit = '100G'",
        "SET TIME ZONE = '+01:00'",
        "RESET datafusion.execution.batch_size",
        "SHOW ALL",
        "SHOW datafusion.execution.batch_size",
        "SELECT * FROM information_schema.df_settings",
        "SELECT (SELECT max(value) FROM information_schema.df_settings)",
        "SHOW CREATE TABLE messages",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "DEALLOCATE p",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "USE weir",
        "KILL 1",
        "GRANT SELECT ON messages TO x",
        "CALL f()",
        "ANALYZE TABLE messages COMPUTE STATISTICS",
        "SELECT 1; DROP TABLE messages",
        "SELECT 1; SELECT 2",
        "",
        "   -- nothing",
        ";",
    ] {
        let error = refused(&engine, "a", sql).await;
        assert!(matches!(error, Error::Invalid(_)), "{sql}: {error:?}");
    }
    assert_eq!(
        number(&engine, "a", "SELECT count(*) FROM messages").await,
        10
    );
    let left: Vec<_> = std::fs::read_dir(lake.folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["lake"], "something was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_can_be_read_and_no_path_is_told() {
    let mut lake = Lake::new();
    lake.commit(&rows("a", 0, 0..10)).await;
    let engine = open(config(&lake)).await;
    offer(&engine, rows("a", 0, 10..20)).await;
    let place = lake.place();
    let file = lake.folder.path().join("secret.csv");
    std::fs::write(&file, "word\nxyzzy\n").unwrap();
    let file = file.to_str().unwrap();
    for sql in [
        format!("SELECT * FROM '{file}'"),
        format!("SELECT * FROM \"{file}\""),
        format!("SELECT * FROM 'file://{file}'"),
        format!("SELECT * FROM read_csv('{file}')"),
        format!("SELECT * FROM csv_scan('{file}')"),
        format!("SELECT * FROM read_parquet('{place}/*.parquet')"),
        format!("SELECT * FROM parquet_scan('{place}')"),
        format!("SELECT * FROM delta_scan('{place}')"),
        format!("SELECT * FROM parquet_metadata('{place}')"),
        format!("SELECT * FROM read_json('{file}')"),
        format!("SELECT * FROM read_text('{file}')"),
        format!("SELECT pg_read_file('{file}')"),
        format!("SELECT read_blob('{file}')"),
        "SELECT * FROM metadata_cache()".to_owned(),
        "SELECT * FROM statistics_cache()".to_owned(),
        "SELECT getenv('PATH')".to_owned(),
        "SELECT @@version".to_owned(),
    ] {
        let error = refused(&engine, "a", &sql).await;
        assert!(matches!(error, Error::Invalid(_)), "{sql}: {error:?}");
        assert!(!error.to_string().contains("xyzzy"), "{sql}: {error}");
    }
    // A plan names no file either.
    for sql in [
        "EXPLAIN VERBOSE SELECT * FROM messages",
        "EXPLAIN ANALYZE VERBOSE SELECT * FROM messages",
    ] {
        let plan = format!("{:?}", crate::support::table(&engine, "a", sql).await);
        assert!(
            !plan.contains(".parquet") && !plan.contains(&place),
            "{plan}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_lost_its_files_tells_no_path() {
    let mut lake = Lake::new();
    lake.commit(&rows("a", 0, 0..10)).await;
    let engine = open(config(&lake)).await;
    for entry in std::fs::read_dir(lake.place()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "_delta_log" {
            std::fs::remove_dir_all(entry.path()).unwrap();
        }
    }
    let error = refused(&engine, "a", "SELECT * FROM messages").await;
    assert_eq!(error, Error::Internal);
    assert!(!error.to_string().contains('/'));
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_that_make_data_without_bound_do_not_exist() {
    let lake = Lake::new();
    let engine = open(config(&lake)).await;
    for sql in [
        "SELECT repeat('x', 2000000000)",
        "SELECT lpad('x', 2000000000)",
        "SELECT rpad('x', 2000000000)",
        "SELECT array_repeat(1, 2000000000)",
        "SELECT list_repeat(1, 2000000000)",
        "SELECT array_resize([1], 2000000000)",
        "SELECT list_resize([1], 2000000000)",
        "SELECT range(0, 2000000000)",
        "SELECT generate_series(0, 2000000000)",
        "SELECT array_replace_all(['x'], 'x', 'xx')",
        "SELECT list_replace_all(['x'], 'x', 'xx')",
        "SELECT array_replace_n(['x'], 'x', 'xx', 1)",
        "SELECT arrow_cast(NULL, 'FixedSizeBinary(2000000000)')",
        "SELECT arrow_try_cast(NULL, 'FixedSizeBinary(2000000000)')",
    ] {
        let error = refused(&engine, "a", sql).await;
        assert!(matches!(error, Error::Invalid(_)), "{sql}: {error:?}");
    }
}
