//! The settings: one file and the environment, read once, checked at start.
//!
//! Every part keeps its own small struct; this file only puts them together.
//! Names that no part knows are refused, so a typing error is not a silent default.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use figment::Figment;
use figment::error::Kind;
use figment::providers::{Env, Format as _, Serialized, Toml};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use weir_store::Retention;

/// Where the settings come from.
#[derive(Debug, Clone, Args)]
pub(crate) struct Source {
    /// File with settings (TOML)
    #[arg(
        long = "config",
        global = true,
        env = "WEIR_CONFIG",
        value_name = "FILE"
    )]
    file: Option<PathBuf>,
}

/// All settings of the server roles. `weir config --print` shows them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Address of the HTTP door.
    pub(crate) listen: SocketAddr,
    /// HTTP connections at a time; more wait until one ends.
    pub(crate) connections: usize,
    /// Folder of `weir up`.
    pub(crate) data: PathBuf,
    /// `embedded`: in the data folder of one process; `scylla`: the database of `cql`.
    pub(crate) store: Store,
    /// Folder or URL of the Delta table; empty: `DATA/lake`.
    pub(crate) lake: String,
    pub(crate) bus: Bus,
    /// ScyllaDB or Apache Cassandra, for `store = "scylla"`.
    pub(crate) cql: weir_store::cql::Config,
    /// Settings whose value is read from a file: `cql.password`, `bus.properties.NAME`.
    pub(crate) secrets: BTreeMap<String, PathBuf>,
    /// How long texts and verdicts are kept, in the log, the history and the lake.
    pub(crate) retention: Retention,
    pub(crate) model: Model,
    pub(crate) ingest: weir_ingest::Config,
    pub(crate) auth: weir_auth::Config,
    pub(crate) sink: Sink,
    pub(crate) sql: weir_analytics_sql::Config,
    /// Seconds that a graceful stop may take.
    pub(crate) stop_seconds: u64,
}

/// Where accounts, keys and history are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Store {
    Embedded,
    Scylla,
}

/// The Kafka side. Without brokers, `weir up` runs its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Bus {
    /// `host:port,host:port`; empty: the embedded broker.
    pub(crate) brokers: String,
    /// Address of the embedded broker; port 0 takes a free one.
    pub(crate) listen: SocketAddr,
    /// Partitions of the topics that Weir makes.
    pub(crate) partitions: i32,
    /// Copies of each, on Apache Kafka; from 3 on, two must have a message before it is accepted.
    pub(crate) replication: i32,
    /// How long the log keeps records, in hours; less where `retention` is shorter.
    pub(crate) retention_hours: u32,
    /// Messages that may wait for the broker; more are refused with 503.
    pub(crate) queue_messages: usize,
    /// Bytes that may wait for the broker.
    pub(crate) queue_bytes: usize,
    /// Settings handed to librdkafka as they are.
    pub(crate) properties: BTreeMap<String, String>,
}

/// The model and how it decides.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Model {
    /// Model folder; empty: `models/weir-small-1` beside the program or here.
    pub(crate) path: PathBuf,
    /// `libonnxruntime.so`; empty: where `compose/setup` puts it.
    pub(crate) runtime: PathBuf,
    /// Model threads; 0: one for each core.
    pub(crate) sessions: usize,
    /// Padded tokens in one forward pass.
    pub(crate) batch_tokens: usize,
    /// Texts that may wait for a model thread.
    pub(crate) queue: usize,
    /// Thresholds that replace the model's own, by attribute.
    pub(crate) thresholds: weir_processors::Thresholds,
}

/// How verdicts are written away.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sink {
    /// Milliseconds between two commits of the lake.
    pub(crate) lake_every_ms: u64,
    /// Rows that make a commit at once.
    pub(crate) lake_rows: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            connections: 4_096,
            data: PathBuf::from("data"),
            store: Store::Embedded,
            lake: String::new(),
            bus: Bus::default(),
            cql: weir_store::cql::Config::default(),
            secrets: BTreeMap::new(),
            retention: Retention::default(),
            model: Model::default(),
            ingest: weir_ingest::Config::default(),
            auth: weir_auth::Config::default(),
            sink: Sink::default(),
            sql: weir_analytics_sql::Config::default(),
            stop_seconds: 10,
        }
    }
}

impl Default for Bus {
    fn default() -> Self {
        Self {
            brokers: String::new(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            partitions: 4,
            replication: 1,
            retention_hours: 24 * 7,
            queue_messages: 100_000,
            queue_bytes: 64 << 20,
            properties: BTreeMap::new(),
        }
    }
}

impl Default for Model {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            runtime: PathBuf::new(),
            sessions: 0,
            batch_tokens: 512,
            queue: 4096,
            thresholds: weir_processors::Thresholds::default(),
        }
    }
}

