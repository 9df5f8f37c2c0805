//! Text as characters that remember where they came from.

use std::fmt::Write as _;

/// A character of the text in work, and the code points of the original text that
/// it stands for: half-open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) ch: char,
    pub(super) start: u32,
    pub(super) end: u32,
}

/// The original text, each character standing for itself.
pub(super) fn of(text: &str) -> Vec<Piece> {
    // A text of more code points than u32 counts does not fit into a record.
    text.chars()
        .zip(0u32..)
        .map(|(ch, at)| Piece {
            ch,
            start: at,
            end: at + 1,
        })
        .collect()
}

/// Appends `text`, all of it standing for the code points from `start` to `end`.
pub(super) fn replace(out: &mut Vec<Piece>, text: &str, (start, end): (u32, u32)) {
    out.extend(text.chars().map(|ch| Piece { ch, start, end }));
}

/// What a run of pieces stands for.
pub(super) fn range(pieces: &[Piece]) -> (u32, u32) {
    let start = pieces.iter().map(|p| p.start).min().unwrap_or(0);
    let end = pieces.iter().map(|p| p.end).max().unwrap_or(start);
    (start, end)
}

/// The text, and for each of its characters its first byte and what it stands for.
pub(super) fn text(pieces: &[Piece]) -> String {
    let mut text = String::with_capacity(pieces.len());
    for piece in pieces {
        // Writing into a String does not fail.
        let _ = text.write_char(piece.ch);
    }
    text
}
