//! The model: texts in, probabilities out. The only user of `ort` and `tokenizers`.
//!
//! ```text
//! score(texts) ─ admit ─▶ queue ─▶ session threads: tokenise → batch → run → reply
//! ```
//!
//! What holds:
//! - One operating system thread owns each session; no forward pass runs on the
//!   async runtime.
//! - The queue is bounded; full means [`ScoreError::Overloaded`] at once.
//! - A batch is made of what waits, never by waiting: a lone text costs one pass.
//! - Every token of a text is scored: longer ones in overlapping windows.
//! - A text that the model fails on, alone, is [`ScoreError::Refused`]; its batch
//!   mates are not touched. Callers that left are skipped.
//! - A model whose files are not the published ones, or that computes other scores
//!   on this processor than it should, does not start.

mod batch;
mod config;
mod error;
mod folder;
mod metrics;
mod model;
mod queue;
mod session;
mod tokens;
mod worker;

pub use config::Config;
pub use error::{Error, ScoreError};
pub use folder::{ATTRIBUTES, Info, Levels, SENTIMENTS};
pub use model::{Model, Raw, TokenScore};
