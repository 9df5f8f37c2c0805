//! The thread that owns a session: tokenises, runs batches, puts the windows of long
//! texts together again, answers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::ScoreError;
use crate::metrics::Metrics;
use crate::model::{Raw, TokenScore};
use crate::queue::{Queue, Text, Work};
use crate::session::{Output, Session};
use crate::tokens::Tokens;

/// A window of a text, ready to run.
pub(crate) struct Row {
    pub(crate) ids: Vec<u32>,
    first: usize,
    text: Arc<Pending>,
}

/// A text of which not all windows have been scored.
struct Pending {
    /// Taken out by whoever answers.
    text: Mutex<Option<Text>>,
    sum: Mutex<Sum>,
}

/// What the windows of a text say so far.
pub(crate) struct Sum {
    left: usize,
    windows: f32,
    scores: [f32; 6],
    sentiment: [f32; 3],
    /// By number of the inner token.
    tokens: Vec<f32>,
}

impl Sum {
    pub(crate) const fn new(windows: usize) -> Self {
        Self {
            left: windows,
            windows: 0.0,
            scores: [0.0; 6],
            sentiment: [0.0; 3],
            tokens: Vec::new(),
        }
    }

    /// Adds a window; true once it was the last. A text is as toxic as its worst
    /// window, and in the mood of all of them on average.
    pub(crate) fn add(&mut self, first: usize, output: &Output) -> bool {
        for (sum, score) in self.scores.iter_mut().zip(output.scores) {
            *sum = sum.max(score);
        }
        for (sum, probability) in self.sentiment.iter_mut().zip(output.sentiment) {
            *sum += probability;
        }
        self.windows += 1.0;
        // Without the opening and the closing token.
        let inner = output
            .tokens
            .get(1..output.tokens.len() - 1)
            .unwrap_or_default();
        if self.tokens.len() < first + inner.len() {
            self.tokens.resize(first + inner.len(), 0.0);
        }
        for (sum, score) in self.tokens[first..].iter_mut().zip(inner) {
            *sum = sum.max(*score);
        }
        self.left -= 1;
        self.left == 0
    }

    /// The scores of the whole text; `places` is asked only if a token stands out.
    pub(crate) fn finish(
        &self,
        threshold: f32,
        places: impl FnOnce() -> Option<Vec<(usize, usize)>>,
    ) -> Option<Raw> {
        let mut tokens = Vec::new();
        if self.tokens.iter().any(|score| *score >= threshold) {
            for ((start, end), toxicity) in places()?.into_iter().zip(&self.tokens) {
                if *toxicity >= threshold && start < end {
                    tokens.push(TokenScore {
                        start: u32::try_from(start).ok()?,
                        end: u32::try_from(end).ok()?,
                        toxicity: *toxicity,
                    });
                }
            }
        }
        Some(Raw {
            scores: self.scores,
            sentiment: self.sentiment.map(|sum| sum / self.windows),
            tokens,
        })
    }
}

/// One session's thread.
pub(crate) struct Worker {
    pub(crate) session: Session,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) span_threshold: f32,
}

impl Worker {
    /// Works until the queue is closed.
    pub(crate) fn run(mut self) {
        let _alarm = Alarm(Arc::clone(&self.queue));
        while let Some(work) = self.queue.next() {
            match work {
                Work::Tokenise(texts) => self.tokenise(texts),
                Work::Run(rows) => self.score(rows),
            }
        }
    }

    fn tokenise(&self, texts: Vec<Text>) {
        let mut rows = Vec::with_capacity(texts.len());
        for text in texts {
            if text.reply.is_closed() {
                self.metrics.abandoned.inc();
                continue;
            }
            let Some(windows) = self.tokens.windows(&text.text) else {
                self.metrics.failed(ScoreError::Refused, 1);
                text.fail(ScoreError::Refused);
                continue;
            };
            let pending = Arc::new(Pending {
                text: Mutex::new(Some(text)),
                sum: Mutex::new(Sum::new(windows.len())),
            });
            rows.extend(windows.into_iter().map(|window| Row {
                ids: window.ids,
                first: window.first,
                text: Arc::clone(&pending),
            }));
        }
        self.queue.ready(rows);
    }

    fn score(&mut self, mut rows: Vec<Row>) {
        rows.retain(|row| self.wanted(row));
        if rows.is_empty() {
            return;
        }
        if let Some(outputs) = self.pass(&rows) {
            self.answer(rows, outputs);
        } else if let [row] = rows.as_slice() {
            self.refuse(row);
        } else {
            // One of them may be what the model fails on: each for itself.
            for row in rows {
                match self.pass(std::slice::from_ref(&row)) {
                    Some(outputs) => self.answer(vec![row], outputs),
                    None => self.refuse(&row),
                }
            }
        }
    }

    /// Whether somebody still waits for the text.
    fn wanted(&self, row: &Row) -> bool {
        let mut text = row.text.text.lock();
        let Some(waiting) = text.as_ref() else {
            return false;
        };
        if waiting.reply.is_closed() {
            self.metrics.abandoned.inc();
            *text = None;
            return false;
        }
        true
    }

    /// One forward pass; `None` if it failed or gave something that is no probability.
    fn pass(&mut self, rows: &[Row]) -> Option<Vec<Output>> {
        let ids: Vec<&[u32]> = rows.iter().map(|row| row.ids.as_slice()).collect();
        let width = ids.iter().map(|row| row.len()).max().unwrap_or(0);
        let tokens: usize = ids.iter().map(|row| row.len()).sum();
        self.metrics.batch.observe(rows.len() as f64);
        self.metrics.tokens.inc_by(tokens as u64);
        self.metrics
            .padding
            .inc_by((width * ids.len() - tokens) as u64);
        let timer = self.metrics.seconds.start_timer();
        let session = &mut self.session;
        let outputs = catch_unwind(AssertUnwindSafe(|| session.run(&ids))).ok();
        timer.observe_duration();
        let outputs = match outputs? {
            Ok(outputs) => outputs,
            Err(fault) => {
                tracing::warn!(code = ?fault.code(), rows = rows.len(), width, "a forward pass failed");
                return None;
            }
        };
        outputs.iter().all(sound).then_some(outputs)
    }

    fn answer(&self, rows: Vec<Row>, outputs: Vec<Output>) {
        for (row, output) in rows.into_iter().zip(outputs) {
            let mut sum = row.text.sum.lock();
            if !sum.add(row.first, &output) {
                continue;
            }
            let Some(text) = row.text.text.lock().take() else {
                continue;
            };
            let raw = sum.finish(self.span_threshold, || self.tokens.places(&text.text));
            let Text {
                index,
                reply,
                place,
                ..
            } = text;
            match &raw {
                Some(_) => self.metrics.texts.inc(),
                None => self.metrics.failed(ScoreError::Refused, 1),
            }
            // Before the answer: whoever has it finds the place free.
            drop(place);
            let _ = reply.send((index, raw.ok_or(ScoreError::Refused)));
        }
    }

    fn refuse(&self, row: &Row) {
        if let Some(text) = row.text.text.lock().take() {
            self.metrics.failed(ScoreError::Refused, 1);
            text.fail(ScoreError::Refused);
        }
    }
}

/// A thread that ends by a fault of ours must not leave callers waiting for it.
struct Alarm(Arc<Queue>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a model thread has ended by a fault; no more texts are scored");
            self.0.close();
        }
    }
}

fn sound(output: &Output) -> bool {
    let good = |value: &f32| (0.0..=1.0).contains(value);
    output
        .scores
        .iter()
        .chain(&output.sentiment)
        .chain(&output.tokens)
        .all(good)
}
