//! A plan: what a feed sends, one line of JSON per entry. An entry is a list of parts that belong together.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

/// Something to send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The content of a file.
    File {
        /// Its path below the feed's folder of files.
        path: String,
        /// What people call it.
        name: String,
    },
    /// The text itself.
    Text(String),
}

/// Writes a plan.
pub struct PlanWriter {
    file: BufWriter<File>,
    entries: u64,
}

impl PlanWriter {
    /// A new plan.
    ///
    /// # Errors
    /// When the file exists or cannot be made.
    pub fn create(path: &Path) -> io::Result<PlanWriter> {
        Ok(PlanWriter { file: BufWriter::new(File::create_new(path)?), entries: 0 })
    }

    /// Appends an entry.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn entry(&mut self, parts: &[Part]) -> io::Result<()> {
        serde_json::to_writer(&mut self.file, parts)?;
        self.file.write_all(b"\n")?;
        self.entries += 1;
        Ok(())
    }

    /// Entries so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Writes out what is still in memory.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Reads a plan entry by entry in any order; only the places of the entries are kept in memory.
pub(super) struct Plan {
    file: File,
    /// Where each entry begins, and the end of the last.
    offsets: Vec<u64>,
}

impl Plan {
    pub fn open(path: &Path) -> io::Result<Plan> {
        let file = File::open(path)?;
        let mut reader = BufReader::with_capacity(1 << 18, &file);
        let mut offsets = vec![0];
        let mut end = 0;
        loop {
            let count = reader.skip_until(b'\n')?;
            if count == 0 {
                break;
            }
            end += count as u64;
            offsets.push(end);
        }
        Ok(Plan { file, offsets })
    }

    pub fn entries(&self) -> usize {
        self.offsets.len() - 1
    }

    pub fn entry(&self, index: usize) -> io::Result<Vec<Part>> {
        let length = usize::try_from(self.offsets[index + 1] - self.offsets[index]).unwrap_or(usize::MAX);
        let mut line = vec![0; length];
        self.file.read_exact_at(&mut line, self.offsets[index])?;
        let parts: Vec<Part> = serde_json::from_slice(&line)?;
        let is_plain =
            |path: &str| Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        match parts.iter().find(|part| matches!(part, Part::File { path, .. } if !is_plain(path))) {
            Some(part) => Err(io::Error::other(format!("the plan names {part:?}"))),
            None => Ok(parts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_in_any_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan");
        let file = |path: &str| Part::File { path: path.into(), name: "s3://b/k".into() };
        let entries = [vec![file("a/1")], vec![], vec![Part::Text("two\nlines \u{1F980}".into()), file("2")]];
        let mut writer = PlanWriter::create(&path).unwrap();
        for entry in &entries {
            writer.entry(entry).unwrap();
        }
        assert_eq!(writer.entries(), 3);
        writer.finish().unwrap();
        let plan = Plan::open(&path).unwrap();
        assert_eq!(plan.entries(), 3);
        for index in [2, 0, 1] {
            assert_eq!(plan.entry(index).unwrap(), entries[index]);
        }
        std::fs::write(&path, r#"[{"file":{"path":"../../etc/passwd","name":""}}]"#).unwrap();
        assert!(Plan::open(&path).unwrap().entry(0).is_err());
    }
}