impl Default for Sink {
    fn default() -> Self {
        Self {
            lake_every_ms: 2_000,
            lake_rows: 50_000,
        }
    }
}

impl Source {
    /// Defaults, then the file, then `WEIR_…` of the environment (`WEIR_SQL__CONCURRENT_QUERIES=8`).
    pub(crate) fn load(&self) -> Result<Config> {
        let mut figment = Figment::from(Serialized::defaults(Config::default()));
        if let Some(file) = &self.file {
            if !file.is_file() {
                bail!("the settings file {} does not exist", file.display());
            }
            is_toml(file)?;
            figment = figment.merge(Toml::file_exact(file));
        }
        let own = [
            "WEIR_CONFIG",
            "WEIR_LOG",
            "WEIR_KEY",
            "WEIR_URL",
            "WEIR_ONNXRUNTIME",
        ];
        let env = Env::prefixed("WEIR_").filter(move |name| {
            !own.iter().any(|known| {
                known
                    .trim_start_matches("WEIR_")
                    .eq_ignore_ascii_case(name.as_str())
            })
        });
        let mut config: Config = figment
            .merge(env.split("__"))
            .extract()
            .map_err(|error| told(&error))
            .context("a setting is wrong")?;
        config.read_secrets()?;
        config.cql.retention = config.retention.clone();
        config.check()?;
        Ok(config)
    }
}

/// Records and bytes that a batch may have whatever the settings say: a largest one of
/// `ingest` unless they say otherwise, and more than a worker takes at a time.
const LARGEST_BATCH: usize = 1_000;
const LARGEST_BATCH_BYTES: usize = 8 << 20;

/// Words in the names of settings that may hold a secret.
const SECRET: [&str; 5] = ["password", "secret", "key", "token", "jaas"];

fn is_secret(name: &str) -> bool {
    SECRET.iter().any(|word| name.contains(word))
}

/// Refuses a file that can't be read, by the place alone: the parser's own words show the
/// line, and that may hold a secret that lacks its quotes.
fn is_toml(file: &Path) -> Result<()> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("the settings file {} can't be read", file.display()))?;
    let Err(error) = text.parse::<toml::Table>() else {
        return Ok(());
    };
    let before = error.span().and_then(|span| text.get(..span.start));
    let before = before.unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    bail!(
        "the settings file {} is not TOML at line {line}, column {column}; \
         a value that is text stands in quotes",
        file.display()
    )
}

/// What is wrong: the setting's name and what it must be, never its value.
fn told(error: &figment::Error) -> anyhow::Error {
    let name = |field: &str| {
        let mut path = error.path.clone();
        if !field.is_empty() && path.last().is_none_or(|last| last != field) {
            path.push(field.to_owned());
        }
        path.join(".")
    };
    let (name, wrong) = match &error.kind {
        Kind::UnknownField(field, known) => {
            let known = known.join("`, `");
            (name(field), format!("is not known; there are `{known}`"))
        }
        Kind::MissingField(field) => (name(field), "is missing".to_owned()),
        Kind::DuplicateField(field) => (name(field), "is there twice".to_owned()),
        Kind::UnknownVariant(_, known) => {
            let known = known.join("`, `");
            (name(""), format!("must be one of `{known}`"))
        }
        Kind::InvalidType(_, expected)
        | Kind::InvalidValue(_, expected)
        | Kind::InvalidLength(_, expected) => {
            let expected = match expected.as_str() {
                "a string" => "text: write it in quotes",
                expected if expected.starts_with("struct ") => "a table",
                expected => expected,
            };
            (name(""), format!("must be {expected}"))
        }
        // What a type says that is read from text, such as an address.
        Kind::Message(reason) if !error.path.is_empty() && !is_secret(&name("")) => {
            (name(""), format!("is wrong: {reason}"))
        }
        _ => (name(""), "has a value that it can't have".to_owned()),
    };
    let source = error.metadata.as_ref().map_or("settings", |m| &m.name);
    anyhow::anyhow!("the setting `{name}` {wrong} (in: {source})")
}

