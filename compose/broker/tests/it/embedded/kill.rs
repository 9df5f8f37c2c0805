//! SIGKILL under load: nothing acknowledged is lost, nothing is there twice, order is kept.
//!
//! The broker is a process of its own: this test program, started again as `the_broker_process`.
//! `WEIR_KILL_ROUNDS` sets the number of kills.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use weir_broker::{Broker, Config};

use crate::server::{Server, take};

const PARTITIONS: i32 = 4;
const FOLDER: &str = "WEIR_KILL_FOLDER";
const LISTEN: &str = "WEIR_KILL_LISTEN";

/// Not a test: the process that is killed.
#[test]
#[ignore = "started by the test that kills it"]
fn the_broker_process() {
    let (Ok(folder), Ok(listen)) = (std::env::var(FOLDER), std::env::var(LISTEN)) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut config = Config::new(listen.parse().unwrap(), folder);
        // Small, so that the kills meet checkpoints too.
        config.limits.checkpoint_bytes = 100_000;
        let broker = Broker::start(config, &prometheus::Registry::new())
            .await
            .unwrap();
        eprintln!("ready {}", broker.address());
        std::future::pending::<()>().await;
    });
}

fn start(folder: &Path, listen: SocketAddr) -> (Child, SocketAddr) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "embedded::kill::the_broker_process",
            "--ignored",
            "--nocapture",
            "--quiet",
        ])
        .env(FOLDER, folder)
        .env(LISTEN, listen.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let ready = lines.find_map(|line| line.unwrap().strip_prefix("ready ").map(str::to_owned));
    let address = ready
        .expect("the broker process did not start")
        .parse()
        .unwrap();
    // Keep the pipe open and empty.
    std::thread::spawn(move || lines.for_each(drop));
    (child, address)
}

#[derive(Default)]
struct Count {
    acknowledged: AtomicU64,
    failed: AtomicU64,
}

struct Context(Arc<Count>);

impl ClientContext for Context {
    fn log(&self, _level: rdkafka::config::RDKafkaLogLevel, _facility: &str, _message: &str) {}
    fn error(&self, _error: rdkafka::error::KafkaError, _reason: &str) {}
}

impl ProducerContext for Context {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() {
            &self.0.acknowledged
        } else {
            &self.0.failed
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends numbered records to all partitions until told to stop; answers how many of each.
fn load(
    brokers: &str,
    topic: &str,
    sender: u32,
    count: &Arc<Count>,
    stop: &AtomicBool,
) -> HashMap<i32, u64> {
    let mut config = rdkafka::ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("broker.address.family", "v4")
        .set("enable.idempotence", "true")
        .set("linger.ms", "1")
        .set("message.timeout.ms", "300000")
        .set("reconnect.backoff.ms", "10")
        .set("reconnect.backoff.max.ms", "100")
        .set("queue.buffering.max.messages", "5000");
    let producer: ThreadedProducer<Context> =
        ThreadedProducer::from_config_and_context(&config, Context(Arc::clone(count))).unwrap();
    let mut sent: HashMap<i32, u64> = HashMap::new();
    'load: while !stop.load(Ordering::Relaxed) {
        for partition in 0..PARTITIONS {
            let number = sent.entry(partition).or_default();
            let payload = format!("{sender} {number} {}", "x".repeat(100));
            match producer.send(
                BaseRecord::<(), _>::to(topic)
                    .partition(partition)
                    .payload(&payload),
            ) {
                Ok(()) => *number += 1,
                Err((error, _))
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) =>
                {
                    std::thread::sleep(Duration::from_millis(5));
                    continue 'load;
                }
                Err((error, _)) => panic!("{error}"),
            }
        }
    }
    producer.flush(Duration::from_secs(300)).unwrap();
    sent
}

#[test]
fn nothing_is_lost_or_repeated_when_the_broker_is_killed_under_load() {
    let rounds: u32 = std::env::var("WEIR_KILL_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(25);
    let folder = tempfile::tempdir().unwrap();
    let (mut child, address) = start(folder.path(), crate::server::any_port());
    let topic = {
        // Made through a client of the process.
        let admin: rdkafka::admin::AdminClient<_> = rdkafka::ClientConfig::new()
            .set("bootstrap.servers", address.to_string())
            .create()
            .unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let topic = rdkafka::admin::NewTopic::new(
            "killed",
            PARTITIONS,
            rdkafka::admin::TopicReplication::Fixed(1),
        )
        .set("segment.bytes", "2000000");
        runtime
            .block_on(admin.create_topics([&topic], &crate::server::options()))
            .unwrap()[0]
            .as_ref()
            .unwrap();
        "killed"
    };
    let (count, stop) = (Arc::new(Count::default()), Arc::new(AtomicBool::new(false)));
    let senders: Vec<_> = (0..2)
        .map(|sender| {
            let (count, stop, brokers) =
                (Arc::clone(&count), Arc::clone(&stop), address.to_string());
            std::thread::spawn(move || load(&brokers, topic, sender, &count, &stop))
        })
        .collect();
    for round in 0..rounds {
        let before = count.acknowledged.load(Ordering::Relaxed);
        crate::server::until("the load goes on", || {
            count.acknowledged.load(Ordering::Relaxed) > before + 500
        });
        std::thread::sleep(Duration::from_millis(u64::from(round * 37 % 250)));
        child.kill().unwrap();
        child.wait().unwrap();
        child = start(folder.path(), address).0;
    }
    stop.store(true, Ordering::Relaxed);
    let sent: Vec<HashMap<i32, u64>> = senders
        .into_iter()
        .map(|sender| sender.join().unwrap())
        .collect();
    child.kill().unwrap();
    child.wait().unwrap();

    let total: u64 = sent.iter().flat_map(HashMap::values).sum();
    assert_eq!(count.failed.load(Ordering::Relaxed), 0);
    assert_eq!(count.acknowledged.load(Ordering::Relaxed), total);
    let server = Server::on(folder.path(), |_| {});
    for partition in 0..PARTITIONS {
        let expected: u64 = sent.iter().map(|sender| sender[&partition]).sum();
        assert_eq!(
            server.watermarks(topic, partition),
            (0, i64::try_from(expected).unwrap())
        );
        let consumer = server.consumer("check", &[]);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Beginning)
            .unwrap();
        consumer.assign(&list).unwrap();
        let mut next: HashMap<u32, u64> = HashMap::new();
        for message in take(&consumer, usize::try_from(expected).unwrap()) {
            let payload = std::str::from_utf8(message.payload().unwrap()).unwrap();
            let mut words = payload.split(' ');
            let sender: u32 = words.next().unwrap().parse().unwrap();
            let number: u64 = words.next().unwrap().parse().unwrap();
            let expected = next.entry(sender).or_default();
            assert_eq!(
                number,
                *expected,
                "sender {sender}, partition {partition}, offset {}",
                message.offset()
            );
            *expected += 1;
        }
    }
    eprintln!("{rounds} kills: {total} records sent, all there once and in order");
    drop(server);
}
