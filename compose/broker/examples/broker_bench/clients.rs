//! The clients, the same for both brokers: rdkafka, with one set of settings.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientConfig, ClientContext};

use crate::Outcome;

pub(crate) const RECORD: usize = 200;
const PARTITIONS: i32 = 4;
const HOP_RATE: u64 = 2_000;
const HOP_SECONDS: u64 = 15;
/// Not counted: an idempotent librdkafka producer asks for its id half a second after it has connected.
const WARM_UP_SECONDS: u64 = 1;
/// How long a broker may take to start.
const STARTED: Duration = Duration::from_secs(120);

fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("broker.address.family", "v4");
    config
}

pub(crate) fn create(brokers: &str, names: &[String]) -> Outcome<()> {
    let admin: AdminClient<_> = client(brokers).create()?;
    let topics: Vec<_> = names
        .iter()
        .map(|name| {
            NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1)).set("retention.ms", "-1")
        })
        .collect();
    let made = tokio::runtime::Runtime::new()?
        .block_on(admin.create_topics(&topics, &AdminOptions::new()))?;
    for one in made {
        one.map_err(|(name, error)| format!("{name}: {error}"))?;
    }
    std::thread::sleep(Duration::from_secs(1));
    Ok(())
}

/// Returns once every partition of the topic tells how much it holds.
pub(crate) fn wait(brokers: &str, topic: &str) -> Outcome<()> {
    let mut config = client(brokers);
    config.set("reconnect.backoff.max.ms", "100");
    let consumer: BaseConsumer = config.create()?;
    let begin = Instant::now();
    for partition in 0..PARTITIONS {
        while let Err(error) =
            consumer.fetch_watermarks(topic, partition, Duration::from_millis(500))
        {
            if begin.elapsed() > STARTED {
                return Err(error.into());
            }
        }
    }
    Ok(())
}

struct Count(Arc<AtomicU64>);

impl ClientContext for Count {
    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, message: &str) {
        eprintln!("{message}");
    }
}

impl ProducerContext for Count {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        assert!(result.is_ok(), "a record was not delivered");
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn producer(brokers: &str, linger: &str) -> Outcome<(ThreadedProducer<Count>, Arc<AtomicU64>)> {
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut config = client(brokers);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", linger)
        .set("batch.size", "1000000")
        .set("batch.num.messages", "10000")
        .set("queue.buffering.max.messages", "500000")
        .set("queue.buffering.max.kbytes", "200000");
    let context = Count(Arc::clone(&acknowledged));
    Ok((
        ThreadedProducer::from_config_and_context(&config, context)?,
        acknowledged,
    ))
}

/// Records a second, until the last acknowledgement.
pub(crate) fn produce(brokers: &str, topic: &str, records: u64) -> Outcome<f64> {
    let (producer, acknowledged) = producer(brokers, "5")?;
    let payload = [b'x'; RECORD];
    let begin = Instant::now();
    let mut sent = 0;
    while sent < records {
        let partition = i32::try_from(sent / 1_000 % u64::from(PARTITIONS.unsigned_abs()))?;
        match producer.send(
            BaseRecord::<(), _>::to(topic)
                .partition(partition)
                .payload(&payload),
        ) {
            Ok(()) => sent += 1,
            Err((error, _)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
    producer.flush(Duration::from_secs(300))?;
    assert_eq!(acknowledged.load(Ordering::Relaxed), records);
    Ok(records as f64 / begin.elapsed().as_secs_f64())
}

fn reader(brokers: &str, topic: &str, from: Offset) -> Outcome<BaseConsumer> {
    let mut config = client(brokers);
    config
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "100")
        .set("queued.min.messages", "200000")
        .set("fetch.queue.backoff.ms", "5");
    let consumer: BaseConsumer = config.create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition, from)?;
    }
    consumer.assign(&list)?;
    Ok(consumer)
}

/// Records a second, from the first to the last.
pub(crate) fn consume(brokers: &str, topic: &str, records: u64) -> Outcome<f64> {
    let consumer = reader(brokers, topic, Offset::Beginning)?;
    let begin = Instant::now();
    let mut read = 0;
    while read < records {
        if let Some(message) = consumer.poll(Duration::from_secs(30)) {
            assert_eq!(message?.payload_len(), RECORD);
            read += 1;
        }
    }
    Ok(records as f64 / begin.elapsed().as_secs_f64())
}

fn now_micros() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or_default()
}

/// Microseconds from a record's first send to its arrival behind a consume-and-produce hop.
pub(crate) fn hop(brokers: &str, first: &str, second: &str) -> Outcome<Histogram<u64>> {
    let warm_up = HOP_RATE * WARM_UP_SECONDS;
    let records = warm_up + HOP_RATE * HOP_SECONDS;
    let (incoming, outgoing) = (
        reader(brokers, first, Offset::Beginning)?,
        reader(brokers, second, Offset::Beginning)?,
    );
    let (sender, _) = producer(brokers, "1")?;
    let (forwarder, _) = producer(brokers, "1")?;
    let (from, to) = (first.to_owned(), second.to_owned());
    let send = std::thread::spawn(move || {
        let begin = Instant::now();
        for index in 0..records {
            let due = begin + Duration::from_micros(index * 1_000_000 / HOP_RATE);
            if let Some(wait) = due.checked_duration_since(Instant::now()) {
                std::thread::sleep(wait);
            }
            let mut payload = [0; RECORD];
            payload[..8].copy_from_slice(&now_micros().to_be_bytes());
            let partition =
                i32::try_from(index % u64::from(PARTITIONS.unsigned_abs())).unwrap_or_default();
            let record = BaseRecord::<(), _>::to(&from)
                .partition(partition)
                .payload(&payload);
            sender
                .send(record)
                .map_err(|(error, _)| error)
                .expect("sending failed");
        }
        sender
            .flush(Duration::from_secs(60))
            .expect("sending failed");
    });
    let forward = std::thread::spawn(move || {
        for _ in 0..records {
            let message = incoming
                .poll(Duration::from_secs(60))
                .expect("nothing came")
                .expect("reading failed");
            let payload = message.payload().unwrap_or_default();
            let record = BaseRecord::<(), _>::to(&to)
                .partition(message.partition())
                .payload(payload);
            forwarder
                .send(record)
                .map_err(|(error, _)| error)
                .expect("forwarding failed");
        }
        forwarder
            .flush(Duration::from_secs(60))
            .expect("forwarding failed");
    });
    let mut histogram = Histogram::<u64>::new(3)?;
    for index in 0..records {
        let message = outgoing
            .poll(Duration::from_secs(60))
            .ok_or("nothing came")??;
        let sent = message
            .payload()
            .and_then(|payload| payload.first_chunk::<8>())
            .ok_or("too short")?;
        let hop = now_micros().saturating_sub(u64::from_be_bytes(*sent));
        if index >= warm_up {
            histogram.record(hop)?;
        }
    }
    send.join().map_err(|_| "the sender failed")?;
    forward.join().map_err(|_| "the forwarder failed")?;
    Ok(histogram)
}
