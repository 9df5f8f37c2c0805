//! The handle: loads and proves a model, then passes texts to its threads.

use std::sync::Arc;
use std::thread::JoinHandle;

use ort::session::builder::PrepackedWeights;
use prometheus::Registry;
use tokio::sync::mpsc;

use crate::config::Config;
use crate::error::{Error, ScoreError};
use crate::folder::{ATTRIBUTES, Folder, Golden, Info, SENTIMENTS};
use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::session::{Session, environment};
use crate::tokens::Tokens;
use crate::worker::{Sum, Worker};

/// Rows and tokens of the passes that warm a session up.
const WARM_UP: [(usize, usize); 4] = [(1, 8), (1, 32), (16, 24), (4, 128)];

/// What the model says of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Raw {
    /// Probabilities in the order of [`ATTRIBUTES`].
    pub scores: [f32; 6],
    /// Probabilities of negative, neutral, positive.
    pub sentiment: [f32; 3],
    /// The tokens that the toxicity points at: those of at least
    /// [`Info::span_threshold`], in order.
    pub tokens: Vec<TokenScore>,
}

/// One token's share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenScore {
    /// First byte in the text that was scored.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
    /// Probability that the token is part of what is toxic.
    pub toxicity: f32,
}

/// A loaded model; clones share it. The last one dropped stops the threads.
#[derive(Clone)]
pub struct Model {
    inner: Arc<Inner>,
}

struct Inner {
    info: Info,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
    threads: Vec<JoinHandle<()>>,
}

