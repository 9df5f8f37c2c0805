//! Rows as JSON, CSV or an Arrow stream. Times are RFC 3339 in the first two.

use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::csv::{Writer as CsvWriter, WriterBuilder as CsvBuilder};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::writer::{EncoderOptions, make_encoder};
use axum::http::{HeaderMap, header};
use serde::Serialize;
use utoipa::ToSchema;
use weir_auth::door::{Code, Problem};

use crate::error::Error;

/// A column of an answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Column {
    /// As the query names it.
    pub(crate) name: String,
    /// `string`, `int64`, `float32`, `boolean`, `timestamp`, `date` and the like.
    #[serde(rename = "type")]
    #[schema(example = "string")]
    kind: String,
}

/// An answer in JSON, as the encoder writes it piece by piece.
#[derive(Serialize, ToSchema)]
pub(crate) struct SqlAnswer {
    /// The columns.
    columns: Vec<Column>,
    /// A list for each row, in the order of the columns.
    #[schema(value_type = Vec<Vec<Object>>)]
    rows: Vec<Vec<serde_json::Value>>,
    /// How many rows.
    row_count: u64,
    /// Whether the request's `limit` left rows out.
    truncated: bool,
    /// From the request's arrival until its last row.
    elapsed_ms: f64,
}

/// What an answer is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Csv,
    Arrow,
}

impl Format {
    const ALL: [Self; 3] = [Self::Json, Self::Csv, Self::Arrow];

    pub(crate) const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }

    const fn essence(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }

    /// The format that `Accept` likes best; JSON where it likes several the same.
    ///
    /// # Errors
    /// 406 if it likes none.
    pub(crate) fn accepted(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut ranges = Vec::new();
        for value in headers.get_all(header::ACCEPT) {
            ranges.extend(
                value
                    .to_str()
                    .unwrap_or_default()
                    .split(',')
                    .filter_map(range),
            );
        }
        if ranges.is_empty() {
            return Ok(Self::Json);
        }
        // The most precise range that fits a format says how much it is liked.
        let liked = |format: Self| {
            let (kind, _) = format.essence().split_once('/').unwrap_or_default();
            let of = |name: &str| {
                ranges
                    .iter()
                    .find(|(range, _)| range == name)
                    .map(|(_, q)| *q)
            };
            of(format.essence())
                .or_else(|| of(&format!("{kind}/*")))
                .or_else(|| of("*/*"))
                .unwrap_or(0.0)
        };
        let mut best = (Self::Json, 0.0);
        for format in Self::ALL {
            if liked(format) > best.1 {
                best = (format, liked(format));
            }
        }
        if best.1 > 0.0 {
            return Ok(best.0);
        }
        Err(Problem::new(
            Code::NotAcceptable,
            "rows can be had as `application/json`, `text/csv` or `application/vnd.apache.arrow.stream`",
        ))
    }
}

/// One range of `Accept` with how much it is liked.
fn range(text: &str) -> Option<(String, f32)> {
    let mut parts = text.split(';').map(str::trim);
    let name = parts
        .next()
        .filter(|name| !name.is_empty())?
        .to_ascii_lowercase();
    let q = parts
        .find_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q=")))
        .map_or(1.0, |q| q.parse().unwrap_or(0.0));
    Some((name, q))
}

/// Writes an answer piece by piece.
pub(crate) struct Encoder {
    started: Instant,
    rows: u64,
    kind: Kind,
}

enum Kind {
    Json {
        /// What comes before the next row.
        before: Vec<u8>,
    },
    Csv {
        header: bool,
        schema: SchemaRef,
    },
    Arrow(Box<StreamWriter<Vec<u8>>>),
}

impl Encoder {
    /// # Errors
    /// [`Error::Invalid`] if the format can't carry one of the columns.
    pub(crate) fn new(format: Format, schema: &SchemaRef, started: Instant) -> Result<Self, Error> {
        let kind = match format {
            Format::Json => {
                let columns: Vec<Column> = schema
                    .fields()
                    .iter()
                    .map(|field| Column {
                        name: field.name().clone(),
                        kind: name_of(field.data_type()),
                    })
                    .collect();
                let columns =
                    serde_json::to_string(&columns).map_err(|_| Error::internal("json", None))?;
                Kind::Json {
                    before: format!("{{\"columns\":{columns},\"rows\":[").into_bytes(),
                }
            }
            Format::Csv => {
                if let Some(field) = schema
                    .fields()
                    .iter()
                    .find(|field| field.data_type().is_nested())
                {
                    let name = field.name();
                    return Err(Error::invalid(format!(
                        "the column `{name}` is nested, which CSV can't carry; ask for JSON or Arrow"
                    )));
                }
                Kind::Csv {
                    header: true,
                    schema: SchemaRef::clone(schema),
                }
            }
            Format::Arrow => Kind::Arrow(Box::new(
                StreamWriter::try_new(Vec::new(), schema).map_err(faulty)?,
            )),
        };
        Ok(Self {
            started,
            rows: 0,
            kind,
        })
    }

