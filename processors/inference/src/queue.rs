//! The bounded queue between those who ask and the session threads. Texts wait in
//! it first as they came, then as tokenised rows; a thread takes whichever is next.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex};
use tokio::sync::mpsc::UnboundedSender;

use crate::batch::Ready;
use crate::error::ScoreError;
use crate::metrics::Metrics;
use crate::model::Raw;
use crate::worker::Row;

/// Texts that one thread tokenises at a time.
const CHUNK: usize = 32;

/// Rows that a batch should have before the next idle thread is worth waking for it.
const WORTH: usize = 4;

/// Where the answer for text number `.0` of a request goes.
pub(crate) type Reply = UnboundedSender<(usize, Result<Raw, ScoreError>)>;

/// A text as it came.
pub(crate) struct Text {
    pub(crate) text: String,
    pub(crate) index: usize,
    pub(crate) reply: Reply,
    pub(crate) place: Place,
}

impl Text {
    /// Answers and gives the place in the queue back.
    pub(crate) fn fail(self, error: ScoreError) {
        // Nobody listening is fine: the caller left.
        let _ = self.reply.send((self.index, Err(error)));
    }
}

/// One of the queue's places; given back when dropped.
pub(crate) struct Place {
    taken: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
        self.metrics.depth.dec();
    }
}

/// What a session thread does next.
pub(crate) enum Work {
    /// Turn these into rows.
    Tokenise(Vec<Text>),
    /// One forward pass.
    Run(Vec<Row>),
}

struct State {
    texts: std::collections::VecDeque<Text>,
    rows: Ready<Row>,
    idle: usize,
    closed: bool,
}

/// The queue.
pub(crate) struct Queue {
    state: Mutex<State>,
    work: Condvar,
    taken: Arc<AtomicUsize>,
    places: usize,
    tokens: usize,
    metrics: Arc<Metrics>,
}

impl Queue {
    /// A queue of so many texts, whose batches hold so many tokens.
    pub(crate) fn new(places: usize, tokens: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            state: Mutex::new(State {
                texts: std::collections::VecDeque::new(),
                rows: Ready::new(),
                idle: 0,
                closed: false,
            }),
            work: Condvar::new(),
            taken: Arc::new(AtomicUsize::new(0)),
            places,
            tokens,
            metrics,
        }
    }

    /// Puts all texts of a request in, or none.
    pub(crate) fn admit(&self, texts: Vec<String>, reply: &Reply) -> Result<(), ScoreError> {
        let count = texts.len();
        let mut state = self.state.lock();
        if state.closed {
            return Err(ScoreError::Stopped);
        }
        let before = self.taken.load(Ordering::Relaxed);
        if before > 0 && before + count > self.places {
            return Err(ScoreError::Overloaded);
        }
        self.taken.fetch_add(count, Ordering::Relaxed);
        self.metrics
            .depth
            .add(i64::try_from(count).unwrap_or(i64::MAX));
        for (index, text) in texts.into_iter().enumerate() {
            state.texts.push_back(Text {
                text,
                index,
                reply: reply.clone(),
                place: Place {
                    taken: Arc::clone(&self.taken),
                    metrics: Arc::clone(&self.metrics),
                },
            });
        }
        drop(state);
        if count == 1 {
            self.work.notify_one();
        } else {
            self.work.notify_all();
        }
        Ok(())
    }

    /// Adds tokenised rows.
    pub(crate) fn ready(&self, rows: Vec<Row>) {
        let mut state = self.state.lock();
        let many = rows.len() > WORTH;
        if state.closed {
            return;
        }
        for row in rows {
            state.rows.push(row.ids.len(), row);
        }
        drop(state);
        if many {
            self.work.notify_all();
        }
    }

    /// Waits for work; `None` once the queue is closed.
    pub(crate) fn next(&self) -> Option<Work> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            // All that wait are tokenised before a batch is formed: the more rows there are to choose
            // from, the less padding.
            if !state.texts.is_empty() {
                let share = state.texts.len().div_ceil(state.idle + 1).min(CHUNK);
                return Some(Work::Tokenise(state.texts.drain(..share).collect()));
            }
            if !state.rows.is_empty() {
                // Idle threads get their share of what is there.
                let share = state.rows.len().div_ceil(state.idle + 1).max(WORTH);
                let rows = state.rows.take(self.tokens, share);
                let left = !state.rows.is_empty();
                drop(state);
                if left {
                    self.work.notify_one();
                }
                return Some(Work::Run(rows));
            }
            state.idle += 1;
            self.work.wait(&mut state);
            state.idle -= 1;
        }
    }

    /// Ends the threads and drops what waits: whoever asked is told.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let texts = std::mem::take(&mut state.texts);
        state.rows.clear();
        drop(state);
        for text in texts {
            text.fail(ScoreError::Stopped);
        }
        self.work.notify_all();
    }
}
