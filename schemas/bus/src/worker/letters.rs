//! Dead letters: what a stage gives up, written whole and acknowledged.

use prometheus::IntCounterVec;
use weir_records::{DeadLetter, Source, topic};

use crate::error::{NotDelivered, Refused};
use crate::producer::Producer;
use crate::record::Outgoing;
use crate::stage::Dead;

pub(super) struct Letters {
    producer: Producer,
    stage: &'static str,
    topic: &'static str,
    written: IntCounterVec,
}

impl Letters {
    pub(super) const fn new(
        producer: Producer,
        stage: &'static str,
        topic: &'static str,
        written: IntCounterVec,
    ) -> Self {
        Self {
            producer,
            stage,
            topic,
            written,
        }
    }

    /// Writes them and answers which are not acknowledged.
    pub(super) async fn write(&self, dead: Vec<Dead>) -> Vec<Dead> {
        let mut waiting = Vec::new();
        let mut left = Vec::new();
        // One at a time into the queue, so that as many go in as have room.
        for letter in dead {
            match self.queue(&letter) {
                Ok(delivery) => waiting.push((letter, delivery)),
                Err(_) => left.push(letter),
            }
        }
        for (letter, delivery) in waiting {
            match delivery.await.first() {
                Some(Ok(_)) => self.written.with_label_values(&[letter.reason]).inc(),
                Some(Err(NotDelivered { code, .. })) => {
                    tracing::debug!(code, "a dead letter was not acknowledged; it is repeated");
                    left.push(letter);
                }
                None => left.push(letter),
            }
        }
        left
    }

    fn queue(&self, dead: &Dead) -> Result<crate::producer::Delivery, Refused> {
        match self.producer.send(vec![self.encode(dead, true)]) {
            Err(Refused::TooLarge { .. }) => {
                // With our words around it, it is larger than a broker takes. Its place
                // still tells where it is; holding up the partition would help no one.
                tracing::error!(
                    stage = self.stage,
                    partition = dead.partition,
                    offset = dead.offset,
                    bytes = dead.payload.len(),
                    "a dead letter is too large and is written without its payload"
                );
                self.producer.send(vec![self.encode(dead, false)])
            }
            result => result,
        }
    }

    fn encode(&self, dead: &Dead, whole: bool) -> Outgoing {
        let letter = DeadLetter {
            stage: self.stage.to_owned(),
            reason: dead.reason.to_owned(),
            topic: self.topic.to_owned(),
            source: Source {
                partition: dead.partition,
                offset: dead.offset,
            },
            key: if whole {
                dead.key.clone()
            } else {
                bytes::Bytes::new()
            },
            payload: if whole {
                dead.payload.clone()
            } else {
                bytes::Bytes::new()
            },
            failed_at: jiff::Timestamp::now(),
            resolution: None,
        };
        Outgoing {
            topic: topic::DEAD,
            partition: None,
            key: if whole { dead.key.to_vec() } else { Vec::new() },
            payload: letter.encode(),
        }
    }
}