impl Model {
    /// Checks the files, loads every session, warms it up and compares the golden
    /// scores. Takes a second or so and blocks: call it before anything listens, or
    /// on a blocking thread.
    ///
    /// # Errors
    /// [`Error`] says which file, setting or score is at fault and what to do.
    pub fn load(config: Config, registry: &Registry) -> Result<Self, Error> {
        let Config {
            model,
            runtime,
            sessions,
            batch_tokens,
            queue,
        } = config;
        for (name, value) in [
            ("sessions", sessions),
            ("batch_tokens", batch_tokens),
            ("queue", queue),
        ] {
            if value == 0 {
                return Err(Error::Setting(name));
            }
        }
        let folder = Folder::open(&model)?;
        let environment = environment(&runtime)?;
        let tokens = Arc::new(Tokens::open(&folder.tokenizer, folder.info.max_tokens)?);
        let weights = PrepackedWeights::new();
        let mut sessions = (0..sessions)
            .map(|_| Session::open(&environment, &folder.model, &weights))
            .collect::<Result<Vec<_>, _>>()?;
        for session in &mut sessions {
            warm_up(session, folder.info.max_tokens)?;
        }
        if let Some(session) = sessions.first_mut() {
            prove(session, &tokens, &folder.golden, folder.info.tolerance)?;
        }

        let metrics = Arc::new(Metrics::new(registry).map_err(|e| Error::Setup(e.to_string()))?);
        let queue = Arc::new(Queue::new(queue, batch_tokens, Arc::clone(&metrics)));
        let mut inner = Inner {
            info: folder.info,
            queue: Arc::clone(&queue),
            metrics: Arc::clone(&metrics),
            threads: Vec::new(),
        };
        for (number, session) in sessions.into_iter().enumerate() {
            let worker = Worker {
                session,
                tokens: Arc::clone(&tokens),
                queue: Arc::clone(&queue),
                metrics: Arc::clone(&metrics),
                span_threshold: inner.info.span_threshold,
            };
            let thread = std::thread::Builder::new()
                .name(format!("weir-model-{number}"))
                .spawn(move || worker.run())
                .map_err(|e| Error::Setup(e.to_string()))?;
            inner.threads.push(thread);
        }
        tracing::info!(
            model = inner.info.name,
            sessions = inner.threads.len(),
            "model loaded"
        );
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Scores normalised texts; one answer for each, in their order. Dropping the
    /// future abandons those that have not been started.
    ///
    /// All or none are admitted: with a full queue every answer is
    /// [`ScoreError::Overloaded`], at once.
    pub async fn score(&self, texts: Vec<String>) -> Vec<Result<Raw, ScoreError>> {
        let count = texts.len();
        // Bounded by the number of texts.
        let (reply, mut answers) = mpsc::unbounded_channel();
        if let Err(error) = self.inner.queue.admit(texts, &reply) {
            self.inner.metrics.failed(error, count);
            return vec![Err(error); count];
        }
        drop(reply);
        // What a thread drops without an answer has been stopped.
        let mut results = vec![Err(ScoreError::Stopped); count];
        while let Some((index, result)) = answers.recv().await {
            results[index] = result;
        }
        results
    }

    /// What `model.json` says.
    #[must_use]
    pub fn info(&self) -> &Info {
        &self.inner.info
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("name", &self.inner.info.name)
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.close();
        // At most one forward pass each. The sessions must be gone before the library is.
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn warm_up(session: &mut Session, width: usize) -> Result<(), Error> {
    for (rows, tokens) in WARM_UP {
        let row: Vec<u32> = vec![1; tokens.min(width)];
        let batch: Vec<&[u32]> = vec![&row; rows];
        session.run(&batch).map_err(|e| Error::Model {
            reason: e.to_string(),
        })?;
    }
    Ok(())
}

/// Compares the golden scores: each text alone, and all of them in batches, so that
/// a fault of either way of computing shows.
fn prove(
    session: &mut Session,
    tokens: &Tokens,
    golden: &[Golden],
    tolerance: f32,
) -> Result<(), Error> {
    let mut worst: Option<Difference> = None;
    for batch in [1, 16] {
        let mut known = Vec::new();
        for (number, text) in golden.iter().enumerate() {
            let windows = tokens.windows(&text.normalised).unwrap_or_default();
            // The published scores are those of one pass.
            if let [window] = windows.as_slice() {
                known.push((number + 1, text, window.ids.clone()));
            }
        }
        for part in known.chunks(batch) {
            let rows: Vec<&[u32]> = part.iter().map(|(_, _, ids)| ids.as_slice()).collect();
            let outputs = session.run(&rows).map_err(|e| Error::Model {
                reason: e.to_string(),
            })?;
            for ((line, text, _), output) in part.iter().zip(outputs) {
                let mut sum = Sum::new(1);
                sum.add(0, &output);
                let found = sum.finish(f32::INFINITY, || None);
                let difference = found.as_ref().and_then(|raw| difference(*line, text, raw));
                worst = [worst, difference]
                    .into_iter()
                    .flatten()
                    .max_by(|a, b| a.off.total_cmp(&b.off));
            }
        }
    }
    let Some(worst) = worst else {
        return Err(Error::Model {
            reason: "no golden text fits into one pass".to_owned(),
        });
    };
    tracing::info!(
        largest_difference = worst.off,
        tolerance,
        "golden scores compared"
    );
    // Written so that NaN is refused too.
    if worst.off <= tolerance {
        return Ok(());
    }
    Err(Error::Golden {
        line: worst.line,
        score: worst.score,
        found: worst.found,
        expected: worst.expected,
        tolerance,
    })
}

/// One score and what it should be.
struct Difference {
    line: usize,
    score: &'static str,
    found: f32,
    expected: f32,
    off: f32,
}

/// The score that is furthest off.
fn difference(line: usize, golden: &Golden, raw: &Raw) -> Option<Difference> {
    let scores = ATTRIBUTES
        .iter()
        .zip(raw.scores)
        .map(|(name, found)| (*name, found, &golden.scores));
    let sentiment = SENTIMENTS
        .iter()
        .zip(raw.sentiment)
        .map(|(name, found)| (*name, found, &golden.sentiment));
    scores
        .chain(sentiment)
        .map(|(score, found, list)| {
            // A score that the list lacks counts as wrong.
            let expected = list.get(score).copied().unwrap_or(f32::NAN);
            Difference {
                line,
                score,
                found,
                expected,
                off: (found - expected).abs(),
            }
        })
        .max_by(|a, b| a.off.total_cmp(&b.off))
}
