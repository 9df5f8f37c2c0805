//! Reads the settings, and says what is wrong with them without showing a value: any of them
//! may be a secret in the wrong place.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use figment::Figment;
use figment::error::Kind;
use figment::providers::{Env, Format as _, Serialized, Toml};

use super::Config;

/// Where the settings come from.
#[derive(Debug, Clone, Args)]
pub(crate) struct Source {
    /// File with settings (TOML)
    #[arg(
        long = "config",
        global = true,
        env = "WEIR_CONFIG",
        value_name = "FILE"
    )]
    pub(super) file: Option<PathBuf>,
}

impl Source {
    /// Defaults, then the file, then `WEIR_…` of the environment (`WEIR_SQL__CONCURRENT_QUERIES=8`).
    pub(crate) fn load(&self) -> Result<Config> {
        let mut config: Config = self
            .sources()?
            .extract()
            .map_err(|error| told(&error))
            .context("a setting is wrong")?;
        config.read_secrets()?;
        config.cql.retention = config.retention.clone();
        config.check()?;
        Ok(config)
    }

    /// The data folder, for a tool: it may not be able to read the files that other settings
    /// name, nor need it.
    pub(crate) fn data(&self) -> Result<PathBuf> {
        let data = self.sources()?.extract_inner("data");
        data.map_err(|error| told(&error))
            .context("a setting is wrong")
    }

    fn sources(&self) -> Result<Figment> {
        let mut figment = Figment::from(Serialized::defaults(Config::default()));
        if let Some(file) = &self.file {
            if !file.is_file() {
                bail!("the settings file {} does not exist", file.display());
            }
            is_toml(file)?;
            figment = figment.merge(Toml::file_exact(file));
        }
        let own = [
            "WEIR_CONFIG",
            "WEIR_LOG",
            "WEIR_KEY",
            "WEIR_URL",
            "WEIR_SQL_URL",
            "WEIR_ONNXRUNTIME",
        ];
        let env = Env::prefixed("WEIR_").filter(move |name| {
            !own.iter().any(|known| {
                known
                    .trim_start_matches("WEIR_")
                    .eq_ignore_ascii_case(name.as_str())
            })
        });
        Ok(figment.merge(env.split("__")))
    }
}

/// Words in the names of settings that may hold a secret.
const SECRET: [&str; 5] = ["password", "secret", "key", "token", "jaas"];

pub(super) fn is_secret(name: &str) -> bool {
    SECRET.iter().any(|word| name.contains(word))
}

/// Refuses a file that can't be read, by the place alone: the parser's own words show the
/// line, and that may hold a secret that lacks its quotes.
fn is_toml(file: &Path) -> Result<()> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("the settings file {} can't be read", file.display()))?;
    let Err(error) = text.parse::<toml::Table>() else {
        return Ok(());
    };
    let before = error.span().and_then(|span| text.get(..span.start));
    let before = before.unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    bail!(
        "the settings file {} is not TOML at line {line}, column {column}; \
         a value that is text stands in quotes",
        file.display()
    )
}

/// What is wrong: the setting's name and what it must be, never its value.
fn told(error: &figment::Error) -> anyhow::Error {
    let name = |field: &str| {
        let mut path = error.path.clone();
        if !field.is_empty() && path.last().is_none_or(|last| last != field) {
            path.push(field.to_owned());
        }
        path.join(".")
    };
    let (name, wrong) = match &error.kind {
        Kind::UnknownField(field, known) => {
            let known = known.join("`, `");
            (name(field), format!("is not known; there are `{known}`"))
        }
        Kind::MissingField(field) => (name(field), "is missing".to_owned()),
        Kind::DuplicateField(field) => (name(field), "is there twice".to_owned()),
        Kind::UnknownVariant(_, known) => {
            let known = known.join("`, `");
            (name(""), format!("must be one of `{known}`"))
        }
        Kind::InvalidType(_, expected)
        | Kind::InvalidValue(_, expected)
        | Kind::InvalidLength(_, expected) => {
            let expected = match expected.as_str() {
                "a string" => "text: write it in quotes",
                expected if expected.starts_with("struct ") => "a table",
                expected => expected,
            };
            (name(""), format!("must be {expected}"))
        }
        // What a type says that is read from text, such as an address.
        Kind::Message(reason) if !error.path.is_empty() && !is_secret(&name("")) => {
            (name(""), format!("is wrong: {reason}"))
        }
        _ => (name(""), "has a value that it can't have".to_owned()),
    };
    let source = error.metadata.as_ref().map_or("settings", |m| &m.name);
    anyhow::anyhow!("the setting `{name}` {wrong} (in: {source})")
}
