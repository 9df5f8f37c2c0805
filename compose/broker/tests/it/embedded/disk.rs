//! A full disk: refused, nothing corrupt, and on it goes when there is space again.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::raw::{NO_PRODUCER, Raw, batch};
use crate::server::Server;

/// A file system of eight megabytes; unmounted in the end.
struct Small(PathBuf);

impl Small {
    fn mount(on: &Path) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
            .arg(on)
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then(|| Self(on.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_small) = Small::mount(folder.path()) else {
        eprintln!("skipped: a small file system can't be mounted here (needs root)");
        return;
    };
    let server = Server::on(folder.path(), |_| {});
    let topic = server.topic(
        "full",
        1,
        &[("segment.bytes", "1000000"), ("retention.ms", "-1")],
    );
    let filler = folder.path().join("filler");
    std::fs::write(&filler, vec![0; 4 << 20]).unwrap();
    let mut raw = Raw::connect(server.address());
    let id = raw.producer_id();
    let payload = vec![7; 100_000];
    let mut stored = 0;
    let refused = loop {
        let (error, offset) = raw.produce(&topic, 0, batch(&[&payload], (id, 0, stored), 0));
        if error != 0 {
            break error;
        }
        assert_eq!(offset, i64::from(stored));
        stored += 1;
        assert!(stored < 100, "the disk never filled");
    };
    assert_eq!(refused, 56, "KAFKA_STORAGE_ERROR");
    assert!(stored > 10);
    // Still refused, and what was acknowledged can be read.
    assert_eq!(
        raw.produce(&topic, 0, batch(&[&payload], (id, 0, stored), 0))
            .0,
        56
    );
    assert_eq!(server.watermarks(&topic, 0), (0, i64::from(stored)));
    std::fs::remove_file(&filler).unwrap();
    // The same batch again: neither lost nor a gap.
    assert_eq!(
        raw.produce(&topic, 0, batch(&[&payload], (id, 0, stored), 0)),
        (0, i64::from(stored))
    );
    assert_eq!(
        raw.produce(&topic, 0, batch(&[b"small"], NO_PRODUCER, 0)),
        (0, i64::from(stored) + 1)
    );
    let count = usize::try_from(stored).unwrap() + 2;
    let check = |server: &Server| {
        let payloads = server.payloads(&topic, 0, count);
        assert!(
            payloads[..count - 1].iter().all(|one| *one == payload)
                && payloads[count - 1] == b"small"
        );
    };
    check(&server);
    drop(raw);
    server.stop();
    check(&Server::on(folder.path(), |_| {}));
}
