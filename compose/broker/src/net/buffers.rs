//! A few reusable buffers for answers, so that a megabyte of records isn't fresh memory every time.

use parking_lot::Mutex;

const KEPT: usize = 4;
const SMALL: usize = 4 << 10;

/// Buffers that come back.
#[derive(Debug)]
pub(crate) struct Buffers {
    free: Mutex<Vec<Vec<u8>>>,
    largest: usize,
}

impl Buffers {
    /// Keeps buffers up to `largest` bytes.
    pub(crate) fn new(largest: usize) -> Self {
        Self {
            free: Mutex::default(),
            largest,
        }
    }

    /// An empty buffer, the roomiest there is.
    pub(crate) fn take(&self) -> Vec<u8> {
        self.free.lock().pop().unwrap_or_default()
    }

    /// Gives a buffer back; small ones and giants are let go.
    pub(crate) fn put(&self, mut buffer: Vec<u8>) {
        if !(SMALL..=self.largest).contains(&buffer.capacity()) {
            return;
        }
        buffer.clear();
        let mut free = self.free.lock();
        if free.len() < KEPT {
            free.push(buffer);
        }
    }
}
