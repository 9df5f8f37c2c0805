//! One form for what looks or is meant the same: NFKC, nothing invisible, one space.

use unicode_normalization::char::{canonical_combining_class, decompose_compatible};
use unicode_normalization::{IsNormalized, UnicodeNormalization as _, is_nfkc_quick};

use super::pieces::{self, Piece};

/// NFKC, segment by segment, so that each result stands for its own segment.
pub(super) fn compose(text: &[Piece]) -> Vec<Piece> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let length = 1 + rest[1..]
            .iter()
            .take_while(|piece| !is_boundary(piece.ch))
            .count();
        let (segment, after) = rest.split_at(length);
        match segment {
            [piece] if piece.ch.is_ascii() => out.push(*piece),
            _ => {
                let composed: String = segment.iter().map(|piece| piece.ch).nfkc().collect();
                pieces::replace(&mut out, &composed, pieces::range(segment));
            }
        }
        rest = after;
    }
    out
}

/// Whether nothing before this character changes with it under NFKC: its
/// decomposition starts with a starter that composes with nothing before it.
fn is_boundary(ch: char) -> bool {
    if ch.is_ascii() {
        return true;
    }
    let mut first = None;
    decompose_compatible(ch, |part| {
        first.get_or_insert(part);
    });
    first.is_some_and(|first| {
        canonical_combining_class(first) == 0
            && is_nfkc_quick(std::iter::once(first)) == IsNormalized::Yes
    })
}

/// What a character is for [`clean`].
enum Kind {
    Shown,
    Space,
    Invisible,
}

/// Drops invisible characters, makes every white space and control character a
/// space, keeps one of each run of spaces and none at the ends.
pub(super) fn clean(text: &[Piece]) -> Vec<Piece> {
    let mut out: Vec<Piece> = Vec::with_capacity(text.len());
    for piece in text {
        match kind(piece.ch) {
            Kind::Shown => out.push(*piece),
            Kind::Invisible => {}
            Kind::Space => match out.last_mut() {
                None => {}
                Some(last) if last.ch == ' ' => {
                    last.start = last.start.min(piece.start);
                    last.end = last.end.max(piece.end);
                }
                Some(_) => out.push(Piece { ch: ' ', ..*piece }),
            },
        }
    }
    if out.last().is_some_and(|last| last.ch == ' ') {
        out.pop();
    }
    out
}

/// By general category of Unicode 17: Cf and variation selectors are invisible; Cc,
/// Zs, Zl and Zp are space.
const fn kind(ch: char) -> Kind {
    match ch {
        '\u{21}'..='\u{7e}' => Kind::Shown,
        '\u{0}'..='\u{20}'
        | '\u{7f}'..='\u{a0}'
        | '\u{1680}'
        | '\u{2000}'..='\u{200a}'
        | '\u{2028}'
        | '\u{2029}'
        | '\u{202f}'
        | '\u{205f}'
        | '\u{3000}' => Kind::Space,
        '\u{ad}'
        | '\u{600}'..='\u{605}'
        | '\u{61c}'
        | '\u{6dd}'
        | '\u{70f}'
        | '\u{890}'
        | '\u{891}'
        | '\u{8e2}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{2064}'
        | '\u{2066}'..='\u{206f}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{110bd}'
        | '\u{110cd}'
        | '\u{13430}'..='\u{1343f}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0001}'
        | '\u{e0020}'..='\u{e007f}'
        | '\u{e0100}'..='\u{e01ef}' => Kind::Invisible,
        _ => Kind::Shown,
    }
}
