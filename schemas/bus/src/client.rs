//! What every client shares: it turns librdkafka's logs and errors into ours, and knows
//! whether its brokers can be reached. An outage is logged once when it begins and once
//! when it ends, not at each of the many tries between.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::barred::Barred;
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
    /// There are brokers, and they don't let us in.
    barred: Option<Barred>,
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

    /// Why the brokers don't let us in.
    pub(crate) fn barred(&self) -> Option<Barred> {
        if !self.troubled.load(Ordering::Acquire) {
            return None;
        }
        self.trouble.lock().barred
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
        let barred = Barred::of(code, reason);
        let mut trouble = self.trouble.lock();
        if trouble.barred < barred {
            // Worth a line, even if the outage had one.
            trouble.barred = barred;
            trouble.logged = false;
        }
        match code {
            Code::AllBrokersDown => trouble.all_closed = true,
            Code::Resolve => trouble.not_opened = true,
            _ if barred.is_some() => trouble.not_opened = true,
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
            let cause = trouble.barred.map(Barred::words);
            if trouble.barred.is_some_and(Barred::is_certain) {
                trouble.logged = true;
                tracing::error!(client, cause, "Kafka does not let us in; trying on");
            } else if trouble.all_closed && trouble.not_opened {
                trouble.logged = true;
                tracing::warn!(client, cause, "no Kafka broker can be reached; trying on");
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What the log says, without what is for debugging.
    fn logged(events: impl FnOnce(&Link)) -> Vec<String> {
        let writer = Lines::default();
        let written = Arc::clone(&writer.0);
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || events(&Link::new("test")));
        let text = String::from_utf8(written.lock().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn fail(link: &Link, code: Code, reason: &str) {
        link.failed(&KafkaError::Global(code), reason);
    }

    const UNKNOWN: &str = "SSL handshake failed: certificate verify failed: hunter2";

    #[test]
    fn why_nobody_lets_us_in_is_said_once_and_in_our_words() {
        let lines = logged(|link| {
            for _ in 0..3 {
                fail(link, Code::SSL, UNKNOWN);
                fail(link, Code::AllBrokersDown, "1/1 brokers are down");
            }
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("ERROR") && lines[0].contains("`ssl.ca.location`"));
        assert!(!lines[0].contains("hunter2"), "{}", lines[0]);
    }

    #[test]
    fn a_broker_that_comes_back_with_another_certificate_is_one_more_line() {
        let lines = logged(|link| {
            for _ in 0..3 {
                fail(link, Code::BrokerTransportFailure, "Connection refused");
                fail(link, Code::AllBrokersDown, "1/1 brokers are down");
            }
            for _ in 0..3 {
                fail(link, Code::SSL, UNKNOWN);
                fail(link, Code::BrokerTransportFailure, "Connection refused");
            }
            link.answered();
        });
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].contains("can be reached") && !lines[0].contains("cause"));
        assert!(lines[1].contains("`ssl.ca.location`"));
        assert!(lines[2].contains("answers again"));
    }
}
