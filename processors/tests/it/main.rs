//! The processors on the real parts: the published model, the embedded broker, the
//! embedded store, and the doors' own checks.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used
)]

mod bench;
mod dead;
mod desk;
mod door;
mod judge;
mod once;
mod stage;

use std::path::PathBuf;
use std::sync::OnceLock;

use prometheus::Registry;
use weir_inference::{Config, Model};
use weir_processors::{Judge, Thresholds};

/// The crate's folder, in which its tests run: one that is built in stays that of a checkout
/// that is gone where several share their builds.
fn here() -> PathBuf {
    std::env::current_dir().unwrap()
}

/// The repository's model, or the one that `WEIR_TEST_MODEL` names.
fn folder() -> PathBuf {
    let folder = std::env::var_os("WEIR_TEST_MODEL")
        .map_or_else(|| here().join("../models/weir-small-1"), PathBuf::from);
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

fn load(folder: PathBuf) -> Model {
    let config = Config {
        model: folder,
        runtime: runtime(),
        sessions: 1,
        ..Config::default()
    };
    Model::load(config, &Registry::new()).unwrap()
}

/// One model for all tests.
fn model() -> Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| load(folder())).clone()
}

/// Everything from half a probability on is flagged, the worst of insults blocked.
fn judge() -> Judge {
    judge_on(model())
}

fn judge_on(model: Model) -> Judge {
    let thresholds: Thresholds = serde_json::from_str(
        r#"{"toxicity": {"flag": 0.5}, "insult": {"flag": 0.5, "block": 0.9}, "threat": {"flag": 0.5},
            "severe_toxicity": {}, "identity_attack": {}, "profanity": {}}"#,
    )
    .unwrap();
    Judge::new(model, &thresholds, &Registry::new()).unwrap()
}
