//! How to reach the brokers, and the settings of each kind of client.
//!
//! Tuned for latency: no Nagle, answers as soon as there is a record, short back-offs.
//! The settings on which "at least once" rests can't be overridden.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use crate::error::Error;

/// Settings that are ours: with other values records could be lost or mixed up.
const OURS: [&str; 12] = [
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "partitioner",
    "request.required.acks",
    "transactional.id",
];

/// Largest record that a producer sends unless `message.max.bytes` says otherwise.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// How to reach Kafka and how much may wait.
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `host:port`, several with commas.
    pub brokers: String,
    /// Who we are.
    pub security: Security,
    /// Partitions of a topic that has to be made. 4 by default.
    pub partitions: i32,
    /// Replicas of a topic that has to be made. 1 by default; from 3 on a record must be on
    /// two of them before it is acknowledged.
    pub replication: i32,
    /// Records that may wait for an acknowledgement. 100,000 by default.
    pub queue_messages: usize,
    /// Bytes of keys and payloads that may wait for an acknowledgement. 64 MiB by default.
    pub queue_bytes: usize,
    /// How long a record may wait for its acknowledgement. 30 s by default; in a file, a
    /// number of seconds.
    #[serde(deserialize_with = "seconds")]
    pub delivery_timeout: Duration,
    /// Librdkafka settings that go before ours, such as TLS.
    pub properties: BTreeMap<String, String>,
}

/// How a client proves who it is. TLS and other mechanisms come through `properties`.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Security {
    /// Anyone may come in.
    #[default]
    None,
    /// SASL/PLAIN.
    Plain {
        /// Name.
        username: String,
        /// Password.
        password: SecretString,
    },
}

impl Default for Config {
    fn default() -> Self {
        Self {
            brokers: String::new(),
            security: Security::None,
            partitions: 4,
            replication: 1,
            queue_messages: 100_000,
            queue_bytes: 64 << 20,
            delivery_timeout: Duration::from_secs(30),
            properties: BTreeMap::new(),
        }
    }
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Plain { username, .. } => write!(f, "Plain({username})"),
        }
    }
}

/// Names of properties only: a value may be a password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("brokers", &self.brokers)
            .field("security", &self.security)
            .field("partitions", &self.partitions)
            .field("replication", &self.replication)
            .field("queue_messages", &self.queue_messages)
            .field("queue_bytes", &self.queue_bytes)
            .field("delivery_timeout", &self.delivery_timeout)
            .field("properties", &self.properties.keys())
            .finish()
    }
}

impl Config {
    /// Bytes of key and payload that one record may have.
    #[must_use]
    pub fn max_record_bytes(&self) -> usize {
        // A batch of one record has a header of 61 bytes and some lengths.
        const BATCH_OVERHEAD: usize = 100;
        self.properties
            .get("message.max.bytes")
            .and_then(|value| value.parse().ok())
            .unwrap_or(MAX_MESSAGE_BYTES)
            .saturating_sub(BATCH_OVERHEAD)
    }

    /// Settings of a client that only asks.
    pub(crate) fn asking(&self) -> Result<ClientConfig, Error> {
        self.client(&[])
    }

    pub(crate) fn producer(&self) -> Result<ClientConfig, Error> {
        // Our own bound is the one that refuses; librdkafka's lies well behind it.
        let messages = self
            .queue_messages
            .saturating_mul(2)
            .clamp(100_000, 10_000_000);
        let kbytes = (self.queue_bytes / 512).clamp(1 << 16, 2_097_151);
        let timeout = self.delivery_timeout.as_millis();
        self.client(&[
            ("enable.idempotence", "true"),
            ("acks", "all"),
            // A record leaves at once; while two requests are out, the next records gather.
            // So a lone message waits for nobody, and under load few requests carry many.
            ("linger.ms", "0"),
            ("max.in.flight.requests.per.connection", "2"),
            ("partitioner", "murmur2_random"),
            ("message.max.bytes", &MAX_MESSAGE_BYTES.to_string()),
            ("delivery.timeout.ms", &timeout.to_string()),
            ("queue.buffering.max.messages", &messages.to_string()),
            ("queue.buffering.max.kbytes", &kbytes.to_string()),
            ("retry.backoff.ms", "50"),
            ("retry.backoff.max.ms", "1000"),
        ])
    }

    /// Settings of a consumer. Librdkafka wants a group's name even of one that joins none.
    pub(crate) fn consumer(&self, group: &str) -> Result<ClientConfig, Error> {
        let mut client = self.client(&[
            ("auto.offset.reset", "earliest"),
            ("fetch.min.bytes", "1"),
            ("fetch.wait.max.ms", "250"),
            ("fetch.queue.backoff.ms", "5"),
            ("fetch.error.backoff.ms", "100"),
            ("fetch.max.bytes", "4194304"),
            ("max.partition.fetch.bytes", "1048576"),
            ("queued.max.messages.kbytes", "8192"),
            ("check.crcs", "true"),
            // New partitions, and a topic that was not there, are noticed within this.
            ("topic.metadata.refresh.interval.ms", "30000"),
            // A killed member holds up its group until this has passed.
            ("session.timeout.ms", "10000"),
            ("heartbeat.interval.ms", "1000"),
            ("partition.assignment.strategy", "cooperative-sticky"),
        ])?;
        client.set("group.id", group);
        client.set("enable.auto.commit", "false");
        client.set("enable.auto.offset.store", "false");
        client.set("enable.partition.eof", "true");
        Ok(client)
    }

