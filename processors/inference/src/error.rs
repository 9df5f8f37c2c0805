//! Why a model does not start, and why a text has no scores. No text of a message
//! is ever part of either.

use std::path::PathBuf;

/// Why a model does not start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// ONNX Runtime's library is not where the configuration says.
    #[error("ONNX Runtime is missing: there is no {}; fetch it (see the README) or set the path of libonnxruntime.so", path.display())]
    RuntimeMissing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The library is there but does not load, or is too old.
    #[error("ONNX Runtime does not load: {reason}")]
    RuntimeUnusable {
        /// What the loader said.
        reason: String,
    },
    /// A file of the model's folder is not there or not readable.
    #[error("the model is incomplete: {} cannot be read ({source}); give the folder of a complete model", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// `model.json` or `golden.jsonl` can't be understood, or does not fit this build.
    #[error("{} does not fit this build: {reason}", path.display())]
    Description {
        /// Which file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// A file is not the one that `model.json` was written for.
    #[error("{} was changed or is damaged: its SHA-256 is {found}, model.json says {expected}; fetch the model again", path.display())]
    Checksum {
        /// Which file.
        path: PathBuf,
        /// What `model.json` says.
        expected: String,
        /// What it is.
        found: String,
    },
    /// `tokenizer.json` can't be used.
    #[error("{} is not a tokenizer that this build reads: {reason}", path.display())]
    Tokenizer {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// ONNX Runtime refuses the model, or the model has other inputs or outputs.
    #[error("the model does not run: {reason}")]
    Model {
        /// What the runtime said.
        reason: String,
    },
    /// The scores of known texts are not the published ones.
    #[error(
        "the model computes wrong scores on this processor: {score} of golden text {line} is {found:.4}, should be {expected:.4} (tolerance {tolerance}); use another model or machine"
    )]
    Golden {
        /// Line of `golden.jsonl`, from 1.
        line: usize,
        /// Which score is furthest off.
        score: &'static str,
        /// What it came out as.
        found: f32,
        /// What it should be.
        expected: f32,
        /// How far off it may be.
        tolerance: f32,
    },
    /// A setting that can't be.
    #[error("the setting `{0}` must be at least 1")]
    Setting(&'static str),
    /// The metrics are registered already, or a thread can't be started.
    #[error("the model cannot be set up: {0}")]
    Setup(String),
}

/// Why a text has no scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ScoreError {
    /// The queue is full; the same text may pass a little later.
    #[error("too many texts are waiting for the model")]
    Overloaded,
    /// The model fails on this text, alone and every time.
    #[error("the model fails on this text")]
    Refused,
    /// The model has been stopped.
    #[error("the model has stopped")]
    Stopped,
}

impl ScoreError {
    /// The name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Overloaded => "overloaded",
            Self::Refused => "refused",
            Self::Stopped => "stopped",
        }
    }
}
