//! How to reach the database, and how safely and for how long it keeps what it is
//! given. A setting that can't work is refused by its name before anything connects.

use std::fmt;
use std::path::PathBuf;

use scylla::statement;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, Serializer};

use crate::{Error, Retention};

/// The longest name that every server takes for a keyspace.
const LONGEST_KEYSPACE: usize = 48;

/// The database and what is asked of it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `host:port` of some of the nodes, with commas; the others are found through them.
    pub nodes: String,
    /// The keyspace that holds Weir's tables: lower-case letters, digits and `_`.
    pub keyspace: String,
    /// Copies of everything in each datacenter. Used when `migrate` makes the keyspace;
    /// one that is there already keeps what it has.
    pub replication: u8,
    /// The datacenter whose nodes are asked; may be empty where there is only one.
    pub datacenter: String,
    /// Empty: no authentication.
    pub username: String,
    /// Never shown.
    #[serde(serialize_with = "hidden")]
    pub password: SecretString,
    /// Encryption.
    pub tls: Tls,
    /// Copies that must have a write before it counts.
    pub write_consistency: Consistency,
    /// Copies that a read asks. Together with `write_consistency` more than half of all,
    /// or a read may miss what was acknowledged.
    pub read_consistency: Consistency,
    /// Among whom account names are decided: `local_serial`, the datacenter, or `serial`,
    /// all of them, for doors that run in more than one.
    pub serial_consistency: SerialConsistency,
    /// How long a connection may take to be made.
    pub connect_seconds: u32,
    /// How long a read may take before it counts as failed.
    pub read_seconds: u32,
    /// How long a write may take before it counts as failed.
    pub write_seconds: u32,
    /// After how many milliseconds a read is also sent to a second node; 0: never.
    pub speculate_ms: u32,
    /// Requests under way at once, of one write or one page.
    pub concurrency: usize,
    /// Rows that a process knows of in one day of a list when it splits the day into
    /// minutes. The arithmetic is in the documentation of [`super`].
    pub day_rows: u32,
    /// How long messages are kept.
    #[serde(skip)]
    pub retention: Retention,
}

/// Encryption between Weir and the database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the authorities that may have signed the nodes' certificates, which
    /// must name the nodes' IP addresses. Empty: no encryption.
    pub ca: PathBuf,
    /// PEM file of Weir's own certificate, where the nodes ask for one.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
}

/// How many copies take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// Any one.
    One,
    /// One of the datacenter.
    LocalOne,
    /// More than half of all.
    Quorum,
    /// More than half of the datacenter's.
    LocalQuorum,
    /// Every one.
    All,
}

/// Who takes part in a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SerialConsistency {
    /// Every datacenter.
    Serial,
    /// The datacenter.
    LocalSerial,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            nodes: "127.0.0.1:9042".to_owned(),
            keyspace: "weir".to_owned(),
            replication: 3,
            datacenter: String::new(),
            username: String::new(),
            password: SecretString::default(),
            tls: Tls::default(),
            write_consistency: Consistency::LocalQuorum,
            read_consistency: Consistency::LocalQuorum,
            serial_consistency: SerialConsistency::LocalSerial,
            connect_seconds: 5,
            read_seconds: 5,
            write_seconds: 10,
            speculate_ms: 50,
            concurrency: 32,
            day_rows: 50_000,
            retention: Retention::default(),
        }
    }
}

