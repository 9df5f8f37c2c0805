//! All stored records: topics, their partitions, and the threads that write them.
//!
//! The folder: `topics/<topic>/topic` (description), `topics/<topic>/<partition>/` with
//! `<base offset>.log` and `.index` for each segment, `checkpoint` and `synced`.

pub(crate) mod batch;
pub(crate) mod marker;
pub(crate) mod partition;
pub(crate) mod producer_ids;
pub(crate) mod producers;
mod read;
pub(crate) mod records;
mod recover;
mod retention;
pub(crate) mod segment;
pub(crate) mod settings;
pub(crate) mod topic;
pub(crate) mod writer;

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use kafka_protocol::ResponseError;
use parking_lot::{Mutex, RwLock};
use uuid::Uuid;

use crate::config::Limits;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::state_file;
use partition::Partition;
use settings::{Overrides, Settings};
use topic::{DESCRIPTION, Description, Topic};
use writer::Writers;

const DELETED: &str = ".deleted-";
const NEW: &str = ".new-";

/// A refusal with the words that go with it.
pub(crate) type Refusal = (ResponseError, String);

/// All topics.
pub(crate) struct Log {
    folder: PathBuf,
    topics: RwLock<BTreeMap<Arc<str>, Arc<Topic>>>,
    /// Held while topics are made, changed or removed.
    administration: Mutex<()>,
    pub(crate) writers: Writers,
    next_shard: AtomicUsize,
    limits: Arc<Limits>,
    metrics: Metrics,
}

impl Log {
    /// Opens everything below `folder`.
    pub(crate) fn open(
        folder: &Path,
        limits: Arc<Limits>,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        fs::create_dir_all(folder)
            .and_then(|()| folder.parent().map_or(Ok(()), state_file::sync_folder))
            .map_err(|error| Error::folder(folder, error))?;
        let writers = Writers::start(limits.writers).map_err(Error::Thread)?;
        let log = Self {
            folder: folder.to_owned(),
            topics: RwLock::default(),
            administration: Mutex::default(),
            writers,
            next_shard: AtomicUsize::new(0),
            limits,
            metrics,
        };
        if let Err(error) = log.open_topics() {
            log.writers.stop();
            return Err(error);
        }
        Ok(log)
    }

    fn open_topics(&self) -> Result<(), Error> {
        let entries =
            fs::read_dir(&self.folder).map_err(|error| Error::folder(&self.folder, error))?;
        for entry in entries {
            let path = entry
                .map_err(|error| Error::folder(&self.folder, error))?
                .path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default()
                .to_owned();
            if name.starts_with(DELETED) || name.starts_with(NEW) {
                fs::remove_dir_all(&path).map_err(|error| Error::folder(&path, error))?;
            } else if path.is_dir() && topic::legal_name(&name) {
                let topic = self.open_topic(&path, &name)?;
                self.topics.write().insert(Arc::clone(&topic.name), topic);
            }
        }
        Ok(())
    }

