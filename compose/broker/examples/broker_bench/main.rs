//! One run of the broker's benchmark, with rdkafka as the client, on loopback:
//!
//! `cargo run --release -p weir-broker --example broker_bench -- [--records N] [--gigabytes N] [--brokers HOST:PORT] [--data DIR]`
//!
//! The broker is a process of its own (this program, started again), so that its memory and processor
//! time are its own. With `--brokers` another broker is measured instead, without those. Records have
//! 200 bytes, `acks=all`, and are acknowledged after fdatasync. A hop is from a producer through one
//! topic, a forwarder and a second topic to a consumer, at 2,000 a second, after a second of warm-up. Prints a table, then JSON.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::expect_used,
    clippy::unwrap_used
)]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
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
use weir_broker::{Broker, Config};

type Outcome<T> = Result<T, Box<dyn Error>>;

const RECORD: usize = 200;
const PARTITIONS: i32 = 4;
const HOP_RATE: u64 = 2_000;
const HOP_SECONDS: u64 = 15;
/// Not counted: an idempotent librdkafka producer asks for its id half a second after it has connected.
const WARM_UP_SECONDS: u64 = 1;

struct Options {
    records: u64,
    gigabytes: u64,
    brokers: Option<String>,
    data: Option<PathBuf>,
}

fn options() -> Outcome<Options> {
    let mut options = Options {
        records: 10_000_000,
        gigabytes: 5,
        brokers: None,
        data: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments
            .next()
            .ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--records" => options.records = value.parse()?,
            "--gigabytes" => options.gigabytes = value.parse()?,
            "--brokers" => options.brokers = Some(value),
            "--data" => options.data = Some(value.into()),
            _ => return Err(format!("{name} is not known").into()),
        }
    }
    Ok(options)
}

fn main() -> Outcome<()> {
    if let Ok(folder) = std::env::var("BENCH_SERVE") {
        return serve(folder.into());
    }
    let options = options()?;
    let scratch = options
        .data
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("bench-{}", std::process::id())));
    let mut results = Results::default();
    let (mut process, brokers) = match &options.brokers {
        Some(brokers) => (None, brokers.clone()),
        None => {
            let (process, brokers, _) = start(&scratch)?;
            (Some(process), brokers)
        }
    };
    let topics = [
        format!("bench-{}", std::process::id()),
        format!("hop-{}", std::process::id()),
        format!("out-{}", std::process::id()),
    ];
    create(&brokers, &topics)?;

    let before = process.as_ref().map(cpu_seconds);
    let produced = produce(&brokers, &topics[0], options.records)?;
    results.add("produced a second", produced);
    let between = process.as_ref().map(cpu_seconds);
    let consumed = consume(&brokers, &topics[0], options.records)?;
    results.add("consumed a second", consumed);
    if let (Some(process), Some(before), Some(between)) = (&process, before, between) {
        let millions = options.records as f64 / 1e6;
        results.add(
            "broker CPU seconds a million produced",
            (between - before) / millions,
        );
        results.add(
            "broker CPU seconds a million consumed",
            (cpu_seconds(process) - between) / millions,
        );
        results.add("RSS MB after", status_mb(process, "VmRSS:"));
        results.add("RSS MB at most", status_mb(process, "VmHWM:"));
    }
    let hops = hop(&brokers, &topics[1], &topics[2])?;
    for (name, quantile) in [
        ("hop ms p50", 0.5),
        ("hop ms p90", 0.9),
        ("hop ms p99", 0.99),
        ("hop ms p99.9", 0.999),
    ] {
        results.add(name, hops.value_at_quantile(quantile) as f64 / 1e3);
    }
    if let Some(process) = &mut process {
        let more = (options.gigabytes << 30) / (RECORD as u64 + 10);
        produce(&brokers, &topics[0], more.saturating_sub(options.records))?;
        results.add(
            "log GB",
            folder_bytes(&scratch)? as f64 / f64::from(1 << 30),
        );
        process.kill()?;
        process.wait()?;
        let (mut again, _, seconds) = start(&scratch)?;
        results.add("start seconds after SIGKILL", seconds);
        results.add("RSS MB after start", status_mb(&again, "VmRSS:"));
        again.kill()?;
        again.wait()?;
        std::fs::remove_dir_all(&scratch)?;
    }
    results.print();
    Ok(())
}

#[derive(Default)]
struct Results(Vec<(&'static str, f64)>);

impl Results {
    fn add(&mut self, name: &'static str, value: f64) {
        eprintln!("{name}: {value:.3}");
        self.0.push((name, value));
    }

    fn print(&self) {
        println!("| measure | value |\n|---|---|");
        for (name, value) in &self.0 {
            let digits = if *value >= 1_000.0 { 0 } else { 3 };
            println!("| {name} | {value:.digits$} |");
        }
        let json: BTreeMap<_, _> = self.0.iter().copied().collect();
        println!("{}", serde_json::to_string(&json).unwrap_or_default());
    }
}

fn serve(folder: PathBuf) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let config = Config::new("127.0.0.1:0".parse()?, folder);
        let broker = Broker::start(config, &prometheus::Registry::new()).await?;
        println!("ready {}", broker.address());
        std::future::pending::<()>().await;
        Ok(())
    })
}

/// Starts the broker process; answers its address and how long it took until it answered.
fn start(folder: &Path) -> Outcome<(Child, String, f64)> {
    let begin = Instant::now();
    let mut child = Command::new(std::env::current_exe()?)
        .env("BENCH_SERVE", folder)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    let address = line
        .trim()
        .strip_prefix("ready ")
        .ok_or("the broker did not start")?
        .to_owned();
    std::net::TcpStream::connect(&address)?;
    Ok((child, address, begin.elapsed().as_secs_f64()))
}

/// User and system time of a process.
fn cpu_seconds(process: &Child) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap_or_default();
    let fields: Vec<f64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    // After the state, which is no number: utime and stime are the 11th and 12th; 100 ticks a second.
    (fields.get(10).unwrap_or(&0.0) + fields.get(11).unwrap_or(&0.0)) / 100.0
}

fn status_mb(process: &Child, field: &str) -> f64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .unwrap_or_default();
    line.split_whitespace()
        .next()
        .and_then(|kib| kib.parse::<f64>().ok())
        .unwrap_or_default()
        / 1024.0
}

fn folder_bytes(folder: &Path) -> std::io::Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        total += if entry.file_type()?.is_dir() {
            folder_bytes(&entry.path())?
        } else {
            entry.metadata()?.len()
        };
    }
    Ok(total)
}

fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("broker.address.family", "v4");
    config
}

fn create(brokers: &str, names: &[String]) -> Outcome<()> {
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
fn produce(brokers: &str, topic: &str, records: u64) -> Outcome<f64> {
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
fn consume(brokers: &str, topic: &str, records: u64) -> Outcome<f64> {
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
fn hop(brokers: &str, first: &str, second: &str) -> Outcome<Histogram<u64>> {
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
