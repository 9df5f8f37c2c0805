//! A model's folder: what `model.json` says of it, and whether the files are those
//! it was written for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::Error;

/// The model's attribute columns, in this order.
pub const ATTRIBUTES: [&str; 6] = [
    "toxicity",
    "severe_toxicity",
    "insult",
    "threat",
    "identity_attack",
    "profanity",
];

/// The model's sentiment columns, in this order.
pub const SENTIMENTS: [&str; 3] = ["negative", "neutral", "positive"];

/// From which score on an attribute leads to an action; `None` never does.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Levels {
    /// Show it, and let a moderator see it.
    pub flag: Option<f32>,
    /// Keep it back until a moderator decides.
    pub hold: Option<f32>,
    /// Do not show it.
    pub block: Option<f32>,
}

/// What `model.json` says. Fields that this build does not know are passed over.
#[derive(Debug, Clone, Deserialize)]
pub struct Info {
    /// The name that verdicts carry.
    pub name: String,
    /// File name to SHA-256, in lower-case hexadecimal.
    pub sha256: BTreeMap<String, String>,
    /// Tokens of one forward pass and text at most, the two special ones included.
    pub max_tokens: usize,
    /// The attribute columns; this build takes [`ATTRIBUTES`] only.
    pub attributes: Vec<String>,
    /// The sentiment columns; this build takes [`SENTIMENTS`] only.
    pub sentiment: Vec<String>,
    /// The thresholds that the model was measured with, by attribute.
    pub thresholds: BTreeMap<String, Option<Levels>>,
    /// From which toxicity on a token is worth pointing at.
    pub span_threshold: f32,
    /// How far a golden score may be off.
    pub tolerance: f32,
}

/// A text whose scores are known.
#[derive(Debug, Deserialize)]
pub(crate) struct Golden {
    pub(crate) normalised: String,
    pub(crate) scores: BTreeMap<String, f32>,
    pub(crate) sentiment: BTreeMap<String, f32>,
}

/// A folder whose files have been checked.
pub(crate) struct Folder {
    pub(crate) info: Info,
    pub(crate) model: PathBuf,
    pub(crate) tokenizer: PathBuf,
    pub(crate) golden: Vec<Golden>,
}

impl Folder {
    /// Reads and checks everything but the graph itself.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let description = path.join("model.json");
        let info: Info = parse(&description, &text(&description)?)?;
        fits(&info).map_err(|reason| Error::Description {
            path: description.clone(),
            reason,
        })?;
        for name in ["model.onnx", "tokenizer.json"] {
            let expected = info.sha256.get(name).ok_or_else(|| Error::Description {
                path: description.clone(),
                reason: format!("`sha256` lacks {name}"),
            })?;
            verify(&path.join(name), expected)?;
        }
        let list = path.join("golden.jsonl");
        let golden = text(&list)?
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| parse(&list, line))
            .collect::<Result<Vec<Golden>, _>>()?;
        if golden.is_empty() {
            return Err(Error::Description {
                path: list,
                reason: "it holds no text".to_owned(),
            });
        }
        Ok(Self {
            info,
            model: path.join("model.onnx"),
            tokenizer: path.join("tokenizer.json"),
            golden,
        })
    }
}

fn fits(info: &Info) -> Result<(), String> {
    if info.attributes != ATTRIBUTES {
        return Err(format!("its attributes are not {}", ATTRIBUTES.join(", ")));
    }
    if info.sentiment != SENTIMENTS {
        return Err(format!("its sentiments are not {}", SENTIMENTS.join(", ")));
    }
    if let Some(unknown) = info
        .thresholds
        .keys()
        .find(|name| !ATTRIBUTES.contains(&name.as_str()))
    {
        return Err(format!("it has thresholds for `{unknown}`"));
    }
    if info.max_tokens < 16 {
        return Err("`max_tokens` is below 16".to_owned());
    }
    Ok(())
}

fn text(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}

fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|fault| Error::Description {
        path: path.to_owned(),
        reason: fault.to_string(),
    })
}

fn verify(path: &Path, expected: &str) -> Result<(), Error> {
    let bytes = fs::read(path).map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })?;
    let found: String = Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if found == expected {
        return Ok(());
    }
    Err(Error::Checksum {
        path: path.to_owned(),
        expected: expected.to_owned(),
        found,
    })
}
