//! `weir sql`: one query, or a prompt.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use clap::{Args, ValueEnum};
use parquet::arrow::ArrowWriter;
use reqwest::Method;
use reqwest::header::ACCEPT;

use crate::client::{self, Client, Connection};
use crate::config::Source;
use crate::{logs, out};

const ARROW_STREAM: &str = "application/vnd.apache.arrow.stream";

/// `weir sql`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weir sql \"SELECT action, count(*) FROM messages GROUP BY action\"\n  \
                        weir sql --format parquet \"SELECT * FROM messages\" > messages.parquet"
)]
pub(crate) struct Sql {
    /// The query; without one, each statement ended by `;` on standard input
    query: Option<String>,
    /// How to print the answer
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Csv,
    Json,
    Parquet,
}

impl Sql {
    pub(crate) fn run(self, source: &Source) -> Result<ExitCode> {
        logs::start(true);
        let client = self.connection.client(source)?;
        client::block_on(async {
            match &self.query {
                Some(query) => run_query(&client, query, self.format)
                    .await
                    .map(|()| ExitCode::SUCCESS),
                None => prompt(&client, self.format).await,
            }
        })
    }
}

/// Statements from standard input; on a terminal with a prompt, where an error is
/// shown and the next statement asked for.
async fn prompt(client: &Client, format: Format) -> Result<ExitCode> {
    let stdin = std::io::stdin();
    let interactive = stdin.is_terminal();
    if interactive {
        say(&format!(
            "Connected to {}. End a query with `;`. Leave with \\q.\n",
            client.base()
        ))?;
    }
    let mut statement = String::new();
    let mut code = ExitCode::SUCCESS;
    loop {
        if interactive {
            say(if statement.is_empty() {
                "weir> "
            } else {
                "   -> "
            })?;
        }
        let mut line = String::new();
        let ended = stdin.lock().read_line(&mut line)? == 0;
        if ["\\q", "exit", "quit"].contains(&line.trim()) && statement.is_empty() {
            return Ok(code);
        }
        statement.push_str(&line);
        let complete = statement.trim_end().ends_with(';') || ended;
        if complete
            && !statement
                .trim_matches([';', ' ', '\n', '\r', '\t'])
                .is_empty()
        {
            let query = statement.trim().trim_end_matches(';');
            if let Err(error) = run_query(client, query, format).await {
                if !interactive {
                    return Err(error);
                }
                say(&format!("{error:#}\n"))?;
                code = ExitCode::FAILURE;
            }
        }
        if complete {
            statement.clear();
        }
        if ended {
            return Ok(code);
        }
    }
}

async fn run_query(client: &Client, query: &str, format: Format) -> Result<()> {
    let started = Instant::now();
    let batches = query_batches(client, query).await?;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    // Not locked: a Parquet writer may hand its output to another thread.
    let mut out = std::io::BufWriter::new(out::stdout());
    match format {
        Format::Table => {
            writeln!(
                out,
                "{}",
                arrow::util::pretty::pretty_format_batches(&batches)?
            )?;
            writeln!(
                out,
                "{rows} rows in {:.1} ms",
                started.elapsed().as_secs_f64() * 1e3
            )?;
        }
        Format::Csv => {
            let mut csv = arrow::csv::Writer::new(&mut out);
            batches.iter().try_for_each(|batch| csv.write(batch))?;
        }
        Format::Json => {
            let mut json = arrow::json::LineDelimitedWriter::new(&mut out);
            json.write_batches(&batches.iter().collect::<Vec<_>>())?;
            json.finish()?;
        }
        Format::Parquet => {
            let schema = batches
                .first()
                .context("the answer has no columns")?
                .schema();
            let mut parquet = ArrowWriter::try_new(&mut out, schema, None)?;
            batches.iter().try_for_each(|batch| parquet.write(batch))?;
            parquet.close()?;
        }
    }
    out.flush()?;
    Ok(())
}

/// Sends a query; the answer has at least one batch, so that its columns are known.
pub(crate) async fn query_batches(client: &Client, query: &str) -> Result<Vec<RecordBatch>> {
    let request = client
        .request(Method::POST, "/v1/sql")
        .header(ACCEPT, ARROW_STREAM)
        .json(&serde_json::json!({ "query": query }));
    let body = client
        .send(request)
        .await?
        .bytes()
        .await
        .context("the answer broke off")?;
    let stream =
        StreamReader::try_new(body.as_ref(), None).context("the answer is not an Arrow stream")?;
    let schema = stream.schema();
    let mut batches = stream
        .collect::<Result<Vec<_>, _>>()
        .context("the answer broke off")?;
    if batches.is_empty() {
        batches.push(RecordBatch::new_empty(schema));
    }
    Ok(batches)
}

fn say(text: &str) -> Result<()> {
    let mut out = out::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}
