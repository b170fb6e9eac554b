//! How many invocations were taken for capture and how many have reached their place, in a file that survives the process.
//!
//! The count is written for each captured invocation, not forced to the disk: when the process is killed, the next one knows to
//! the last invocation how many never reached the spool.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Writers that come at the same moment write to different places; the greatest number counts.
const SLOTS: u64 = 64;
const SLOT_BYTES: u64 = 8;
/// Where the pair about delivered segments lies.
const DELIVERED_AT: u64 = SLOTS * SLOT_BYTES;
const FILE_NAME: &str = "counts";

/// The counts of one spool.
#[derive(Debug)]
pub(super) struct Counts {
    file: File,
    accepted: AtomicU64,
}

/// What the file of an earlier process says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Invocations taken for capture.
    pub(super) accepted: u64,
    /// Number of the segment that was delivered last: its file may still be there.
    pub(super) delivered_last: u64,
    /// Lines of all delivered segments.
    pub(super) delivered_lines: u64,
}

impl Counts {
    /// Makes the file.
    pub(super) fn create(folder: &Path) -> io::Result<Counts> {
        let file = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(folder.join(FILE_NAME))?;
        file.write_all_at(&[0; (DELIVERED_AT + 2 * SLOT_BYTES) as usize], 0)?;
        Ok(Counts { file, accepted: AtomicU64::new(0) })
    }

    /// Opens the file of an earlier process.
    pub(super) fn reopen(folder: &Path) -> io::Result<(Counts, Known)> {
        let file = File::options().read(true).write(true).open(folder.join(FILE_NAME))?;
        let mut bytes = [0; (DELIVERED_AT + 2 * SLOT_BYTES) as usize];
        file.read_exact_at(&mut bytes, 0)?;
        let mut numbers = bytes.chunks_exact(SLOT_BYTES as usize).map(|slot| {
            let mut number = [0; SLOT_BYTES as usize];
            number.copy_from_slice(slot);
            u64::from_le_bytes(number)
        });
        let accepted = numbers.by_ref().take(SLOTS as usize).max().unwrap_or_default();
        let delivered_last = numbers.next().unwrap_or_default();
        let delivered_lines = numbers.next().unwrap_or_default();
        let known = Known { accepted, delivered_last, delivered_lines };
        Ok((Counts { file, accepted: AtomicU64::new(accepted) }, known))
    }

    /// Counts one invocation.
    pub(super) fn accept(&self) {
        let number = self.accepted.fetch_add(1, Ordering::Relaxed) + 1;
        // A count that cannot be written is missed only by whoever counts what a crash took.
        let _ = self.file.write_all_at(&number.to_le_bytes(), number % SLOTS * SLOT_BYTES);
    }

    /// Notes that a segment is delivered, with so many lines in all that are.
    pub(super) fn delivered(&self, number: u64, lines: u64) -> io::Result<()> {
        let mut pair = [0; 2 * SLOT_BYTES as usize];
        pair[..8].copy_from_slice(&number.to_le_bytes());
        pair[8..].copy_from_slice(&lines.to_le_bytes());
        self.file.write_all_at(&pair, DELIVERED_AT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_process_reads_the_greatest_count() {
        let folder = tempfile::tempdir().unwrap();
        let counts = Counts::create(folder.path()).unwrap();
        for _ in 0..1000 {
            counts.accept();
        }
        counts.delivered(7, 900).unwrap();
        drop(counts);
        let (counts, known) = Counts::reopen(folder.path()).unwrap();
        assert_eq!(known, Known { accepted: 1000, delivered_last: 7, delivered_lines: 900 });
        counts.accept();
        assert_eq!(Counts::reopen(folder.path()).unwrap().1.accepted, 1001);
    }

    #[test]
    fn a_file_that_was_cut_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE_NAME), [0; 100]).unwrap();
        assert!(Counts::reopen(folder.path()).is_err());
    }
}
