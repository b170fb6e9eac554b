//! The graphs that were made of other models: when each was used last, and removing those that nobody uses any more.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::conversion::OUTCOME_FILE;
use crate::config::Config;

/// The folder of all of them.
pub fn directory(config: &Config) -> PathBuf {
    config.data_dir.join("converted")
}

/// Takes down that a conversion is used now. Its age only decides when it goes.
pub fn note_use(folder: &Path, now_ms: i64) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(now_ms.unsigned_abs());
    let noted = std::fs::File::options().write(true).open(folder.join(OUTCOME_FILE));
    if let Err(error) = noted.and_then(|file| file.set_modified(now)) {
        tracing::warn!(folder = %folder.display(), %error, "the use of a converted model was not noted");
    }
}

/// The folders of conversions that were last used before that time.
pub fn unused(config: &Config, before: SystemTime) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory(config)).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|folder| is_unused(folder, before)).collect()
}

fn is_unused(folder: &Path, before: SystemTime) -> bool {
    // One that was cut off has no report; its folder says when it was begun.
    let known = std::fs::metadata(folder.join(OUTCOME_FILE)).or_else(|_| std::fs::metadata(folder));
    known.and_then(|known| known.modified()).is_ok_and(|used_at| used_at < before)
}

/// Removes the folder of a conversion, unless it was used meanwhile; says whether it went. The report goes first: without it the
/// conversion is not there, and the next that needs it makes it anew.
///
/// # Errors
/// When the report cannot be removed.
pub fn remove(folder: &Path, before: SystemTime) -> std::io::Result<bool> {
    if !is_unused(folder, before) {
        return Ok(false);
    }
    match std::fs::remove_file(folder.join(OUTCOME_FILE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::remove_dir_all(folder)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let base = tempfile::tempdir().unwrap();
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let made = |name: &str, seconds: u64| {
            let folder = base.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join(OUTCOME_FILE), "{}").unwrap();
            std::fs::write(folder.join("graph.onnx"), "graph").unwrap();
            note_use(&folder, 1000 * i64::try_from(seconds).unwrap());
            folder
        };
        let (old, young) = (made("old", 100), made("young", 300));
        assert!(is_unused(&old, at(200)) && !is_unused(&young, at(200)));
        assert!(!remove(&young, at(200)).unwrap() && young.join("graph.onnx").exists());
        assert!(remove(&old, at(200)).unwrap() && !old.exists());
        assert!(!remove(&old, at(200)).unwrap());
    }
}
