//! What the user sees at the end of a replay.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal as _, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use weir_records::{Action, Judged};

use super::send::Sent;
use super::verify::Stored;
use crate::out;

/// Code points of a text that an example shows.
const EXAMPLE_LENGTH: usize = 60;

/// Everything there is to tell.
pub(super) struct Outcome {
    pub(super) total: usize,
    pub(super) sent: Arc<Sent>,
    pub(super) judged: Vec<Judged>,
    pub(super) latencies: Result<Histogram<u64>>,
    pub(super) sending: Duration,
    pub(super) until_judged: Duration,
    pub(super) stored: Option<Stored>,
}

impl Outcome {
    /// Accepted, judged and stored are the same number.
    pub(super) fn complete(&self) -> bool {
        let accepted: BTreeSet<_> = self.sent.accepted.iter().collect();
        let rows_match = self
            .stored
            .is_none_or(|stored| stored.rows == accepted.len() && stored.ids == accepted.len());
        self.judged.len() == self.sent.accepted.len() && rows_match
    }
}

pub(super) fn print(outcome: &Outcome) -> Result<()> {
    let mut out = out::stdout();
    counts(&mut out, outcome)?;
    actions(&mut out, &outcome.judged)?;
    if std::io::stdout().is_terminal() || outcome.stored.is_some() {
        examples(&mut out, &outcome.judged)?;
    }
    Ok(())
}

fn counts(out: &mut impl Write, outcome: &Outcome) -> Result<()> {
    let sent = &outcome.sent;
    let accepted = sent.accepted.len();
    let rate = |n: usize, over: Duration| n as f64 / over.as_secs_f64().max(1e-9);
    writeln!(out, "sent      {:>8}", outcome.total)?;
    writeln!(
        out,
        "accepted  {accepted:>8}   {:.0}/s",
        rate(accepted, outcome.sending)
    )?;
    writeln!(
        out,
        "judged    {:>8}   {:.0}/s",
        outcome.judged.len(),
        rate(outcome.judged.len(), outcome.until_judged)
    )?;
    if let Some(stored) = outcome.stored {
        writeln!(
            out,
            "stored    {:>8}   rows in `messages`, of {} ids",
            stored.rows, stored.ids
        )?;
    }
    for (code, number) in &sent.refused {
        writeln!(out, "refused   {number:>8}   {code}")?;
    }
    if sent.retries > 0 {
        writeln!(out, "retries   {:>8}   requests sent again", sent.retries)?;
    }
    match &outcome.latencies {
        Ok(latencies) if !latencies.is_empty() => {
            let ms = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
            writeln!(
                out,
                "to the verdict   p50 {:.1} ms   p99 {:.1} ms   (from sending to the verdict in hand, {} followed)",
                ms(0.5),
                ms(0.99),
                latencies.len()
            )?;
        }
        Ok(_) => {}
        Err(error) => writeln!(out, "to the verdict   not measured: {error:#}")?,
    }
    match (outcome.complete(), outcome.stored.is_some()) {
        (true, true) => writeln!(
            out,
            "verified  every accepted message has one verdict and one row"
        )?,
        (true, false) => {}
        (false, _) => writeln!(out, "NOT COMPLETE: accepted, judged and stored differ")?,
    }
    Ok(())
}

fn actions(out: &mut impl Write, judged: &[Judged]) -> Result<()> {
    let mut actions: BTreeMap<Action, usize> = BTreeMap::new();
    for row in judged {
        *actions.entry(row.verdict.action).or_default() += 1;
    }
    writeln!(out, "\nactions")?;
    for (action, number) in actions {
        let share = 100.0 * number as f64 / judged.len().max(1) as f64;
        writeln!(out, "  {action:<6} {number:>8}   {share:.1}%")?;
    }
    Ok(())
}

/// The clearest case of each action. The user's own messages, on the user's own terminal.
fn examples(out: &mut impl Write, judged: &[Judged]) -> Result<()> {
    writeln!(out, "\nexamples")?;
    for action in Action::ALL {
        let score = |row: &&Judged| row.verdict.scores.0.into_iter().fold(0.0, f32::max);
        let of_action = judged.iter().filter(|row| row.verdict.action == action);
        let Some(row) = (match action {
            Action::Allow => of_action.min_by(|a, b| score(a).total_cmp(&score(b))),
            _ => of_action.max_by(|a, b| score(a).total_cmp(&score(b))),
        }) else {
            continue;
        };
        let mut text: String = row
            .message
            .text
            .chars()
            .take(EXAMPLE_LENGTH)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        if row.message.text.chars().count() > EXAMPLE_LENGTH {
            text.push('…');
        }
        let reasons: Vec<String> = row
            .verdict
            .reasons
            .iter()
            .map(ToString::to_string)
            .collect();
        writeln!(
            out,
            "  {action:<6} \"{text}\"  {} {}",
            row.verdict.sentiment.label.name(),
            reasons.join(", ")
        )?;
    }
    Ok(())
}
