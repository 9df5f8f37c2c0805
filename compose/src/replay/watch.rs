//! Waits for verdicts at the door: for a few messages at once after they were sent, to
//! measure how long a producer waits, and for all of them, to see that each has one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use reqwest::{Method, StatusCode};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinSet;
use weir_records::Judged;

use crate::client::Client;

/// Seconds that one request asks the door to wait.
const LONG_POLL: u64 = 10;
const REQUESTS_AT_A_TIME: usize = 16;
/// More would measure the probes.
const PROBES_AT_A_TIME: usize = 32;
/// Microseconds; what takes longer counts as this.
const LONGEST_LATENCY: u64 = 600_000_000;
const PAUSE: Duration = Duration::from_millis(200);

/// Sees one message to its verdict; an error only after the patience.
async fn verdict(client: &Client, id: &str, patience: Duration) -> Result<Judged> {
    let began = Instant::now();
    let path = format!("/v1/messages/{id}?wait={LONG_POLL}");
    loop {
        let answer = client.request(Method::GET, &path).send().await;
        if let Ok(response) = answer {
            let status = response.status();
            let body = response.bytes().await.unwrap_or_default();
            match status {
                // A message without a verdict lacks the field, and is no `Judged`.
                StatusCode::OK => {
                    if let Ok(judged) = serde_json::from_slice(&body) {
                        return Ok(judged);
                    }
                }
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    bail!("the key may not read messages back ({status})")
                }
                _ => {}
            }
        }
        if began.elapsed() > patience {
            bail!(
                "message {id} was accepted, but had no verdict after {} s",
                patience.as_secs()
            );
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// All verdicts, in the order of the ids.
pub(super) async fn all(
    client: &Client,
    ids: &[String],
    patience: Duration,
    bar: &ProgressBar,
) -> Result<Vec<Judged>> {
    let verdicts = futures::stream::iter(ids).map(|id| async {
        let judged = verdict(client, id, patience).await?;
        bar.inc(1);
        Ok(judged)
    });
    let verdicts: Vec<Result<Judged>> = verdicts.buffered(REQUESTS_AT_A_TIME).collect().await;
    verdicts.into_iter().collect()
}

/// Follows single messages from the moment they are sent.
pub(super) struct Probes {
    client: Client,
    patience: Duration,
    room: Arc<Semaphore>,
    running: Mutex<JoinSet<Result<Duration>>>,
}

impl Probes {
    pub(super) fn new(client: Client, patience: Duration) -> Self {
        Self {
            client,
            patience,
            room: Arc::new(Semaphore::new(PROBES_AT_A_TIME)),
            running: Mutex::default(),
        }
    }

    /// Follows one message, unless enough are being followed.
    pub(super) fn add(&self, id: String, sent: Instant) {
        let (Ok(place), Ok(mut running)) = (
            Arc::clone(&self.room).try_acquire_owned(),
            self.running.try_lock(),
        ) else {
            return;
        };
        let (client, patience) = (self.client.clone(), self.patience);
        running.spawn(async move {
            let judged = verdict(&client, &id, patience)
                .await
                .map(|_| sent.elapsed());
            drop(place);
            judged
        });
    }

    /// Microseconds from sending to the verdict in hand.
    pub(super) async fn finish(self) -> Result<Histogram<u64>> {
        let mut latencies =
            Histogram::new_with_bounds(1, LONGEST_LATENCY, 3).context("no histogram")?;
        let mut running = self.running.into_inner();
        while let Some(latency) = running.join_next().await {
            latencies.saturating_record(u64::try_from(latency??.as_micros()).unwrap_or(u64::MAX));
        }
        Ok(latencies)
    }
}
