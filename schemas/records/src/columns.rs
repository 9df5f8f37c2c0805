//! The columns of the one table that matters in SQL: `messages`. The lake and the
//! tail both use this schema, so that a query sees no seam between them.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, BooleanArray, Date32Array, Float32Array, Int32Array,
    Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use jiff::Timestamp;

use crate::erasure::Erasures;
use crate::message::Judged;
use crate::verdict::Attribute;

/// The column that the lake is partitioned by: the UTC date of `received_at`.
pub const DATE: &str = "date";

/// The schema of `messages`, in the order that `SELECT *` shows.
pub static MESSAGES: LazyLock<SchemaRef> = LazyLock::new(|| {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let time = |name: &str| {
        Field::new(
            name,
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            false,
        )
    };
    let mut fields = vec![
        text("tenant"),
        text("channel"),
        Field::new("sender", DataType::Utf8, true),
        text("message_id"),
        time("sent_at"),
        time("received_at"),
        time("judged_at"),
        text("text"),
        text("language"),
    ];
    fields.extend(Attribute::ALL.map(|a| Field::new(a.name(), DataType::Float32, false)));
    fields.extend([
        text("sentiment"),
        Field::new("sentiment_score", DataType::Float32, false),
        text("action"),
        // `insult 0.93>=0.80, toxicity 0.91>=0.80`: readable at every door, searchable with LIKE.
        text("reasons"),
        text("model"),
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", DataType::Int64, false),
        Field::new(DATE, DataType::Date32, false),
    ]);
    Arc::new(Schema::new(fields))
});

/// One row for each judged message, in the order given.
///
/// # Errors
/// Only if [`MESSAGES`] and this function disagree.
pub fn batch(rows: &[Judged]) -> Result<RecordBatch, ArrowError> {
    fn text<'a>(rows: &'a [Judged], of: impl Fn(&'a Judged) -> &'a str) -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(of)))
    }
    fn time(rows: &[Judged], of: impl Fn(&Judged) -> Timestamp) -> ArrayRef {
        let micros = rows.iter().map(|row| of(row).as_microsecond());
        Arc::new(TimestampMicrosecondArray::from_iter_values(micros).with_timezone("UTC"))
    }
    fn float(rows: &[Judged], of: impl Fn(&Judged) -> f32) -> ArrayRef {
        Arc::new(Float32Array::from_iter_values(rows.iter().map(of)))
    }

    let mut columns = vec![
        text(rows, |r| &r.message.tenant),
        text(rows, |r| &r.message.channel),
        Arc::new(
            rows.iter()
                .map(|r| r.message.sender.as_deref())
                .collect::<StringArray>(),
        ) as ArrayRef,
        text(rows, |r| &r.message.id),
        time(rows, |r| r.message.sent_at),
        time(rows, |r| r.message.received_at),
        time(rows, |r| r.verdict.judged_at),
        text(rows, |r| &r.message.text),
        text(rows, |r| &r.verdict.language),
    ];
    columns.extend(Attribute::ALL.map(|a| float(rows, |r| r.verdict.scores.get(a))));
    columns.extend([
        text(rows, |r| r.verdict.sentiment.label.name()),
        float(rows, |r| r.verdict.sentiment.score()),
        text(rows, |r| r.verdict.action.name()),
        Arc::new(StringArray::from_iter_values(rows.iter().map(reasons))) as ArrayRef,
        text(rows, |r| &r.verdict.model),
        Arc::new(Int32Array::from_iter_values(
            rows.iter().map(|r| r.source.partition),
        )),
        Arc::new(Int64Array::from_iter_values(
            rows.iter().map(|r| r.source.offset),
        )),
        Arc::new(Date32Array::from_iter_values(rows.iter().map(date))),
    ]);
    RecordBatch::try_new(Arc::clone(&MESSAGES), columns)
}

/// The columns that [`erased`] reads.
pub const IDENTITY: [&str; 4] = ["tenant", "sender", "message_id", "received_at"];

/// For each row, whether it is erased. The batch has the columns of [`IDENTITY`] at least.
///
/// # Errors
/// A column is missing or of another type.
pub fn erased(batch: &RecordBatch, erasures: &Erasures) -> Result<BooleanArray, ArrowError> {
    let column = |name: &str| {
        let found = batch.column_by_name(name);
        found.ok_or_else(|| ArrowError::SchemaError(format!("no column `{name}`")))
    };
    let text = |name: &str| {
        column(name)?
            .as_string_opt::<i32>()
            .ok_or_else(|| ArrowError::SchemaError(format!("the column `{name}` is no text")))
    };
    let (tenants, senders, ids) = (text("tenant")?, text("sender")?, text("message_id")?);
    let received = column("received_at")?
        .as_primitive_opt::<TimestampMicrosecondType>()
        .ok_or_else(|| ArrowError::SchemaError("`received_at` is no time".to_owned()))?;
    Ok((0..batch.num_rows())
        .map(|row| {
            let sender = senders.is_valid(row).then(|| senders.value(row));
            Some(erasures.covers(
                tenants.value(row),
                sender,
                ids.value(row),
                received.value(row),
            ))
        })
        .collect())
}

fn reasons(row: &Judged) -> String {
    let reasons: Vec<String> = row
        .verdict
        .reasons
        .iter()
        .map(ToString::to_string)
        .collect();
    reasons.join(", ")
}

/// Days since 1970-01-01 of `received_at`, UTC.
fn date(row: &Judged) -> i32 {
    let days = row.message.received_at.as_second().div_euclid(86_400);
    i32::try_from(days).unwrap_or(i32::MAX)
}
