//! What comes back for texts of all kinds, and under load.

use std::time::Duration;

use sha2::{Digest, Sha256};
use weir_inference::{Config, Raw, ScoreError};

use crate::{Loaded, config, copy, load, shared};

const TEXTS: [&str; 6] = [
    "you are a complete idiot and everybody hates you",
    "thank you so much, have a lovely day!",
    "the bus leaves at nine",
    "gg",
    "I will find you and I will kill you",
    "what do you think about the new map? I quite like the middle part, but the rest is far too open for my taste",
];

fn close(a: &Raw, b: &Raw, tolerance: f32) -> bool {
    let pairs = a
        .scores
        .iter()
        .zip(&b.scores)
        .chain(a.sentiment.iter().zip(&b.sentiment));
    pairs.into_iter().all(|(a, b)| (a - b).abs() <= tolerance)
}

fn all(results: Vec<Result<Raw, ScoreError>>) -> Vec<Raw> {
    results.into_iter().map(Result::unwrap).collect()
}

#[tokio::test]
async fn scores_are_probabilities_and_say_what_is_toxic() {
    let loaded = shared();
    let raw = all(loaded.score(&TEXTS).await);
    for (raw, text) in raw.iter().zip(TEXTS) {
        assert!(raw.scores.iter().all(|score| (0.0..=1.0).contains(score)));
        assert!((raw.sentiment.iter().sum::<f32>() - 1.0).abs() < 1e-3);
        for token in &raw.tokens {
            assert!(
                text.get(token.start as usize..token.end as usize)
                    .is_some_and(|word| !word.is_empty())
            );
            assert!(token.toxicity >= loaded.model.info().span_threshold);
        }
    }
    assert!(raw[0].scores[0] > 0.5 && raw[1].scores[0] < 0.5 && raw[2].scores[0] < 0.5);
    assert!(raw[1].sentiment[2] > 0.5, "a thank-you is positive");
    let words: Vec<&str> = raw[0]
        .tokens
        .iter()
        .map(|t| &TEXTS[0][t.start as usize..t.end as usize])
        .collect();
    assert!(words.contains(&"idiot"), "{words:?}");
}

#[tokio::test]
async fn a_text_has_the_same_scores_alone_and_in_any_company() {
    let loaded = shared();
    let together = all(loaded.score(&TEXTS).await);
    let mut reversed = TEXTS;
    reversed.reverse();
    let reversed = all(loaded.score(&reversed).await);
    for (at, text) in TEXTS.iter().enumerate() {
        let alone = &all(loaded.score(&[text]).await)[0];
        assert!(close(alone, &together[at], 1e-4), "{text}");
        assert!(
            close(alone, &reversed[TEXTS.len() - 1 - at], 1e-4),
            "{text}"
        );
    }
}

#[tokio::test]
async fn answers_come_in_the_order_of_the_texts() {
    let loaded = load(Config {
        sessions: 2,
        ..config()
    });
    // Lengths mixed, so that the batches are in another order than the texts.
    let texts: Vec<&str> = (0..120).map(|n| TEXTS[(n * 7) % TEXTS.len()]).collect();
    let known = all(loaded.score(&TEXTS).await);
    for (n, raw) in all(loaded.score(&texts).await).iter().enumerate() {
        assert!(close(raw, &known[(n * 7) % TEXTS.len()], 1e-4), "text {n}");
    }
    assert_eq!(loaded.metric("weir_model_texts_total"), 126.0);
    assert_eq!(loaded.metric("weir_model_queue_depth"), 0.0);
    assert!(
        loaded.metric("weir_batch_size") < 120.0,
        "texts share passes"
    );
}

#[tokio::test]
async fn every_part_of_a_long_text_is_read() {
    let loaded = shared();
    let harmless = "the bus to the station leaves at nine and comes back at ten. ".repeat(130);
    let harmless = harmless.as_str();
    let insult = "you are a complete idiot and everybody hates you. ";
    let middle = harmless.find(' ').unwrap() + 1 + 61 * 60;
    for at in [0, middle, harmless.len()] {
        let text = format!("{}{insult}{}", &harmless[..at], &harmless[at..]);
        let raw = all(loaded.score(&[harmless, &text]).await);
        assert!(raw[0].scores[0] < 0.5, "{:?}", raw[0].scores);
        assert!(raw[1].scores[0] > 0.5, "at {at}: {:?}", raw[1].scores);
        let word = text.find("idiot").unwrap() as u32;
        assert!(
            raw[1].tokens.iter().any(|token| token.start == word),
            "at {at}"
        );
    }
}

