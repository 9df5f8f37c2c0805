//! What the model needs to know before it starts.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Settings of the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder with `model.onnx`, `tokenizer.json`, `model.json` and `golden.jsonl`.
    pub model: PathBuf,
    /// ONNX Runtime's shared library, such as `libonnxruntime.so`. One per process:
    /// the first that is loaded serves every later model too.
    pub runtime: PathBuf,
    /// Sessions, each with a thread of its own; more than the cores gain nothing.
    pub sessions: usize,
    /// Tokens of one forward pass at most, padding included; a text that is longer
    /// goes alone.
    pub batch_tokens: usize,
    /// Texts waiting or in work at most; above that, new ones are refused. A request
    /// that finds nothing before it is taken whatever its size.
    pub queue: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            model: PathBuf::from("models/weir-small-1"),
            runtime: PathBuf::from("libonnxruntime.so"),
            sessions: std::thread::available_parallelism().map_or(1, usize::from),
            batch_tokens: 512,
            queue: 4_096,
        }
    }
}
