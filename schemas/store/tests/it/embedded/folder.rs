//! The folder: one process at a time, no newer format, private, and made whole.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use weir_store::Error;
use weir_store::embedded::Store;

#[test]
fn a_second_opener_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let first = Store::open(folder.path()).unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    assert!(error.to_string().contains("in use by another process"));
    drop(first);
    Store::open(folder.path()).unwrap();
}

#[test]
fn a_folder_of_a_newer_version_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(folder.path()).unwrap());
    let format = folder.path().join("format");
    fs::write(&format, "weir-store 2\n").unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert!(
        matches!(error, Error::NewerFormat { found: 2, known: 1 }),
        "{error}"
    );
    assert_eq!(fs::read_to_string(&format).unwrap(), "weir-store 2\n");
    fs::write(&format, "weir-store 1\n").unwrap();
    Store::open(folder.path()).unwrap();
}

#[test]
fn a_format_that_can_not_be_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(folder.path()).unwrap());
    for text in ["", "weir-store", "weir-store one", "something else 1"] {
        fs::write(folder.path().join("format"), text).unwrap();
        let error = Store::open(folder.path()).unwrap_err();
        assert!(matches!(error, Error::Damaged(_)), "{error}");
    }
}

#[test]
fn a_folder_whose_making_was_interrupted_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    // As left by a crash in the middle of the engine's own first steps.
    fs::create_dir_all(folder.path().join("db.part/keyspaces")).unwrap();
    fs::write(folder.path().join("db.part/0.jnl"), b"").unwrap();
    drop(Store::open(folder.path()).unwrap());
    // As left by a crash between the two last steps.
    fs::remove_file(folder.path().join("format")).unwrap();
    drop(Store::open(folder.path()).unwrap());
    assert_eq!(
        fs::read_to_string(folder.path().join("format")).unwrap(),
        "weir-store 1\n"
    );
}

#[test]
fn missing_data_is_not_taken_for_a_new_store() {
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(folder.path()).unwrap());
    fs::remove_dir_all(folder.path().join("db")).unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::Damaged(_)), "{error}");
}

#[test]
fn a_folder_that_can_not_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = Store::open(&file.join("store")).unwrap_err();
    assert!(matches!(error, Error::Folder { .. }), "{error}");
    assert!(error.to_string().contains("file/store"), "{error}");
}

#[test]
fn other_users_can_not_look_into_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data/store");
    drop(Store::open(&path).unwrap());
    assert_eq!(
        fs::metadata(path).unwrap().permissions().mode() & 0o777,
        0o700
    );
}
