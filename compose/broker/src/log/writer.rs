//! The threads that append and sync: group commit without a fixed delay.
//!
//! Each partition belongs to one thread. A thread takes all that waits, writes it, syncs the files it
//! touched and answers; what arrives meanwhile is the next round. So a lone batch is synced at once,
//! and under load one fdatasync serves many.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use super::partition::{Job, Partition};

#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    stop: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
}

/// All writer threads.
pub(crate) struct Writers {
    shards: Vec<Arc<Shared>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Writers {
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        let shards: Vec<Arc<Shared>> = (0..count.max(1)).map(|_| Arc::default()).collect();
        let writers = Self {
            shards,
            threads: Mutex::default(),
        };
        for (at, shared) in writers.shards.iter().enumerate() {
            let shared = Arc::clone(shared);
            let thread = std::thread::Builder::new()
                .name(format!("broker-log-{at}"))
                .spawn(move || run(&shared))?;
            writers.threads.lock().push(thread);
        }
        Ok(writers)
    }

    pub(crate) fn count(&self) -> usize {
        self.shards.len()
    }

    /// Hands a batch to its partition's thread. The caller bounds how many bytes are under way.
    pub(crate) fn submit(&self, job: Job) {
        if let Some(shared) = self.shards.get(job.partition.shard) {
            shared.queue.lock().jobs.push(job);
            shared.ready.notify_one();
        }
    }

    /// Lets the threads finish what they have, and end.
    pub(crate) fn stop(&self) {
        for shared in &self.shards {
            shared.queue.lock().stop = true;
            shared.ready.notify_one();
        }
    }

    /// Waits for the threads after [`Self::stop`].
    pub(crate) fn join(&self) {
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a log writer panicked");
            }
        }
    }
}

fn run(shared: &Shared) {
    let mut touched: Vec<Arc<Partition>> = Vec::new();
    let mut jobs = Vec::new();
    loop {
        {
            let mut queue = shared.queue.lock();
            while queue.jobs.is_empty() {
                if queue.stop {
                    return;
                }
                shared.ready.wait(&mut queue);
            }
            std::mem::swap(&mut jobs, &mut queue.jobs);
        }
        for job in jobs.drain(..) {
            let partition = Arc::clone(&job.partition);
            if !touched.iter().any(|one| Arc::ptr_eq(one, &partition)) {
                touched.push(Arc::clone(&partition));
            }
            partition.stage(job);
        }
        for partition in touched.drain(..) {
            partition.commit();
        }
    }
}
