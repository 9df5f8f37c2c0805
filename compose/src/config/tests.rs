//! What is refused, what is hidden, and what overrides what.

use secrecy::ExposeSecret as _;

use super::*;

pub(crate) fn from_file(text: &str) -> Result<Config> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weir.toml");
    std::fs::write(&file, text).unwrap();
    Source { file: Some(file) }.load()
}

#[test]
fn a_file_overrides_only_what_it_names() {
    let config = from_file("listen = \"127.0.0.1:9999\"\n[sql]\nresult_rows = 64\n").unwrap();
    assert_eq!(config.listen.port(), 9999);
    assert_eq!(config.sql.result_rows, 64);
    assert_eq!(
        config.sql.timeout_seconds,
        weir_analytics_sql::Config::default().timeout_seconds
    );
}

#[test]
fn an_unknown_setting_is_refused_by_name() {
    let refusal = format!("{:#}", from_file("[sql]\nresult_row = 64\n").unwrap_err());
    assert!(refusal.contains("result_row"), "{refusal}");
}

#[test]
fn the_lake_is_set_in_one_place() {
    let refusal = format!("{:#}", from_file("[sql]\nlake = \"lake\"\n").unwrap_err());
    assert!(refusal.contains("`sql.lake` is not known"), "{refusal}");
}

#[test]
fn a_value_out_of_range_is_refused_by_name() {
    let refusal = format!("{:#}", from_file("[bus]\npartitions = 0\n").unwrap_err());
    assert!(refusal.contains("bus.partitions"), "{refusal}");
}

#[test]
fn secrets_of_the_bus_are_hidden_when_shown() {
    let config = from_file("[bus.properties]\n\"sasl.password\" = \"hunter2-hunter2\"\n").unwrap();
    let text = shown(&config).unwrap();
    assert!(
        !text.contains("hunter2") && text.contains("sasl.password"),
        "{text}"
    );
}

#[test]
fn a_secret_of_the_wrong_kind_is_refused_without_showing_it() {
    for text in [
        "[cql]\npassword = 12345678\n",
        "[bus.properties]\n\"sasl.password\" = 12345678\n",
    ] {
        let refusal = format!("{:#}", from_file(text).unwrap_err());
        assert!(
            refusal.contains("password") && !refusal.contains("1234"),
            "{refusal}"
        );
    }
}

#[test]
fn a_secret_in_the_wrong_place_is_refused_without_showing_it() {
    // Without its quotes, within a line, and as a table that is none.
    for (text, place) in [
        (
            "[cql]\nusername = \"weir\"\npassword = hunter2\n",
            "line 3, column 12",
        ),
        (
            "cql = { username = \"weir\", password = \"hunter2 }\n",
            "line 1",
        ),
        (
            "[bus]\nproperties = \"sasl.password=hunter2\"\n",
            "`bus.properties` must be a map",
        ),
        ("listen = \"hunter2\"\n", "`listen`"),
        (
            "store = \"hunter2\"\n",
            "`store` must be one of `embedded`, `scylla`",
        ),
        ("connections = \"hunter2\"\n", "`connections` must be"),
        ("bus = \"hunter2\"\n", "`bus` must be a table"),
    ] {
        let refusal = format!("{:#}", from_file(text).unwrap_err());
        assert!(
            refusal.contains(place) && !refusal.contains("hunter"),
            "{refusal}"
        );
    }
}

#[test]
fn a_queue_that_the_largest_batch_never_fits_into_is_refused_by_name() {
    for (text, name) in [
        ("[bus]\nqueue_messages = 999\n", "bus.queue_messages"),
        ("[ingest]\nbatch_messages = 100001\n", "bus.queue_messages"),
        ("[bus]\nqueue_bytes = 16777216\n", "bus.queue_bytes"),
        ("[ingest]\nbatch_bytes = 67108864\n", "bus.queue_bytes"),
        (
            "[bus.properties]\n\"message.max.bytes\" = \"67108864\"\n",
            "bus.queue_bytes",
        ),
    ] {
        let refusal = format!("{:#}", from_file(text).unwrap_err());
        assert!(refusal.contains(name), "{refusal}");
    }
    from_file("[bus]\nqueue_messages = 1000\nqueue_bytes = 18000000\n").unwrap();
}

