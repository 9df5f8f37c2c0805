//! `weir replay`: sends messages through the HTTP door of a running Weir as a producer
//! would, retrying with the same ids, and follows them to their verdicts.
//!
//! `send` delivers, `watch` waits for verdicts, `verify` counts what is stored, and
//! `report` shows all of it.

mod report;
mod send;
mod verify;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use uuid::Uuid;

use crate::client::{self, Connection};
use crate::config::Source;
use crate::logs;
use crate::text_input::{self, Fields, Format};

/// `weir replay`
#[derive(Debug, Args)]
#[command(
    after_help = "Each message needs a `text`; `channel`, `sender`, `id`, `sent_at` and `metadata` are taken where the \
                        file has them.\nExample:\n  weir replay comments.jsonl --rate 200 --verify"
)]
pub(crate) struct Replay {
    /// Files to send; none or `-`: standard input
    files: Vec<PathBuf>,
    /// Layout of the input [default: by the file's ending, else text]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Field of JSON lines or CSV that holds the text
    #[arg(long, default_value = "text")]
    field: String,
    /// Channel of messages that name none
    #[arg(long, default_value = "replay")]
    channel: String,
    /// Messages a second [default: as fast as they are taken]
    #[arg(long)]
    rate: Option<u32>,
    /// Messages in one request
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    batch: u16,
    /// Requests under way at a time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..))]
    connections: u8,
    /// Seconds to go on trying while Weir can't be reached or refuses for now
    #[arg(long, default_value_t = 60)]
    patience: u64,
    /// Prove that each accepted message has exactly one verdict and one row
    #[arg(long)]
    verify: bool,
    /// Address of a role `query` that --verify asks, where it is another than --url
    #[arg(long, env = "WEIR_SQL_URL", value_name = "URL")]
    sql_url: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

/// A message on its way: its id and the JSON object that is sent.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    id: String,
    body: Fields,
}

impl Replay {
    pub(crate) fn run(self, source: &Source) -> Result<ExitCode> {
        logs::start(true);
        client::block_on(self.replay(source))
    }

    async fn replay(self, source: &Source) -> Result<ExitCode> {
        let client = self.connection.client(source)?;
        let messages = self.read()?;
        if messages.is_empty() {
            bail!("there are no messages to send");
        }
        let patience = Duration::from_secs(self.patience);
        let total = messages.len();
        let bar = bar(total as u64, "accepted");
        let plan = send::Plan {
            batch: self.batch_size(),
            connections: usize::from(self.connections),
            rate: self.rate,
            patience,
        };
        let probes = watch::Probes::new(client.clone(), patience);
        let started = Instant::now();
        let sent = send::all(&client, messages, &plan, &probes, &bar).await;
        let sending = started.elapsed();
        bar.finish_and_clear();
        let sent = sent?;

        let bar = self::bar(sent.accepted.len() as u64, "judged");
        let judged = watch::all(&client, &sent.accepted, patience, &bar).await;
        bar.finish_and_clear();
        let judged = judged?;
        let until_judged = started.elapsed();
        let stored = if self.verify {
            let asked = self
                .sql_url
                .map_or_else(|| client.clone(), |url| client.at(&url));
            Some(verify::stored(&asked, &sent.accepted, patience).await?)
        } else {
            None
        };
        let outcome = report::Outcome {
            total,
            sent: Arc::new(sent),
            judged,
            latencies: probes.finish().await,
            sending,
            until_judged,
            stored,
        };
        report::print(&outcome)?;
        Ok(if outcome.complete() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    /// A paced replay goes in small requests, about twenty a second, so that messages
    /// don't wait for each other.
    fn batch_size(&self) -> usize {
        let asked = usize::from(self.batch);
        self.rate
            .map_or(asked, |rate| asked.min((rate as usize / 20).max(1)))
    }

    fn read(&self) -> Result<Vec<Outgoing>> {
        text_input::records(self.files.clone(), self.format, self.field.clone())
            .enumerate()
            .map(|(at, record)| {
                self.outgoing(record?)
                    .with_context(|| format!("message {}", at + 1))
            })
            .collect()
    }

    /// Gives an id to a message that has none: a retry must carry the same one.
    fn outgoing(&self, mut record: Fields) -> Result<Outgoing> {
        let text = record.remove(&self.field).filter(Value::is_string);
        let text = text.with_context(|| {
            format!(
                "has no text in the field `{}`; name another with --field",
                self.field
            )
        })?;
        let id = match record.remove("id") {
            Some(Value::String(id)) if !id.is_empty() => id,
            Some(Value::Number(id)) => id.to_string(),
            _ => Uuid::now_v7().to_string(),
        };
        let mut body = Fields::from_iter([
            ("id".to_owned(), Value::String(id.clone())),
            ("text".to_owned(), text),
        ]);
        for name in ["channel", "sender", "sent_at", "metadata"] {
            if let Some(value) = record
                .remove(name)
                .filter(|value| !value.is_null() && value != "")
            {
                body.insert(name.to_owned(), value);
            }
        }
        body.entry("channel")
            .or_insert_with(|| Value::String(self.channel.clone()));
        Ok(Outgoing { id, body })
    }
}

fn bar(length: u64, doing: &'static str) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{msg:>9} {wide_bar} {pos}/{len}  {per_sec}  {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length)
        .with_style(style)
        .with_message(doing)
}
