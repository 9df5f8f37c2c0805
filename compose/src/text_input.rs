//! Texts from files or standard input, as lines, JSON lines or CSV: what `weir score`
//! and `weir replay` read.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde_json::{Map, Value};

/// How a file is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One text on each line
    Text,
    /// One JSON object on each line
    Jsonl,
    /// Comma-separated values with a header line
    Csv,
}

impl Format {
    /// By the file's ending; text where that says nothing.
    fn of(path: &Path) -> Self {
        match path.extension().and_then(|e| e.to_str()) {
            Some("jsonl" | "ndjson" | "json") => Self::Jsonl,
            Some("csv") => Self::Csv,
            _ => Self::Text,
        }
    }
}

/// One record: named fields, of which one is the text.
pub(crate) type Fields = Map<String, Value>;

/// Reads records one by one; `-` or no file is standard input. An error names file and line.
pub(crate) fn records(
    files: Vec<PathBuf>,
    format: Option<Format>,
    field: String,
) -> impl Iterator<Item = Result<Fields>> {
    let files = if files.is_empty() {
        vec![PathBuf::from("-")]
    } else {
        files
    };
    files
        .into_iter()
        .flat_map(move |file| match open(&file, format, &field) {
            Ok(records) => records,
            Err(error) => Box::new(std::iter::once(Err(error))),
        })
}

type Records = Box<dyn Iterator<Item = Result<Fields>>>;

fn open(path: &Path, format: Option<Format>, field: &str) -> Result<Records> {
    let name = path.display().to_string();
    let from: Box<dyn Read> = if name == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(path).with_context(|| format!("can't open {name}"))?)
    };
    let from = BufReader::new(from);
    Ok(match format.unwrap_or_else(|| Format::of(path)) {
        Format::Text => text_lines(from, name, field.to_owned()),
        Format::Jsonl => json_lines(from, name),
        Format::Csv => csv_rows(from, name)?,
    })
}

fn text_lines(from: impl BufRead + 'static, name: String, field: String) -> Records {
    Box::new(from.lines().enumerate().filter_map(move |(at, line)| {
        match line.with_context(|| format!("{name}, line {}: not readable as UTF-8 text", at + 1)) {
            Ok(line) if line.trim().is_empty() => None,
            Ok(line) => Some(Ok(Fields::from_iter([(
                field.clone(),
                Value::String(line),
            )]))),
            Err(error) => Some(Err(error)),
        }
    }))
}

fn json_lines(from: impl BufRead + 'static, name: String) -> Records {
    Box::new(from.lines().enumerate().filter_map(move |(at, line)| {
        let place = || format!("{name}, line {}", at + 1);
        let parse = |line: String| {
            serde_json::from_str(&line)
                .map_err(|error| anyhow::anyhow!("not a JSON object ({})", category(&error)))
        };
        match line.map_err(anyhow::Error::from) {
            Ok(line) if line.trim().is_empty() => None,
            line => Some(line.and_then(parse).with_context(place)),
        }
    }))
}

/// What kind of error, without quoting the line: it may hold a message.
fn category(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Data => "it is another kind of value",
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => "bad syntax",
    }
}

fn csv_rows(from: impl Read + 'static, name: String) -> Result<Records> {
    let mut reader = csv::Reader::from_reader(from);
    let header = reader
        .headers()
        .with_context(|| format!("{name}: no header line"))?
        .clone();
    if header.is_empty() {
        bail!("{name}: the header line is empty");
    }
    Ok(Box::new(reader.into_records().enumerate().map(
        move |(at, row)| {
            let row = row.with_context(|| format!("{name}, row {}", at + 1))?;
            let cells = header.iter().zip(row.iter());
            Ok(cells
                .map(|(k, v)| (k.to_owned(), Value::String(v.to_owned())))
                .collect())
        },
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, bytes: &[u8], format: Option<Format>) -> Vec<Result<Fields>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        records(vec![path], format, "text".to_owned()).collect()
    }

    #[test]
    fn the_ending_of_a_file_tells_its_format() {
        let rows = [
            read("a.txt", b"hello\n\nthere\n", None),
            read(
                "a.jsonl",
                b"{\"text\":\"hello\"}\n{\"text\":\"there\"}\n",
                None,
            ),
            read("a.csv", b"id,text\n1,hello\n2,there\n", None),
        ];
        for rows in rows {
            let texts: Vec<_> = rows
                .into_iter()
                .map(|r| r.unwrap()["text"].clone())
                .collect();
            assert_eq!(texts, ["hello", "there"]);
        }
    }

    #[test]
    fn a_bad_line_is_named_and_not_quoted() {
        let rows = read(
            "a.jsonl",
            b"{\"text\":\"fine\"}\n{\"text\":\"secret words",
            None,
        );
        let error = format!("{:#}", rows[1].as_ref().unwrap_err());
        assert!(
            error.contains("line 2") && !error.contains("secret"),
            "{error}"
        );
    }

    #[test]
    fn bytes_that_are_no_utf8_are_named_by_line() {
        let rows = read("a.txt", b"fine\n\xff\xfe\n", None);
        assert!(format!("{:#}", rows[1].as_ref().unwrap_err()).contains("line 2"));
    }

    #[test]
    fn a_missing_file_is_one_error() {
        let rows: Vec<_> =
            records(vec![PathBuf::from("no-such-file")], None, "text".to_owned()).collect();
        assert_eq!(rows.len(), 1);
        assert!(
            rows[0]
                .as_ref()
                .unwrap_err()
                .to_string()
                .contains("no-such-file")
        );
    }
}
