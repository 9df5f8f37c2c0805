//! Topics by name: making, changing and removing them, and their folders.
//!
//! What it keeps true: a name can't leave the folder (Kafka's own rule for names sees to that); a topic
//! appears and disappears at once, by a rename, whatever a crash interrupts.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::partition::Partition;
use super::settings::{Overrides, Settings};

/// Name of a topic's description in its folder.
pub(crate) const DESCRIPTION: &str = "topic";

/// What is stored of a topic beside its records.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Description {
    pub(crate) id: Uuid,
    pub(crate) partitions: i32,
    pub(crate) settings: Overrides,
}

/// One topic.
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    pub(crate) id: Uuid,
    pub(crate) folder: PathBuf,
    pub(crate) overrides: RwLock<Overrides>,
    pub(crate) settings: Arc<RwLock<Settings>>,
    pub(crate) partitions: RwLock<Vec<Arc<Partition>>>,
}

impl Topic {
    pub(crate) fn partition(&self, index: i32) -> Option<Arc<Partition>> {
        self.partitions
            .read()
            .get(usize::try_from(index).ok()?)
            .cloned()
    }

    pub(crate) fn partition_count(&self) -> i32 {
        i32::try_from(self.partitions.read().len()).unwrap_or(i32::MAX)
    }

    pub(crate) fn settings(&self) -> Settings {
        *self.settings.read()
    }

    pub(crate) fn description(&self) -> Description {
        Description {
            id: self.id,
            partitions: self.partition_count(),
            settings: self.overrides.read().clone(),
        }
    }

    /// Refuses all further use: the topic is deleted or the broker stops.
    pub(crate) fn close(&self) {
        for partition in self.partitions.read().iter() {
            // Under the writer's lock: an append is either before or refused.
            let _writer = partition.writer.lock();
            partition.closed.store(true, Ordering::Release);
            partition.wake();
        }
    }
}

/// Kafka's rule: 1 to 249 of letters, digits, `.`, `_` and `-`, and neither `.` nor `..`.
pub(crate) fn legal_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=249).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(legal)
}

#[cfg(test)]
mod tests {
    use super::legal_name;

    #[test]
    fn a_name_can_not_leave_the_folder() {
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "../a",
            "a\\b",
            "a\0",
            "a b",
            "ä",
            &"x".repeat(250),
        ] {
            assert!(!legal_name(name), "{name:?}");
        }
        for name in ["weir.messages", "_", "...", "A-9", &"x".repeat(249)] {
            assert!(legal_name(name), "{name:?}");
        }
    }
}
