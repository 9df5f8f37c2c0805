//! What lies in the files of a folder, whoever wrote them.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Letters that no compression makes shorter and that are nowhere else: as a text they
/// stand in a file as they are, whatever packs them.
pub(crate) fn marker(seed: &str) -> String {
    let digest = Sha256::digest(seed);
    // A letter for each byte; all of them differ from their neighbours' at random.
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    digest
        .iter()
        .map(|byte| char::from(letters[usize::from(byte % 64)]))
        .collect()
}

/// Every file in the folder, with what it holds.
pub(crate) fn read_all(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = fs::read(&path).unwrap();
                files.push((path, bytes));
            }
        }
    }
    files
}

/// The files that hold a piece of any of the texts, 12 bytes long: a packer may take a
/// longer one apart.
pub(crate) fn holding(folder: &Path, texts: &[String]) -> Vec<PathBuf> {
    let pieces: std::collections::HashSet<[u8; 12]> = texts
        .iter()
        .flat_map(|text| text.as_bytes().windows(12))
        .map(|piece| piece.try_into().unwrap())
        .collect();
    // Looked at first: nearly all that lies in a file begins like none of them.
    let start = |piece: &[u8]| usize::from(piece[0]) << 8 | usize::from(piece[1]);
    let mut starts = vec![false; 1 << 16];
    for piece in &pieces {
        starts[start(piece)] = true;
    }
    let files = read_all(folder).into_iter();
    let holding = files.filter(|(_, bytes)| {
        bytes.windows(12).any(|piece| {
            starts[start(piece)] && pieces.contains::<[u8; 12]>(piece.try_into().unwrap())
        })
    });
    holding.map(|(path, _)| path).collect()
}
