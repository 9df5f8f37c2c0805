//! Standard output of the commands. Its reader may leave before all is said, as `head`
//! does: the command then ends without a word, however deep in it that was noticed.

use std::io::{self, ErrorKind, Stdout, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit status of a command whose reader left: the one that shells show for SIGPIPE. It
/// may not have done all that it was to do.
pub(crate) const NOBODY_READS: u8 = 141;

static LEFT: AtomicBool = AtomicBool::new(false);

/// Standard output, which remembers that its reader left.
pub(crate) struct Out(Stdout);

/// What a command prints goes here.
pub(crate) fn stdout() -> Out {
    Out(io::stdout())
}

/// Whether an error is only that nobody reads on: libraries hand it on in words of theirs.
pub(crate) fn nobody_reads() -> bool {
    LEFT.load(Ordering::Relaxed)
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        noticed(self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        noticed(self.0.flush())
    }
}

fn noticed<T>(written: io::Result<T>) -> io::Result<T> {
    if let Err(error) = &written
        && error.kind() == ErrorKind::BrokenPipe
    {
        LEFT.store(true, Ordering::Relaxed);
    }
    written
}
