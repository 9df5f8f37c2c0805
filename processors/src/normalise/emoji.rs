//! Emoji become their names: the tokenizer knows words, not pictures.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::pieces::{self, Piece};

/// `emoji TAB name` in every line; a name may be empty.
const TABLE: &str = include_str!("../../../models/emoji.tsv");

/// A sequence of characters and its name.
type Named = (Vec<char>, &'static str);

/// Sequences by their first character, longest first.
static SEQUENCES: LazyLock<HashMap<char, Vec<Named>>> = LazyLock::new(|| {
    let mut sequences: HashMap<char, Vec<Named>> = HashMap::new();
    for (emoji, name) in TABLE.lines().filter_map(|line| line.split_once('\t')) {
        let emoji: Vec<char> = emoji.chars().collect();
        if let Some(first) = emoji.first() {
            sequences.entry(*first).or_default().push((emoji, name));
        }
    }
    for list in sequences.values_mut() {
        list.sort_by_key(|(emoji, _)| std::cmp::Reverse(emoji.len()));
    }
    sequences
});

/// Puts space, name, space in the place of each emoji sequence; the longest counts.
pub(super) fn name(text: &[Piece]) -> Vec<Piece> {
    let mut out = Vec::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(first) = rest.first() {
        let found = SEQUENCES.get(&first.ch).and_then(|list| {
            list.iter().find(|(emoji, _)| {
                emoji.len() <= rest.len()
                    && emoji.iter().zip(rest).all(|(ch, piece)| *ch == piece.ch)
            })
        });
        match found {
            Some((emoji, name)) => {
                let (matched, after) = rest.split_at(emoji.len());
                let range = pieces::range(matched);
                pieces::replace(&mut out, " ", range);
                pieces::replace(&mut out, name, range);
                pieces::replace(&mut out, " ", range);
                rest = after;
            }
            None => {
                out.push(*first);
                rest = &rest[1..];
            }
        }
    }
    out
}
