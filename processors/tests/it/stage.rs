//! The role on a real broker: where verdicts go, and what happens to what can't be
//! judged.

use weir_inference::Model;
use weir_records::{Action, topic};

use crate::bench::{Bench, message};
use crate::{folder, judge, judge_on, load};

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_lies_on_its_messages_partition_in_order_with_its_source() {
    let bench = Bench::start().await;
    let lobby: Vec<_> = (0..30)
        .map(|n| message("lobby", &format!("l{n}"), &format!("hello number {n}")))
        .collect();
    let arena: Vec<_> = (0..7)
        .map(|n| message("arena", &format!("a{n}"), "you are a complete idiot"))
        .collect();
    bench.send(0, &lobby).await;
    bench.send(1, &arena).await;
    let role = bench.process(judge());
    bench.wait_processed(0, 30).await;
    bench.wait_processed(1, 7).await;
    assert_eq!(role.metric("weir_verdicts_total"), 37.0);
    assert_eq!(role.metric("weir_accept_to_judged_seconds"), 37.0);
    role.stop().await;

    for (partition, sent) in [(0, &lobby), (1, &arena)] {
        let verdicts = bench.verdicts(partition).await;
        assert_eq!(verdicts.len(), sent.len());
        for (offset, (judged, message)) in verdicts.iter().zip(sent).enumerate() {
            assert_eq!(&judged.message, message);
            assert_eq!(
                (judged.source.partition, judged.source.offset),
                (partition, offset as i64)
            );
        }
        for record in bench.records(topic::VERDICTS, partition).await {
            assert_eq!(record.key, topic::key("acme", &sent[0].channel));
        }
    }
    assert!(
        bench
            .verdicts(1)
            .await
            .iter()
            .all(|judged| judged.verdict.action != Action::Allow)
    );
    assert!(bench.dead().await.is_empty());
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_none_goes_to_the_dead_letters_and_the_rest_goes_on() {
    let bench = Bench::start().await;
    bench.send(0, &[message("lobby", "1", "hello")]).await;
    bench
        .publish(
            0,
            vec![
                (b"key".to_vec(), vec![0xff; 40]),
                (b"key".to_vec(), Vec::new()),
            ],
        )
        .await;
    bench.send(0, &[message("lobby", "2", "hello again")]).await;
    let role = bench.process(judge());
    bench.wait_processed(0, 4).await;
    role.stop().await;

    let ids: Vec<String> = bench
        .verdicts(0)
        .await
        .into_iter()
        .map(|judged| judged.message.id)
        .collect();
    assert_eq!(ids, ["1", "2"]);
    let dead = bench.dead().await;
    let places: Vec<(&str, &str, i64)> = dead
        .iter()
        .map(|d| (d.stage.as_str(), d.reason.as_str(), d.source.offset))
        .collect();
    assert_eq!(
        places,
        [
            ("process", "malformed_record", 1),
            ("process", "missing_field", 2)
        ]
    );
    assert_eq!(dead[0].payload, vec![0xff; 40]);
    assert_eq!(dead[0].topic, topic::MESSAGES);
    bench.stop().await;
}

/// A model that fails on every text with the word `zzpoison`: its tokenizer gives the
/// word a number that the model's table does not have.
pub(crate) fn poisoned() -> (tempfile::TempDir, Model) {
    let copy = tempfile::tempdir().unwrap();
    for name in ["model.onnx", "golden.jsonl"] {
        std::fs::copy(folder().join(name), copy.path().join(name)).unwrap();
    }
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(folder().join(name)).unwrap()).unwrap()
    };
    let mut tokenizer = read("tokenizer.json");
    tokenizer["model"]["vocab"]["zzpoison"] = 10_000_000.into();
    let tokenizer = tokenizer.to_string();
    let mut description = read("model.json");
    use sha2::Digest as _;
    let sum: String = sha2::Sha256::digest(&tokenizer)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    description["sha256"]["tokenizer.json"] = sum.into();
    std::fs::write(copy.path().join("tokenizer.json"), tokenizer).unwrap();
    std::fs::write(copy.path().join("model.json"), description.to_string()).unwrap();
    let model = load(copy.path().to_owned());
    (copy, model)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_fails_the_model_goes_to_the_dead_letters_and_the_rest_goes_on() {
    let bench = Bench::start().await;
    let texts = ["hello", "zzpoison in here", "hello again"];
    let messages: Vec<_> = texts
        .iter()
        .enumerate()
        .map(|(n, text)| message("lobby", &n.to_string(), text))
        .collect();
    bench.send(1, &messages).await;
    let (_folder, model) = poisoned();
    let role = bench.process(judge_on(model));
    bench.wait_processed(1, 3).await;
    role.stop().await;

    let offsets: Vec<i64> = bench
        .verdicts(1)
        .await
        .iter()
        .map(|judged| judged.source.offset)
        .collect();
    assert_eq!(offsets, [0, 2]);
    let dead = bench.dead().await;
    assert_eq!(dead.len(), 1);
    assert_eq!(
        (dead[0].reason.as_str(), dead[0].source.offset),
        ("model_refused", 1)
    );
    assert_eq!(
        weir_records::decode_message(&dead[0].payload).unwrap(),
        messages[1]
    );
    bench.stop().await;
}
