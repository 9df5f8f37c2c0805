//! Where a page ended, for the client to hand back. Opaque and bound to its list:
//! a changed byte, or a cursor of another list, is refused.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

const VERSION: u8 = 1;
const BODY: usize = 1 + TAG + 8 + 8 + 4;
const TAG: usize = 8;
const CHECK: usize = 6;

/// The text is not a cursor that Weir gave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of this service, or changed on its way")]
pub struct CursorError;

/// Where a row stands in a list: newest first, ordered by these in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// `received_at`, microseconds since 1970.
    pub received_at: i64,
    /// Source offset.
    pub offset: i64,
    /// Source partition.
    pub partition: i32,
}

/// The last row of a page, bound to the list it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    list: [u8; TAG],
    position: Position,
}

impl Cursor {
    /// For the row at `position` in the list that `list` names.
    #[must_use]
    pub fn new(list: &List<'_>, position: Position) -> Self {
        Self {
            list: list.tag(),
            position,
        }
    }

    /// The row, if the cursor belongs to that list.
    #[must_use]
    pub fn position(&self, list: &List<'_>) -> Option<Position> {
        (self.list == list.tag()).then_some(self.position)
    }
}

/// Names a list: its kind, tenant and owner.
#[derive(Debug, Clone, Copy)]
pub struct List<'a> {
    /// Such as `channel`.
    pub kind: &'static str,
    /// Whose messages.
    pub tenant: &'a str,
    /// The channel or the sender.
    pub name: &'a str,
}

impl List<'_> {
    fn tag(&self) -> [u8; TAG] {
        let mut hash = Sha256::new();
        for part in [self.kind, self.tenant, self.name] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        first(&hash.finalize())
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(BODY + CHECK);
        bytes.push(VERSION);
        bytes.extend(self.list);
        bytes.extend(self.position.received_at.to_be_bytes());
        bytes.extend(self.position.offset.to_be_bytes());
        bytes.extend(self.position.partition.to_be_bytes());
        bytes.extend(check(&bytes));
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| CursorError)?;
        if bytes.len() != BODY + CHECK || bytes[0] != VERSION {
            return Err(CursorError);
        }
        let (body, sum) = bytes.split_at(BODY);
        if check(body) != sum {
            return Err(CursorError);
        }
        Ok(Self {
            list: first(&body[1..]),
            position: Position {
                received_at: i64::from_be_bytes(first(&body[1 + TAG..])),
                offset: i64::from_be_bytes(first(&body[1 + TAG + 8..])),
                partition: i32::from_be_bytes(first(&body[1 + TAG + 16..])),
            },
        })
    }
}

fn check(body: &[u8]) -> [u8; CHECK] {
    first(
        &Sha256::new()
            .chain_update(b"weir cursor")
            .chain_update(body)
            .finalize(),
    )
}

/// The first `N` bytes; zeros where there are fewer, which no caller asks for.
fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}
