//! `weir dead`: what a running Weir could not process.
//!
//! A replay or a discard first shows what would happen, for every letter, and does
//! nothing until that is agreed to. Names out of a record never reach the terminal with
//! characters that could move its cursor: tables replace them, JSON escapes them.

mod choose;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand, ValueEnum};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use reqwest::Method;
use serde_json::{Value, json};

use self::choose::{Chosen, Filters, State, letters};
use super::commands::{ask, table};
use crate::client::{self, Client, Connection};
use crate::config::Source;
use crate::{logs, out};

const PATH: &str = "/v1/admin/dead-letters";
/// Questions at a time; the door takes a few more.
const AT_ONCE: usize = 4;

/// `weir dead`
#[derive(Debug, Subcommand)]
pub(crate) enum Dead {
    /// List dead letters, newest first
    List(List),
    /// Show one with its message, or its record in base64, as JSON
    Show(Show),
    /// Send what could not be processed on its way again; shows first what would happen
    #[command(after_help = "Examples:\n  weir dead replay 0-17 0-18\n  \
                      weir dead replay --all --reason model_refused --since 2h --yes\n\n\
                      Ends with 0 when all of the letters are settled, with 1 when some are not.")]
    Replay(Replay),
    /// Settle letters for good without doing anything
    Discard(Discard),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    filters: Filters,
    /// What has become of them
    #[arg(long, value_enum, default_value_t = State::Open)]
    state: State,
    /// Letters at most
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// How to print them; JSON has an object per line
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The letter's id, such as 0-42
    id: String,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Replay {
    #[command(flatten)]
    chosen: Chosen,
    /// Only show what would happen
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Discard {
    #[command(flatten)]
    chosen: Chosen,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

impl Dead {
    pub(crate) fn run(self, source: &Source) -> Result<ExitCode> {
        logs::start(true);
        match self {
            Self::List(list) => {
                let client = list.connection.client(source)?;
                client::block_on(list.run(&client))
            }
            Self::Show(show) => {
                let client = show.connection.client(source)?;
                client::block_on(async {
                    let letter = ask(&client, Method::GET, &path(&show.id, "")?, None).await?;
                    let json = escaped(&serde_json::to_string_pretty(&letter)?);
                    writeln!(out::stdout(), "{json}")?;
                    Ok(ExitCode::SUCCESS)
                })
            }
            Self::Replay(replay) => {
                let client = replay.connection.client(source)?;
                client::block_on(replay.run(&client))
            }
            Self::Discard(discard) => {
                let client = discard.connection.client(source)?;
                client::block_on(discard.run(&client))
            }
        }
    }
}

impl List {
    async fn run(&self, client: &Client) -> Result<ExitCode> {
        let (letters, more) = letters(client, &self.filters, self.state, self.limit).await?;
        match self.format {
            Format::Table => {
                let columns = [
                    "id",
                    "state",
                    "stage",
                    "reason",
                    "failed_at",
                    "tenant",
                    "channel",
                    "message_id",
                    "bytes",
                ];
                table(&Value::Array(letters), &columns)?;
            }
            Format::Json => {
                let mut out = out::stdout();
                for letter in letters {
                    writeln!(out, "{}", escaped(&letter.to_string()))?;
                }
            }
        }
        if more {
            note("there are more; see --limit")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Replay {
    async fn run(&self, client: &Client) -> Result<ExitCode> {
        let ids = self.chosen.ids(client).await?;
        let dry = json!({"dry_run": true});
        let plans = each(&ids, async |id| {
            ask(client, Method::POST, &path(id, "/replay")?, Some(&dry)).await
        });
        let plans = plans.await?;
        show_plans(&plans)?;
        let can = |plan: &Value| {
            let outcome = plan["outcome"].as_str().unwrap_or_default();
            matches!(outcome, "judged" | "stored" | "duplicate")
        };
        let mut open = 0;
        let mut todo = Vec::new();
        for (id, plan) in ids.iter().zip(&plans) {
            if can(plan) {
                todo.push(id);
            } else if plan["state"] == "open" {
                open += 1;
            }
        }
        if self.dry_run {
            return Ok(ExitCode::SUCCESS);
        }
        if todo.is_empty() {
            note("nothing can be replayed; nothing was done")?;
            return Ok(code(open));
        }
        self.chosen
            .agree(&format!("replay {}", count(todo.len())))?;
        let mut done = 0;
        for id in todo {
            let real = json!({"dry_run": false});
            let answer = ask(client, Method::POST, &path(id, "/replay")?, Some(&real))
                .await
                .with_context(|| format!("{done} were replayed, then {id} was not"))?;
            done += usize::from(answer["done"] == true);
            if answer["state"] == "open" {
                open += 1;
                let reason = answer["because"].as_str().unwrap_or("unknown");
                note(&format!("{id} stays open: {reason}"))?;
            }
        }
        writeln!(out::stdout(), "{} replayed", count(done))?;
        Ok(code(open))
    }
}

impl Discard {
    async fn run(&self, client: &Client) -> Result<ExitCode> {
        let ids = self.chosen.ids(client).await?;
        let letters = each(&ids, async |id| {
            ask(client, Method::GET, &path(id, "")?, None).await
        });
        let letters = letters.await?;
        let todo: Vec<&String> = ids
            .iter()
            .zip(&letters)
            .filter(|(_, letter)| letter["state"] == "open")
            .map(|(id, _)| id)
            .collect();
        let columns = [
            "id",
            "state",
            "stage",
            "reason",
            "failed_at",
            "tenant",
            "message_id",
        ];
        // The letters themselves hold text, which the table leaves out.
        table(&Value::Array(letters), &columns)?;
        if todo.is_empty() {
            note("none of them is open; nothing was done")?;
            return Ok(ExitCode::SUCCESS);
        }
        self.chosen
            .agree(&format!("discard {} for good", count(todo.len())))?;
        let mut done = 0;
        for id in todo {
            let answer = ask(client, Method::POST, &path(id, "/discard")?, None)
                .await
                .with_context(|| format!("{done} were discarded, then {id} was not"))?;
            done += usize::from(answer["done"] == true);
        }
        writeln!(out::stdout(), "{} discarded", count(done))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Asks about each letter, some at a time; answers in their order.
async fn each(ids: &[String], question: impl AsyncFn(&str) -> Result<Value>) -> Result<Vec<Value>> {
    stream::iter(ids)
        .map(|id| question(id))
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

/// A line for each plan: what would happen, and the verdict then and now.
fn show_plans(plans: &[Value]) -> Result<()> {
    let action = |verdict: &Value| match &verdict["action"] {
        Value::String(action) => json!(action),
        _ => Value::Null,
    };
    let rows = plans.iter().map(|plan| {
        json!({
            "id": plan["id"], "stage": plan["stage"], "reason": plan["reason"],
            "tenant": plan["tenant"], "message_id": plan["message_id"],
            "outcome": plan["outcome"], "because": plan["because"],
            "then": action(&plan["then"]), "now": action(&plan["now"]),
        })
    });
    let columns = [
        "id",
        "stage",
        "reason",
        "tenant",
        "message_id",
        "outcome",
        "because",
        "then",
        "now",
    ];
    table(&Value::Array(rows.collect()), &columns)
}

fn path(id: &str, rest: &str) -> Result<String> {
    let fits = |byte: u8| byte.is_ascii_digit() || byte == b'-';
    ensure!(
        !id.is_empty() && id.bytes().all(fits),
        "an id of a dead letter looks like 0-42"
    );
    Ok(format!("{PATH}/{id}{rest}"))
}

fn count(letters: usize) -> String {
    match letters {
        1 => "1 letter".to_owned(),
        more => format!("{more} letters"),
    }
}

fn code(open: usize) -> ExitCode {
    if open == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// JSON without the control characters that JSON lets through, and a terminal may obey.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for one in json.chars() {
        if matches!(one, '\u{7f}'..='\u{9f}') {
            // Only a string holds such a character, and there this means the same.
            out.push_str(&format!("\\u{:04x}", u32::from(one)));
        } else {
            out.push(one);
        }
    }
    out
}

/// A remark, beside the output that a program may read.
fn note(text: &str) -> Result<()> {
    writeln!(std::io::stderr(), "{text}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_json_moves_the_cursor_and_it_says_the_same() {
        let text = "a\u{1b}[2J\u{7f}\u{9b}2Jä";
        let json = escaped(&json!({ "text": text }).to_string());
        assert!(!json.chars().any(char::is_control), "{json:?}");
        let read: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(read["text"], text);
    }

    #[test]
    fn only_what_looks_like_an_id_goes_into_a_path() {
        assert_eq!(
            path("0-42", "/replay").unwrap(),
            format!("{PATH}/0-42/replay")
        );
        for bad in ["", "../keys", "0-42/x", "0 42", "ä"] {
            assert!(path(bad, "").is_err());
        }
    }
}
