//! Ids for idempotent producers that never repeat.
//!
//! Ids are handed out from blocks; the end of a block is on disk before its first id is used. A restart
//! begins a new block.

use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::state_file;

const BLOCK: i64 = 1_000;

struct Block {
    next: i64,
    end: i64,
}

/// Hands out producer ids.
pub(crate) struct ProducerIds {
    path: PathBuf,
    block: Mutex<Block>,
}

impl ProducerIds {
    /// Goes on after the last block. A damaged file is an error: ids might repeat.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join("producer-ids");
        let next = state_file::read::<i64>(&path)?.unwrap_or(0);
        Ok(Self {
            path,
            block: Mutex::new(Block { next, end: next }),
        })
    }

    /// A new id. Blocks on the disk once in a block.
    pub(crate) fn next(&self) -> io::Result<i64> {
        let mut block = self.block.lock();
        if block.next == block.end {
            let end = block.end + BLOCK;
            state_file::write(&self.path, &end)?;
            block.end = end;
        }
        block.next += 1;
        Ok(block.next - 1)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ids_never_repeat_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..3 {
            let ids = ProducerIds::open(folder.path()).unwrap();
            for _ in 0..BLOCK + 5 {
                assert!(seen.insert(ids.next().unwrap()));
            }
        }
    }
}