    fn open_topic(&self, path: &Path, name: &str) -> Result<Arc<Topic>, Error> {
        let file = path.join(DESCRIPTION);
        let damaged = |reason: String| Error::Damaged {
            path: file.clone(),
            reason,
        };
        let description = match state_file::read::<Description>(&file) {
            Ok(Some(description)) => description,
            Ok(None) => return Err(damaged("it is missing".to_owned())),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(damaged(error.to_string()));
            }
            Err(error) => return Err(Error::folder(&file, error)),
        };
        let settings = Settings::parse(&description.settings).map_err(damaged)?;
        let topic = self.topic(name, path.to_owned(), &description, settings);
        let indices: Vec<i32> = (0..description.partitions).collect();
        let opened = self
            .open_partitions(&topic, &indices)
            .map_err(|error| Error::folder(path, error))?;
        *topic.partitions.write() = opened;
        Ok(topic)
    }

    fn topic(
        &self,
        name: &str,
        folder: PathBuf,
        description: &Description,
        settings: Settings,
    ) -> Arc<Topic> {
        Arc::new(Topic {
            name: Arc::from(name),
            id: description.id,
            folder,
            overrides: RwLock::new(description.settings.clone()),
            settings: Arc::new(RwLock::new(settings)),
            partitions: RwLock::default(),
        })
    }

    /// Opens partitions side by side: a start waits for the slowest, not for the sum.
    fn open_partitions(&self, topic: &Topic, indices: &[i32]) -> io::Result<Vec<Arc<Partition>>> {
        let width = indices.len().div_ceil(self.writers.count()).max(1);
        std::thread::scope(|scope| {
            let groups: Vec<_> = indices
                .chunks(width)
                .map(|group| {
                    scope.spawn(move || {
                        group
                            .iter()
                            .map(|index| self.open_partition(topic, *index))
                            .collect()
                    })
                })
                .collect();
            let mut partitions = Vec::with_capacity(indices.len());
            for group in groups {
                let opened: io::Result<Vec<Arc<Partition>>> = group
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("opening a partition panicked")));
                partitions.extend(opened?);
            }
            Ok(partitions)
        })
    }

    fn open_partition(&self, topic: &Topic, index: i32) -> io::Result<Arc<Partition>> {
        let folder = topic.folder.join(index.to_string());
        let opened = recover::open(&folder)?;
        let end = opened.segments.last().map_or(0, |last| last.next());
        let bytes: u64 = opened.segments.iter().map(|segment| segment.size()).sum();
        let log_bytes = self.metrics.log_bytes.with_label_values(&[&*topic.name]);
        log_bytes.add(i64::try_from(bytes).unwrap_or_default());
        self.metrics.partitions.inc();
        let partition = Partition {
            topic: Arc::clone(&topic.name),
            index,
            shard: self.next_shard.fetch_add(1, Ordering::Relaxed) % self.writers.count(),
            folder,
            settings: Arc::clone(&topic.settings),
            segments: RwLock::new(opened.segments),
            hints: Mutex::new(VecDeque::new()),
            start: AtomicI64::new(opened.start),
            end: AtomicI64::new(end),
            writer: Mutex::new(opened.writer),
            waiters: Mutex::default(),
            closed: AtomicBool::new(false),
            limits: Arc::clone(&self.limits),
            metrics: self.metrics.clone(),
            log_bytes,
        };
        if opened.scanned {
            partition.checkpoint(&mut partition.writer.lock());
        }
        Ok(Arc::new(partition))
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.topics.read().get(name).cloned()
    }

    pub(crate) fn by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        self.topics
            .read()
            .values()
            .find(|topic| topic.id == id)
            .cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        self.topics.read().values().cloned().collect()
    }

    pub(crate) fn partition(
        &self,
        topic: &str,
        index: i32,
    ) -> Result<Arc<Partition>, ResponseError> {
        let topic = self
            .get(topic)
            .ok_or(ResponseError::UnknownTopicOrPartition)?;
        topic
            .partition(index)
            .ok_or(ResponseError::UnknownTopicOrPartition)
    }

    /// Makes a topic. With `dry_run` only says whether it could be made.
    pub(crate) fn create(
        &self,
        name: &str,
        partitions: i32,
        overrides: Overrides,
        dry_run: bool,
    ) -> Result<(Uuid, i32), Refusal> {
        let _administration = self.administration.lock();
        if !topic::legal_name(name) {
            return Err((
                ResponseError::InvalidTopicException,
                "illegal topic name".to_owned(),
            ));
        }
        if self.get(name).is_some() {
            return Err((
                ResponseError::TopicAlreadyExists,
                format!("Topic '{name}' already exists."),
            ));
        }
        let count = if partitions == -1 {
            self.limits.default_partitions
        } else {
            partitions
        };
        if count < 1 {
            return Err((
                ResponseError::InvalidPartitions,
                "at least one partition is needed".to_owned(),
            ));
        }
        self.room_for(count)?;
        let settings =
            Settings::parse(&overrides).map_err(|reason| (ResponseError::InvalidConfig, reason))?;
        let description = Description {
            id: Uuid::new_v4(),
            partitions: count,
            settings: overrides,
        };
        if dry_run {
            return Ok((description.id, count));
        }
        let made = self
            .make(name, &description, settings)
            .map_err(|error| storage(&error))?;
        self.topics.write().insert(Arc::clone(&made.name), made);
        Ok((description.id, count))
    }

    fn make(
        &self,
        name: &str,
        description: &Description,
        settings: Settings,
    ) -> io::Result<Arc<Topic>> {
        let folder = self.folder.join(name);
        let new = self.folder.join(format!("{NEW}{}", description.id));
        let made = (|| {
            fs::create_dir(&new)?;
            state_file::write(&new.join(DESCRIPTION), description)?;
            state_file::sync_folder(&new)?;
            fs::rename(&new, &folder)?;
            state_file::sync_folder(&self.folder)
        })();
        if let Err(error) = made {
            // Best effort: a start removes it too.
            let _ = fs::remove_dir_all(&new);
            return Err(error);
        }
        let topic = self.topic(name, folder, description, settings);
        let indices: Vec<i32> = (0..description.partitions).collect();
        let opened = self.open_partitions(&topic, &indices);
        match opened.and_then(|opened| state_file::sync_folder(&topic.folder).map(|()| opened)) {
            Ok(partitions) => *topic.partitions.write() = partitions,
            Err(error) => {
                let _ = fs::remove_dir_all(&topic.folder);
                return Err(error);
            }
        }
        Ok(topic)
    }

    fn room_for(&self, more: i32) -> Result<(), Refusal> {
        let used: usize = self
            .topics
            .read()
            .values()
            .map(|topic| topic.partitions.read().len())
            .sum();
        let more = usize::try_from(more).unwrap_or(usize::MAX);
        if used.saturating_add(more) > self.limits.partitions {
            let reason = format!(
                "this broker holds at most {} partitions",
                self.limits.partitions
            );
            return Err((ResponseError::PolicyViolation, reason));
        }
        Ok(())
    }

    /// Removes a topic and its records.
    pub(crate) fn delete(&self, name: &str) -> Result<(), Refusal> {
        let _administration = self.administration.lock();
        let Some(topic) = self.get(name) else {
            return Err((
                ResponseError::UnknownTopicOrPartition,
                "there is no such topic".to_owned(),
            ));
        };
        let grave = self.folder.join(format!("{DELETED}{}", topic.id));
        fs::rename(&topic.folder, &grave)
            .and_then(|()| state_file::sync_folder(&self.folder))
            .map_err(|error| storage(&error))?;
        self.topics.write().remove(name);
        topic.close();
        let count = topic.partitions.read().len();
        self.metrics
            .partitions
            .sub(i64::try_from(count).unwrap_or_default());
        // The label goes with the topic; without it there is nothing to remove.
        let _ = self.metrics.log_bytes.remove_label_values(&[name]);
        fs::remove_dir_all(&grave).map_err(|error| storage(&error))
    }

    /// Raises the number of a topic's partitions to `count`.
    pub(crate) fn grow(&self, name: &str, count: i32, dry_run: bool) -> Result<(), Refusal> {
        let _administration = self.administration.lock();
        let Some(topic) = self.get(name) else {
            return Err((
                ResponseError::UnknownTopicOrPartition,
                "there is no such topic".to_owned(),
            ));
        };
        let before = topic.partition_count();
        if count <= before {
            let reason = format!(
                "Topic currently has {before} partitions, which is not lower than the requested {count}."
            );
            return Err((ResponseError::InvalidPartitions, reason));
        }
        self.room_for(count - before)?;
        if dry_run {
            return Ok(());
        }
        let indices: Vec<i32> = (before..count).collect();
        let opened = self
            .open_partitions(&topic, &indices)
            .map_err(|error| storage(&error))?;
        let description = Description {
            partitions: count,
            ..topic.description()
        };
        state_file::sync_folder(&topic.folder).map_err(|error| storage(&error))?;
        state_file::write(&topic.folder.join(DESCRIPTION), &description)
            .map_err(|error| storage(&error))?;
        topic.partitions.write().extend(opened);
        Ok(())
    }

    /// Replaces the settings of a topic by what `change` makes of them.
    pub(crate) fn configure(
        &self,
        name: &str,
        dry_run: bool,
        change: impl FnOnce(&mut Overrides) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let _administration = self.administration.lock();
        let Some(topic) = self.get(name) else {
            return Err((
                ResponseError::UnknownTopicOrPartition,
                "there is no such topic".to_owned(),
            ));
        };
        let mut description = topic.description();
        change(&mut description.settings)?;
        let settings = Settings::parse(&description.settings)
            .map_err(|reason| (ResponseError::InvalidConfig, reason))?;
        if dry_run {
            return Ok(());
        }
        state_file::write(&topic.folder.join(DESCRIPTION), &description)
            .map_err(|error| storage(&error))?;
        *topic.overrides.write() = description.settings;
        *topic.settings.write() = settings;
        Ok(())
    }

    /// One round of retention.
    pub(crate) fn retain(&self) {
        for topic in self.all() {
            let partitions = topic.partitions.read().clone();
            for partition in partitions {
                partition.retain();
            }
        }
    }

    /// Ends the writer threads after what they have, and saves checkpoints. Nothing may be submitted any
    /// more.
    pub(crate) fn close(&self) {
        self.writers.stop();
        self.writers.join();
        for topic in self.all() {
            topic.close();
            for partition in topic.partitions.read().iter() {
                partition.checkpoint(&mut partition.writer.lock());
            }
        }
    }
}

fn storage(error: &io::Error) -> Refusal {
    tracing::error!(%error, "can't change the folder of topics");
    (ResponseError::KafkaStorageError, error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
