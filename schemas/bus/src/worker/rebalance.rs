//! Partitions come and go. Before one goes, what its stage holds of it is brought to
//! safety; before one is read, its stage has said where to begin.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::{Offset, TopicPartitionList};

use super::context::{Rebalance, give_up, take};
use super::retry::Failing;
use super::run::{POLL, Run, STOP_CALL};
use crate::admin::{bounds, committed_of};
use crate::error::Error;
use crate::stage::Stage;

/// How long a question to the brokers may hold up the thread.
const ASK: Duration = Duration::from_secs(3);
/// How long the end of a partition here may hold up its next owner.
const REVOKE_COMMIT: Duration = Duration::from_secs(3);

/// Where partitions begin.
#[derive(Default)]
struct Begin {
    /// The offset that the group has committed, or that of the first record.
    at: BTreeMap<i32, i64>,
    /// Of which nothing is committed.
    new: Vec<i32>,
}

impl<S: Stage> Run<S> {
    pub(super) fn rebalance(&mut self) -> Result<(), Error> {
        while let Some(event) = self.consumer.context().next_event() {
            match event {
                Rebalance::Assign(partitions) => self.assign(&partitions)?,
                Rebalance::Revoke(partitions) => self.revoke(&partitions)?,
            }
        }
        Ok(())
    }

    fn assign(&mut self, partitions: &[i32]) -> Result<(), Error> {
        let group = self.worker.group;
        let begin = self.begin(partitions);
        for partition in partitions {
            self.commits.forget(*partition);
            let start = begin.as_ref().and_then(|begin| begin.at.get(partition));
            // Known from here on, so that the lag is shown however long the stage takes.
            self.positions.start(*partition, start.copied());
        }
        self.next_measure = Instant::now();
        let mut said = BTreeMap::new();
        if !partitions.is_empty() {
            self.measure();
            said = self.starts_of(partitions)?;
        }
        let begin = match begin {
            Some(begin) => begin,
            None => self.begin_at_last(partitions)?,
        };
        let mut starts = begin.at;
        starts.extend(said);
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            let start = starts.get(partition).copied();
            let offset = start.map_or(Offset::Invalid, Offset::Offset);
            list.add_partition_offset(self.worker.topic, *partition, offset)
                .map_err(|error| Error::kafka("taking partitions", &error))?;
            self.positions.start(*partition, start);
        }
        if let Err(error) = take(&self.consumer, &list) {
            // The group has gone on without us; it will assign anew.
            tracing::warn!(group, %error, "partitions could not be taken");
        }
        if self.held {
            self.held = false;
            self.hold();
        }
        self.note_starts(&begin.new, &starts)?;
        self.next_measure = Instant::now();
        tracing::info!(group, ?partitions, "partitions assigned");
        Ok(())
    }

    /// Commits where a group begins that has committed nothing, before it reads: so a stage can
    /// tell later what was read and waits for a letter from what was never read.
    fn note_starts(&mut self, new: &[i32], starts: &BTreeMap<i32, i64>) -> Result<(), Error> {
        if self.is_called_off() {
            return Ok(());
        }
        let mut noted = false;
        for partition in new {
            if let Some(start) = starts.get(partition) {
                self.commits.want(*partition, *start);
                noted = true;
            }
        }
        let was_held = self.held;
        while noted && !self.commits.is_settled() && !self.is_called_off() {
            self.hold();
            self.commits.send(true);
            self.poll(Duration::from_millis(10))?;
        }
        if !was_held {
            self.go_on();
        }
        Ok(())
    }

    /// The partitions that are being taken go away again, or all of it ends.
    fn is_called_off(&self) -> bool {
        self.stop.is_cancelled() || self.consumer.context().has_events()
    }

    /// Where the group goes on, as soon as the brokers tell.
    fn begin_at_last(&mut self, partitions: &[i32]) -> Result<Begin, Error> {
        while !partitions.is_empty() && !self.is_called_off() {
            if let Some(begin) = self.begin(partitions) {
                return Ok(begin);
            }
            self.hold();
            self.poll(POLL)?;
        }
        Ok(Begin::default())
    }

    /// Where the group goes on; `None` where the brokers don't tell.
    fn begin(&self, partitions: &[i32]) -> Option<Begin> {
        let topic = self.worker.topic;
        if partitions.is_empty() {
            return None;
        }
        let asked = committed_of(&self.consumer, topic, partitions, ASK).and_then(|mut at| {
            let is_new = |partition: &i32| !at.contains_key(partition);
            let new: Vec<i32> = partitions.iter().copied().filter(is_new).collect();
            if !new.is_empty() {
                at.extend(bounds(&self.consumer, topic, &new, Offset::Beginning, ASK)?);
            }
            Ok(Begin { at, new })
        });
        asked
            .inspect_err(|error| {
                tracing::debug!(group = self.worker.group, %error, "the committed offsets could not be read");
            })
            .ok()
    }

    /// Asks the stage where to begin, again and again.
    fn starts_of(&mut self, partitions: &[i32]) -> Result<BTreeMap<i32, i64>, Error> {
        let was_held = self.held;
        let mut failing = Failing::default();
        let starts = loop {
            let asked = self
                .runtime
                .wait(&self.stop, STOP_CALL, self.stage.assigned(partitions));
            let wait = match asked {
                Some(Ok(starts)) => break starts,
                None => break BTreeMap::new(),
                Some(Err(error)) => {
                    self.metrics.retries.inc();
                    failing.again(self.stage.name(), &error)
                }
            };
            self.hold();
            let until = Instant::now() + wait;
            // A further event can only take partitions away again, before any of them is read.
            while Instant::now() < until && !self.is_called_off() {
                self.poll(POLL)?;
                self.measure();
            }
            if self.is_called_off() {
                break BTreeMap::new();
            }
        };
        failing.over(self.stage.name());
        if !was_held {
            self.go_on();
        }
        Ok(starts)
    }

    fn revoke(&mut self, partitions: &[i32]) -> Result<(), Error> {
        let group = self.worker.group;
        let lost = self.consumer.assignment_lost();
        self.batch
            .retain(|record| !partitions.contains(&record.partition));
        let was_held = self.held;
        if !lost {
            self.hold();
            self.finish(REVOKE_COMMIT);
        }
        for partition in partitions {
            self.forget(*partition);
        }
        let list = self.list(partitions);
        if self.held {
            // Librdkafka would remember the pause until the partition comes back.
            if let Err(error) = self.consumer.resume(&list) {
                tracing::warn!(group, %error, "partitions that go could not be resumed");
            }
        }
        if let Err(error) = give_up(&self.consumer, &list) {
            tracing::warn!(group, %error, "partitions could not be given up");
        }
        if !was_held {
            self.go_on();
        }
        tracing::info!(group, ?partitions, lost, "partitions revoked");
        Ok(())
    }

    pub(super) fn forget(&mut self, partition: i32) {
        self.runtime
            .wait(&self.stop, STOP_CALL, self.stage.revoked(partition));
        self.positions.forget(partition);
        self.owed.done.remove(&partition);
        self.owed.dead.retain(|dead| dead.partition != partition);
        self.commits.forget(partition);
        self.metrics.forget(partition);
    }
}
