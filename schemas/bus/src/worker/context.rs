//! What librdkafka calls while the worker polls. Rebalances are only noted here: the
//! worker carries them out when no call of its stage runs.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};

use crate::client::{Link, Linked};

/// A change of the partitions that this member owns.
#[derive(Debug)]
pub(super) enum Rebalance {
    Assign(Vec<i32>),
    Revoke(Vec<i32>),
}

pub(super) struct Context {
    link: Link,
    events: Mutex<VecDeque<Rebalance>>,
    /// The worker has gone: rebalances are carried out here, so that the consumer can close.
    gone: AtomicBool,
}

impl Context {
    pub(super) fn new(group: &'static str) -> Self {
        Self {
            link: Link::new(group),
            events: Mutex::default(),
            gone: AtomicBool::new(false),
        }
    }

    pub(super) fn next_event(&self) -> Option<Rebalance> {
        self.events.lock().pop_front()
    }

    pub(super) fn has_events(&self) -> bool {
        !self.events.lock().is_empty()
    }
}

/// The consumer as a member of its group. Dropped, it leaves the group, whatever state
/// its owner is in.
pub(super) struct Member(pub(super) BaseConsumer<Context>);

impl std::ops::Deref for Member {
    type Target = BaseConsumer<Context>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.0.context().gone.store(true, Ordering::Release);
    }
}

/// Tells librdkafka that the partitions are taken.
pub(super) fn take(consumer: &BaseConsumer<Context>, list: &TopicPartitionList) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_assign(list),
        _ => consumer.assign(list),
    }
}

/// Tells librdkafka that the partitions are given up.
pub(super) fn give_up(
    consumer: &BaseConsumer<Context>,
    list: &TopicPartitionList,
) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
        _ => consumer.unassign(),
    }
}

impl Linked for Context {
    fn link(&self) -> &Link {
        &self.link
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

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let assign = code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.gone.load(Ordering::Acquire) {
            let done = if assign {
                take(consumer, list)
            } else {
                give_up(consumer, list)
            };
            if let Err(error) = done {
                tracing::debug!(%error, "partitions could not be given up while leaving the group");
            }
            return;
        }
        let partitions = list
            .elements()
            .iter()
            .map(|element| element.partition())
            .collect();
        self.events.lock().push_back(if assign {
            Rebalance::Assign(partitions)
        } else {
            Rebalance::Revoke(partitions)
        });
    }
}
