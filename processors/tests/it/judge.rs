//! From text to verdict, without any bus.

use prometheus::Registry;
use weir_processors::{Judge, Thresholds};
use weir_records::{Action, Attribute, Verdict};

use crate::{judge, model};

async fn verdicts(texts: &[&str]) -> Vec<Verdict> {
    judge()
        .judge(texts)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect()
}

fn words(text: &str, verdict: &Verdict) -> Vec<String> {
    let word = |start: u32, end: u32| {
        text.chars()
            .skip(start as usize)
            .take((end - start) as usize)
            .collect()
    };
    verdict
        .spans
        .iter()
        .map(|span| word(span.start, span.end))
        .collect()
}

#[test]
fn the_models_columns_are_the_records_attributes() {
    assert_eq!(
        weir_inference::ATTRIBUTES,
        Attribute::ALL.map(Attribute::name)
    );
    assert_eq!(
        weir_inference::SENTIMENTS,
        ["negative", "neutral", "positive"]
    );
}

#[tokio::test]
async fn an_insult_is_not_allowed_and_its_word_is_named_as_it_was_written() {
    let texts = [
        "😂😂 you are such an 1d10t and everybody hates you",
        "ｙｏｕ are such an i\u{200b}d\u{200b}iot and everybody hates you",
        "you are such an idiot and everybody hates you",
    ];
    for (text, verdict) in texts.iter().zip(verdicts(&texts).await) {
        assert_ne!(verdict.action, Action::Allow, "{text}");
        assert!(!verdict.reasons.is_empty());
        for reason in &verdict.reasons {
            assert_eq!(reason.score, verdict.scores.get(reason.attribute));
            assert!(reason.score >= reason.threshold);
        }
        assert!(
            verdict
                .spans
                .iter()
                .all(|span| span.attribute == Attribute::Toxicity)
        );
    }
    let plain = verdicts(&texts[2..]).await.remove(0);
    assert!(
        words(texts[2], &plain)
            .iter()
            .any(|word| word.contains("idiot")),
        "{:?}",
        words(texts[2], &plain)
    );
    let hidden = verdicts(&texts[1..2]).await.remove(0);
    let named = words(texts[1], &hidden);
    assert!(
        named
            .iter()
            .any(|word| word.contains("i\u{200b}d\u{200b}iot")),
        "{named:?}"
    );
}

#[tokio::test]
async fn harmless_texts_are_allowed_without_reasons_or_spans() {
    let texts = [
        "thank you so much, have a lovely day!",
        "the bus leaves at nine",
        "😀",
        "gg",
    ];
    for (text, verdict) in texts.iter().zip(verdicts(&texts).await) {
        assert_eq!(verdict.action, Action::Allow, "{text}");
        assert!(verdict.reasons.is_empty() && verdict.spans.is_empty());
        assert_eq!(verdict.model, model().info().name);
    }
}

#[tokio::test]
async fn the_same_texts_get_the_same_verdicts_in_any_company() {
    let texts = [
        "you are such an idiot and everybody hates you",
        "what a day",
        "I will find you and kill you",
        "the new map is far too open for my taste, but I like the middle",
        "gg",
    ];
    let together = verdicts(&texts).await;
    for (text, before) in texts.iter().zip(together) {
        let alone = verdicts(&[text]).await.remove(0);
        let at = before.judged_at;
        assert_eq!(
            Verdict {
                judged_at: at,
                ..alone
            },
            before,
            "{text}"
        );
    }
}

#[tokio::test]
async fn texts_of_8_kib_have_verdicts_whose_spans_lie_inside() {
    let long = "ｙｏｕ idiot 🖕 ".repeat(300);
    assert!(long.len() > 6_000 && long.len() <= 8_192);
    let odd = "\u{200b}".repeat(2_000);
    let texts = [long.as_str(), odd.as_str(), "🖕", "!?"];
    for (text, verdict) in texts.iter().zip(verdicts(&texts).await) {
        let count = text.chars().count() as u32;
        assert!(
            verdict
                .spans
                .iter()
                .all(|span| span.start < span.end && span.end <= count)
        );
    }
}

#[test]
fn thresholds_that_cannot_be_are_refused_by_name() {
    let set: Thresholds = serde_json::from_str(r#"{"insult": {"flag": 2}}"#).unwrap();
    let error = Judge::new(model(), &set, &Registry::new()).unwrap_err();
    assert!(error.to_string().contains("insult.flag"));
}
