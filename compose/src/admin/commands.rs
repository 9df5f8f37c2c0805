//! `weir user` and `weir key`.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{self, Client, Connection};
use crate::config::Source;
use crate::{logs, out};

/// `weir user`
#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// List accounts
    List(Bare),
    /// Make an account; the password is read from standard input
    Create(CreateUser),
    /// Replace what an account may do
    Grant(Grant),
    /// Shut an account out
    Disable(Named),
    /// Let an account in again
    Enable(Named),
}

/// `weir key`
#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// List API keys
    List(Bare),
    /// Make an API key; it is printed this once
    Create(CreateKey),
    /// Take an API key back
    Revoke(Named),
}

#[derive(Debug, Args)]
pub(crate) struct Bare {
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Named {
    /// User name, or id of the key
    name: String,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct CreateUser {
    username: String,
    email: String,
    /// Whose messages it deals with [default: the administrator's own tenant]
    #[arg(long)]
    tenant: Option<String>,
    /// Out of ingest, read, sql, admin
    #[arg(long, value_delimiter = ',', default_value = "ingest")]
    scopes: Vec<String>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct Grant {
    username: String,
    /// Out of ingest, read, sql, admin; replaces what it had
    #[arg(required = true)]
    scopes: Vec<String>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(crate) struct CreateKey {
    /// What people call it
    #[arg(long, default_value = "made on the command line")]
    label: String,
    /// Whose messages it deals with [default: the administrator's own tenant]
    #[arg(long)]
    tenant: Option<String>,
    /// Out of ingest, read, sql, admin
    #[arg(long, value_delimiter = ',', default_value = "ingest")]
    scopes: Vec<String>,
    /// When it stops working, such as 2027-01-31T00:00:00Z
    #[arg(long)]
    expires_at: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

impl User {
    pub(crate) fn run(self, source: &Source) -> Result<ExitCode> {
        match self {
            Self::List(list) => call(&list.connection, source, async |client| {
                let answer = ask(client, Method::GET, "/v1/admin/users", None).await?;
                table(
                    &answer["users"],
                    &[
                        "username",
                        "email",
                        "tenant",
                        "scopes",
                        "disabled",
                        "created_at",
                    ],
                )
            }),
            Self::Create(user) => call(&user.connection, source, async |client| {
                let mut password = String::new();
                std::io::stdin()
                    .lock()
                    .read_line(&mut password)
                    .context("no password on standard input")?;
                let wanted = json!({
                    "username": user.username, "email": user.email, "tenant": user.tenant,
                    "scopes": user.scopes, "password": password.trim_end_matches(['\n', '\r']),
                });
                let made = ask(client, Method::POST, "/v1/admin/users", Some(&wanted)).await?;
                table(&json!([made]), &["username", "tenant", "scopes"])
            }),
            Self::Grant(grant) => change(
                &grant.connection,
                source,
                &grant.username,
                &json!({"scopes": grant.scopes}),
            ),
            Self::Disable(user) => change(
                &user.connection,
                source,
                &user.name,
                &json!({"disabled": true}),
            ),
            Self::Enable(user) => change(
                &user.connection,
                source,
                &user.name,
                &json!({"disabled": false}),
            ),
        }
    }
}

impl Key {
    pub(crate) fn run(self, source: &Source) -> Result<ExitCode> {
        match self {
            Self::List(list) => call(&list.connection, source, async |client| {
                let answer = ask(client, Method::GET, "/v1/admin/keys", None).await?;
                table(
                    &answer["keys"],
                    &[
                        "id",
                        "label",
                        "tenant",
                        "scopes",
                        "expires_at",
                        "revoked_at",
                    ],
                )
            }),
            Self::Create(key) => call(&key.connection, source, async |client| {
                let wanted = json!({
                    "label": key.label, "tenant": key.tenant, "scopes": key.scopes, "expires_at": key.expires_at,
                });
                let made = ask(client, Method::POST, "/v1/admin/keys", Some(&wanted)).await?;
                let secret = made["key"].as_str().context("the answer holds no key")?;
                writeln!(out::stdout(), "{secret}")?;
                Ok(())
            }),
            Self::Revoke(key) => call(&key.connection, source, async |client| {
                let path = format!("/v1/admin/keys/{}", key.name);
                let revoked = ask(client, Method::DELETE, &path, None).await?;
                table(&json!([revoked]), &["id", "label", "revoked_at"])
            }),
        }
    }
}

fn change(
    connection: &Connection,
    source: &Source,
    username: &str,
    change: &Value,
) -> Result<ExitCode> {
    call(connection, source, async |client| {
        let path = format!("/v1/admin/users/{username}");
        let changed = ask(client, Method::PATCH, &path, Some(change)).await?;
        table(
            &json!([changed]),
            &["username", "tenant", "scopes", "disabled"],
        )
    })
}

fn call(
    connection: &Connection,
    source: &Source,
    work: impl AsyncFnOnce(&Client) -> Result<()>,
) -> Result<ExitCode> {
    logs::start(true);
    let client = connection.client(source)?;
    client::block_on(work(&client)).map(|()| ExitCode::SUCCESS)
}

/// Asks, unless it was said before.
pub(crate) fn agree(yes: bool, what: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        bail!("nothing was done: nobody is there to ask; --yes does it");
    }
    let mut out = out::stdout();
    write!(out, "{what}? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    ensure!(
        matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"),
        "nothing was done"
    );
    Ok(())
}

pub(crate) async fn ask(
    client: &Client,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Value> {
    let request = client.request(method, path);
    let request = match body {
        Some(body) => request.json(body),
        None => request,
    };
    client
        .send(request)
        .await?
        .json()
        .await
        .context("the answer is not JSON")
}

/// Columns as wide as their widest cell. What could move the cursor is shown as `?`.
pub(super) fn table(rows: &Value, columns: &[&str]) -> Result<()> {
    let cell = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.replace(char::is_control, "?"),
        Value::Array(items) => items
            .iter()
            .filter_map(Value::as_str)
            .collect::<Vec<_>>()
            .join(","),
        other => other.to_string(),
    };
    let mut lines = vec![
        columns
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>(),
    ];
    for row in rows.as_array().context("the answer has no rows")? {
        lines.push(columns.iter().map(|name| cell(&row[*name])).collect());
    }
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut out = out::stdout();
    for line in &lines {
        let cells: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}
