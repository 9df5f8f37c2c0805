//! The settings: one file and the environment, read once ([`load`]), checked at start.
//!
//! Every part keeps its own small struct; this file only puts them together.
//! Names that no part knows are refused, so a typing error is not a silent default.

mod load;
mod show;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use weir_store::Retention;

pub(crate) use self::load::Source;
use self::show::{refuse_hidden, shown};
use crate::out;

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
    /// Folder of the Delta table, which every sink and query reaches; empty: `DATA/lake`.
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

/// Records and bytes that a batch may have whatever the settings say: a largest one of
/// `ingest` unless they say otherwise, and more than a worker takes at a time.
const LARGEST_BATCH: usize = 1_000;
const LARGEST_BATCH_BYTES: usize = 8 << 20;

impl Config {
    /// What the types alone can't say.
    fn check(&self) -> Result<()> {
        refuse_hidden(self)?;
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
        // `file:///…` names a folder too; `file://host/…` does not.
        let path = self.lake.strip_prefix("file://");
        if self.lake.contains("://") && !path.is_some_and(|path| path.starts_with('/')) {
            bail!(
                "the setting `lake` must be a folder that all roles reach, such as one of a network file system; \
                 object storage is not supported yet"
            );
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
#[command(after_help = "Example:\n  weir config --print > weir.toml\n\n\
                        What is printed is a settings file with all settings, each under a line that says what it \
                        means. Secrets are `(hidden)`; one that is still so is refused when the file is read.")]
pub(crate) struct Command {
    /// Print the settings in force and what each means, as a settings file, secrets hidden
    #[arg(long)]
    print: bool,
}

impl Command {
    pub(crate) fn run(self, source: &Source) -> Result<ExitCode> {
        let config = source.load()?;
        if self.print {
            out::stdout().write_all(shown(&config)?.as_bytes())?;
        } else {
            writeln!(out::stdout(), "the settings are valid")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
pub(crate) mod tests;
