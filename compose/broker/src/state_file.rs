//! Small files that are replaced as a whole: topic settings, checkpoints, the next producer id.
//!
//! What it keeps true: a reader finds either the old or the new content, never a mixture, also after a
//! crash; a damaged file is recognised by its CRC-32C instead of being believed.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Replaces the file at `path`; the content is on disk when this returns.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let body = serde_json::to_vec(value)?;
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    let written = writeln!(file, "{:08x}", crc32c::crc32c(&body))
        .and_then(|()| file.write_all(&body))
        .and_then(|()| file.sync_data())
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Best effort: a full disk should get its bytes back.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Reads what [`write`] wrote; `None` when there is no file.
///
/// # Errors
/// `InvalidData` when the content is damaged.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let content = match fs::read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the checksum doesn't match");
    let (crc, rest) = content.split_at_checked(8).ok_or_else(damaged)?;
    let body = rest.strip_prefix(b"\n").ok_or_else(damaged)?;
    let crc = std::str::from_utf8(crc)
        .ok()
        .and_then(|crc| u32::from_str_radix(crc, 16).ok());
    if crc != Some(crc32c::crc32c(body)) {
        return Err(damaged());
    }
    Ok(Some(serde_json::from_slice(body)?))
}

/// Makes the entries of a folder durable (a new, renamed or removed file).
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_recognised() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        assert_eq!(read::<Vec<u32>>(&path).unwrap(), None);
        write(&path, &vec![1_u32, 2, 3]).unwrap();
        assert_eq!(read::<Vec<u32>>(&path).unwrap(), Some(vec![1, 2, 3]));
        let mut content = fs::read(&path).unwrap();
        let last = content.len() - 2;
        content[last] ^= 1;
        fs::write(&path, &content).unwrap();
        assert_eq!(
            read::<Vec<u32>>(&path).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        fs::write(&path, b"").unwrap();
        assert!(read::<Vec<u32>>(&path).is_err());
    }
}
