//! How far a partition is known to be synced.
//!
//! Written after every fdatasync, without a sync of its own: after a SIGKILL it is exact, after a power
//! failure it may lag, and it is never ahead. Recovery cuts a torn tail only beyond it, so that damage
//! to acknowledged records is never mistaken for a torn tail and removed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

const NAME: &str = "synced";
const BYTES: usize = 28;

/// Where the synced part ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Synced {
    /// Base offset of the segment.
    pub(crate) segment: i64,
    /// Bytes of that segment.
    pub(crate) position: u64,
    /// Offset of the next record.
    pub(crate) next: i64,
}

/// The open marker file.
#[derive(Debug)]
pub(crate) struct Marker(File);

impl Marker {
    /// Opens or makes the marker, and reads it where it is whole.
    pub(crate) fn open(folder: &Path) -> io::Result<(Self, Option<Synced>)> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.join(NAME))?;
        let mut bytes = [0; BYTES];
        let whole = file.read_exact_at(&mut bytes, 0).is_ok();
        let synced = decode(bytes).filter(|_| whole);
        Ok((Self(file), synced))
    }

    pub(crate) fn set(&self, synced: Synced) -> io::Result<()> {
        let mut bytes = [0; BYTES];
        let (words, crc) = bytes.split_at_mut(24);
        let values = [
            synced.segment.to_be_bytes(),
            synced.position.to_be_bytes(),
            synced.next.to_be_bytes(),
        ];
        for (place, value) in words.chunks_exact_mut(8).zip(values) {
            place.copy_from_slice(&value);
        }
        crc.copy_from_slice(&crc32c::crc32c(words).to_be_bytes());
        self.0.write_all_at(&bytes, 0)
    }
}

fn decode(bytes: [u8; BYTES]) -> Option<Synced> {
    let word = |at: usize| std::array::from_fn(|index| bytes[at + index]);
    let crc = u32::from_be_bytes(std::array::from_fn(|index| bytes[24 + index]));
    (crc == crc32c::crc32c(&bytes[..24])).then(|| Synced {
        segment: i64::from_be_bytes(word(0)),
        position: u64::from_be_bytes(word(8)),
        next: i64::from_be_bytes(word(16)),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_comes_back_and_a_damaged_one_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let synced = Synced {
            segment: 3,
            position: 400,
            next: 50,
        };
        let (marker, before) = Marker::open(folder.path()).unwrap();
        assert_eq!(before, None);
        marker.set(synced).unwrap();
        assert_eq!(Marker::open(folder.path()).unwrap().1, Some(synced));
        marker.0.write_all_at(&[9], 2).unwrap();
        assert_eq!(Marker::open(folder.path()).unwrap().1, None);
    }
}
