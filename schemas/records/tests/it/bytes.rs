//! Every version reads what the first one wrote, and says what is missing.

use std::path::Path;

use weir_records::{
    DecodeError, dead_letter, decode_erasure, decode_message, judged, judged_message,
    published_again,
};

use crate::examples;

/// The committed encodings, each with the record it holds.
fn encodings() -> [(&'static str, Vec<u8>); 8] {
    [
        ("message", examples::message().encode()),
        ("message_bare", examples::bare().encode()),
        ("judged", examples::judged().encode()),
        ("judged_bare", examples::judged_bare().encode()),
        ("dead_letter", examples::dead_letter().encode()),
        ("resolution", examples::resolution().encode()),
        ("erasure", examples::erasure().encode()),
        ("erasure_message", examples::erasure_of_message().encode()),
    ]
}

fn committed(name: &str) -> Vec<u8> {
    std::fs::read(file(name)).unwrap()
}

fn file(name: &str) -> std::path::PathBuf {
    // Tests run in their crate's folder.
    Path::new("tests/it/v1").join(format!("{name}.bin"))
}

#[test]
fn the_first_version_is_still_read() {
    assert_eq!(
        decode_message(&committed("message")).unwrap(),
        examples::message()
    );
    assert_eq!(
        decode_message(&committed("message_bare")).unwrap(),
        examples::bare()
    );
    assert_eq!(judged(&committed("judged")).unwrap(), examples::judged());
    assert_eq!(
        judged(&committed("judged_bare")).unwrap(),
        examples::judged_bare()
    );
    assert!(dead_letter(&committed("dead_letter")).unwrap() == examples::dead_letter());
    assert!(dead_letter(&committed("resolution")).unwrap() == examples::resolution());
    assert!(decode_erasure(&committed("erasure")).unwrap() == examples::erasure());
    assert!(
        decode_erasure(&committed("erasure_message")).unwrap() == examples::erasure_of_message()
    );
}

#[test]
fn the_first_version_is_still_written() {
    for (name, encoding) in encodings() {
        assert_eq!(encoding, committed(name), "{name}");
    }
}

#[test]
#[ignore = "makes the encodings of a new kind of record; those that exist are never changed"]
fn write_new_encodings() {
    for (name, encoding) in encodings() {
        if !file(name).exists() {
            std::fs::write(file(name), encoding).unwrap();
        }
    }
}

#[test]
fn fields_of_later_versions_are_ignored() {
    // Field 1000 as a number, field 1001 as text.
    let number = [0xc0, 0x3e, 0x96, 0x01];
    let text = [0xca, 0x3e, 0x03, b'n', b'e', b'w'];
    let later = [&number[..], &text[..]].concat();
    let with = |record: Vec<u8>| [record, later.clone()].concat();
    assert_eq!(
        decode_message(&with(examples::message().encode())).unwrap(),
        examples::message()
    );
    assert!(
        dead_letter(&with(examples::dead_letter().encode())).unwrap() == examples::dead_letter()
    );
    assert!(decode_erasure(&with(examples::erasure().encode())).unwrap() == examples::erasure());

    // Inside the message and the verdict too: parts that come again are merged.
    let inside = |field: u8| [vec![field << 3 | 2, later.len() as u8], later.clone()].concat();
    let record = [with(examples::judged().encode()), inside(2), inside(3)].concat();
    assert_eq!(judged(&record).unwrap(), examples::judged());
}

#[test]
fn a_record_that_is_published_again_is_not_the_only_one_with_its_id() {
    let made = weir_records::Message {
        id_made: true,
        ..examples::message()
    };
    let payload = made.clone().encode();
    assert_eq!(decode_message(&payload).unwrap(), made);
    assert_eq!(
        decode_message(&published_again(&payload)).unwrap(),
        examples::message()
    );
}

/// A later version is read, unless it says that this one would misread it.
#[test]
fn a_record_of_the_next_version_is_read_and_one_that_must_not_be_is_refused() {
    // Field 1, the schema, and field 15, the least reader: the last of each counts.
    let next = |record: Vec<u8>| [record, vec![1 << 3, 2]].concat();
    let not_for_us = |record: Vec<u8>| [next(record), vec![15 << 3, 2]].concat();
    let refused = DecodeError::Newer(2);
    assert_eq!(refused.code(), "unknown_schema");
    let message = examples::message().encode();
    assert_eq!(
        decode_message(&next(message.clone())),
        Ok(examples::message())
    );
    assert_eq!(decode_message(&not_for_us(message)), Err(refused));
    let record = examples::judged().encode();
    assert_eq!(judged(&next(record.clone())), Ok(examples::judged()));
    let record = not_for_us(record);
    assert_eq!(judged(&record), Err(DecodeError::Newer(2)));
    assert_eq!(judged_message(&record), Err(DecodeError::Newer(2)));
    let record = not_for_us(examples::dead_letter().encode());
    assert_eq!(dead_letter(&record).unwrap_err(), DecodeError::Newer(2));
    let record = not_for_us(examples::erasure().encode());
    assert_eq!(decode_erasure(&record).unwrap_err(), DecodeError::Newer(2));
}

#[test]
fn scores_of_later_versions_are_ignored() {
    // A seventh score, appended to the packed six of field 3 of the verdict.
    let score = 0.5_f32.to_le_bytes();
    let verdict = [vec![3 << 3 | 2, 4], score.to_vec()].concat();
    let record = [
        examples::judged().encode(),
        vec![3 << 3 | 2, verdict.len() as u8],
        verdict,
    ]
    .concat();
    assert_eq!(judged(&record).unwrap(), examples::judged());
}

#[test]
fn a_missing_field_is_named() {
    let message = examples::message().encode();
    for (number, name) in [
        (2, "tenant"),
        (3, "channel"),
        (5, "id"),
        (6, "text"),
        (7, "sent_at"),
        (8, "received_at"),
    ] {
        assert_eq!(
            decode_message(&without(&message, number)),
            Err(DecodeError::Missing(name))
        );
    }
    for (number, name) in [(1, "schema"), (4, "sender"), (9, "metadata")] {
        assert!(
            decode_message(&without(&message, number)).is_ok(),
            "{name} may be missing"
        );
    }

    let record = examples::judged().encode();
    for (number, name) in [
        (2, "message"),
        (3, "verdict"),
        (4, "partition"),
        (5, "offset"),
    ] {
        assert_eq!(
            judged(&without(&record, number)),
            Err(DecodeError::Missing(name))
        );
    }
    for (number, name) in [
        (1, "action"),
        (3, "scores"),
        (4, "sentiment"),
        (5, "language"),
        (7, "model"),
        (8, "judged_at"),
    ] {
        assert_eq!(
            judged(&inside(&record, 3, number)),
            Err(DecodeError::Missing(name))
        );
    }
    assert_eq!(
        judged(&inside(&record, 2, 2)),
        Err(DecodeError::Missing("tenant"))
    );

    let letter = examples::dead_letter().encode();
    for (number, name) in [
        (2, "stage"),
        (3, "reason"),
        (4, "topic"),
        (5, "partition"),
        (6, "offset"),
        (9, "failed_at"),
    ] {
        let error = dead_letter(&without(&letter, number)).unwrap_err();
        assert_eq!(error, DecodeError::Missing(name));
    }
    let note = examples::resolution().encode();
    for (number, name) in [
        (1, "resolution.settlement"),
        (2, "resolution.by"),
        (3, "resolution.letter"),
        (4, "resolution.settled_at"),
    ] {
        let error = dead_letter(&inside(&note, 10, number)).unwrap_err();
        assert_eq!(error, DecodeError::Missing(name));
    }
    assert!(
        dead_letter(&without(&note, 10))
            .unwrap()
            .resolution
            .is_none(),
        "a note is one by this field alone"
    );

    let erasure = examples::erasure().encode();
    for (number, name) in [
        (2, "tenant"),
        (3, "sender"),
        (5, "up_to"),
        (6, "requested_at"),
        (7, "by"),
    ] {
        let error = decode_erasure(&without(&erasure, number)).unwrap_err();
        assert_eq!(error, DecodeError::Missing(name));
    }
    // A sender and an id: nobody knows which of them was meant.
    let both = [erasure, vec![4 << 3 | 2, 1, b'm']].concat();
    assert_eq!(
        decode_erasure(&both).unwrap_err(),
        DecodeError::Unknown("sender")
    );
}

#[test]
fn a_judged_message_is_read_whatever_its_verdict_is_like() {
    let record = examples::judged().encode();
    let whole = (examples::message(), examples::judged().source);
    assert_eq!(judged_message(&record), Ok(whole.clone()));
    assert_eq!(judged_message(&without(&record, 3)), Ok(whole.clone()));
    // A verdict that is no Protobuf at all.
    let broken = [without(&record, 3), vec![3 << 3 | 2, 3, 0xff, 0xff, 0xff]].concat();
    assert_eq!(judged(&broken), Err(DecodeError::Malformed));
    assert_eq!(judged_message(&broken), Ok(whole));
    assert_eq!(
        judged_message(&without(&record, 2)),
        Err(DecodeError::Missing("message"))
    );
    assert_eq!(judged_message(&[0xff; 9]), Err(DecodeError::Malformed));
}

#[test]
fn a_value_that_is_not_known_is_named() {
    let action = [examples::judged().encode(), vec![3 << 3 | 2, 2, 1 << 3, 9]].concat();
    assert_eq!(judged(&action), Err(DecodeError::Unknown("action")));

    let reason = [1 << 3, 9];
    let verdict = [vec![2 << 3 | 2, 2], reason.to_vec()].concat();
    let attribute = [examples::judged().encode(), vec![3 << 3 | 2, 4], verdict].concat();
    assert_eq!(
        judged(&attribute),
        Err(DecodeError::Unknown("reasons.attribute"))
    );

    // 2^62 microseconds are 146,000 years.
    let time = [vec![7 << 3], vec![0x80; 8], vec![0x40]].concat();
    let message = [examples::message().encode(), time].concat();
    assert_eq!(
        decode_message(&message),
        Err(DecodeError::Unknown("sent_at"))
    );
}

#[test]
fn what_is_no_record_is_malformed() {
    for bytes in [
        &b"{\"text\": \"hello\"}"[..],
        &[0xff; 20],
        &examples::message().encode()[..40],
    ] {
        assert_eq!(decode_message(bytes), Err(DecodeError::Malformed));
    }
    assert_eq!(decode_message(&[]), Err(DecodeError::Missing("tenant")));
}

/// The record without one of its fields.
fn without(record: &[u8], number: u64) -> Vec<u8> {
    fields(record)
        .into_iter()
        .filter(|(field, _)| *field != number)
        .flat_map(|(_, bytes)| bytes.to_vec())
        .collect()
}

/// The record without one of the fields of its part `part`.
fn inside(record: &[u8], part: u64, number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for (field, bytes) in fields(record) {
        if field == part {
            let (_, mut rest) = varint(bytes);
            (_, rest) = varint(rest);
            let smaller = without(rest, number);
            out.push(u8::try_from(part << 3 | 2).unwrap());
            let mut length = smaller.len();
            while length >= 0x80 {
                out.push(length as u8 | 0x80);
                length >>= 7;
            }
            out.push(length as u8);
            out.extend(smaller);
        } else {
            out.extend(bytes);
        }
    }
    out
}

/// The fields of a Protobuf message, each with its whole bytes.
fn fields(mut record: &[u8]) -> Vec<(u64, &[u8])> {
    let mut fields = Vec::new();
    while !record.is_empty() {
        let (tag, rest) = varint(record);
        let rest = match tag & 7 {
            0 => varint(rest).1,
            2 => {
                let (length, rest) = varint(rest);
                &rest[length as usize..]
            }
            5 => &rest[4..],
            kind => panic!("field of kind {kind}"),
        };
        let (field, after) = record.split_at(record.len() - rest.len());
        fields.push((tag >> 3, field));
        record = after;
    }
    fields
}

fn varint(bytes: &[u8]) -> (u64, &[u8]) {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return (value, &bytes[index + 1..]);
        }
    }
    panic!("no end of a number")
}
