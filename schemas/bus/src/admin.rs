//! What is asked once: whether there is a broker, which topics, how far they reach.
//! Each question uses a client of its own, off the async threads, and has a deadline.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigSource, NewPartitions, NewTopic,
    ResourceSpecifier, TopicReplication,
};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::{Offset, TopicPartitionList};
use weir_records::topic;

use crate::client::{Context, Link};
use crate::config::Config;
use crate::error::{Error, name};

/// How long a question may take.
const ASK: Duration = Duration::from_secs(10);
/// How long a look at the brokers' health may take.
const PROBE: Duration = Duration::from_secs(2);
const FIRST_TRY: Duration = Duration::from_millis(250);

/// Dead letters are kept at least so long: someone has to look at them.
const DEAD_RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);
const RETENTION: &str = "retention.ms";
/// A record outlives its retention by as much as its file takes in others after it.
const SEGMENT: &str = "segment.ms";
const LONGEST_SEGMENT: Duration = Duration::from_secs(24 * 3600);
const FOREVER: &str = "-1";

/// Makes the topics that Weir needs. Those that exist keep their records; they get the
/// retention, and `weir.verdicts` the partitions of `weir.messages`, if they differ.
///
/// `retention`: how long records are kept; dead letters at least 30 days. `texts`: how long
/// a text may be kept at most, which bounds both. A file of records is closed after an
/// eighth of that, at most a day, so that they go in time. Erasures stay: a lake that is
/// restored from a copy, however old, learns from them what it must not hold.
///
/// # Errors
/// No broker answers, it refuses us, or it refuses a topic.
pub async fn create_topics(
    config: &Config,
    retention: Duration,
    texts: Option<Duration>,
) -> Result<(), Error> {
    let config = config.clone();
    blocking(move || {
        let asker = Asker::new(&config, None)?;
        asker.ask("reading the list of topics", ASK, |consumer, wait| {
            consumer.fetch_metadata(None, wait).map(|_| ())
        })?;
        let admin = admin(&config)?;
        let kept = kept(retention, texts);
        make(&config, &admin, &kept)?;
        keep_for(&admin, kept);
        let partitions = asker.partitions(topic::MESSAGES)?.len();
        let verdicts = asker.partitions(topic::VERDICTS)?.len();
        if verdicts < partitions {
            add_partitions(&admin, topic::VERDICTS, partitions)?;
        }
        for topic in topic::ALL {
            asker.partitions(topic)?;
        }
        Ok(())
    })
    .await
}

/// Whether the topics are there that Weir needs, and can be used.
///
/// # Errors
/// No broker answers in 10 s, it refuses us, or a topic is missing.
pub async fn check_topics(config: &Config) -> Result<(), Error> {
    let config = config.clone();
    blocking(move || {
        let asker = Asker::new(&config, None)?;
        for topic in topic::ALL {
            asker.partitions(topic)?;
        }
        Ok(())
    })
    .await
}

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

