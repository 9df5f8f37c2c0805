//! The topics that Weir needs: how they are made, and for how long they keep what they hold.

use std::time::Duration;

use futures::executor::block_on;
use rdkafka::admin::{
    AdminClient, AlterConfig, ConfigSource, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode as Code;
use weir_records::topic;

use crate::admin::{ASK, Asker, admin, blocking, options};
use crate::client::Context;
use crate::config::Config;
use crate::error::{Error, name};

/// Dead letters are kept at least so long: someone has to look at them.
const DEAD_RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);
const RETENTION: &str = "retention.ms";
/// A record outlives its retention by as much as its file takes in others after it.
const SEGMENT: &str = "segment.ms";
const LONGEST_SEGMENT: Duration = Duration::from_secs(24 * 3600);
const FOREVER: &str = "-1";

/// With so many replicas a record must be on two of them before it is acknowledged, so
/// that it outlives a broker's disk, and one of them may still be away.
const SAFE_REPLICATION: i32 = 3;
const MIN_REPLICAS: (&str, &str) = ("min.insync.replicas", "2");

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
        let topic = settings
            .iter()
            .fold(topic, |topic, (name, value)| topic.set(name, value));
        match min_replicas(config.replication) {
            Some((name, value)) => topic.set(name, value),
            None => topic,
        }
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

/// Kafka by itself acknowledges what one replica has while the others are behind.
const fn min_replicas(replication: i32) -> Option<(&'static str, &'static str)> {
    if replication >= SAFE_REPLICATION {
        Some(MIN_REPLICAS)
    } else {
        None
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_replicas_must_have_a_record_where_one_may_be_away() {
        assert_eq!(min_replicas(1), None);
        assert_eq!(min_replicas(2), None);
        assert_eq!(min_replicas(3), Some(("min.insync.replicas", "2")));
    }
}
