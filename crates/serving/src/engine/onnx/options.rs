//! What a host is started with.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Which graphs answer several requests in one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Joins {
    /// Those whose operators give a row the same answer to the last digit whatever rows stand beside it.
    #[default]
    Exact,
    /// All that take any number of rows.
    Rows,
    /// None.
    Never,
}

/// The words of these on a command line.
const JOINS: [(&str, Joins); 3] = [("exact", Joins::Exact), ("rows", Joins::Rows), ("never", Joins::Never)];

/// The settings of one host.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Where it listens.
    pub socket: PathBuf,
    /// Requests that it computes at once.
    pub workers: usize,
    /// The runtime's library.
    pub library: PathBuf,
    /// The graph.
    pub graph: PathBuf,
    /// What is known of a graph that was made from another model.
    pub description: Option<PathBuf>,
    /// How long one request may take.
    pub time_limit: Duration,
    /// Whether requests are answered together.
    pub joins: Joins,
    /// How many of them at most.
    pub batch_limit: u32,
    /// The media type of answers where the caller takes any.
    pub default_accept: Option<String>,
    /// The parts of answers by name.
    pub selected: Option<Vec<String>>,
}

impl Options {
    /// The words that [`Options::read`] reads.
    pub fn to_words(&self) -> Vec<String> {
        let path = |path: &PathBuf| path.display().to_string();
        let mut words = vec![
            "--socket".to_owned(),
            path(&self.socket),
            "--workers".to_owned(),
            self.workers.to_string(),
            "--library".to_owned(),
            path(&self.library),
            "--graph".to_owned(),
            path(&self.graph),
            "--time-limit-seconds".to_owned(),
            self.time_limit.as_secs_f64().to_string(),
            "--batch-limit".to_owned(),
            self.batch_limit.to_string(),
        ];
        let joins = JOINS.iter().filter(|(_, joins)| *joins == self.joins);
        words.extend(joins.flat_map(|(word, _)| ["--joins".to_owned(), (*word).to_owned()]));
        let selected = self.selected.as_ref().map(|parts| parts.join(","));
        let optional = [
            ("--description", self.description.as_ref().map(path)),
            ("--default-accept", self.default_accept.clone()),
            ("--selected", selected),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                words.extend([name.to_owned(), value]);
            }
        }
        words
    }

    /// Reads the words of a command line.
    ///
    /// # Errors
    /// Says which word is wrong.
    pub fn read(mut words: impl Iterator<Item = OsString>) -> Result<Options, String> {
        let mut options = Options {
            socket: PathBuf::new(),
            workers: 1,
            library: PathBuf::new(),
            graph: PathBuf::new(),
            description: None,
            time_limit: Duration::from_secs(60),
            joins: Joins::default(),
            batch_limit: 0,
            default_accept: None,
            selected: None,
        };
        while let Some(name) = words.next() {
            let name = name.to_string_lossy().into_owned();
            let value = words.next().ok_or_else(|| format!("{name} needs a value."))?;
            let text = value.to_string_lossy().into_owned();
            let wrong = || format!("{name} is not {text:?}.");
            match name.as_str() {
                "--socket" => options.socket = value.into(),
                "--workers" => {
                    options.workers = text.parse().ok().filter(|workers| *workers > 0).ok_or_else(wrong)?;
                }
                "--library" => options.library = value.into(),
                "--graph" => options.graph = value.into(),
                "--description" => options.description = Some(value.into()),
                "--time-limit-seconds" => {
                    let seconds: f64 = text.parse().map_err(|_| wrong())?;
                    options.time_limit = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
                }
                "--batch-limit" => options.batch_limit = text.parse().map_err(|_| wrong())?,
                "--joins" => {
                    let known = JOINS.iter().find(|(word, _)| *word == text);
                    options.joins = known.ok_or_else(wrong)?.1;
                }
                "--default-accept" => options.default_accept = Some(text),
                "--selected" => options.selected = Some(text.split(',').map(str::to_owned).collect()),
                _ => return Err(format!("{name} is not known.")),
            }
        }
        let needed =
            [("--socket", &options.socket), ("--library", &options.library), ("--graph", &options.graph)];
        let missing = needed.into_iter().find(|(_, path)| path.as_os_str().is_empty());
        if let Some((name, _)) = missing {
            return Err(format!("{name} is needed."));
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        let options = Options {
            socket: "/run/model/host.sock".into(),
            workers: 3,
            library: "/lib/libonnxruntime.so".into(),
            graph: "/opt/ml/model/model.onnx".into(),
            description: Some("/run/graph/description.json".into()),
            time_limit: Duration::from_millis(1500),
            joins: Joins::Rows,
            batch_limit: 7,
            default_accept: Some("text/csv".into()),
            selected: Some(vec!["predicted_label".into(), "probabilities".into()]),
        };
        let words =
            |options: &Options| options.to_words().into_iter().map(OsString::from).collect::<Vec<_>>();
        assert_eq!(Options::read(words(&options).into_iter()), Ok(options.clone()));
        let plain = Options { description: None, default_accept: None, selected: None, ..options };
        assert_eq!(Options::read(words(&plain).into_iter()), Ok(plain));
        let refused = |words: &[&str]| Options::read(words.iter().map(OsString::from)).unwrap_err();
        assert_eq!(refused(&[]), "--socket is needed.");
        assert_eq!(refused(&["--workers", "0"]), "--workers is not \"0\".");
        assert_eq!(refused(&["--socket"]), "--socket needs a value.");
        assert_eq!(refused(&["--dance", "x"]), "--dance is not known.");
    }
}
