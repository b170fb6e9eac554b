//! The objects of a transform job as they were listed when it began, and what has become of each: two files in the job's folder.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use failpoint::Point;
use serde::{Deserialize, Serialize};

/// An object to transform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its place in the list, from 0.
    pub number: u64,
    /// Its bucket.
    pub bucket: String,
    /// Its key.
    pub key: String,
    /// Its path below what the job was given.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Its entity tag: another one means that it was replaced.
    pub etag: String,
}

impl Source {
    /// As a URI.
    pub fn uri(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.key)
    }
}

/// What has become of an object.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// Its place in the list.
    pub number: u64,
    /// Records that were transformed.
    pub records: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<ObjectFailure>,
}

/// Why an object failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectFailure {
    /// The object.
    pub uri: String,
    /// First and last record of the request that failed, from 1; none when it was not a request.
    pub records: Option<(u64, u64)>,
    /// Whether it is the data's fault, and not the model's.
    pub is_of_client: bool,
    /// What happened, in one sentence.
    pub sentence: String,
    /// The traceback of the model, where it answered with one.
    pub traceback: Option<String>,
}

const LIST: &str = "objects.jsonl";
const OUTCOMES: &str = "outcomes.jsonl";

/// Writes the list of a job's objects.
pub struct ListWriter {
    folder: PathBuf,
    file: BufWriter<File>,
    count: u64,
    bytes: u64,
}

impl ListWriter {
    /// Begins a list. Blocks, as all of these functions do.
    pub fn create(folder: &Path) -> io::Result<ListWriter> {
        std::fs::create_dir_all(folder)?;
        let file = BufWriter::new(File::create(folder.join(format!("{LIST}.partial")))?);
        Ok(ListWriter { folder: folder.to_owned(), file, count: 0, bytes: 0 })
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Adds an object.
    pub fn push(&mut self, source: &Source) -> io::Result<()> {
        serde_json::to_writer(&mut self.file, source)?;
        self.count += 1;
        self.bytes += source.size;
        self.file.write_all(b"\n")
    }

    /// Puts the list in its place; answers how many objects and bytes there are.
    pub fn finish(self) -> io::Result<(u64, u64)> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_data()?;
        failpoint::at(Point::TransformList)?;
        std::fs::rename(self.folder.join(format!("{LIST}.partial")), self.folder.join(LIST))?;
        Ok((self.count, self.bytes))
    }
}

/// Whether the list of a job is there.
pub fn is_listed(folder: &Path) -> bool {
    folder.join(LIST).exists()
}

/// What has become of a job's objects so far.
pub struct Ledger {
    file: Mutex<File>,
    folder: PathBuf,
    known: HashMap<u64, Outcome>,
}

impl Ledger {
    /// Reads what was written down.
    pub fn open(folder: &Path) -> io::Result<Ledger> {
        let path = folder.join(OUTCOMES);
        let mut known = HashMap::new();
        let mut kept = 0;
        if let Ok(text) = std::fs::read_to_string(&path) {
            for line in text.split_inclusive('\n') {
                let read =
                    line.strip_suffix('\n').and_then(|line| serde_json::from_str::<Outcome>(line).ok());
                let Some(outcome) = read else { break };
                known.insert(outcome.number, outcome);
                kept += line.len() as u64;
            }
        }
        let file = File::options().append(true).create(true).open(&path)?;
        file.set_len(kept)?;
        Ok(Ledger { file: Mutex::new(file), folder: folder.to_owned(), known })
    }

    /// What was known when it was opened.
    pub fn known(&self) -> &HashMap<u64, Outcome> {
        &self.known
    }

    /// The objects of the list, in order.
    pub fn sources(&self) -> io::Result<impl Iterator<Item = io::Result<Source>> + Send + use<>> {
        let lines = BufReader::new(File::open(self.folder.join(LIST))?).lines();
        Ok(lines.map(|line| Ok(serde_json::from_str(&line?)?)))
    }

    /// Writes down what has become of an object, for good.
    pub fn note(&self, outcome: &Outcome) -> io::Result<()> {
        let mut line = serde_json::to_vec(outcome)?;
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        failpoint::at(Point::TransformOutcome)?;
        file.write_all(&line)?;
        file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_known_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut list = ListWriter::create(folder.path()).unwrap();
        assert!(!is_listed(folder.path()));
        let source = |number| Source {
            number,
            bucket: "b".into(),
            key: format!("in/{number}\n"),
            path: number.to_string(),
            size: 5,
            etag: String::new(),
        };
        (0..3).for_each(|number| list.push(&source(number)).unwrap());
        assert_eq!(list.finish().unwrap(), (3, 15));
        let ledger = Ledger::open(folder.path()).unwrap();
        ledger.note(&Outcome { number: 1, records: 7, bytes: 5, failure: None }).unwrap();
        let path = folder.path().join(OUTCOMES);
        let mut torn = std::fs::read(&path).unwrap();
        torn.extend_from_slice(b"{\"number\":2,");
        std::fs::write(&path, torn).unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        ledger.note(&Outcome { number: 0, records: 1, bytes: 5, failure: None }).unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        assert_eq!(ledger.known().values().map(|outcome| outcome.records).sum::<u64>(), 8);
        let sources: Vec<Source> = ledger.sources().unwrap().map(Result::unwrap).collect();
        assert_eq!(sources[2], source(2));
    }
}