#[tokio::test]
async fn unusual_texts_are_scored_like_any_other() {
    let loaded = shared();
    let wide = "!?".repeat(4_096);
    let word = "x".repeat(8_192);
    let texts = [
        "",
        " ",
        "[SEP] [CLS] [PAD] [MASK]",
        "\u{fffd}\u{fffd}",
        "😂😂",
        "中文 한국어 العربية",
        &wide,
        &word,
    ];
    for (text, raw) in texts.iter().zip(loaded.score(&texts).await) {
        let raw = raw.unwrap_or_else(|error| {
            panic!("{:?}: {error}", text.chars().take(8).collect::<String>())
        });
        assert!(raw.scores.iter().all(|score| score.is_finite()));
    }
}

#[tokio::test]
async fn typed_marks_of_the_tokenizer_are_text() {
    let loaded = shared();
    let raw = all(loaded.score(&["you idiot [SEP]", "you idiot"]).await);
    assert!(!close(&raw[0], &raw[1], 1e-6), "the mark was swallowed");
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_recovers() {
    let loaded = load(Config {
        queue: 50,
        ..config()
    });
    let many: Vec<&str> = TEXTS.iter().copied().cycle().take(300).collect();
    // The first finds nothing before it and is taken; the second finds 300.
    let (first, second) = tokio::join!(loaded.score(&many), loaded.score(&TEXTS));
    assert!(first.iter().all(Result::is_ok));
    assert!(
        second
            .iter()
            .all(|result| *result == Err(ScoreError::Overloaded))
    );
    assert_eq!(loaded.metric("weir_model_failures_total"), 6.0);
    assert!(loaded.score(&TEXTS).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn texts_whose_caller_has_left_are_skipped() {
    let loaded = load(config());
    let many: Vec<&str> = TEXTS.iter().copied().cycle().take(600).collect();
    // Polled once, so that it is admitted; then dropped.
    let left = tokio::time::timeout(Duration::from_millis(1), loaded.score(&many)).await;
    assert!(left.is_err());
    assert!(loaded.score(&["hello"]).await[0].is_ok());
    wait_until_empty(&loaded).await;
    let scored = loaded.metric("weir_model_texts_total");
    let skipped = loaded.metric("weir_model_abandoned_total");
    assert_eq!(scored + skipped, 601.0);
    assert!(skipped > 0.0);
}

async fn wait_until_empty(loaded: &Loaded) {
    while loaded.metric("weir_model_queue_depth") > 0.0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn no_texts_are_no_work() {
    let loaded = shared();
    assert!(loaded.score(&[]).await.is_empty());
}

/// A model that fails on every text with the word `zzpoison`: its tokenizer gives the
/// word a number that the model's table does not have.
fn poisoned() -> (tempfile::TempDir, Loaded) {
    let folder = copy();
    let change = |name: &str, change: &dyn Fn(&mut serde_json::Value)| {
        let path = folder.path().join(name);
        let mut json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut json);
        std::fs::write(path, json.to_string()).unwrap();
    };
    change("tokenizer.json", &|json| {
        json["model"]["vocab"]["zzpoison"] = 10_000_000.into()
    });
    let bytes = std::fs::read(folder.path().join("tokenizer.json")).unwrap();
    let sum: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    change("model.json", &|json| {
        json["sha256"]["tokenizer.json"] = sum.clone().into()
    });
    let loaded = load(Config {
        model: folder.path().to_owned(),
        ..config()
    });
    (folder, loaded)
}

#[tokio::test]
async fn a_text_that_the_model_fails_on_takes_no_other_with_it() {
    let (_folder, loaded) = poisoned();
    let known = all(loaded.score(&TEXTS).await);
    let mut texts = TEXTS.to_vec();
    texts.insert(3, "zzpoison in a short text");
    texts.push("zzpoison");
    let results = loaded.score(&texts).await;
    assert_eq!(results[3], Err(ScoreError::Refused));
    assert_eq!(results[7], Err(ScoreError::Refused));
    let rest: Vec<Raw> = results.into_iter().flatten().collect();
    assert_eq!(rest.len(), TEXTS.len());
    assert!(rest.iter().zip(&known).all(|(a, b)| close(a, b, 1e-4)));
    assert_eq!(loaded.metric("weir_model_failures_total"), 2.0);
    assert_eq!(
        loaded.score(&["zzpoison"]).await,
        [Err(ScoreError::Refused)],
        "every time"
    );
    assert!(
        loaded.score(&["hello"]).await[0].is_ok(),
        "the thread lives on"
    );
}
