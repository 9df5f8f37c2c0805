//! `weir erase`: what a sender said, or a message, out of everything that Weir keeps.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use indicatif::ProgressBar;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use crate::admin::{agree, ask};
use crate::client::{self, Client, Connection};
use crate::config::Source;
use crate::{logs, out};

/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(300);

/// `weir erase`
#[derive(Debug, Args)]
#[command(
    group = clap::ArgGroup::new("what").required(true).args(["sender", "message"]),
    after_help = "Examples:\n  weir erase --sender ann\n  weir erase --tenant acme --message m-17 --cut-log --yes\n\n\
                  Goes from the history, the lake's files, the tail of SQL and all memories at once; dead letters \
                  are no longer shown. The log keeps it until its retention (`bus.retention_hours`; dead letters 30 \
                  days), unless --cut-log deletes what every reader is through with. Backups keep it.\n\
                  Ends with 0 when all of it is done, with 1 when something is still to come."
)]
pub(crate) struct Command {
    /// Whose messages it deals with [default: the administrator's own tenant]
    #[arg(long)]
    tenant: Option<String>,
    /// Erase all that this sender said until now
    #[arg(long)]
    sender: Option<String>,
    /// Erase the message with this id
    #[arg(long, value_name = "ID")]
    message: Option<String>,
    /// Delete from the log all messages and verdicts, of every tenant, that are judged and stored
    #[arg(long)]
    cut_log: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Seconds to wait for the store, the lake and the log
    #[arg(long, default_value_t = 120)]
    wait: u64,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Deserialize)]
struct Begun {
    id: i64,
    tenant: String,
    history_messages: u64,
    lake: String,
}

#[derive(Deserialize)]
struct Cut {
    topics: BTreeMap<String, BTreeMap<i32, Left>>,
}

#[derive(Deserialize)]
struct Left {
    first: i64,
    end: i64,
}

impl Command {
    pub(crate) fn run(self, source: &Source) -> Result<ExitCode> {
        logs::start(true);
        let client = self.connection.client(source)?;
        let what = if self.sender.is_some() {
            "erase everything that this sender said, for good"
        } else {
            "erase this message, for good"
        };
        agree(self.yes, what)?;
        client::block_on(self.erase(&client))
    }

    async fn erase(&self, client: &Client) -> Result<ExitCode> {
        let give_up = Instant::now() + Duration::from_secs(self.wait);
        let wanted = json!({"tenant": self.tenant, "sender": self.sender, "message": self.message});
        // It is answered when the store's files are written anew.
        let request = client
            .request(Method::POST, "/v1/admin/erasures")
            .json(&wanted)
            .timeout(Duration::from_secs(self.wait).max(client::TIMEOUT));
        let begun: Begun = client
            .send(request)
            .await?
            .json()
            .await
            .context("the answer is not understood")?;
        say(&format!(
            "history  {} messages of tenant {} are gone",
            begun.history_messages, begun.tenant
        ))?;
        let lake = self.lake(client, &begun, give_up).await?;
        say(match lake.as_str() {
            "done" => "lake     its files are rewritten, and the old ones deleted",
            "unknown" => {
                "lake     the sinks rewrite its files; the process asked was not told where it is (setting `lake`)"
            }
            _ => "lake     its files are still being rewritten; a running sink goes on with it",
        })?;
        let cut = if self.cut_log {
            let done = cut(client, give_up).await?;
            say(if done {
                "log      everything that had been accepted is deleted from it"
            } else {
                "log      what is still to be judged or stored stays in it; ask again with --cut-log"
            })?;
            done
        } else {
            say("log      keeps it until its retention is over; --cut-log deletes it at once")?;
            true
        };
        Ok(if lake == "done" && cut {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    async fn lake(&self, client: &Client, begun: &Begun, give_up: Instant) -> Result<String> {
        let bar = ProgressBar::new_spinner().with_message("rewriting the lake");
        bar.enable_steady_tick(LOOK);
        let path = format!("/v1/admin/erasures/{}", begun.id);
        let mut state = begun.lake.clone();
        while state == "pending" && Instant::now() < give_up {
            tokio::time::sleep(LOOK).await;
            let answer = ask(client, Method::GET, &path, None).await?;
            match answer["lake"].as_str() {
                Some(lake) => lake.clone_into(&mut state),
                None => bail!("the answer is not understood"),
            }
        }
        bar.finish_and_clear();
        Ok(state)
    }
}

/// Cuts until what the log holds now is gone: first the messages, then the verdicts that
/// they have got by then.
async fn cut(client: &Client, give_up: Instant) -> Result<bool> {
    let mut ends: [Option<BTreeMap<i32, i64>>; 2] = [None, None];
    loop {
        let answer = ask(client, Method::POST, "/v1/admin/log/cut", None).await?;
        let cut: Cut = serde_json::from_value(answer).context("the answer is not understood")?;
        let mut done = true;
        for (topic, ends) in ["weir.messages", "weir.verdicts"].iter().zip(&mut ends) {
            let left = cut.topics.get(*topic).context("a topic is missing")?;
            // Of the verdicts only once all messages of the time of asking have theirs.
            let ends = done.then(|| {
                ends.get_or_insert_with(|| left.iter().map(|(p, left)| (*p, left.end)).collect())
            });
            done = ends.is_some_and(|ends| {
                left.iter()
                    .all(|(p, left)| ends.get(p).is_none_or(|end| left.first >= *end))
            });
        }
        if done || Instant::now() >= give_up {
            return Ok(done);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn say(line: &str) -> Result<()> {
    writeln!(out::stdout(), "{line}")?;
    Ok(())
}