#[test]
fn secrets_are_read_from_files_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "hunter2-hunter2\n").unwrap();
    let text = |setting: &str| {
        format!("[secrets]\n\"{setting}\" = {file:?}\n[cql]\nusername = \"weir\"\n")
    };
    let config = from_file(&text("cql.password")).unwrap();
    assert_eq!(config.cql.password.expose_secret(), "hunter2-hunter2");
    assert!(!shown(&config).unwrap().contains("hunter2"));
    let again = from_file(&shown(&config).unwrap()).unwrap();
    assert_eq!(again.cql.password.expose_secret(), "hunter2-hunter2");
    let config = from_file(&text("bus.properties.sasl.password")).unwrap();
    assert_eq!(config.bus.properties["sasl.password"], "hunter2-hunter2");
    assert!(!shown(&config).unwrap().contains("hunter2"));
    let again = from_file(&shown(&config).unwrap()).unwrap();
    assert_eq!(again.bus.properties["sasl.password"], "hunter2-hunter2");

    let refusal = format!("{:#}", from_file(&text("listen")).unwrap_err());
    assert!(refusal.contains("secrets.\"listen\""), "{refusal}");
    std::fs::write(&file, "\n").unwrap();
    let refusal = format!("{:#}", from_file(&text("cql.password")).unwrap_err());
    assert!(refusal.contains("cql.password"), "{refusal}");
}

#[test]
fn a_wrong_setting_of_the_database_is_refused_by_name_where_it_is_used() {
    let wrong = "[cql]\nkeyspace = \"Weir!\"\n";
    from_file(wrong).unwrap();
    let refusal = from_file(&format!("store = \"scylla\"\n{wrong}")).unwrap_err();
    assert!(format!("{refusal:#}").contains("keyspace"), "{refusal:#}");
}

#[test]
fn a_lake_that_is_no_folder_is_refused_without_showing_it() {
    for place in [
        "s3://hunter2@bucket/lake",
        "https://hunter2/lake",
        "file://hunter2/lake",
    ] {
        let refusal = format!("{:#}", from_file(&format!("lake = {place:?}")).unwrap_err());
        assert!(
            refusal.contains("`lake` must be a folder") && !refusal.contains("hunter"),
            "{refusal}"
        );
    }
    for place in ["", "lake", "/mnt/weir/lake", "file:///mnt/weir/lake"] {
        from_file(&format!("lake = {place:?}")).unwrap();
    }
}

#[test]
fn what_is_printed_can_be_read_back() {
    let set = "listen = \"127.0.0.1:9999\"\n[bus.properties]\n\"linger.ms\" = \"5\"\n\
               [retention]\ntext_days = 30\nverdict_days = 60\n[retention.tenants.\"a.b\"]\ntext_days = 7\n\
               [model.thresholds]\ninsult = { flag = 0.5 }\n[auth]\ntrusted_proxies = [\"::1\", \"10.0.0.1\"]\n";
    for set in ["", set] {
        let text = shown(&from_file(set).unwrap()).unwrap();
        assert_eq!(shown(&from_file(&text).unwrap()).unwrap(), text);
        assert_eq!(text.contains("127.0.0.1:9999"), !set.is_empty());
    }
}

#[test]
fn what_is_hidden_is_not_taken_for_the_secret() {
    for text in [
        "[cql]\nusername = \"weir\"\npassword = \"hunter2\"\n",
        "[bus.properties]\n\"sasl.password\" = \"hunter2\"\n",
    ] {
        let text = shown(&from_file(text).unwrap()).unwrap();
        let refusal = format!("{:#}", from_file(&text).unwrap_err());
        assert!(refusal.contains("password` is `(hidden)`"), "{refusal}");
    }
}
