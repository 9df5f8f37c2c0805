//! Records as a store keeps them: whole, or without what was said.
//!
//! A record without its text is one of the topic's own encoding with [`GONE`] for a
//! text, so that every reader of records reads it. No message ever has that text: they
//! are trimmed, and empty ones are refused.

use weir_records::Judged;

use crate::Error;

/// The text of a record whose text is kept elsewhere, or gone.
const GONE: &str = " ";

/// Without the text, and the metadata, in which producers may quote it.
pub(crate) fn without_text(row: &Judged) -> Vec<u8> {
    let mut row = row.clone();
    row.message.text = GONE.to_owned();
    row.message.metadata = None;
    row.encode()
}

/// Reads a record; an empty text is one that is not in it.
pub(crate) fn read(record: &[u8]) -> Result<Judged, Error> {
    let mut row =
        weir_records::judged(record).map_err(|error| Error::Damaged(error.to_string()))?;
    if row.message.text == GONE {
        row.message.text.clear();
    }
    Ok(row)
}
