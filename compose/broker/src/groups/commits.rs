//! Committed offsets: a table in memory, and a journal on disk that it is rebuilt from.
//!
//! What it keeps true: a commit is answered, and visible, only after fdatasync; commits that arrive
//! during a sync share the next one; the journal is rewritten when most of it is outdated, so it stays
//! in proportion to the table.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use kafka_protocol::ResponseError;
use parking_lot::{Condvar, Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::state_file::sync_folder;

const HEAD: usize = 8;
/// Below this size the journal isn't rewritten.
const SMALL: u64 = 1 << 20;

/// One committed offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Committed {
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: Option<String>,
    /// When it was committed (milliseconds).
    pub(crate) at: i64,
}

/// One change of the table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) group: String,
    pub(crate) topic: String,
    pub(crate) partition: i32,
    /// `None` removes it.
    pub(crate) committed: Option<Committed>,
}

/// What a group has committed, by topic and partition.
pub(crate) type Offsets = BTreeMap<(String, i32), Committed>;
type Table = HashMap<String, Offsets>;
type Reply = oneshot::Sender<Result<(), ResponseError>>;

#[derive(Default)]
struct Queue {
    waiting: Vec<(Vec<Change>, Reply)>,
    stop: bool,
}

struct Inner {
    table: RwLock<Table>,
    queue: Mutex<Queue>,
    ready: Condvar,
}

