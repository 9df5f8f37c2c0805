//! Verdicts on their way out: queued in order, waited for, remembered.

use jiff::Timestamp;
use weir_bus::{BoxError, Dead, Delivery, Outgoing, Record, Refused};
use weir_records::{Action, Judged, Source, Verdict, topic};

use super::seen::{Fingerprint, Judgement, Seen};
use super::{Fault, OUT_OF_ORDER, PAUSE, Process, REMEMBERED, TRIES, Work, give_up};

/// The message and its verdict do not fit into a record.
pub(crate) const TOO_LARGE: &str = "verdict_too_large";

/// A verdict on its way, with what is needed once it is acknowledged.
struct Sent<'a> {
    partition: i32,
    fingerprint: Fingerprint,
    judgement: Judgement,
    received_at: Timestamp,
    action: Action,
    dead: &'a Record,
}

impl Process {
    /// Gives up what is late.
    pub(super) fn leave_out_late<'a>(
        &self,
        judged: Vec<(Work<'a>, Verdict)>,
        dead: &mut Vec<Dead>,
    ) -> Vec<(Work<'a>, Verdict)> {
        let (late, judged) = judged.into_iter().partition(|(item, _)| item.late);
        let late: Vec<(Work<'a>, Verdict)> = late;
        for (item, verdict) in late {
            let record = item.record;
            let out = item.outgoing(verdict);
            let bytes = out.key.len() + out.payload.len();
            let reason = if bytes > self.bus.max_record_bytes() {
                TOO_LARGE
            } else {
                OUT_OF_ORDER
            };
            dead.push(give_up(record, reason));
        }
        judged
    }

    /// Publishes and waits. Whatever was acknowledged is remembered even if the whole
    /// fails, so that the next try sends the rest only.
    pub(super) async fn publish(
        &mut self,
        judged: Vec<(Work<'_>, Verdict)>,
        dead: &mut Vec<Dead>,
    ) -> Result<(), BoxError> {
        if judged.is_empty() {
            return Ok(());
        }
        let timer = self.judge.stages().publish.start_timer();
        let mut out = Vec::with_capacity(judged.len());
        let mut sent = Vec::with_capacity(judged.len());
        for (item, verdict) in judged {
            sent.push(Sent {
                partition: item.record.partition,
                fingerprint: item.fingerprint,
                judgement: Judgement {
                    offset: item.record.offset,
                    content: item.content,
                    received_at: item.message.received_at.as_microsecond(),
                },
                received_at: item.message.received_at,
                action: verdict.action,
                dead: item.record,
            });
            out.push(item.outgoing(verdict));
        }
        let delivery = self.send(out, &mut sent, dead).await?;
        let Some(delivery) = delivery else {
            return Ok(());
        };
        let results = delivery.await;
        timer.observe_duration();
        let now = Timestamp::now();
        let (count, mut failed, mut code) = (sent.len(), 0, "");
        for (sent, result) in sent.into_iter().zip(results) {
            match result {
                Ok(_) => {
                    self.metrics.judged(sent.action);
                    let waited = now.duration_since(sent.received_at).as_secs_f64();
                    self.metrics.verdict_seconds.observe(waited.max(0.0));
                    let seen = self
                        .partitions
                        .entry(sent.partition)
                        .or_insert_with(|| Seen::new(REMEMBERED));
                    seen.add(sent.fingerprint, sent.judgement);
                }
                Err(fault) => {
                    failed += 1;
                    code = fault.code;
                }
            }
        }
        if failed > 0 {
            return Err(Fault::NotDelivered {
                failed,
                count,
                code,
            }
            .into());
        }
        Ok(())
    }

    /// Queues all of it, waiting for room; what can never be sent is given up.
    async fn send(
        &self,
        mut out: Vec<Outgoing>,
        sent: &mut Vec<Sent<'_>>,
        dead: &mut Vec<Dead>,
    ) -> Result<Option<Delivery>, BoxError> {
        let mut tries = 0;
        while !out.is_empty() {
            match self.producer.send(out.clone()) {
                Ok(delivery) => return Ok(Some(delivery)),
                Err(Refused::TooLarge { index }) => {
                    out.remove(index);
                    dead.push(give_up(sent.remove(index).dead, TOO_LARGE));
                }
                Err(Refused::Full) if tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(Refused::Full) => return Err(Fault::QueueFull.into()),
            }
        }
        Ok(None)
    }
}

impl Work<'_> {
    fn outgoing(self, verdict: Verdict) -> Outgoing {
        let source = Source {
            partition: self.record.partition,
            offset: self.record.offset,
        };
        let judged = Judged {
            message: self.message,
            verdict,
            source,
        };
        Outgoing {
            topic: topic::VERDICTS,
            partition: Some(self.record.partition),
            key: self.record.key.to_vec(),
            payload: judged.encode(),
        }
    }
}
