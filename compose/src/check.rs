//! `weir check`: is a running Weir well, and where are its doors?

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::client::{self, Client, Connection};
use crate::config::Source;
use crate::{logs, out};

/// `weir check`
#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    connection: Connection,
}

impl Check {
    pub(crate) fn run(self, source: &Source) -> Result<ExitCode> {
        logs::start(true);
        let client = self.connection.anybody(source)?;
        client::block_on(check(&client))
    }
}

async fn check(client: &Client) -> Result<ExitCode> {
    let answer = client.request(Method::GET, "/health/ready").send().await;
    let Ok(answer) = answer else {
        bail!(
            "no Weir answers at {}; is Weir running there?",
            client.base()
        );
    };
    let status = answer.status();
    let body: Value = answer.json().await.unwrap_or_default();
    let mut out = out::stdout();
    if let Some(parts) = body["parts"].as_object() {
        for (part, state) in parts {
            writeln!(out, "{part:<10} {}", state.as_str().unwrap_or("unknown"))?;
        }
    }
    addresses(&mut out, client.base(), offers_sql(client).await)?;
    Ok(if status == StatusCode::OK {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Whether it is the role `query`, or has it among others.
async fn offers_sql(client: &Client) -> bool {
    let Ok(answer) = client.request(Method::GET, "/openapi.json").send().await else {
        return false;
    };
    let document: Value = answer.json().await.unwrap_or_default();
    document["paths"]["/v1/sql"].is_object()
}

/// Where to go on from here.
pub(crate) fn addresses(out: &mut impl Write, base: &str, sql: bool) -> std::io::Result<()> {
    writeln!(out, "\nAPI docs   {base}/docs")?;
    writeln!(out, "metrics    {base}/metrics")?;
    if sql {
        writeln!(out, "SQL        weir sql   or POST {base}/v1/sql")?;
    }
    writeln!(out)
}
