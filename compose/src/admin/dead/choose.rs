//! Which letters are meant: by their ids, or by filters, page by page.

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use jiff::{Span, SpanRelativeTo, Timestamp};
use reqwest::Method;
use serde_json::Value;

use super::{PATH, note};
use crate::admin::agree;
use crate::client::Client;

/// Letters asked for at a time.
const PAGE: usize = 1_000;

/// Which letters to settle.
#[derive(Debug, Args)]
pub(super) struct Chosen {
    /// Ids of letters, such as 0-42
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<String>,
    /// Every open letter that the filters leave
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filters: Filters,
    /// With --all, letters at most, the newest
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub(super) struct Filters {
    /// Only of this stage: process, history, lake
    #[arg(long)]
    stage: Option<String>,
    /// Only with this reason, such as model_refused
    #[arg(long)]
    reason: Option<String>,
    /// Only messages of this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Only messages of this channel
    #[arg(long)]
    channel: Option<String>,
    /// Only what failed since then: a time such as 2026-11-23T00:00:00Z, or for how long, such as 2h
    #[arg(long, value_parser = since)]
    since: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum State {
    Open,
    Replayed,
    Discarded,
    All,
}

impl Chosen {
    pub(super) async fn ids(&self, client: &Client) -> Result<Vec<String>> {
        if !self.all {
            ensure!(
                self.filters.pairs().is_empty(),
                "filters go with --all; without it, the ids say which letters are meant"
            );
            let mut ids = Vec::new();
            for id in &self.ids {
                if !ids.contains(id) {
                    ids.push(id.clone());
                }
            }
            return Ok(ids);
        }
        let (letters, more) = letters(client, &self.filters, State::Open, self.limit).await?;
        if more {
            note(&format!(
                "these are the newest {}; there are more",
                letters.len()
            ))?;
        }
        // Oldest first, so that a channel's messages keep their order.
        letters
            .iter()
            .rev()
            .map(|letter| {
                let id = letter["id"].as_str();
                id.map(str::to_owned).context("the answer has no ids")
            })
            .collect()
    }

    /// Asks, unless it was said before.
    pub(super) fn agree(&self, what: &str) -> Result<()> {
        agree(self.yes, what)
    }
}

impl Filters {
    fn pairs(&self) -> Vec<(&'static str, String)> {
        [
            ("stage", self.stage.clone()),
            ("reason", self.reason.clone()),
            ("tenant", self.tenant.clone()),
            ("channel", self.channel.clone()),
            ("since", self.since.map(|since| since.to_string())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }
}

/// The newest letters that the filters leave, up to `limit`, and whether there are more.
pub(super) async fn letters(
    client: &Client,
    filters: &Filters,
    state: State,
    limit: usize,
) -> Result<(Vec<Value>, bool)> {
    let mut letters = Vec::new();
    let mut query = filters.pairs();
    let state = state.to_possible_value();
    let state = state.as_ref().map_or("open", |state| state.get_name());
    query.push(("state", state.to_owned()));
    let mut cursor: Option<String> = None;
    loop {
        let left = limit.saturating_sub(letters.len());
        if left == 0 {
            return Ok((letters, cursor.is_some() || limit == 0));
        }
        let mut request = client
            .request(Method::GET, PATH)
            .query(&query)
            .query(&[("limit", left.min(PAGE))]);
        if let Some(cursor) = &cursor {
            request = request.query(&[("cursor", cursor)]);
        }
        let page: Value = client
            .send(request)
            .await?
            .json()
            .await
            .context("the answer is not JSON")?;
        let rows = page["letters"]
            .as_array()
            .context("the answer has no letters")?;
        letters.extend(rows.iter().cloned());
        cursor = page["next"].as_str().map(str::to_owned);
        if cursor.is_none() {
            return Ok((letters, false));
        }
    }
}

fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago = || {
        let span: Span = text.parse().ok()?;
        let ago = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
        Timestamp::now().checked_sub(ago.abs()).ok()
    };
    ago()
        .ok_or_else(|| "a time such as 2026-11-23T00:00:00Z, or a span such as 2h or 3d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_takes_a_time_or_how_long_ago() {
        let time = since("2026-11-23T00:00:00Z").unwrap();
        assert_eq!(time.to_string(), "2026-11-23T00:00:00Z");
        for (text, seconds) in [("2h", 7_200), ("90m", 5_400), ("3d", 259_200)] {
            let then = since(text).unwrap();
            let ago = Timestamp::now().duration_since(then);
            assert!((0..60).contains(&(ago.as_secs() - seconds)), "{text}");
        }
        for bad in ["", "yesterday", "2", "2y"] {
            assert!(since(bad).is_err(), "{bad}");
        }
    }
}
