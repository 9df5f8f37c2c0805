//! Shows the settings as a file that can be read again: each with what it means above it,
//! and without a secret.

use anyhow::{Context as _, Result, bail};
use secrecy::{ExposeSecret as _, SecretString};
use toml_edit::{DocumentMut, Item, Table};

use super::Config;
use super::load::is_secret;

/// Stands for a secret, and is none.
pub(super) const HIDDEN: &str = "(hidden)";
/// What the settings mean, table by table as they are themselves.
const MEANING: &str = include_str!("meaning.toml");
/// The key of what a table means.
const ITSELF: &str = "_";

/// As TOML. A secret that lies in a file is left to that file; any other is hidden.
pub(super) fn shown(config: &Config) -> Result<String> {
    let mut config = config.clone();
    for setting in config.secrets.keys() {
        match setting.strip_prefix("bus.properties.") {
            Some(name) => drop(config.bus.properties.remove(name)),
            None => config.cql.password = SecretString::default(),
        }
    }
    for (name, value) in &mut config.bus.properties {
        if is_secret(name) {
            HIDDEN.clone_into(value);
        }
    }
    let text = toml::to_string_pretty(&config).context("the settings can't be shown as TOML")?;
    let mut settings: DocumentMut = text.parse().context("the settings are not TOML")?;
    let meaning = meaning()?;
    explain(&mut settings, &meaning);
    Ok(settings.to_string())
}

fn meaning() -> Result<DocumentMut> {
    MEANING.parse().context("the meanings are not TOML")
}

/// Puts its meaning above each setting that has one.
fn explain(settings: &mut Table, meanings: &Table) {
    for (mut name, setting) in settings.iter_mut() {
        let meaning = meanings.get(name.get());
        let below = meaning.and_then(Item::as_table);
        let own = below.map_or(meaning, |below| below.get(ITSELF));
        let line = own.and_then(Item::as_str).map(|own| format!("# {own}\n"));
        match (setting.as_table_mut(), line) {
            (Some(table), line) => {
                let line = line.unwrap_or_default();
                table.decor_mut().set_prefix(format!("\n{line}"));
                explain(table, below.unwrap_or(&Table::new()));
            }
            (None, Some(line)) => name.leaf_decor_mut().set_prefix(line),
            (None, None) => {}
        }
    }
}

/// Refuses what [`shown`] put in the place of a secret.
pub(super) fn refuse_hidden(config: &Config) -> Result<()> {
    let password = config.cql.password.expose_secret();
    let password = (password == HIDDEN).then(|| "cql.password".to_owned());
    let mut properties = config.bus.properties.iter();
    let property = properties.find(|(_, value)| *value == HIDDEN);
    let property = property.map(|(name, _)| format!("bus.properties.{name}"));
    if let Some(name) = password.or(property) {
        bail!(
            "the setting `{name}` is `{HIDDEN}`, as `weir config --print` shows a secret: write the secret there, or \
             take the line out and name a file that holds it, `\"{name}\"` in `secrets`"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What has no meaning, and what has one and is no setting.
    fn differences(settings: &Table, meanings: &Table, found: &mut Vec<String>) {
        for (name, setting) in settings {
            match (setting.as_table(), meanings.get(name)) {
                (Some(table), Some(Item::Table(below))) if below.contains_key(ITSELF) => {
                    differences(table, below, found);
                }
                (_, Some(meaning)) if meaning.is_str() => {}
                _ => found.push(format!("{name} has no meaning")),
            }
        }
        for (name, _) in meanings {
            if name != ITSELF && !settings.contains_key(name) {
                found.push(format!("{name} is no setting"));
            }
        }
    }

    #[test]
    fn every_setting_has_a_meaning_and_no_meaning_is_left_over() {
        let text = toml::to_string_pretty(&Config::default()).unwrap();
        let settings: DocumentMut = text.parse().unwrap();
        let mut found = Vec::new();
        differences(&settings, &meaning().unwrap(), &mut found);
        assert_eq!(found, [""; 0]);
        let text = shown(&Config::default()).unwrap();
        assert!(text.starts_with("# Address of the HTTP door.\nlisten = "));
    }
}
