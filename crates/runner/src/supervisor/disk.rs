//! How much disk space a job takes, found out at a cost that is small beside the job's own.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::limits::free_bytes;

/// Walking the files may take this part of the time.
const SHARE_OF_TIME: u32 = 400;
/// Shortest time between two walks that nothing presses for.
const INTERVAL: Duration = Duration::from_secs(10);
/// Shortest time between two walks when the disk fills.
const HURRIED_INTERVAL: Duration = Duration::from_millis(250);

/// The places a job writes to.
pub struct DiskWatch {
    places: Vec<PathBuf>,
    used_bytes: u64,
    used_bytes_at_start: u64,
    /// Free space at the last walk.
    free_bytes: Option<u64>,
    walked_at: Instant,
    walk_again_at: Instant,
}

impl DiskWatch {
    /// Measures what is there now.
    pub fn start(places: Vec<PathBuf>) -> Self {
        let now = Instant::now();
        let mut watch = Self {
            places,
            used_bytes: 0,
            used_bytes_at_start: 0,
            free_bytes: None,
            walked_at: now,
            walk_again_at: now,
        };
        watch.walk();
        watch.used_bytes_at_start = watch.used_bytes;
        watch
    }

    /// What the job's places took at the last look.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// What they took at the start.
    pub fn used_bytes_at_start(&self) -> u64 {
        self.used_bytes_at_start
    }

    /// Free space on their file system.
    pub fn free_now(&self) -> Option<u64> {
        self.places.iter().filter_map(|place| free_bytes(place)).min()
    }

    /// Looks again if it is time, or if the disk has lost as much space as the job has left of `limit_bytes`: only
    /// then can the job be past it.
    pub fn look(&mut self, limit_bytes: u64) {
        let now = Instant::now();
        let lost = self.free_bytes.unwrap_or(0).saturating_sub(self.free_now().unwrap_or(0));
        let presses = lost >= limit_bytes.saturating_sub(self.used_bytes).max(1);
        if now >= self.walk_again_at || (presses && now >= self.walked_at + HURRIED_INTERVAL) {
            self.walk();
        }
    }

    fn walk(&mut self) {
        let began_at = Instant::now();
        self.free_bytes = self.free_now();
        self.used_bytes = self.places.iter().map(|place| size_on_disk(place)).sum();
        self.walked_at = Instant::now();
        self.walk_again_at = self.walked_at + INTERVAL.max(began_at.elapsed() * SHARE_OF_TIME);
    }
}

/// Blocks of all files below `root` on its file system; links are not followed. A file with several names counts for
/// each: that is rare, and never in the job's favour.
fn size_on_disk(root: &Path) -> u64 {
    let Ok(metadata) = root.symlink_metadata() else { return 0 };
    let device = metadata.dev();
    let mut total = metadata.blocks() * 512;
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        // A job changes its files while they are looked at: what has gone counts no more.
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.dev() != device {
                continue;
            }
            total += metadata.blocks() * 512;
            if metadata.is_dir() {
                left.push(entry.path());
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_count_and_what_links_lead_to_does_not() {
        let root = tempfile::tempdir().unwrap();
        let (job, other) = (root.path().join("job"), root.path().join("other"));
        std::fs::create_dir_all(job.join("a/b")).unwrap();
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join("large"), vec![1; 4_000_000]).unwrap();
        std::os::unix::fs::symlink(&other, job.join("link")).unwrap();
        let empty = size_on_disk(&job);
        assert!(empty < 1_000_000, "{empty}");
        std::fs::write(job.join("a/b/file"), vec![1; 2_000_000]).unwrap();
        let filled = size_on_disk(&job);
        assert!((2_000_000..3_000_000).contains(&filled), "{filled}");
        let watch = DiskWatch::start(vec![job]);
        assert_eq!((watch.used_bytes(), watch.used_bytes_at_start()), (filled, filled));
    }
}
