//! The model as the other parts see it: the published one, on the real runtime.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used
)]

mod load;
mod score;

use std::path::PathBuf;
use std::sync::OnceLock;

use prometheus::Registry;
use tempfile::TempDir;
use weir_inference::{Config, Model, Raw, ScoreError};

/// The crate's folder, in which its tests run: one that is built in stays that of a checkout
/// that is gone where several share their builds.
fn here() -> PathBuf {
    std::env::current_dir().unwrap()
}

/// The repository's model, or the one that `WEIR_TEST_MODEL` names.
fn folder() -> PathBuf {
    let folder = std::env::var_os("WEIR_TEST_MODEL")
        .map_or_else(|| here().join("../../models/weir-small-1"), PathBuf::from);
    assert!(
        folder.join("model.onnx").is_file(),
        "these tests need the model: {} has no model.onnx",
        folder.display()
    );
    folder
}

/// ONNX Runtime's library: `WEIR_ONNXRUNTIME`, else where the set-up script puts it.
fn runtime() -> PathBuf {
    let path = std::env::var_os("WEIR_ONNXRUNTIME").map_or_else(
        || {
            PathBuf::from(std::env::var_os("HOME").unwrap_or_default())
                .join(".cache/weir/onnxruntime/libonnxruntime.so")
        },
        PathBuf::from,
    );
    assert!(
        path.is_file(),
        "these tests need ONNX Runtime: there is no {}; set WEIR_ONNXRUNTIME to the path of libonnxruntime.so",
        path.display()
    );
    path
}

fn config() -> Config {
    Config {
        model: folder(),
        runtime: runtime(),
        sessions: 1,
        ..Config::default()
    }
}

/// A copy of the model's folder that a test may spoil.
fn copy() -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["model.onnx", "tokenizer.json", "model.json", "golden.jsonl"] {
        std::fs::copy(folder().join(name), copy.path().join(name)).unwrap();
    }
    copy
}

/// A loaded model and its metrics.
struct Loaded {
    model: Model,
    registry: Registry,
}

fn load(config: Config) -> Loaded {
    let registry = Registry::new();
    let model = Model::load(config, &registry).unwrap();
    Loaded { model, registry }
}

/// One model for the tests that count nothing.
fn shared() -> &'static Loaded {
    static SHARED: OnceLock<Loaded> = OnceLock::new();
    SHARED.get_or_init(|| load(config()))
}

impl Loaded {
    async fn score(&self, texts: &[&str]) -> Vec<Result<Raw, ScoreError>> {
        self.model
            .score(texts.iter().map(|text| (*text).to_owned()).collect())
            .await
    }

    /// A counter's or gauge's value, or a histogram's count; summed over labels.
    fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families
            .iter()
            .find(|family| family.name() == name)
            .unwrap();
        let values = family.get_metric().iter().map(|metric| {
            metric.get_counter().get_value()
                + metric.get_gauge().get_value()
                + metric.get_histogram().get_sample_count() as f64
        });
        values.sum()
    }
}
