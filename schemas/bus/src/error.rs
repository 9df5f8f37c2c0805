//! What can go wrong, in codes. Librdkafka's own words may quote a setting's value, so
//! they are not passed on.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// An error of a stage. Its text goes into the log, so it must not quote a record.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why the bus can't do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting in `properties`, or one of ours, is refused.
    #[error("the Kafka setting `{property}` {reason}")]
    Setting {
        /// Its name.
        property: String,
        /// What is wrong with it, without its value.
        reason: &'static str,
    },
    /// No broker answered in time.
    #[error("no Kafka broker answers at {brokers} ({code})")]
    Unreachable {
        /// Addresses tried.
        brokers: String,
        /// What the last try ended with, or why the brokers don't let us in.
        code: &'static str,
    },
    /// The brokers refuse our name or password.
    #[error("the Kafka broker at {brokers} refuses the username or password")]
    Authentication {
        /// Addresses tried.
        brokers: String,
    },
    /// The topic does not exist.
    #[error("the topic {0} does not exist")]
    UnknownTopic(String),
    /// The topic can't be used as it is.
    #[error("the topic {topic} can't be used: {reason}")]
    Topic {
        /// Its name.
        topic: String,
        /// Why, and what to do.
        reason: String,
    },
    /// A broker answered with an error.
    #[error("{doing} failed: {code}")]
    Kafka {
        /// What was tried.
        doing: &'static str,
        /// Kafka's name of the error.
        code: String,
    },
    /// A metric of that name is registered already.
    #[error("a metric can't be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The system gives us no thread.
    #[error("a thread can't be started: {0}")]
    Thread(#[from] std::io::Error),
}

impl Error {
    pub(crate) fn kafka(doing: &'static str, error: &KafkaError) -> Self {
        if let KafkaError::ClientConfig(_, reason, property, _) = error {
            // The reason quotes the value where the value is at fault.
            let reason = if reason.starts_with("No such") {
                "is not known"
            } else {
                "has a value that is not valid"
            };
            return Self::Setting {
                property: property.clone(),
                reason,
            };
        }
        if let KafkaError::ClientCreation(reason) = error {
            // Names settings that do not go together; made before any connection.
            return Self::Kafka {
                doing,
                code: reason.clone(),
            };
        }
        let code = error
            .rdkafka_error_code()
            .map_or_else(|| kind(error).to_owned(), name);
        Self::Kafka { doing, code }
    }
}

/// What kind of error it is, where it has no code.
const fn kind(error: &KafkaError) -> &'static str {
    match error {
        KafkaError::AdminOpCreation(_) => "invalid request",
        KafkaError::Subscription(_) => "subscription refused",
        KafkaError::PauseResume(_) => "pause or resume refused",
        KafkaError::Canceled => "cancelled",
        _ => "unknown error",
    }
}

/// Kafka's name of an error code.
pub(crate) fn name(code: Code) -> String {
    format!("{code:?}")
}

/// Whether a consumer's error stays until someone makes a topic or gives a right.
pub(crate) fn needs_operator(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::UnknownTopic
                | Code::UnknownTopicOrPartition
                | Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
        )
    )
}

/// Why a record was not queued. Nothing of the call was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// As many records or bytes wait as may.
    #[error("the producer's queue is full")]
    Full,
    /// This record (by index) is larger than a broker takes.
    #[error("record {index} is too large")]
    TooLarge {
        /// Index in the call.
        index: usize,
    },
}

/// A queued record that no broker has acknowledged. It may be in the log nevertheless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record was not acknowledged: {code}")]
pub struct NotDelivered {
    /// A stable code, such as `timed_out`.
    pub code: &'static str,
    /// Whether the same record may go through later.
    pub retriable: bool,
}

impl NotDelivered {
    pub(crate) fn of(error: &KafkaError) -> Self {
        let Some(code) = error.rdkafka_error_code() else {
            return Self::new("unavailable", true);
        };
        match code {
            Code::MessageTimedOut | Code::RequestTimedOut | Code::OperationTimedOut => {
                Self::new("timed_out", true)
            }
            Code::QueueFull => Self::new("queue_full", true),
            Code::PurgeQueue | Code::PurgeInflight => Self::new("purged", true),
            Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidRecord => {
                Self::new("too_large", false)
            }
            Code::UnknownTopic
            | Code::UnknownPartition
            | Code::UnknownTopicOrPartition
            | Code::InvalidTopic => Self::new("unknown_topic", false),
            Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
                Self::new("forbidden", false)
            }
            Code::Authentication | Code::SaslAuthenticationFailed => {
                Self::new("unauthenticated", true)
            }
            Code::NotEnoughReplicas
            | Code::NotEnoughReplicasAfterAppend
            | Code::ISRInsufficient => Self::new("not_enough_replicas", true),
            Code::KafkaStorageError => Self::new("storage", true),
            code if is_fatal(code) => Self::new("fatal", true),
            _ => Self::new("unavailable", true),
        }
    }

    pub(crate) const fn new(code: &'static str, retriable: bool) -> Self {
        Self { code, retriable }
    }
}

/// Whether an idempotent producer may be unable to go on after this.
pub(crate) const fn is_fatal(code: Code) -> bool {
    matches!(
        code,
        Code::Fatal
            | Code::GaplessGuarantee
            | Code::OutOfOrderSequenceNumber
            | Code::InvalidProducerEpoch
            | Code::InvalidProducerIdMapping
            | Code::UnknownProducerId
            | Code::ProducerFenced
            | Code::Fenced
    )
}
