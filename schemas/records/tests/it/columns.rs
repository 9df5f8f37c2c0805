//! The table that users query. A change here breaks their queries.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Date32Type, Float32Type, Int64Type, TimestampMicrosecondType};
use weir_records::columns::{MESSAGES, batch};

use crate::examples;

#[test]
fn the_columns_keep_their_names_types_and_order() {
    let columns: Vec<String> = MESSAGES
        .fields()
        .iter()
        .map(|field| {
            let null = if field.is_nullable() { " null" } else { "" };
            format!("{} {}{null}", field.name(), field.data_type())
        })
        .collect();
    assert_eq!(
        columns,
        [
            "tenant Utf8",
            "channel Utf8",
            "sender Utf8 null",
            "message_id Utf8",
            "sent_at Timestamp(µs, \"UTC\")",
            "received_at Timestamp(µs, \"UTC\")",
            "judged_at Timestamp(µs, \"UTC\")",
            "text Utf8",
            "language Utf8",
            "toxicity Float32",
            "severe_toxicity Float32",
            "insult Float32",
            "threat Float32",
            "identity_attack Float32",
            "profanity Float32",
            "sentiment Utf8",
            "sentiment_score Float32",
            "action Utf8",
            "reasons Utf8",
            "model Utf8",
            "partition Int32",
            "offset Int64",
            "date Date32",
        ]
    );
}

#[test]
fn a_batch_holds_a_row_for_each_message() {
    let batch = batch(&[examples::judged(), examples::judged_bare()]).unwrap();
    assert_eq!((batch.num_rows(), batch.schema()), (2, MESSAGES.clone()));
    let text = |name: &str, row| batch[name].as_string::<i32>().value(row).to_owned();
    let float = |name: &str, row| batch[name].as_primitive::<Float32Type>().value(row);
    assert_eq!(text("message_id", 0), "m-1");
    assert_eq!(
        (batch["sender"].is_null(0), batch["sender"].is_null(1)),
        (false, true)
    );
    assert_eq!(text("reasons", 0), "insult 0.93>=0.80");
    assert_eq!(
        (text("reasons", 1), text("action", 1)),
        (String::new(), "allow".to_owned())
    );
    assert_eq!((float("toxicity", 0), float("profanity", 0)), (0.91, 0.40));
    assert_eq!(
        (text("sentiment", 0), float("sentiment_score", 0)),
        ("negative".to_owned(), 0.90)
    );
    assert_eq!(
        batch["offset"].as_primitive::<Int64Type>().value(0),
        9_876_543_210
    );
    let sent = batch["sent_at"].as_primitive::<TimestampMicrosecondType>();
    assert_eq!(sent.value(0), examples::message().sent_at.as_microsecond());
    assert_eq!(sent.value(1), -1);
}

#[test]
fn the_date_is_the_day_of_receipt_in_utc() {
    let mut rows = vec![examples::judged(); 3];
    rows[1].message.received_at = examples::time("2026-11-23T00:00:00Z");
    rows[2].message.received_at = examples::time("1969-12-31T23:00:00Z");
    let batch = batch(&rows).unwrap();
    let days = batch["date"].as_primitive::<Date32Type>();
    let first = examples::time("2026-11-22T00:00:00Z").as_second() / 86_400;
    assert_eq!(days.values()[..], [first as i32, first as i32 + 1, -1]);
}

#[test]
fn no_rows_are_a_batch_too() {
    assert_eq!(batch(&[]).unwrap().num_rows(), 0);
}