impl Config {
    /// What the types alone can't say.
    fn check(&self) -> Result<()> {
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        // The largest batches: what `ingest` takes at once, and what a worker does. One that
        // can never be queued would be tried for ever.
        let messages = self.ingest.batch_messages.max(LARGEST_BATCH);
        let bytes = self.ingest.batch_bytes.max(LARGEST_BATCH_BYTES);
        let record = self.bus(String::new(), weir_bus::Security::None);
        // A message takes more as a record, with its key, its place and its verdict.
        let bytes = bytes.saturating_mul(2) + record.max_record_bytes();
        let least = [
            ("connections", count(self.connections), 1),
            ("bus.partitions", i64::from(self.bus.partitions), 1),
            ("bus.replication", i64::from(self.bus.replication), 1),
            (
                "bus.retention_hours",
                i64::from(self.bus.retention_hours),
                1,
            ),
            (
                "bus.queue_messages",
                count(self.bus.queue_messages),
                count(messages),
            ),
            ("bus.queue_bytes", count(self.bus.queue_bytes), count(bytes)),
            ("model.batch_tokens", count(self.model.batch_tokens), 1),
            (
                "sql.concurrent_queries",
                count(self.sql.concurrent_queries),
                1,
            ),
            ("sql.memory_bytes", count(self.sql.memory_bytes), 1),
        ];
        for (name, value, least) in least {
            if value < least {
                bail!("the setting `{name}` must be at least {least}");
            }
        }
        self.retention.check()?;
        if self.store == Store::Scylla {
            self.cql.check()?;
        }
        Ok(())
    }

    /// Puts the secrets that lie in files where they belong.
    fn read_secrets(&mut self) -> Result<()> {
        for (setting, file) in &self.secrets {
            let secret = std::fs::read_to_string(file).with_context(|| {
                format!(
                    "the setting `{setting}` can't be read from {}",
                    file.display()
                )
            })?;
            let secret = secret.trim_end_matches(['\r', '\n']).to_owned();
            if secret.is_empty() {
                bail!("the setting `{setting}`: {} is empty", file.display());
            }
            if setting == "cql.password" {
                self.cql.password = SecretString::from(secret);
            } else if let Some(property) = setting.strip_prefix("bus.properties.") {
                self.bus.properties.insert(property.to_owned(), secret);
            } else {
                bail!(
                    "the setting `secrets.\"{setting}\"` is not known; \
                     `cql.password` and `bus.properties.NAME` can be read from files"
                );
            }
        }
        Ok(())
    }

    /// Where the lake is, unless the settings say otherwise.
    pub(crate) fn lake_or(&self, folder: &Path) -> String {
        if self.lake.is_empty() {
            folder.display().to_string()
        } else {
            self.lake.clone()
        }
    }

    pub(crate) fn bus(&self, brokers: String, security: weir_bus::Security) -> weir_bus::Config {
        weir_bus::Config {
            brokers,
            security,
            partitions: self.bus.partitions,
            replication: self.bus.replication,
            queue_messages: self.bus.queue_messages,
            queue_bytes: self.bus.queue_bytes,
            properties: self.bus.properties.clone(),
            ..weir_bus::Config::default()
        }
    }
}

/// `weir config`
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// Print the settings in force, secrets hidden
    #[arg(long)]
    print: bool,
}

impl Command {
    #[expect(clippy::print_stdout, reason = "the output of the command")]
    pub(crate) fn run(self, source: &Source) -> Result<ExitCode> {
        let config = source.load()?;
        if self.print {
            println!("{}", shown(&config)?);
        } else {
            println!("the settings are valid");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// As TOML; what may hold a secret is hidden.
fn shown(config: &Config) -> Result<String> {
    let mut config = config.clone();
    for (name, value) in &mut config.bus.properties {
        if is_secret(name) {
            *value = "(hidden)".to_owned();
        }
    }
    toml::to_string_pretty(&config).context("the settings can't be shown as TOML")
}

#[cfg(test)]
pub(crate) mod tests {
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
    fn a_value_out_of_range_is_refused_by_name() {
        let refusal = format!("{:#}", from_file("[bus]\npartitions = 0\n").unwrap_err());
        assert!(refusal.contains("bus.partitions"), "{refusal}");
    }

    #[test]
    fn secrets_of_the_bus_are_hidden_when_shown() {
        let config =
            from_file("[bus.properties]\n\"sasl.password\" = \"hunter2-hunter2\"\n").unwrap();
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
        let config = from_file(&text("bus.properties.sasl.password")).unwrap();
        assert_eq!(config.bus.properties["sasl.password"], "hunter2-hunter2");
        assert!(!shown(&config).unwrap().contains("hunter2"));

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
    fn what_is_printed_can_be_read_back() {
        let text = shown(&Config::default()).unwrap();
        assert_eq!(from_file(&text).unwrap().listen, Config::default().listen);
    }
}
