//! Text to token ids, and back to places in the text.
//!
//! The tokenizer's own padding and truncation are switched off: padding belongs to
//! the batch, and a text that is longer than the model's width is cut into
//! overlapping windows, so that no part of it goes unread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use tokenizers::Tokenizer;

use crate::Error;

/// Tokens that a window shares with the one before, so that a phrase on the border
/// is whole in one of them.
const OVERLAP: usize = 16;

/// One pass of the model over a text or a part of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// Token ids, the opening and closing one included.
    pub(crate) ids: Vec<u32>,
    /// Number of the first inner token, counted over the text, from 0.
    pub(crate) first: usize,
}

/// The tokenizer of a model.
pub(crate) struct Tokens {
    tokenizer: Tokenizer,
    width: usize,
}

impl Tokens {
    pub(crate) fn open(path: &Path, width: usize) -> Result<Self, Error> {
        let fault = |reason: String| Error::Tokenizer {
            path: path.to_owned(),
            reason,
        };
        let mut tokenizer = Tokenizer::from_file(path).map_err(|e| fault(e.to_string()))?;
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|e| fault(e.to_string()))?;
        // `[SEP]` typed into a message is text, not a mark.
        tokenizer.set_encode_special_tokens(true);
        let tokens = Self { tokenizer, width };
        let marks = tokens
            .encode("")
            .ok_or_else(|| fault("it fails on an empty text".to_owned()))?;
        if marks.len() != 2 {
            return Err(fault(
                "it does not put one token before and one after a text".to_owned(),
            ));
        }
        Ok(tokens)
    }

    /// The windows of a text, at least one; `None` if the tokenizer fails on it.
    pub(crate) fn windows(&self, text: &str) -> Option<Vec<Window>> {
        let ids = self.encode(text)?;
        if ids.len() <= self.width {
            return Some(vec![Window { ids, first: 0 }]);
        }
        let (open, close) = (*ids.first()?, *ids.last()?);
        let inner = &ids[1..ids.len() - 1];
        let body = self.width - 2;
        let mut windows = Vec::new();
        let mut first = 0;
        loop {
            // The last window is a full one too: it reaches back further instead of being short.
            let start = first.min(inner.len() - body);
            let mut ids = Vec::with_capacity(self.width);
            ids.push(open);
            ids.extend_from_slice(&inner[start..start + body]);
            ids.push(close);
            windows.push(Window { ids, first: start });
            if start + body == inner.len() {
                return Some(windows);
            }
            first = start + body - OVERLAP;
        }
    }

    /// Byte ranges of a text's inner tokens, in order; `None` if the tokenizer fails.
    pub(crate) fn places(&self, text: &str) -> Option<Vec<(usize, usize)>> {
        let encoding = guarded(|| self.tokenizer.encode(text, false))?;
        Some(encoding.get_offsets().to_vec())
    }

    fn encode(&self, text: &str) -> Option<Vec<u32>> {
        let encoding = guarded(|| self.tokenizer.encode_fast(text, true))?;
        Some(encoding.get_ids().to_vec())
    }
}

/// A text must not take the thread down, whatever the tokenizer makes of it.
fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()?.ok()
}