impl Config {
    /// Refuses settings that can't work.
    ///
    /// # Errors
    /// [`Error::Setting`] with the name of the first one.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |setting, reason: &str| {
            Err(Error::Setting {
                setting,
                reason: reason.to_owned(),
            })
        };
        if self.contact_points().next().is_none() {
            return refuse("nodes", "it names no node");
        }
        if self.keyspace.len() > LONGEST_KEYSPACE
            || !self.keyspace.starts_with(|c: char| c.is_ascii_lowercase())
            || !self
                .keyspace
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        {
            return refuse(
                "keyspace",
                "it must be a lower-case letter and then up to 47 lower-case letters, digits or `_`",
            );
        }
        let positive = [
            ("replication", usize::from(self.replication)),
            ("connect_seconds", self.connect_seconds as usize),
            ("read_seconds", self.read_seconds as usize),
            ("write_seconds", self.write_seconds as usize),
            ("concurrency", self.concurrency),
            ("day_rows", self.day_rows as usize),
        ];
        if let Some((setting, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return refuse(setting, "it must be above 0");
        }
        if self.username.is_empty() && !self.password.expose_secret().is_empty() {
            return refuse("username", "there is a password without a name");
        }
        let tls = &self.tls;
        if tls.certificate.as_os_str().is_empty() != tls.key.as_os_str().is_empty() {
            return refuse("tls", "`certificate` and `key` belong together");
        }
        if tls.ca.as_os_str().is_empty() && !tls.key.as_os_str().is_empty() {
            return refuse("tls", "a certificate of our own needs `ca` as well");
        }
        self.retention.check()
    }

    /// The nodes to begin with.
    pub(super) fn contact_points(&self) -> impl Iterator<Item = &str> {
        self.nodes
            .split(',')
            .map(str::trim)
            .filter(|node| !node.is_empty())
    }
}

/// Without the password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("nodes", &self.nodes)
            .field("keyspace", &self.keyspace)
            .field("replication", &self.replication)
            .field("datacenter", &self.datacenter)
            .field("username", &self.username)
            .field("tls", &self.tls)
            .field("write_consistency", &self.write_consistency)
            .field("read_consistency", &self.read_consistency)
            .field("serial_consistency", &self.serial_consistency)
            .field("retention", &self.retention)
            .finish_non_exhaustive()
    }
}

impl From<Consistency> for statement::Consistency {
    fn from(consistency: Consistency) -> Self {
        match consistency {
            Consistency::One => Self::One,
            Consistency::LocalOne => Self::LocalOne,
            Consistency::Quorum => Self::Quorum,
            Consistency::LocalQuorum => Self::LocalQuorum,
            Consistency::All => Self::All,
        }
    }
}

impl From<SerialConsistency> for statement::SerialConsistency {
    fn from(consistency: SerialConsistency) -> Self {
        match consistency {
            SerialConsistency::Serial => Self::Serial,
            SerialConsistency::LocalSerial => Self::LocalSerial,
        }
    }
}

/// A read that sees what was decided, and settles what is being decided.
impl From<SerialConsistency> for statement::Consistency {
    fn from(consistency: SerialConsistency) -> Self {
        match consistency {
            SerialConsistency::Serial => Self::Serial,
            SerialConsistency::LocalSerial => Self::LocalSerial,
        }
    }
}

fn hidden<S: Serializer>(secret: &SecretString, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(if secret.expose_secret().is_empty() {
        ""
    } else {
        "(hidden)"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        config.check().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_accepted_and_a_wrong_setting_is_named() {
        Config::default().check().unwrap();
        assert!(refused(|c| c.nodes = " , ".into()).contains("nodes"));
        assert!(refused(|c| c.replication = 0).contains("replication"));
        assert!(refused(|c| c.tls.key = "key.pem".into()).contains("tls"));
        assert!(refused(|c| c.retention.verdict_days = 1).contains("retention"));
    }

    #[test]
    fn a_keyspace_that_would_need_quotes_is_refused() {
        for name in [
            "",
            "Weir",
            "9weir",
            "weir;",
            "we ir",
            "wëir",
            &"w".repeat(49),
        ] {
            assert!(
                refused(|c| c.keyspace = name.into()).contains("keyspace"),
                "{name}"
            );
        }
    }

    #[test]
    fn the_password_is_not_shown() {
        let config = Config {
            username: "weir".into(),
            password: "hunter2".to_owned().into(),
            ..Config::default()
        };
        let shown = format!("{config:?} {}", serde_json::to_string(&config).unwrap());
        assert!(
            !shown.contains("hunter2") && shown.contains("(hidden)"),
            "{shown}"
        );
    }
}