/// For each partition, the offset of the first record that is held and the one that the
/// next record will have.
///
/// # Errors
/// No broker answers in 10 s, it refuses us, or there is no such topic.
pub async fn watermarks(config: &Config, topic: &str) -> Result<BTreeMap<i32, (i64, i64)>, Error> {
    let (config, topic) = (config.clone(), topic.to_owned());
    blocking(move || {
        let asker = Asker::new(&config, None)?;
        let partitions = asker.partitions(&topic)?;
        asker.ask("reading the watermarks", ASK, |consumer, wait| {
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
/// No broker answers in 10 s, it refuses us, or there is no such topic.
pub async fn committed(
    config: &Config,
    group: &str,
    topic: &str,
) -> Result<BTreeMap<i32, i64>, Error> {
    let (config, group, topic) = (config.clone(), group.to_owned(), topic.to_owned());
    blocking(move || {
        let asker = Asker::new(&config, Some(&group))?;
        let partitions = asker.partitions(&topic)?;
        asker.ask("reading the committed offsets", ASK, |consumer, wait| {
            committed_of(consumer, &topic, &partitions, wait)
        })
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
            if self.consumer.context().0.is_refused() {
                return Err(Error::Authentication {
                    brokers: self.brokers.clone(),
                });
            }
            let Some(code) = passing(&error) else {
                return Err(Error::kafka(doing, &error));
            };
            if Instant::now() >= deadline {
                return Err(Error::Unreachable {
                    brokers: self.brokers.clone(),
                    code,
                });
            }
            wait = (wait * 2).min(Duration::from_secs(2));
        }
    }

    /// The partitions of a topic, once each has a leader.
    pub(crate) fn partitions(&self, topic: &str) -> Result<Vec<i32>, Error> {
        let deadline = Instant::now() + ASK;
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
        Code::BrokerNotAvailable | Code::LeaderNotAvailable | Code::NotLeaderForPartition => {
            "no leader yet"
        }
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

fn make(config: &Config, admin: &AdminClient<Context>, kept: &[Kept]) -> Result<(), Error> {
    let topics = kept.iter().map(|(topic, settings)| {
        let partitions = if *topic == topic::ERASURES {
            1
        } else {
            config.partitions
        };
        let topic = NewTopic::new(
            topic,
            partitions,
            TopicReplication::Fixed(config.replication),
        );
        settings
            .iter()
            .fold(topic, |topic, (name, value)| topic.set(name, value))
    });
    let topics: Vec<NewTopic<'_>> = topics.collect();
    let results = block_on(admin.create_topics(&topics, &options()))
        .map_err(|error| Error::kafka("making topics", &error))?;
    for result in results {
        match result {
            Ok(topic) => tracing::info!(topic, "topic made"),
            Err((_, Code::TopicAlreadyExists)) => {}
            Err((topic, code)) => {
                return Err(Error::Topic {
                    topic,
                    reason: name(code),
                });
            }
        }
    }
    Ok(())
}

/// A topic, and for how long it is kept, by the names of its settings.
type Kept = (&'static str, Vec<(&'static str, String)>);

fn kept(retention: Duration, texts: Option<Duration>) -> Vec<Kept> {
    let records = texts.map_or(retention, |texts| texts.min(retention));
    let dead = retention.max(DEAD_RETENTION);
    let dead = texts.map_or(dead, |texts| texts.min(dead));
    topic::ALL
        .into_iter()
        .map(|topic| {
            let kept = match topic {
                topic::ERASURES => return (topic, vec![(RETENTION, FOREVER.to_owned())]),
                topic::DEAD => dead,
                _ => records,
            };
            let segment = (kept / 8).min(LONGEST_SEGMENT);
            let settings = [(RETENTION, kept), (SEGMENT, segment)];
            let text = |(name, time): (_, Duration)| (name, time.as_millis().to_string());
            (topic, settings.map(text).to_vec())
        })
        .collect()
}

/// Existing topics get the retention that is set. Not worth failing for: the brokers'
/// owner may forbid it.
fn keep_for(admin: &AdminClient<Context>, kept: Vec<Kept>) {
    for (topic, wanted) in kept {
        let found =
            block_on(admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &options()));
        let Ok(Some(Ok(found))) = found.map(|mut found| found.pop()) else {
            tracing::debug!(topic, "the retention of the topic can't be read");
            continue;
        };
        let is_so = |(name, value): &(&str, String)| {
            found.get(name).and_then(|entry| entry.value.as_deref()) == Some(value)
        };
        if wanted.iter().all(is_so) {
            continue;
        }
        // This request replaces all of a topic's settings, so the others go with it.
        let mut settings = AlterConfig::new(ResourceSpecifier::Topic(topic));
        for entry in &found.entries {
            if let (ConfigSource::DynamicTopic, Some(value)) = (&entry.source, &entry.value) {
                settings = settings.set(&entry.name, value);
            }
        }
        let settings = wanted.iter().fold(settings, |settings, (name, value)| {
            settings.set(name, value)
        });
        let changed = block_on(admin.alter_configs(&[settings], &options()));
        match changed.map(|mut changed| changed.pop()) {
            Ok(Some(Ok(_))) => {
                tracing::info!(topic, settings = ?wanted, "retention of the topic changed")
            }
            _ => tracing::warn!(
                topic,
                settings = ?wanted,
                "the retention of the topic can't be changed"
            ),
        }
    }
}

fn add_partitions(admin: &AdminClient<Context>, topic: &str, count: usize) -> Result<(), Error> {
    let results =
        block_on(admin.create_partitions(&[NewPartitions::new(topic, count)], &options()))
            .map_err(|error| Error::kafka("adding partitions", &error))?;
    for result in results {
        result.map_err(|(topic, code)| Error::Topic {
            topic,
            reason: name(code),
        })?;
    }
    tracing::info!(topic, partitions = count, "partitions added");
    Ok(())
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
