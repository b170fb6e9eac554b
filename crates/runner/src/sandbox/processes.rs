//! The processes of a user, as the kernel counts them for its limit.

use std::fs;
use std::os::unix::fs::MetadataExt;

/// Processes and threads that the user has on this host now.
pub(super) fn of_user(uid: u32) -> u64 {
    let Ok(entries) = fs::read_dir("/proc") else { return 0 };
    entries
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit))
        // The owner of the directory is the user of the process.
        .filter(|entry| entry.metadata().is_ok_and(|metadata| metadata.uid() == uid))
        .map(|entry| fs::read_dir(entry.path().join("task")).map_or(0, |threads| threads.count() as u64))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_counts() {
        assert!(of_user(rustix::process::geteuid().as_raw()) > 0);
        assert_eq!(of_user(4_000_000_000), 0);
    }
}
