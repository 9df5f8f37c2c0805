//! A bounded read of one partition, to rebuild what a stage has to remember.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use crate::admin::{ASK_ONE, Asker, blocking, bounds};
use crate::client::Context;
use crate::config::Config;
use crate::error::Error;
use crate::record::Record;

/// Records that are handed over at a time, and batches that may wait.
const BATCH: usize = 500;
const WAITING: usize = 4;
/// Without any record for so long, the brokers are taken for gone.
const SILENCE: Duration = Duration::from_secs(30);

/// Gives `sink` the records of a partition from offset `from` (or the first that is
/// held) up to the end that the partition has now, in order. Answers that end: the
/// offset that the next record will have.
///
/// # Errors
/// No broker answers, it refuses us, or there is no such topic or partition. The sink
/// may have had some of the records.
pub async fn read_back(
    config: &Config,
    topic: &str,
    partition: i32,
    from: i64,
    sink: &mut (dyn FnMut(Record) + Send),
) -> Result<i64, Error> {
    let (batches, mut records) = mpsc::channel(WAITING);
    let reader = Reader {
        asker: Asker::new(config, Some("weir.read-back"))?,
        brokers: config.brokers.clone(),
        topic: topic.to_owned(),
        partition,
        batches,
    };
    let reading = blocking(move || reader.read(from));
    tokio::pin!(reading);
    loop {
        tokio::select! {
            biased;
            batch = records.recv() => match batch {
                Some(batch) => {
                    let batch: Vec<Record> = batch;
                    batch.into_iter().for_each(&mut *sink);
                }
                None => return reading.await,
            },
            end = &mut reading => {
                // The last batches may have come with the end.
                while let Ok(batch) = records.try_recv() {
                    batch.into_iter().for_each(&mut *sink);
                }
                return end;
            }
        }
    }
}

struct Reader {
    asker: Asker,
    brokers: String,
    topic: String,
    partition: i32,
    batches: mpsc::Sender<Vec<Record>>,
}

impl Reader {
    fn read(self, from: i64) -> Result<i64, Error> {
        if !self
            .asker
            .partitions(&self.topic)?
            .contains(&self.partition)
        {
            return Err(Error::UnknownTopic(format!(
                "{} [{}]",
                self.topic, self.partition
            )));
        }
        let end = self.bound(Offset::End)?;
        let from = from.max(self.bound(Offset::Beginning)?);
        if from >= end {
            return Ok(end);
        }
        let consumer = self.asker.consumer();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, self.partition, Offset::Offset(from))
            .and_then(|()| consumer.assign(&list))
            .map_err(|error| Error::kafka("reading back", &error))?;
        self.drain(consumer, end)?;
        Ok(end)
    }

    fn bound(&self, bound: Offset) -> Result<i64, Error> {
        let found = self
            .asker
            .ask("reading the watermarks", ASK_ONE, |consumer, wait| {
                bounds(consumer, &self.topic, &[self.partition], bound, wait)
            })?;
        found
            .get(&self.partition)
            .copied()
            .ok_or_else(|| Error::UnknownTopic(self.topic.clone()))
    }

    fn drain(&self, consumer: &BaseConsumer<Context>, end: i64) -> Result<(), Error> {
        let mut batch = Vec::with_capacity(BATCH);
        let mut heard = Instant::now();
        loop {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let record = Record::copy(&message);
                    let next = record.offset + 1;
                    if record.offset < end {
                        batch.push(record);
                    }
                    if batch.len() == BATCH || next >= end {
                        // Who asked has gone.
                        let Ok(()) = self.batches.blocking_send(std::mem::take(&mut batch)) else {
                            return Ok(());
                        };
                    }
                    if next >= end {
                        return Ok(());
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    let _ = self.batches.blocking_send(batch);
                    return Ok(());
                }
                Some(Err(error)) => tracing::debug!(%error, "a poll brought an error"),
                None => {}
            }
            if self.batches.is_closed() {
                return Ok(());
            }
            if heard.elapsed() > SILENCE {
                return Err(Error::Unreachable {
                    brokers: self.brokers.clone(),
                    code: "timed out",
                });
            }
        }
    }
}
