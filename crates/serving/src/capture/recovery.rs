//! What an earlier process left in the spool of an endpoint: its segments, and how many invocations never got there.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use failpoint::Point;
use serde::{Deserialize, Serialize};

use super::counts::Counts;
use super::delivery;
use super::segment::{self, Segment};

const FILE_NAME: &str = "target.json";

/// Whose spool it is and where it goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Label {
    pub(super) endpoint: String,
    pub(super) target: serde_json::Value,
}

impl Label {
    /// Writes it into the folder of a new spool.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let mut file = File::create_new(folder.join(FILE_NAME))?;
        file.write_all(&serde_json::to_vec(self)?)?;
        failpoint::at(Point::CaptureBegin)?;
        file.sync_all()?;
        File::open(folder)?.sync_all()
    }
}

/// A spool of an earlier process.
pub(super) struct Recovered {
    pub(super) label: Label,
    pub(super) counts: Arc<Counts>,
    /// In the order in which they were begun.
    pub(super) segments: Vec<Segment>,
    /// Lines that were delivered before.
    pub(super) delivered_lines: u64,
    /// Invocations that were taken for capture and are nowhere.
    pub(super) lost: u64,
}

/// Looks into the folder of a spool; `None` when nothing was ever captured there.
pub(super) fn recover(folder: &Path) -> io::Result<Option<Recovered>> {
    let mut paths: Vec<(u64, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        paths.extend(segment::number_of(&path).map(|number| (number, path)));
    }
    paths.sort();
    let label = std::fs::read(folder.join(FILE_NAME)).and_then(|text| Ok(serde_json::from_slice(&text)?));
    let label: Label = match label {
        // The process ended while it made the folder.
        Err(_) if paths.is_empty() => return Ok(None),
        label => label?,
    };
    let (counts, known) = match Counts::reopen(folder) {
        Ok(read) => read,
        Err(_) if paths.is_empty() => return Ok(None),
        // After a crash of the machine the counts may be gone, and the segments there.
        Err(_) => (Counts::create(folder)?, Default::default()),
    };
    let mut segments = Vec::new();
    for (number, path) in paths {
        match Segment::recover(&path, number)? {
            Some(segment) if number != known.delivered_last && segment.lines > 0 => segments.push(segment),
            _ => delivery::remove(&path),
        }
    }
    let found: u64 = segments.iter().map(|segment| segment.lines).sum();
    let lost = known.accepted.saturating_sub(known.delivered_lines + found);
    // They are reported now, and are not to be reported again.
    let delivered_lines = known.delivered_lines + lost;
    Ok(Some(Recovered { label, counts: Arc::new(counts), segments, delivered_lines, lost }))
}
