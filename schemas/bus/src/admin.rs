//! What is asked once: whether there is a broker, which partitions, how far they reach.
//! Each question uses a client of its own, off the async threads, and has a deadline.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};
use weir_records::topic;

use crate::barred::Barred;
use crate::client::{Context, Link};
use crate::config::Config;
use crate::error::{Error, name};

/// How long a question may take that any broker can answer.
pub(crate) const ASK: Duration = Duration::from_secs(10);
/// How long a start waits before it asks brokers again that are away.
const AWAY: Duration = Duration::from_secs(1);
/// How long a question may take that only one broker answers, the leader of a partition or
/// a group's coordinator: Kafka gives up a broker that hangs after 9 s, then chooses another.
pub(crate) const ASK_ONE: Duration = Duration::from_secs(30);
/// How long a look at the brokers' health may take.
const PROBE: Duration = Duration::from_secs(2);
const FIRST_TRY: Duration = Duration::from_millis(250);

/// Whether a broker answers and takes our name and password. Within 2 s.
///
/// # Errors
/// [`Error::Unreachable`] or [`Error::Authentication`].
pub async fn reachable(config: &Config) -> Result<(), Error> {
    let config = config.clone();
    blocking(move || {
        Asker::new(&config, None)?.ask("asking for the brokers", PROBE, |consumer, wait| {
            // Of one topic: the answer stays small however many there are.
            consumer
                .fetch_metadata(Some(topic::MESSAGES), wait)
                .map(|_| ())
        })
    })
    .await
}

/// For a start, which has nothing to do without brokers: waits a moment where no broker
/// answers, so that the same question is asked again.
///
/// # Errors
/// Any other than that.
pub async fn wait_if_away(error: Error) -> Result<(), Error> {
    let Error::Unreachable { .. } = error else {
        return Err(error);
    };
    tracing::warn!(%error, "the start waits for Kafka");
    tokio::time::sleep(AWAY).await;
    Ok(())
}

/// For each partition, the offset of the first record that is held and the one that the
/// next record will have.
///
/// # Errors
/// No broker answers in 10 s, no leader in 30 s, it refuses us, or there is no such topic.
pub async fn watermarks(config: &Config, topic: &str) -> Result<BTreeMap<i32, (i64, i64)>, Error> {
    let (config, topic) = (config.clone(), topic.to_owned());
    blocking(move || {
        let asker = Asker::new(&config, None)?;
        let partitions = asker.partitions(&topic)?;
        asker.ask("reading the watermarks", ASK_ONE, |consumer, wait| {
            let low = bounds(consumer, &topic, &partitions, Offset::Beginning, wait)?;
            let high = bounds(consumer, &topic, &partitions, Offset::End, wait)?;
            Ok(low
                .into_iter()
                .filter_map(|(partition, low)| Some((partition, (low, *high.get(&partition)?))))
                .collect())
        })
    })
    .await
}

/// For each partition, the offset from which `group` reads on. Partitions of which it
/// has committed nothing are absent.
///
/// # Errors
/// No broker answers in 10 s, no coordinator in 30 s, it refuses us, or there is no such
/// topic.
pub async fn committed(
    config: &Config,
    group: &str,
    topic: &str,
) -> Result<BTreeMap<i32, i64>, Error> {
    let (config, group, topic) = (config.clone(), group.to_owned(), topic.to_owned());
    blocking(move || {
        let asker = Asker::new(&config, Some(&group))?;
        let partitions = asker.partitions(&topic)?;
        asker.ask(
            "reading the committed offsets",
            ASK_ONE,
            |consumer, wait| committed_of(consumer, &topic, &partitions, wait),
        )
    })
    .await
}

/// What the consumer's group has committed of these partitions.
pub(crate) fn committed_of<C: rdkafka::consumer::ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    wait: Duration,
) -> KafkaResult<BTreeMap<i32, i64>> {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(topic, *partition);
    }
    let list = consumer.committed_offsets(list, wait)?;
    let mut offsets = BTreeMap::new();
    for element in list.elements() {
        element.error()?;
        if let Offset::Offset(offset) = element.offset() {
            offsets.insert(element.partition(), offset);
        }
    }
    Ok(offsets)
}

/// The offset of the first record ([`Offset::Beginning`]) or behind the last one
/// ([`Offset::End`]) of each partition; one request to each broker.
pub(crate) fn bounds<C: rdkafka::consumer::ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    bound: Offset,
    wait: Duration,
) -> KafkaResult<BTreeMap<i32, i64>> {
    // Kafka's ListOffsets takes these two in place of a time.
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition_offset(topic, *partition, bound)?;
    }
    let list = consumer.offsets_for_times(list, wait)?;
    let mut offsets = BTreeMap::new();
    for element in list.elements() {
        element.error()?;
        if let Offset::Offset(offset) = element.offset() {
            offsets.insert(element.partition(), offset);
        }
    }
    Ok(offsets)
}

/// A client that asks, tries again while no broker answers, and notices a refusal.
pub(crate) struct Asker {
    consumer: BaseConsumer<Context>,
    brokers: String,
}

impl Asker {
    pub(crate) fn new(config: &Config, group: Option<&str>) -> Result<Self, Error> {
        let client = match group {
            Some(group) => config.consumer(group)?,
            None => config.asking()?,
        };
        let consumer = client
            .create_with_context(Context(Link::quiet("asking")))
            .map_err(|error| Error::kafka("making a client", &error))?;
        Ok(Self {
            consumer,
            brokers: config.brokers.clone(),
        })
    }

