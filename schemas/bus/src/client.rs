//! What every client shares: it turns librdkafka's logs and errors into ours, and knows
//! whether its brokers can be reached. An outage is logged once when it begins and once
//! when it ends, not at each of the many tries between.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::error::name;

/// A client's view of its brokers.
#[derive(Debug)]
pub(crate) struct Link {
    /// Which client, for the log.
    client: &'static str,
    /// Whether an outage is worth a line in the log.
    loud: bool,
    /// Something is wrong; looked at before the lock is taken.
    troubled: AtomicBool,
    trouble: Mutex<Trouble>,
    suspect: AtomicBool,
}

/// What went wrong since a broker has answered last.
#[derive(Debug, Default)]
struct Trouble {
    /// No connection is open. Brokers close idle ones, so this alone is no outage.
    all_closed: bool,
    /// A new connection did not come about.
    not_opened: bool,
    refused: bool,
    logged: bool,
}

impl Link {
    pub(crate) fn new(client: &'static str) -> Self {
        Self {
            client,
            loud: true,
            troubled: AtomicBool::new(false),
            trouble: Mutex::default(),
            suspect: AtomicBool::new(false),
        }
    }

    /// Of a client that lives for one question: who asks hears of the failure.
    pub(crate) fn quiet(client: &'static str) -> Self {
        Self {
            loud: false,
            ..Self::new(client)
        }
    }

    /// A broker has answered.
    pub(crate) fn answered(&self) {
        if self.troubled.load(Ordering::Relaxed) && self.troubled.swap(false, Ordering::AcqRel) {
            let trouble = std::mem::take(&mut *self.trouble.lock());
            if trouble.logged {
                tracing::info!(client = self.client, "Kafka answers again");
            }
        }
    }

    /// Whether the brokers refuse our name or password.
    pub(crate) fn is_refused(&self) -> bool {
        self.troubled.load(Ordering::Acquire) && self.trouble.lock().refused
    }

    /// Whether the client may be unable to go on; librdkafka knows for certain.
    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
    }

    pub(crate) fn suspect(&self, suspect: bool) {
        self.suspect.store(suspect, Ordering::Release);
    }

    fn failed(&self, error: &KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else {
            return;
        };
        let client = self.client;
        tracing::debug!(client, code = %name(code), reason, "Kafka client error");
        let mut trouble = self.trouble.lock();
        match code {
            Code::Authentication | Code::SaslAuthenticationFailed => trouble.refused = true,
            Code::AllBrokersDown => trouble.all_closed = true,
            Code::Resolve | Code::SSL => trouble.not_opened = true,
            Code::BrokerTransportFailure if !reason.contains("Disconnected") => {
                trouble.not_opened = true;
            }
            Code::Fatal => {
                if !self.suspect.swap(true, Ordering::AcqRel) {
                    tracing::error!(client, reason, "the Kafka client can't go on");
                }
                return;
            }
            // Single connections that end or time out are librdkafka's to repair.
            _ => return,
        }
        if self.loud && !trouble.logged {
            if trouble.refused {
                trouble.logged = true;
                tracing::error!(client, "Kafka refuses the username or password; trying on");
            } else if trouble.all_closed && trouble.not_opened {
                trouble.logged = true;
                tracing::warn!(client, "no Kafka broker can be reached; trying on");
            }
        }
        drop(trouble);
        self.troubled.store(true, Ordering::Release);
    }
}

/// Librdkafka's words on connections, requests and settings; it does not log records.
fn log(link: &Link, level: RDKafkaLogLevel, facility: &str, message: &str) {
    tracing::debug!(target: "librdkafka", client = %link.client, ?level, facility, message);
}

/// Anything that knows its link is a context of a client.
pub(crate) trait Linked: Send + Sync {
    fn link(&self) -> &Link;

    fn on_log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(self.link(), level, facility, message);
    }

    fn on_error(&self, error: &KafkaError, reason: &str) {
        self.link().failed(error, reason);
    }
}

/// The context of clients that have nothing else to remember.
pub(crate) struct Context(pub(crate) Link);

impl Linked for Context {
    fn link(&self) -> &Link {
        &self.0
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.on_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.on_error(&error, reason);
    }
}

impl ConsumerContext for Context {}
