//! `weir score`: the same judgement as the role `process`, without a server.

use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::Serialize;
use serde_json::Value;
use weir_processors::Judge;
use weir_records::Verdict;

use crate::text_input::{self, Fields, Format};
use crate::{config, logs, out, runtime};

/// Texts judged at a time: enough for the model to sort by length.
const CHUNK: usize = 512;

/// `weir score`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  echo 'you are wonderful' | weir score\n  weir score --field comment comments.csv > verdicts.jsonl"
)]
pub(crate) struct Score {
    /// Files to read; none or `-`: standard input
    files: Vec<PathBuf>,
    /// Layout of the input [default: by the file's ending, else text]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Field of JSON lines or CSV that holds the text
    #[arg(long, default_value = "text")]
    field: String,
}

/// A line of output: the verdict, with the input's `id` where it had one.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Value>,
    #[serde(flatten)]
    verdict: &'a Verdict,
}

impl Score {
    pub(crate) fn run(self, source: &config::Source) -> Result<ExitCode> {
        logs::start(true);
        let config = source.load()?;
        let judge = runtime::judge(&config.model, &prometheus::Registry::new())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(self.score(&judge))
    }

    async fn score(self, judge: &Judge) -> Result<ExitCode> {
        let mut out = BufWriter::new(out::stdout());
        let mut chunk = Vec::with_capacity(CHUNK);
        let mut failed = 0;
        for record in text_input::records(self.files, self.format, self.field.clone()) {
            chunk.push(record?);
            if chunk.len() == CHUNK {
                failed += write_verdicts(judge, &chunk, &self.field, &mut out).await?;
                chunk.clear();
            }
        }
        failed += write_verdicts(judge, &chunk, &self.field, &mut out).await?;
        out.flush()?;
        if failed > 0 {
            bail!("{failed} texts could not be scored; each has a line with an `error`");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Answers how many of the records have no verdict.
async fn write_verdicts(
    judge: &Judge,
    records: &[Fields],
    field: &str,
    out: &mut impl std::io::Write,
) -> Result<usize> {
    let texts: Vec<&str> = records
        .iter()
        .map(|record| record.get(field).and_then(Value::as_str))
        .collect::<Option<_>>()
        .with_context(|| {
            format!("a record has no text in the field `{field}`; name another with --field")
        })?;
    let mut failed = 0;
    for (record, verdict) in records.iter().zip(judge.judge(&texts).await) {
        let id = record.get("id");
        match verdict {
            Ok(verdict) => serde_json::to_writer(
                &mut *out,
                &Line {
                    id,
                    verdict: &verdict,
                },
            )?,
            Err(error) => {
                failed += 1;
                serde_json::to_writer(
                    &mut *out,
                    &serde_json::json!({"id": id, "error": error.to_string()}),
                )?;
            }
        }
        out.write_all(b"\n")?;
    }
    Ok(failed)
}
