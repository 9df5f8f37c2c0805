//! Finds what is not in the binary: ONNX Runtime's library and the model.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use prometheus::Registry;
use weir_inference::Model;
use weir_processors::Judge;

use crate::config;

const LIBRARY: &str = "libonnxruntime.so";
const MODEL: &str = "models/weir-small-1";

/// Loads the model and checks it against its golden scores.
pub(crate) fn judge(config: &config::Model, registry: &Registry) -> Result<Judge> {
    let sessions = match config.sessions {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        n => n,
    };
    let model = Model::load(
        weir_inference::Config {
            model: model_folder(&config.path)?,
            runtime: library(&config.runtime)?,
            sessions,
            batch_tokens: config.batch_tokens,
            queue: config.queue,
        },
        registry,
    )
    .context("the model can't be used")?;
    Judge::new(model, &config.thresholds, registry).context("the thresholds can't be used")
}

fn model_folder(set: &Path) -> Result<PathBuf> {
    if !set.as_os_str().is_empty() {
        return Ok(set.to_owned());
    }
    let found = around()
        .into_iter()
        .map(|folder| folder.join(MODEL))
        .find(|path| path.is_dir());
    found.with_context(|| {
        format!("no model: there is no `{MODEL}` here or beside the program; name its folder with `model.path` or WEIR_MODEL__PATH")
    })
}

fn library(set: &Path) -> Result<PathBuf> {
    if !set.as_os_str().is_empty() {
        if !set.is_file() {
            bail!(
                "ONNX Runtime is not at {} (setting `model.runtime`)",
                set.display()
            );
        }
        return Ok(set.to_owned());
    }
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    let candidates = around()
        .into_iter()
        .map(|folder| folder.join(LIBRARY))
        .chain(cache.map(|cache| cache.join("weir/onnxruntime").join(LIBRARY)));
    let found = candidates.into_iter().find(|path| path.is_file());
    found.context("ONNX Runtime's library is missing: run `compose/setup`, or name it with `model.runtime` or WEIR_MODEL__RUNTIME")
}

/// The folders a user would expect: here, and around the program (also in a build tree).
fn around() -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::from(".")];
    if let Ok(program) = std::env::current_exe() {
        folders.extend(program.ancestors().skip(1).take(3).map(Path::to_owned));
    }
    folders
}
