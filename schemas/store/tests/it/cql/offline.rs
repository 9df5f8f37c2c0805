//! Without a database.

use std::error::Error as _;
use std::net::TcpListener;

use weir_store::Error;
use weir_store::cql::{Config, Store, migrate};

fn nobody() -> Config {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    Config {
        nodes: format!("127.0.0.1:{port}"),
        username: "weir".into(),
        password: "hunter2-hunter2".to_owned().into(),
        connect_seconds: 1,
        ..Config::default()
    }
}

fn words(error: &Error) -> String {
    let mut words = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        words += &format!(" {error} {error:?}");
        cause = error.source();
    }
    words
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_may_be_asked_again() {
    let config = nobody();
    for error in [
        Store::connect(&config).await.unwrap_err(),
        migrate(&config).await.unwrap_err(),
    ] {
        assert!(error.retriable(), "{error}");
        let cause = error.to_string();
        assert!(cause.contains("Connection refused"), "no cause: {cause}");
        let words = words(&error);
        assert!(!words.contains("hunter2"), "{words}");
    }
}

#[tokio::test]
async fn a_wrong_setting_is_named_before_anything_connects() {
    let config = Config {
        keyspace: "weir; DROP KEYSPACE other".into(),
        ..nobody()
    };
    for error in [
        Store::connect(&config).await.unwrap_err(),
        migrate(&config).await.unwrap_err(),
    ] {
        assert!(
            matches!(
                &error,
                Error::Setting {
                    setting: "keyspace",
                    ..
                }
            ),
            "{error}"
        );
        assert!(!error.retriable());
    }
}
