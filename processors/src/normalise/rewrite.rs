//! What is not words, or hides words: links, mentions, stretched letters, leetspeak.
//! Only ASCII letters and digits count as such, so that every reader of the rules
//! comes to the same text whatever its Unicode tables.

use super::pieces::{self, Piece};

/// A character of one repeated more often than this goes.
const REPEATS: usize = 3;

fn is_word(piece: &Piece) -> bool {
    piece.ch.is_ascii_alphanumeric() || piece.ch == '_'
}

/// `https?://…` and `www.…`, up to the next space, become `http`.
pub(super) fn links(text: &[Piece]) -> Vec<Piece> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match link(text, at) {
            Some(length) => {
                pieces::replace(&mut out, "http", pieces::range(&text[at..at + length]));
                at += length;
            }
            None => {
                out.push(text[at]);
                at += 1;
            }
        }
    }
    out
}

/// How many pieces the link that starts there has.
fn link(text: &[Piece], at: usize) -> Option<usize> {
    let rest = &text[at..];
    let start = if starts_with(rest, "https://") {
        8
    } else if starts_with(rest, "http://") {
        7
    } else if starts_with(rest, "www.")
        && !at
            .checked_sub(1)
            .is_some_and(|before| is_word(&text[before]))
    {
        4
    } else {
        return None;
    };
    let length = rest.iter().take_while(|piece| piece.ch != ' ').count();
    (length > start).then_some(length)
}

fn starts_with(text: &[Piece], prefix: &str) -> bool {
    text.len() >= prefix.len()
        && prefix
            .chars()
            .zip(text)
            .all(|(ch, piece)| ch.eq_ignore_ascii_case(&piece.ch))
}

/// `@name`, not directly behind a letter, digit or `_`, becomes `@user`.
pub(super) fn mentions(text: &[Piece]) -> Vec<Piece> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let behind_word = at
            .checked_sub(1)
            .is_some_and(|before| is_word(&text[before]));
        let name = text[at + 1..]
            .iter()
            .take_while(|piece| is_word(piece))
            .count();
        if text[at].ch == '@' && !behind_word && name > 0 {
            pieces::replace(&mut out, "@user", pieces::range(&text[at..=at + name]));
            at += 1 + name;
        } else {
            out.push(text[at]);
            at += 1;
        }
    }
    out
}

/// Of a character repeated more than three times, three stay; the last of them
/// stands for the rest.
pub(super) fn repeats(text: &[Piece]) -> Vec<Piece> {
    let mut out: Vec<Piece> = Vec::with_capacity(text.len());
    for run in text.chunk_by(|a, b| a.ch == b.ch) {
        out.extend(run.iter().take(REPEATS));
        if run.len() > REPEATS
            && let Some(last) = out.last_mut()
        {
            (last.start, last.end) = pieces::range(&run[REPEATS - 1..]);
        }
    }
    out
}

/// A digit or sign, or two of the same, directly between ASCII letters becomes the
/// letter it looks like.
pub(super) fn leetspeak(text: &[Piece]) -> Vec<Piece> {
    let mut out = text.to_vec();
    let is_letter = |at: usize| {
        text.get(at)
            .is_some_and(|piece| piece.ch.is_ascii_alphabetic())
    };
    let mut at = 1;
    while at < text.len() {
        if let Some(letter) = letter(text[at].ch)
            && is_letter(at - 1)
        {
            let twice =
                text.get(at + 1).is_some_and(|next| next.ch == text[at].ch) && is_letter(at + 2);
            if twice {
                out[at].ch = letter;
                out[at + 1].ch = letter;
                at += 2;
                continue;
            }
            if is_letter(at + 1) {
                out[at].ch = letter;
            }
        }
        at += 1;
    }
    out
}

const fn letter(ch: char) -> Option<char> {
    Some(match ch {
        '0' => 'o',
        '1' | '!' => 'i',
        '3' => 'e',
        '4' | '@' => 'a',
        '5' | '$' => 's',
        '7' => 't',
        _ => return None,
    })
}
