//! Delivers messages in batches, each until it is accepted or refused for good.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use indicatif::ProgressBar;
use reqwest::header::RETRY_AFTER;
use reqwest::{Method, Response};
use serde::Deserialize;

use super::Outgoing;
use super::watch::Probes;
use crate::client::{Client, Problem};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How to send.
pub(super) struct Plan {
    pub(super) batch: usize,
    pub(super) connections: usize,
    pub(super) rate: Option<u32>,
    pub(super) patience: Duration,
}

/// What became of the messages at the door.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Ids, in the order of their acceptance.
    pub(super) accepted: Vec<String>,
    /// Refused for good, by the code of the problem.
    pub(super) refused: BTreeMap<String, usize>,
    /// Requests that had to be sent again.
    pub(super) retries: usize,
}

#[derive(Deserialize)]
struct Answer {
    results: Vec<ItemResult>,
}

#[derive(Deserialize)]
struct ItemResult {
    status: String,
    #[serde(default)]
    problem: Option<Problem>,
}

/// Sends all; an error only if Weir stayed out of reach for longer than the patience.
pub(super) async fn all(
    client: &Client,
    messages: Vec<Outgoing>,
    plan: &Plan,
    probes: &Probes,
    bar: &ProgressBar,
) -> Result<Sent> {
    let started = Instant::now();
    let mut batches = VecDeque::new();
    let mut due = 0_usize;
    let mut messages = messages.into_iter().peekable();
    while messages.peek().is_some() {
        let batch: Vec<_> = messages.by_ref().take(plan.batch).collect();
        let at = plan.rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(due as f64 / f64::from(rate))
        });
        due += batch.len();
        batches.push_back((at, batch));
    }
    let batches = Mutex::new(batches);
    let sent = Mutex::new(Sent::default());
    let connection = async || -> Result<()> {
        loop {
            let next = batches.lock().map_err(poisoned)?.pop_front();
            let Some((at, batch)) = next else {
                return Ok(());
            };
            tokio::time::sleep_until((started + at).into()).await;
            deliver(client, batch, plan.patience, probes, &sent, bar).await?;
        }
    };
    futures::future::try_join_all((0..plan.connections).map(|_| connection())).await?;
    sent.into_inner().map_err(poisoned)
}

/// One batch until nothing of it is left; what is refused for now is sent again alone.
async fn deliver(
    client: &Client,
    mut batch: Vec<Outgoing>,
    patience: Duration,
    probes: &Probes,
    sent: &Mutex<Sent>,
    bar: &ProgressBar,
) -> Result<()> {
    let mut pause = FIRST_PAUSE;
    let mut trying_since = Instant::now();
    loop {
        let began = Instant::now();
        let bodies: Vec<_> = batch.iter().map(|message| &message.body).collect();
        let request = client
            .request(Method::POST, "/v1/messages/batch")
            .json(&bodies);
        let wait = match request.send().await {
            Ok(response) if may_pass(&response) => retry_after(&response),
            Ok(response) => {
                let answer = results(response, batch.len()).await?;
                let mut again = Vec::new();
                let mut sent = sent.lock().map_err(poisoned)?;
                let before = batch.len();
                for (at, (message, result)) in batch.into_iter().zip(answer).enumerate() {
                    match result.status.as_str() {
                        taken @ ("accepted" | "pending" | "judged") => {
                            // What was there before has not begun to wait now.
                            if at == 0 && taken == "accepted" {
                                probes.add(message.id.clone(), began);
                            }
                            sent.accepted.push(message.id);
                            bar.inc(1);
                        }
                        "failed" => again.push(message),
                        _ => {
                            let code = result
                                .problem
                                .map_or_else(|| "unknown".to_owned(), |problem| problem.code);
                            *sent.refused.entry(code).or_default() += 1;
                        }
                    }
                }
                if again.is_empty() {
                    return Ok(());
                }
                if again.len() < before {
                    (pause, trying_since) = (FIRST_PAUSE, Instant::now());
                }
                batch = again;
                None
            }
            Err(_) => None,
        };
        if trying_since.elapsed() > patience {
            bail!(
                "{} did not take messages for {} s; try again later",
                client.base(),
                patience.as_secs()
            );
        }
        sent.lock().map_err(poisoned)?.retries += 1;
        tokio::time::sleep(wait.unwrap_or(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Refusals that the same request may not meet again.
fn may_pass(response: &Response) -> bool {
    matches!(response.status().as_u16(), 429 | 502 | 503 | 504)
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response
        .headers()
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_PAUSE))
}

/// One result for each message; the door gives them also when it accepts none.
async fn results(response: Response, expected: usize) -> Result<Vec<ItemResult>> {
    let status = response.status();
    let body = response.bytes().await.context("the answer broke off")?;
    match serde_json::from_slice::<Answer>(&body) {
        Ok(answer) if answer.results.len() == expected => Ok(answer.results),
        _ => {
            let problem: Problem = serde_json::from_slice(&body).unwrap_or_default();
            bail!(
                "messages refused: {} ({status}, {})",
                problem.detail,
                problem.code
            )
        }
    }
}

fn poisoned<T>(_: std::sync::PoisonError<T>) -> anyhow::Error {
    anyhow::anyhow!("another part of the replay failed")
}
