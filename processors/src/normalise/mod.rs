//! First state: the text as the model was trained to read it.
//!
//! The steps and their order are those of `models/README.md` ("Normalisation"), to
//! the letter; `models/normalise_vectors.jsonl` is the contract. Each character of
//! the result remembers which code points of the original it stands for, so that
//! what the model points at can be shown to people in their own words.

mod emoji;
mod pieces;
mod rewrite;
mod unicode;

use crate::language;

/// A text that is ready for the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Normalised {
    text: String,
    /// What each character of `text` stands for in the original: half-open, in code
    /// points.
    origins: Vec<(u32, u32)>,
    language: &'static str,
}

impl Normalised {
    /// Normalises a text and tells its language.
    #[must_use]
    pub fn new(original: &str) -> Self {
        let mut text = pieces::of(original);
        // No emoji and no composition without a character beyond ASCII.
        if !original.is_ascii() {
            text = unicode::compose(&emoji::name(&text));
        }
        let text = unicode::clean(&text);
        let text = rewrite::links(&text);
        let text = rewrite::mentions(&text);
        let text = rewrite::repeats(&text);
        let text = rewrite::leetspeak(&text);
        Self {
            origins: text.iter().map(|piece| (piece.start, piece.end)).collect(),
            text: pieces::text(&text),
            language: language::of(original),
        }
    }

    /// The text for the model; may be empty.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The language of the original: ISO 639-1 where there is one, else 639-3, `und`
    /// where it can't be told.
    #[must_use]
    pub const fn language(&self) -> &'static str {
        self.language
    }

    /// Turns byte ranges of [`text`](Self::text), in order, into ranges of code points
    /// of the original. Ranges that touch, overlap, or have only white space of
    /// `original` between them become one.
    #[must_use]
    pub fn places(
        &self,
        original: &str,
        ranges: impl IntoIterator<Item = (usize, usize)>,
    ) -> Vec<(u32, u32)> {
        let firsts: Vec<usize> = self.text.char_indices().map(|(at, _)| at).collect();
        let mut places: Vec<(u32, u32)> = ranges
            .into_iter()
            .filter_map(|(start, end)| {
                let from = firsts.partition_point(|first| *first < start);
                let to = firsts.partition_point(|first| *first < end);
                let covered = self.origins.get(from..to)?;
                let start = covered.iter().map(|origin| origin.0).min()?;
                let end = covered.iter().map(|origin| origin.1).max()?;
                (start < end).then_some((start, end))
            })
            .collect();
        places.sort_unstable();
        let characters: Vec<char> = if places.len() > 1 {
            original.chars().collect()
        } else {
            Vec::new()
        };
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(places.len());
        for (start, end) in places {
            match merged.last_mut() {
                Some(last) if joins(&characters, last.1, start) => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        merged
    }
}

/// Whether nothing but white space lies between.
fn joins(characters: &[char], end: u32, start: u32) -> bool {
    end >= start
        || characters
            .get(end as usize..start as usize)
            .is_some_and(|gap| gap.iter().all(|ch| ch.is_whitespace()))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