    /// Asks until there is an answer, an error that stays, or `limit` has passed.
    pub(crate) fn ask<T>(
        &self,
        doing: &'static str,
        limit: Duration,
        mut question: impl FnMut(&BaseConsumer<Context>, Duration) -> KafkaResult<T>,
    ) -> Result<T, Error> {
        let deadline = Instant::now() + limit;
        let mut wait = FIRST_TRY;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let error = match question(&self.consumer, wait.min(left)) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            // Errors of connections come as events.
            while self.consumer.poll(Duration::from_millis(10)).is_some() {}
            let barred = self.consumer.context().0.barred();
            let brokers = || self.brokers.clone();
            match barred {
                Some(Barred::Password) => return Err(Error::Authentication { brokers: brokers() }),
                Some(Barred::Mechanism) => {
                    return Err(Error::Setting {
                        property: "sasl.mechanism".to_owned(),
                        reason: "names a mechanism that the broker does not take",
                    });
                }
                _ => {}
            }
            let Some(code) = passing(&error) else {
                return Err(Error::kafka(doing, &error));
            };
            if Instant::now() >= deadline {
                return Err(Error::Unreachable {
                    brokers: brokers(),
                    code: barred.map_or(code, Barred::words),
                });
            }
            wait = (wait * 2).min(Duration::from_secs(2));
        }
    }

    /// The partitions of a topic, once each has a leader.
    pub(crate) fn partitions(&self, topic: &str) -> Result<Vec<i32>, Error> {
        let deadline = Instant::now() + ASK_ONE;
        loop {
            let found = self.ask("reading the partitions", ASK, |consumer, wait| {
                let metadata = consumer.fetch_metadata(Some(topic), wait)?;
                let found = metadata.topics().iter().find(|found| found.name() == topic);
                Ok(found.map(|found| match found.error() {
                    Some(error) => Err(Code::from(error)),
                    None if found
                        .partitions()
                        .iter()
                        .any(|partition| partition.leader() < 0) =>
                    {
                        Err(Code::LeaderNotAvailable)
                    }
                    None => Ok(found
                        .partitions()
                        .iter()
                        .map(|partition| partition.id())
                        .collect::<Vec<_>>()),
                }))
            })?;
            match found {
                Some(Ok(partitions)) if !partitions.is_empty() => return Ok(partitions),
                Some(Err(Code::LeaderNotAvailable)) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Some(Err(Code::LeaderNotAvailable)) => {
                    return Err(Error::Unreachable {
                        brokers: self.brokers.clone(),
                        code: "no leader yet",
                    });
                }
                None | Some(Ok(_) | Err(Code::UnknownTopicOrPartition | Code::UnknownTopic)) => {
                    return Err(Error::UnknownTopic(topic.to_owned()));
                }
                Some(Err(code)) => {
                    return Err(Error::Topic {
                        topic: topic.to_owned(),
                        reason: name(code),
                    });
                }
            }
        }
    }

    pub(crate) fn consumer(&self) -> &BaseConsumer<Context> {
        &self.consumer
    }
}

/// The code of an error that may pass by itself.
pub(crate) fn passing(error: &KafkaError) -> Option<&'static str> {
    Some(match error.rdkafka_error_code()? {
        Code::OperationTimedOut | Code::RequestTimedOut | Code::TimedOutQueue => "timed out",
        Code::BrokerTransportFailure | Code::AllBrokersDown | Code::NetworkException => {
            "no connection"
        }
        Code::Resolve => "the host name is not known",
        Code::SSL => "TLS failed",
        // A client forgets a broker that went while it was asked.
        Code::DestroyBroker | Code::BrokerDestroy => "the brokers change",
        // Librdkafka's word for partitions of which none has a leader: those that are
        // not there have been told apart before.
        Code::UnknownPartition
        | Code::BrokerNotAvailable
        | Code::LeaderNotAvailable
        | Code::NotLeaderForPartition
        | Code::ReplicaNotAvailable
        | Code::ListenerNotFound
        | Code::FencedLeaderEpoch
        | Code::UnknownLeaderEpoch
        | Code::OffsetNotAvailable => "no leader yet",
        Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::NotCoordinator
        | Code::WaitingForCoordinator => "no coordinator yet",
        _ => return None,
    })
}

/// A client that changes what there is.
pub(crate) fn admin(config: &Config) -> Result<AdminClient<Context>, Error> {
    config
        .asking()?
        .create_with_context(Context(Link::quiet("admin")))
        .map_err(|error| Error::kafka("making a client", &error))
}

pub(crate) fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(ASK))
        .operation_timeout(Some(ASK))
}

/// Runs what blocks on a thread for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Kafka {
                doing: "asking Kafka",
                code: "the program stops".to_owned(),
            }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_change_of_leader_brings_passes_and_a_refusal_stays() {
        for code in [
            Code::DestroyBroker,
            Code::NotLeaderForPartition,
            Code::OffsetNotAvailable,
            Code::UnknownPartition,
        ] {
            assert!(passing(&KafkaError::MetadataFetch(code)).is_some());
        }
        for code in [Code::TopicAuthorizationFailed, Code::InvalidConfig] {
            assert!(passing(&KafkaError::MetadataFetch(code)).is_none());
        }
    }
}
