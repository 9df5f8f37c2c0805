//! What holds for every record and for every string of bytes.

use bytes::Bytes;
use jiff::Timestamp;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use weir_records::{
    Action, Attribute, DeadLetter, Judged, Message, Reason, Resolution, Scores, Sentiment,
    Settlement, Source, Span, Verdict, dead_letter, decode_erasure, decode_message, judged,
    judged_message,
};

/// Any time that the wire holds, at microseconds; 1970-01-01 only as a producer's.
fn time() -> impl Strategy<Value = Timestamp> {
    (1_i64..253_402_200_000_000_000).prop_map(|micros| Timestamp::from_microsecond(micros).unwrap())
}

fn sent() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        time(),
        Just(Timestamp::UNIX_EPOCH),
        (-377_705_000_000_000_000_i64..0)
            .prop_map(|micros| Timestamp::from_microsecond(micros).unwrap()),
    ]
}

fn source() -> impl Strategy<Value = Source> {
    (any::<i32>(), any::<i64>()).prop_map(|(partition, offset)| Source { partition, offset })
}

prop_compose! {
    fn message()(
        tenant in ".{1,20}",
        channel in ".{1,20}",
        sender in option::of(".{1,20}"),
        id in ".{1,20}",
        text in ".{1,200}",
        by_user in any::<bool>(),
        id_made in any::<bool>(),
        sent_at in sent(),
        received_at in time(),
        metadata in option::of("[a-z]{1,9}".prop_map(|key| format!("{{\"{key}\":1}}"))),
    ) -> Message {
        Message { tenant, channel, sender, by_user, id, id_made, text, sent_at, received_at, metadata }
    }
}

fn attribute() -> impl Strategy<Value = Attribute> {
    proptest::sample::select(Attribute::ALL.to_vec())
}

prop_compose! {
    fn reason()(attribute in attribute(), score in 0_f32..=1.0, threshold in 0_f32..=1.0) -> Reason {
        Reason { attribute, score, threshold }
    }
}

prop_compose! {
    fn span()(attribute in attribute(), start in any::<u32>(), end in any::<u32>()) -> Span {
        Span { attribute, start, end }
    }
}

prop_compose! {
    fn verdict()(
        action in proptest::sample::select(Action::ALL.to_vec()),
        reasons in vec(reason(), 0..4),
        scores in proptest::array::uniform6(0_f32..=1.0),
        sentiment in proptest::array::uniform3(0_f32..=1.0),
        language in "[a-z]{2,3}",
        spans in vec(span(), 0..4),
        model in ".{1,20}",
        judged_at in time(),
    ) -> Verdict {
        let sentiment = Sentiment::from_probabilities(sentiment);
        Verdict { action, reasons, scores: Scores(scores), sentiment, language, spans, model, judged_at }
    }
}

prop_compose! {
    fn resolution()(
        settlement in proptest::sample::select(Settlement::ALL.to_vec()),
        by in ".{1,20}",
        letter in any::<i64>(),
        settled_at in time(),
    ) -> Resolution {
        Resolution { settlement, by, letter, settled_at }
    }
}

prop_compose! {
    fn letter()(
        stage in ".{1,20}",
        reason in ".{1,20}",
        topic in ".{1,20}",
        source in source(),
        key in vec(any::<u8>(), 0..50),
        payload in vec(any::<u8>(), 0..200),
        failed_at in time(),
        resolution in option::of(resolution()),
    ) -> DeadLetter {
        DeadLetter { stage, reason, topic, source, key: Bytes::from(key), payload: Bytes::from(payload), failed_at, resolution }
    }
}

fn read_all(bytes: &[u8]) {
    let _ = decode_message(bytes);
    let _ = judged(bytes);
    let _ = judged_message(bytes);
    let _ = dead_letter(bytes);
    let _ = decode_erasure(bytes);
}

proptest! {
    #[test]
    fn a_message_is_read_as_it_was_written(message in message()) {
        prop_assert_eq!(decode_message(&message.clone().encode()).unwrap(), message);
    }

    #[test]
    fn a_judged_message_is_read_as_it_was_written(message in message(), verdict in verdict(), source in source()) {
        let record = Judged { message, verdict, source };
        prop_assert_eq!(judged(&record.clone().encode()).unwrap(), record);
    }

    #[test]
    fn a_dead_letter_is_read_as_it_was_written(letter in letter()) {
        prop_assert!(dead_letter(&letter.clone().encode()).unwrap() == letter);
    }

    #[test]
    fn a_judged_message_survives_json(message in message(), verdict in verdict(), source in source()) {
        let record = Judged { message, verdict, source };
        let json = serde_json::to_string(&record).unwrap();
        let record = Judged { message: Message { id_made: false, ..record.message }, ..record };
        prop_assert_eq!(serde_json::from_str::<Judged>(&json).unwrap(), record);
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in vec(any::<u8>(), 0..300)) {
        read_all(&bytes);
    }

    #[test]
    fn no_damage_makes_a_reader_panic(
        message in message(),
        verdict in verdict(),
        at in any::<proptest::sample::Index>(),
        bit in 0..8_u32,
        cut in any::<proptest::sample::Index>(),
    ) {
        let source = Source { partition: 1, offset: 2 };
        let mut bytes = Judged { message, verdict, source }.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        read_all(&bytes);
        read_all(&bytes[..cut.index(bytes.len())]);
    }
}
