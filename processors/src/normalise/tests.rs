//! The contract with the training side, and where places lead back to.

use proptest::prelude::*;

use super::*;

#[derive(serde::Deserialize)]
struct Vector {
    text: String,
    normalised: String,
}

const VECTORS: &str = include_str!("../../../models/normalise_vectors.jsonl");

#[test]
fn every_vector_of_the_contract_comes_out_to_the_letter() {
    let mut count = 0;
    for line in VECTORS.lines() {
        let vector: Vector = serde_json::from_str(line).unwrap();
        assert_eq!(
            Normalised::new(&vector.text).text(),
            vector.normalised,
            "{:?}",
            vector.text
        );
        count += 1;
    }
    assert!(count >= 100, "only {count} vectors");
}

/// What a word of the normalised text stands for in the original.
fn original(text: &str, word: &str) -> String {
    let normalised = Normalised::new(text);
    let start = normalised
        .text()
        .find(word)
        .unwrap_or_else(|| panic!("no {word:?} in {:?}", normalised.text()));
    let places = normalised.places(text, [(start, start + word.len())]);
    let [(from, to)] = places.as_slice() else {
        panic!("{places:?}")
    };
    text.chars()
        .skip(*from as usize)
        .take((to - from) as usize)
        .collect()
}

#[test]
fn places_lead_back_to_what_was_written() {
    assert_eq!(original("you  are   a fool", "fool"), "fool");
    assert_eq!(original("you sh1t head", "shit"), "sh1t");
    assert_eq!(original("an a$$hole, he is", "asshole"), "a$$hole");
    assert_eq!(
        original("i\u{200b}d\u{200d}iot", "idiot"),
        "i\u{200b}d\u{200d}iot"
    );
    assert_eq!(
        original("so ｆｏｏｌｉｓｈ of you", "foolish"),
        "ｆｏｏｌｉｓｈ"
    );
    assert_eq!(original("a ﬁlthy liar", "filthy"), "ﬁlthy");
    assert_eq!(original("a ﬁlthy liar", "liar"), "liar");
    assert_eq!(original("go to 🖕 you", "middle finger"), "🖕");
    assert_eq!(original("go to 🖕 you", "you"), "you");
    assert_eq!(original("👨‍👩‍👧 fools", "fools"), "fools");
    assert_eq!(
        original("looooooool fool", "looool".get(..4).unwrap()),
        "loooooooo"
    );
    assert_eq!(
        original("see https://example.org/a?b=c now", "http"),
        "https://example.org/a?b=c"
    );
    assert_eq!(original("hey @some_body fool", "@user"), "@some_body");
    assert_eq!(original("caf\u{65}\u{301} idiot", "idiot"), "idiot");
    assert_eq!(
        original("caf\u{65}\u{301} idiot", "café"),
        "caf\u{65}\u{301}"
    );
}

#[test]
fn neighbouring_places_become_one_and_others_stay_apart() {
    let text = "damn fools and idiots";
    let normalised = Normalised::new(text);
    assert_eq!(
        normalised.places(text, [(0, 2), (2, 4), (5, 10), (15, 21)]),
        [(0, 10), (15, 21)]
    );
    assert_eq!(normalised.places(text, [(5, 10), (4, 5)]), [(4, 10)]);
    assert_eq!(normalised.places(text, []), []);
    assert_eq!(normalised.places(text, [(3, 3), (90, 99)]), []);
}

#[test]
fn texts_of_nothing_but_the_unusual_are_normalised_too() {
    assert_eq!(Normalised::new("\u{200b}\u{200d}\u{fe0f}").text(), "");
    assert_eq!(Normalised::new("").text(), "");
    assert!(!Normalised::new("😂😂🔥").text().is_empty());
    let long = "ａ🖕 \u{200b}1!".repeat(700);
    assert!(!Normalised::new(&long).text().is_empty());
}

/// Characters that each of the steps has something to do with.
fn texts() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "a",
        "b",
        "z",
        "Q",
        " ",
        "  ",
        "\t",
        "\u{200b}",
        "\u{200d}",
        "\u{fe0f}",
        "\u{301}",
        "e\u{301}",
        "ﬁ",
        "Ａ",
        "０",
        "1",
        "3",
        "$",
        "@",
        "@x",
        "!",
        "sh1t",
        "www.a",
        "https://b ",
        "aaaaa",
        "!!!!!",
        "😂",
        "🖕🏽",
        "👨‍👩‍👧",
        "🇩🇪",
        "1\u{fe0f}\u{20e3}",
        "각",
        "\u{1100}\u{1161}\u{11a8}",
        "ß",
        "ﷺ",
        "\u{e0061}",
        "中",
        "\u{1f3fd}",
        ".",
        "_",
    ]);
    prop_oneof![
        prop::collection::vec(pieces, 0..40).prop_map(|parts| parts.concat()),
        any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn places_always_lie_inside_the_original(text in texts(), cuts in prop::collection::vec((0usize..200, 0usize..40), 0..8)) {
        let normalised = Normalised::new(&text);
        let count = text.chars().count() as u32;
        // Every character came from somewhere.
        prop_assert_eq!(normalised.text().chars().count(), normalised.origins.len());
        for (start, end) in &normalised.origins {
            prop_assert!(start < end && *end <= count);
        }
        let ranges = cuts.iter().map(|(start, length)| (*start, start + length));
        let places = normalised.places(&text, ranges);
        for (start, end) in &places {
            prop_assert!(start < end && *end <= count);
        }
        for pair in places.windows(2) {
            prop_assert!(pair[0].1 < pair[1].0, "in order and apart");
        }
    }

    #[test]
    fn segmented_composition_is_that_of_the_whole(text in texts()) {
        use unicode_normalization::UnicodeNormalization as _;
        let whole: String = text.nfkc().collect();
        let segments = pieces::text(&unicode::compose(&pieces::of(&text)));
        prop_assert_eq!(segments, whole);
    }

    #[test]
    fn the_result_has_no_invisible_characters_and_no_double_spaces(text in texts()) {
        let normalised = Normalised::new(&text);
        let text = normalised.text();
        prop_assert!(!text.contains("  ") && text.trim_matches(' ') == text);
        let invisible = |ch: char| ch.is_control() || matches!(ch, '\u{200b}'..='\u{200f}' | '\u{fe00}'..='\u{fe0f}');
        prop_assert!(!text.chars().any(invisible));
    }
}