    fn client(&self, settings: &[(&str, &str)]) -> Result<ClientConfig, Error> {
        if let Some(property) = OURS
            .iter()
            .find(|name| self.properties.contains_key(**name))
        {
            return Err(Error::Setting {
                property: (*property).to_owned(),
                reason: "is Weir's own and can't be changed",
            });
        }
        let mut client = ClientConfig::new();
        client.set_log_level(RDKafkaLogLevel::Warning);
        for (key, value) in [
            ("client.id", "weir"),
            ("socket.nagle.disable", "true"),
            ("socket.keepalive.enable", "true"),
            ("reconnect.backoff.ms", "50"),
            ("reconnect.backoff.max.ms", "1000"),
            ("enable.metrics.push", "false"),
        ] {
            client.set(key, value);
        }
        if let Security::Plain { username, password } = &self.security {
            client.set("security.protocol", "SASL_PLAINTEXT");
            client.set("sasl.mechanism", "PLAIN");
            client.set("sasl.username", username);
            client.set("sasl.password", password.expose_secret());
        }
        for (key, value) in settings {
            client.set(*key, *value);
        }
        for (key, value) in &self.properties {
            client.set(key, value);
        }
        client.set("bootstrap.servers", &self.brokers);
        if trusts_the_system(&client) {
            client.set("ssl.ca.location", "probe");
        }
        Ok(client)
    }
}

/// Whether a client with TLS is told nothing of whom it may trust. The OpenSSL that is linked
/// in knows no folder of this system; librdkafka looks for it only when asked, and warns
/// where it is asked without TLS.
fn trusts_the_system(client: &ClientConfig) -> bool {
    let is = |name, values: &[&str]| {
        let value = client.get(name).unwrap_or_default();
        values.iter().any(|other| value.eq_ignore_ascii_case(other))
    };
    is("security.protocol", &["ssl", "sasl_ssl"])
        && !is("enable.ssl.certificate.verification", &["false", "f", "0"])
        && ["ssl.ca.location", "ssl.ca.pem", "ssl.ca.certificate.stores"]
            .iter()
            .all(|name| client.get(name).is_none())
}

fn seconds<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(from)?;
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| serde::de::Error::custom("expected a number of seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_go_before_our_settings() {
        let config = Config {
            properties: BTreeMap::from([("linger.ms".to_owned(), "20".to_owned())]),
            ..Config::default()
        };
        assert_eq!(config.producer().unwrap().get("linger.ms"), Some("20"));
    }

    #[test]
    fn settings_that_guard_delivery_are_refused() {
        for property in OURS {
            let config = Config {
                properties: BTreeMap::from([(property.to_owned(), "x".to_owned())]),
                ..Config::default()
            };
            let refusal = config.consumer("group").unwrap_err().to_string();
            assert!(refusal.contains(property), "{refusal}");
        }
    }

    #[test]
    fn tls_trusts_whom_the_system_trusts_unless_told_otherwise() {
        let authorities = |properties: &[(&str, &str)]| {
            let properties = properties
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let config = Config {
                properties: properties.collect(),
                ..Config::default()
            };
            let client = config.asking().unwrap();
            client.get("ssl.ca.location").map(str::to_owned)
        };
        for protocol in ["SSL", "SASL_SSL", "ssl", "Sasl_Ssl"] {
            let with = |name, value| authorities(&[("security.protocol", protocol), (name, value)]);
            assert_eq!(with("client.id", "x").as_deref(), Some("probe"));
            let verification = "enable.ssl.certificate.verification";
            assert_eq!(with(verification, "true").as_deref(), Some("probe"));
            assert_eq!(with(verification, "False"), None);
            assert_eq!(with("ssl.ca.pem", "x"), None);
            assert_eq!(with("ssl.ca.certificate.stores", "Root"), None);
            assert_eq!(with("ssl.ca.location", "ca.pem").as_deref(), Some("ca.pem"));
        }
        for protocol in ["PLAINTEXT", "SASL_PLAINTEXT"] {
            assert_eq!(authorities(&[("security.protocol", protocol)]), None);
        }
        assert_eq!(authorities(&[]), None);
    }

    #[test]
    fn debug_shows_no_secret() {
        let config = Config {
            security: Security::Plain {
                username: "weir".to_owned(),
                password: "hunter2".to_owned().into(),
            },
            properties: BTreeMap::from([("ssl.key.password".to_owned(), "hunter3".to_owned())]),
            ..Config::default()
        };
        let shown = format!("{config:?}");
        assert!(
            shown.contains("ssl.key.password") && !shown.contains("hunter"),
            "{shown}"
        );
    }
}
