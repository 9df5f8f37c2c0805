//! The HTTP client of the tools: where a running Weir is, and the key to it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;

use crate::config::Source;
use crate::data;

/// How long an answer may take, unless a request says otherwise.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(120);

/// How to reach a running Weir.
#[derive(Debug, Clone, Args)]
pub(crate) struct Connection {
    /// Address of the running Weir [default: what DATA/admin.json says]
    #[arg(long, env = "WEIR_URL")]
    url: Option<String>,
    /// API key [default: the administrator's in DATA/admin.json]
    #[arg(long, env = "WEIR_KEY", hide_env_values = true)]
    key: Option<String>,
    /// Data folder of a Weir on this machine, for its address and key
    /// [default: the setting `data`]
    #[arg(long, env = "WEIR_DATA")]
    data: Option<PathBuf>,
}

/// A client of one Weir, with its credential if it has one.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    key: Option<String>,
}

/// The parts of a problem document that a person wants to read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Problem {
    pub(crate) code: String,
    pub(crate) title: String,
    pub(crate) detail: String,
}

impl Connection {
    /// Data folder of a Weir on this machine.
    pub(crate) fn data(&self, source: &Source) -> Result<PathBuf> {
        match &self.data {
            Some(data) => Ok(data.clone()),
            None => source.data(),
        }
    }

    /// A client with a key.
    pub(crate) fn client(&self, source: &Source) -> Result<Client> {
        let missing = match (&self.url, &self.key) {
            (Some(url), Some(key)) => return Client::new(url, Some(key.clone())),
            (Some(_), None) => {
                "no key: give --key or WEIR_KEY, or name the data folder with --data"
            }
            (None, Some(_)) => {
                "no address: give --url or WEIR_URL, or name the data folder with --data"
            }
            (None, None) => {
                "no address and key: start `weir up` first, name its folder with --data, or give --url and --key"
            }
        };
        let admin = data::read_admin(&self.data(source)?).context(missing)?;
        let url = self.url.as_ref().unwrap_or(&admin.url);
        Client::new(url, Some(self.key.clone().unwrap_or(admin.api_key)))
    }

    /// A client without a key, for what anybody may ask.
    pub(crate) fn anybody(&self, source: &Source) -> Result<Client> {
        if let Some(url) = &self.url {
            return Client::new(url, None);
        }
        let admin = data::read_admin(&self.data(source)?).context(
            "no address: start `weir up` first, name its folder with --data, or give --url",
        )?;
        Client::new(&admin.url, None)
    }
}

fn without_slash(base: &str) -> String {
    base.trim_end_matches('/').to_owned()
}

impl Client {
    fn new(base: &str, key: Option<String>) -> Result<Self> {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .timeout(TIMEOUT)
            .tcp_nodelay(true)
            .build()
            .context("the HTTP client can't be set up")?;
        Ok(Self {
            http,
            base: without_slash(base),
            key,
        })
    }

    /// The same credential at another address.
    pub(crate) fn at(&self, base: &str) -> Self {
        Self {
            base: without_slash(base),
            ..self.clone()
        }
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Sends, and turns everything but success into one clear line.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.bytes().await.unwrap_or_default();
        Err(refusal(status, &body))
    }

    fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        if error.is_connect() {
            anyhow!("no Weir answers at {}; is Weir running there?", self.base)
        } else if error.is_timeout() {
            anyhow!("{} did not answer in time", self.base)
        } else {
            anyhow!("the connection to {} broke off", self.base)
        }
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> anyhow::Error {
    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    let said = if problem.detail.is_empty() {
        problem.title
    } else {
        problem.detail
    };
    if said.is_empty() {
        return anyhow!("refused with status {status}");
    }
    anyhow!("{said} ({status}, {})", problem.code)
}

/// A single-threaded runtime is enough for a tool.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => bail!("can't start: {error}"),
    }
}
