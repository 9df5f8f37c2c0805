//! What does not start, and what it says.

use std::fs;
use std::path::Path;

use prometheus::Registry;
use weir_inference::{Config, Error, Model};

use crate::{config, copy, folder, load};

fn refused(model: &Path) -> Error {
    let config = Config {
        model: model.to_owned(),
        ..config()
    };
    Model::load(config, &Registry::new()).unwrap_err()
}

fn replace(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "nothing to replace");
    fs::write(file, text.replacen(from, to, 1)).unwrap();
}

#[tokio::test]
async fn the_published_model_loads_and_its_golden_scores_hold() {
    let loaded = load(config());
    assert_eq!(loaded.model.info().name, "weir-small-1");
    assert_eq!(loaded.model.info().attributes, weir_inference::ATTRIBUTES);
    assert!(loaded.score(&["hello"]).await[0].is_ok());
}

#[test]
fn other_scores_than_the_golden_ones_are_refused_and_named() {
    let copy = copy();
    let golden = fs::read_to_string(copy.path().join("golden.jsonl")).unwrap();
    let mut lines: Vec<serde_json::Value> = golden
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let threat = lines[2]["scores"]["threat"].as_f64().unwrap();
    lines[2]["scores"]["threat"] = (threat + 0.5).into();
    let spoilt: Vec<String> = lines.iter().map(ToString::to_string).collect();
    fs::write(copy.path().join("golden.jsonl"), spoilt.join("\n")).unwrap();
    let error = refused(copy.path());
    assert!(
        matches!(
            error,
            Error::Golden {
                line: 3,
                score: "threat",
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("threat of golden text 3"));
}

#[test]
fn a_changed_file_is_refused_by_its_checksum() {
    let copy = copy();
    replace(&copy.path().join("tokenizer.json"), "[UNK]", "[UNX]");
    let error = refused(copy.path());
    assert!(matches!(error, Error::Checksum { .. }), "{error}");
    assert!(error.to_string().contains("tokenizer.json"));
}

#[test]
fn a_missing_file_is_named_with_what_to_do() {
    for name in ["model.onnx", "tokenizer.json", "model.json", "golden.jsonl"] {
        let copy = copy();
        fs::remove_file(copy.path().join(name)).unwrap();
        let error = refused(copy.path()).to_string();
        assert!(
            error.contains(name) && error.contains("complete model"),
            "{error}"
        );
        assert!(!error.contains('\n'));
    }
}

#[test]
fn a_missing_runtime_is_named_with_what_to_do() {
    // The library is loaded once in a process, and other tests may have loaded it: ask in another one.
    if std::env::var_os("WEIR_TEST_ALONE").is_some() {
        let config = Config {
            runtime: "/nonexistent/libonnxruntime.so".into(),
            ..config()
        };
        let error = Model::load(config, &Registry::new()).unwrap_err();
        assert!(matches!(error, Error::RuntimeMissing { .. }), "{error}");
        let text = folder().join("model.json");
        let config = Config {
            runtime: text,
            ..super::config()
        };
        let error = Model::load(config, &Registry::new()).unwrap_err();
        assert!(matches!(error, Error::RuntimeUnusable { .. }), "{error}");
        return;
    }
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "load::a_missing_runtime_is_named_with_what_to_do",
        ])
        .env("WEIR_TEST_ALONE", "1")
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn a_description_of_another_kind_of_model_is_refused() {
    let copy = copy();
    replace(
        &copy.path().join("model.json"),
        "identity_attack",
        "identity_hate",
    );
    let error = refused(copy.path());
    assert!(matches!(error, Error::Description { .. }), "{error}");
}

#[test]
fn settings_of_zero_are_refused_by_name() {
    let config = Config {
        batch_tokens: 0,
        ..config()
    };
    let error = Model::load(config, &Registry::new()).unwrap_err();
    assert!(error.to_string().contains("batch_tokens"));
}
