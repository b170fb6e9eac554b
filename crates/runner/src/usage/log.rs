//! The samples of a workload on the disk: one line each, the older half dropped when they grow too many.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use failpoint::Point;

use super::Sample;

/// The file in the workload's directory.
const NAME: &str = "usage.jsonl";
/// The lines before those.
const OLDER_NAME: &str = "usage.older.jsonl";
/// Size from which on a new file is begun: about a day.
const MAX_BYTES: u64 = 8 * 1024 * 1024;
/// Most samples of one page.
const PAGE_SAMPLES: usize = 10_000;

/// Samples of a workload, and where to go on reading.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SamplePage {
    /// In the order of time.
    pub samples: Vec<Sample>,
    /// Time of the last one, to be given for the next page.
    pub last_at_ms: u64,
}

/// Reads the samples after `after_ms` from a workload's directory; those of the last day at least are there.
pub fn read_samples(directory: &Path, after_ms: u64) -> io::Result<SamplePage> {
    let mut page = SamplePage { samples: Vec::new(), last_at_ms: after_ms };
    for name in [OLDER_NAME, NAME] {
        let file = match File::open(directory.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for line in BufReader::new(seek_after(file, page.last_at_ms)?).lines() {
            if page.samples.len() == PAGE_SAMPLES {
                return Ok(page);
            }
            // The last line may be half written.
            if let Ok(sample) = serde_json::from_str::<Sample>(&line?)
                && sample.at_ms > page.last_at_ms
            {
                page.last_at_ms = sample.at_ms;
                page.samples.push(sample);
            }
        }
    }
    Ok(page)
}

/// Skips most of what is older, by halving: lines are in the order of time.
fn seek_after(mut file: File, after_ms: u64) -> io::Result<File> {
    let (mut low, mut high) = (0, file.metadata()?.len());
    while high - low > 4096 {
        let middle = low + (high - low) / 2;
        file.seek(SeekFrom::Start(middle))?;
        let mut reader = BufReader::with_capacity(2048, &file);
        let (mut rest, mut line) = (Vec::new(), String::new());
        reader.read_until(b'\n', &mut rest)?;
        reader.read_line(&mut line)?;
        match serde_json::from_str::<Sample>(&line) {
            Ok(sample) if sample.at_ms <= after_ms => low = middle,
            _ => high = middle,
        }
    }
    // It may fall into a line, which is then no sample; the whole lines before the place are older.
    file.seek(SeekFrom::Start(low))?;
    Ok(file)
}

/// Appends samples.
pub(crate) struct SampleLog {
    directory: PathBuf,
    file: Option<File>,
    bytes: u64,
}

impl SampleLog {
    /// In the workload's directory. A disk that takes none costs the samples, not the job.
    pub fn open(directory: &Path) -> Self {
        let file = append(directory).ok();
        let bytes = file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |metadata| metadata.len());
        Self { directory: directory.to_owned(), file, bytes }
    }

    pub fn write(&mut self, sample: &Sample) {
        let Ok(mut line) = serde_json::to_vec(sample) else { return };
        line.push(b'\n');
        if self.bytes > MAX_BYTES {
            let renamed = failpoint::at(Point::UsageRotate)
                .and_then(|()| fs::rename(self.directory.join(NAME), self.directory.join(OLDER_NAME)));
            self.file = renamed.and_then(|()| append(&self.directory)).ok();
            self.bytes = 0;
        }
        if let Some(file) = &mut self.file
            && failpoint::write_all(Point::UsageWrite, file, &line).is_ok()
        {
            self.bytes += line.len() as u64;
        }
    }
}

fn append(directory: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(directory.join(NAME))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn sample(at_ms: u64) -> Sample {
        Sample { at_ms, memory_bytes: at_ms * 3, ..Sample::default() }
    }

    #[test]
    fn pages_go_on_where_the_last_one_ended() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(read_samples(root.path(), 5).unwrap(), SamplePage { samples: Vec::new(), last_at_ms: 5 });
        let mut log = SampleLog::open(root.path());
        for at_ms in 1..=20_000 {
            log.write(&sample(at_ms));
        }
        let first = read_samples(root.path(), 0).unwrap();
        assert_eq!((first.samples.len(), first.last_at_ms), (PAGE_SAMPLES, 10_000));
        let second = read_samples(root.path(), first.last_at_ms).unwrap();
        assert_eq!((second.samples[0].at_ms, second.last_at_ms), (10_001, 20_000));
        for after_ms in [0, 1, 77, 12_345, 19_999] {
            assert_eq!(read_samples(root.path(), after_ms).unwrap().samples[0], sample(after_ms + 1));
        }
    }

    #[test]
    fn old_samples_make_room_and_half_a_line_does_no_harm() {
        let root = tempfile::tempdir().unwrap();
        let mut log = SampleLog::open(root.path());
        log.write(&sample(1));
        log.bytes = MAX_BYTES + 1;
        log.write(&sample(2));
        log.bytes = MAX_BYTES + 1;
        log.write(&sample(3));
        let mut file = append(root.path()).unwrap();
        file.write_all(b"{\"t\":4,").unwrap();
        let times: Vec<u64> =
            read_samples(root.path(), 0).unwrap().samples.iter().map(|sample| sample.at_ms).collect();
        assert_eq!(times, [2, 3]);
    }
}