    /// The bytes of these rows.
    pub(crate) fn rows(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, Error> {
        self.rows += batch.num_rows() as u64;
        match &mut self.kind {
            Kind::Json { before } => json(batch, before).map_err(faulty),
            Kind::Csv { header, .. } => csv(batch, std::mem::take(header)).map_err(faulty),
            Kind::Arrow(writer) => {
                writer.write(batch).map_err(faulty)?;
                Ok(std::mem::take(writer.get_mut()))
            }
        }
    }

    /// The bytes after the last row.
    pub(crate) fn end(&mut self, truncated: bool) -> Result<Vec<u8>, Error> {
        let rows = self.rows;
        match &mut self.kind {
            Kind::Json { before } => {
                let mut out = if rows == 0 {
                    std::mem::take(before)
                } else {
                    Vec::new()
                };
                let elapsed = self.started.elapsed().as_secs_f64() * 1000.0;
                out.extend_from_slice(
                    format!("],\"row_count\":{rows},\"truncated\":{truncated},\"elapsed_ms\":{elapsed:.3}}}").as_bytes(),
                );
                Ok(out)
            }
            Kind::Csv { header, schema } if *header => {
                csv(&RecordBatch::new_empty(SchemaRef::clone(schema)), true).map_err(faulty)
            }
            Kind::Csv { .. } => Ok(Vec::new()),
            Kind::Arrow(writer) => {
                writer.finish().map_err(faulty)?;
                Ok(std::mem::take(writer.get_mut()))
            }
        }
    }
}

fn json(batch: &RecordBatch, before: &mut Vec<u8>) -> Result<Vec<u8>, ArrowError> {
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let schema = batch.schema();
    let mut columns = schema
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, column)| make_encoder(field, column, &options))
        .collect::<Result<Vec<_>, _>>()?;
    let mut out = std::mem::take(before);
    for row in 0..batch.num_rows() {
        out.push(b'[');
        for (index, column) in columns.iter_mut().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            if column.is_null(row) {
                out.extend_from_slice(b"null");
            } else {
                column.encode(row, &mut out);
            }
        }
        out.extend_from_slice(b"],");
    }
    // The comma waits until another row is known to follow.
    if out.last() == Some(&b',') {
        out.pop();
        before.push(b',');
    }
    Ok(out)
}

fn csv(batch: &RecordBatch, header: bool) -> Result<Vec<u8>, ArrowError> {
    let mut writer: CsvWriter<Vec<u8>> = CsvBuilder::new().with_header(header).build(Vec::new());
    writer.write(batch)?;
    Ok(writer.into_inner())
}

/// Arrow's words are of types, but may quote values.
fn faulty(_: ArrowError) -> Error {
    Error::internal("encode", None)
}

/// What a type is called in JSON.
fn name_of(kind: &DataType) -> String {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string".to_owned(),
        DataType::Timestamp(..) => "timestamp".to_owned(),
        DataType::Date32 | DataType::Date64 => "date".to_owned(),
        DataType::Time32(_) | DataType::Time64(_) => "time".to_owned(),
        DataType::Dictionary(_, value) => name_of(value),
        DataType::Null => "null".to_owned(),
        plain if plain.is_primitive() || *plain == DataType::Boolean => {
            plain.to_string().to_lowercase()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &str) -> Option<Format> {
        let headers = HeaderMap::from_iter([(header::ACCEPT, value.parse().unwrap())]);
        Format::accepted(&headers).ok()
    }

    #[test]
    fn the_best_liked_format_is_taken() {
        assert_eq!(Format::accepted(&HeaderMap::new()).ok(), Some(Format::Json));
        assert_eq!(accept("*/*"), Some(Format::Json));
        assert_eq!(accept("text/csv"), Some(Format::Csv));
        assert_eq!(
            accept("text/*;q=0.5, application/*;q=0.1"),
            Some(Format::Csv)
        );
        assert_eq!(
            accept("application/json;q=0.2, application/vnd.apache.arrow.stream"),
            Some(Format::Arrow)
        );
        assert_eq!(accept("application/json;q=0, */*"), Some(Format::Csv));
        assert_eq!(accept("image/png"), None);
        assert_eq!(
            accept("text/html, application/xhtml+xml, */*;q=0.8"),
            Some(Format::Json)
        );
    }
}