/// All committed offsets.
pub(crate) struct Commits {
    inner: Arc<Inner>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Commits {
    /// Reads the journal at `path`, cuts a torn tail, and goes on writing to it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let (journal, table) = Journal::open(path)?;
        let inner = Arc::new(Inner {
            table: RwLock::new(table),
            queue: Mutex::default(),
            ready: Condvar::default(),
        });
        let shared = Arc::clone(&inner);
        let thread = std::thread::Builder::new()
            .name("broker-offsets".to_owned())
            .spawn(move || run(&shared, journal))?;
        Ok(Self {
            inner,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Makes changes; they are on disk when the receiver hears of it.
    pub(crate) fn change(
        &self,
        changes: Vec<Change>,
    ) -> oneshot::Receiver<Result<(), ResponseError>> {
        let (send, receive) = oneshot::channel();
        if changes.is_empty() {
            let _ = send.send(Ok(()));
            return receive;
        }
        self.inner.queue.lock().waiting.push((changes, send));
        self.inner.ready.notify_one();
        receive
    }

    pub(crate) fn get(&self, group: &str, topic: &str, partition: i32) -> Option<Committed> {
        self.inner
            .table
            .read()
            .get(group)?
            .get(&(topic.to_owned(), partition))
            .cloned()
    }

    pub(crate) fn group(&self, group: &str) -> Option<Offsets> {
        self.inner.table.read().get(group).cloned()
    }

    /// Whether the group has committed anything.
    pub(crate) fn knows(&self, group: &str) -> bool {
        self.inner.table.read().contains_key(group)
    }

    pub(crate) fn groups(&self) -> Vec<String> {
        self.inner.table.read().keys().cloned().collect()
    }

    pub(crate) fn group_count(&self) -> usize {
        self.inner.table.read().len()
    }

    /// Removals of what `gone` accepts.
    pub(crate) fn removals(&self, gone: impl Fn(&str, &str, &Committed) -> bool) -> Vec<Change> {
        let table = self.inner.table.read();
        let all = table
            .iter()
            .flat_map(|(group, offsets)| offsets.iter().map(move |(key, one)| (group, key, one)));
        all.filter(|(group, (topic, _), committed)| gone(group, topic, committed))
            .map(|(group, (topic, partition), _)| Change {
                group: group.clone(),
                topic: topic.clone(),
                partition: *partition,
                committed: None,
            })
            .collect()
    }

    /// Lets the thread finish what it has, and waits for it.
    pub(crate) fn close(&self) {
        self.stop();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the writer of committed offsets panicked");
        }
    }

    pub(crate) fn stop(&self) {
        self.inner.queue.lock().stop = true;
        self.inner.ready.notify_one();
    }
}

fn run(inner: &Inner, mut journal: Journal) {
    loop {
        let waiting = {
            let mut queue = inner.queue.lock();
            while queue.waiting.is_empty() {
                if queue.stop {
                    return;
                }
                inner.ready.wait(&mut queue);
            }
            std::mem::take(&mut queue.waiting)
        };
        let written = journal.append(waiting.iter().map(|(changes, _)| changes.as_slice()));
        let outcome = written.map_err(|error| {
            tracing::error!(%error, "can't write committed offsets");
            ResponseError::KafkaStorageError
        });
        for (changes, reply) in waiting {
            if outcome.is_ok() {
                let mut table = inner.table.write();
                changes
                    .into_iter()
                    .for_each(|change| apply(&mut table, change));
            }
            // The client may have gone.
            let _ = reply.send(outcome);
        }
        if let Err(error) = journal.shrink(&inner.table) {
            tracing::warn!(%error, "can't rewrite the journal of committed offsets");
        }
    }
}

fn apply(table: &mut Table, change: Change) {
    let Change {
        group,
        topic,
        partition,
        committed,
    } = change;
    match committed {
        Some(committed) => {
            table
                .entry(group)
                .or_default()
                .insert((topic, partition), committed);
        }
        None => {
            if let Some(offsets) = table.get_mut(&group) {
                offsets.remove(&(topic, partition));
                if offsets.is_empty() {
                    table.remove(&group);
                }
            }
        }
    }
}

/// Entries of length, CRC-32C and a JSON array of changes.
struct Journal {
    path: PathBuf,
    file: File,
    size: u64,
    /// Size after the last rewrite: what the table needs.
    needed: u64,
}

fn entry(changes: &[Change]) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(changes)?;
    let length =
        u32::try_from(body.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut out = Vec::with_capacity(HEAD + body.len());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
    out.extend_from_slice(&body);
    Ok(out)
}

impl Journal {
    fn open(path: &Path) -> io::Result<(Self, Table)> {
        let file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(path)?;
        let content = fs::read(path)?;
        let mut table = Table::new();
        let mut rest = content.as_slice();
        let mut good = 0;
        while let Some((head, tail)) = rest.split_first_chunk::<HEAD>() {
            let [a, b, c, d, crc @ ..] = *head;
            let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
            let Some((body, tail)) = tail.split_at_checked(length) else {
                break;
            };
            let intact = crc32c::crc32c(body) == u32::from_be_bytes(crc);
            match serde_json::from_slice::<Vec<Change>>(body) {
                Ok(changes) if intact => {
                    changes
                        .into_iter()
                        .for_each(|change| apply(&mut table, change));
                    good = content.len() - tail.len();
                }
                // Damage in the middle costs these commits, not those after it: consumers go back a little.
                _ => tracing::error!(
                    at = content.len() - rest.len(),
                    "a journal entry of committed offsets is damaged"
                ),
            }
            rest = tail;
        }
        if good < content.len() {
            tracing::warn!(
                from = good,
                to = content.len(),
                "cutting the torn tail of the committed offsets"
            );
            file.set_len(good as u64)?;
        }
        file.sync_data()?;
        let journal = Self {
            path: path.to_owned(),
            file,
            size: good as u64,
            needed: 0,
        };
        Ok((journal, table))
    }

    fn append<'a>(&mut self, batches: impl Iterator<Item = &'a [Change]>) -> io::Result<()> {
        let mut bytes = Vec::new();
        for changes in batches {
            bytes.extend_from_slice(&entry(changes)?);
        }
        // What a failed append left behind.
        self.file.set_len(self.size)?;
        let written = (&self.file)
            .write_all(&bytes)
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Give the space back; a failure is tried again before the next append.
            let _ = self.file.set_len(self.size);
            return Err(error);
        }
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Rewrites the journal from the table when it has grown to four times of what that needs.
    fn shrink(&mut self, table: &RwLock<Table>) -> io::Result<()> {
        if self.size < SMALL.max(self.needed * 4) {
            return Ok(());
        }
        let mut bytes = Vec::new();
        for (group, offsets) in table.read().iter() {
            let changes = offsets
                .iter()
                .map(|((topic, partition), committed)| Change {
                    group: group.clone(),
                    topic: topic.clone(),
                    partition: *partition,
                    committed: Some(committed.clone()),
                });
            bytes.extend_from_slice(&entry(&changes.collect::<Vec<_>>())?);
        }
        let new = self.path.with_extension("new");
        let file = File::options().append(true).create(true).open(&new)?;
        file.set_len(0)?;
        (&file).write_all(&bytes)?;
        file.sync_data()?;
        fs::rename(&new, &self.path)?;
        // Before anything can fail: the old file has no name any more.
        self.file = file;
        self.size = bytes.len() as u64;
        self.needed = self.size;
        self.path.parent().map_or(Ok(()), sync_folder)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn commit(group: &str, partition: i32, offset: i64) -> Change {
        let metadata = Some("note".repeat(50));
        let committed = Some(Committed {
            offset,
            leader_epoch: 0,
            metadata,
            at: 1,
        });
        Change {
            group: group.to_owned(),
            topic: "t".to_owned(),
            partition,
            committed,
        }
    }

    #[test]
    fn commits_outlive_restarts_rewrites_and_torn_tails() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("offsets");
        let commits = Commits::open(&path).unwrap();
        for offset in 0..20_000 {
            drop(commits.change(vec![commit("g", 0, offset), commit("g", 1, offset * 2)]));
        }
        let removed = Change {
            committed: None,
            ..commit("g", 1, 0)
        };
        commits
            .change(vec![removed])
            .blocking_recv()
            .unwrap()
            .unwrap();
        commits.close();
        assert!(fs::metadata(&path).unwrap().len() < 5 * SMALL);
        let mut torn = entry(&[commit("g", 0, 77)]).unwrap();
        torn.truncate(torn.len() - 3);
        File::options()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(&torn)
            .unwrap();
        let commits = Commits::open(&path).unwrap();
        assert_eq!(commits.get("g", "t", 0).unwrap().offset, 19_999);
        assert_eq!(commits.get("g", "t", 1), None);
        commits
            .change(vec![commit("h", 0, 5)])
            .blocking_recv()
            .unwrap()
            .unwrap();
        commits.close();
        assert_eq!(Commits::open(&path).unwrap().groups().len(), 2);
    }
}
