//! The keys of a catalogue entry that is run as a real container.

use serde::Deserialize;

use super::ContainerImage;
use crate::oci::{Gpus, Limits, PullPolicy};

/// The most of anything that a limit may say: beyond it the number cannot be meant.
const MOST: f64 = 1e6;

/// The keys, as they stand in the file.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawContainer<'a> {
    /// What runs the image.
    pub executor: Option<RawExecutor>,
    /// What the engine calls it.
    pub image: Option<&'a str>,
    /// When it is pulled.
    pub pull: Option<PullPolicy>,
    /// GPUs that its containers see.
    pub gpus: Option<&'a RawGpus>,
    /// Memory of a container, in GiB.
    pub memory_gib: Option<f64>,
    /// CPUs of a container.
    pub cpus: Option<f64>,
    /// Processes and threads of a container.
    pub pids_limit: Option<u64>,
}

/// What runs an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RawExecutor {
    /// The sandbox, with a Python environment.
    Sandbox,
    /// A container engine.
    Oci,
}

/// A word, or indexes.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum RawGpus {
    /// `all`.
    Word(String),
    /// Such as `[0, 1]`.
    Indexes(Vec<u32>),
}

impl RawContainer<'_> {
    /// The image, with placeholders, and an empty reference where the entry names none; `None` when the entry is not run as a
    /// container.
    ///
    /// # Errors
    /// A text that names the key.
    pub fn template(&self) -> Result<Option<ContainerImage>, String> {
        if self.executor != Some(RawExecutor::Oci) {
            let given = [
                ("image", self.image.is_some()),
                ("pull", self.pull.is_some()),
                ("gpus", self.gpus.is_some()),
                ("memory_gib", self.memory_gib.is_some()),
                ("cpus", self.cpus.is_some()),
                ("pids_limit", self.pids_limit.is_some()),
            ];
            return match given.iter().find(|(_, given)| *given) {
                Some((key, _)) => Err(format!("{key} needs executor = \"oci\"")),
                None => Ok(None),
            };
        }
        if self.image == Some("") {
            return Err(
                "image is empty: name what the engine runs, or leave it out for the URI itself".to_owned()
            );
        }
        let positive = |key: &str, value: Option<f64>| match value {
            Some(value) if !(value > 0.0 && value <= MOST) => {
                Err(format!("{key} = {value} must be more than 0"))
            }
            value => Ok(value),
        };
        let memory_gib = positive("memory_gib", self.memory_gib)?;
        let cpus = positive("cpus", self.cpus)?;
        if self.pids_limit == Some(0) {
            return Err("pids_limit must be more than 0".to_owned());
        }
        let gpus = match self.gpus {
            None => None,
            Some(RawGpus::Word(word)) if word == "all" => Some(Gpus::All),
            Some(RawGpus::Indexes(indexes)) if !indexes.is_empty() => Some(Gpus::Indexes(indexes.clone())),
            Some(_) => return Err("gpus must be \"all\" or a list of indexes such as [0, 1]".to_owned()),
        };
        Ok(Some(ContainerImage {
            reference: self.image.unwrap_or_default().to_owned(),
            pull: self.pull.unwrap_or_default(),
            limits: Limits {
                memory_bytes: memory_gib.map(|gib| (gib * f64::from(1 << 30)) as u64),
                // The least that engines take is a hundredth of a CPU.
                cpu_millis: cpus.map(|cpus| ((cpus * 1000.0) as u64).max(10)),
                pids: self.pids_limit,
                gpus,
            },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Source;
    use std::path::Path;

    /// The template of the one entry of a file.
    fn template(text: &str) -> Result<Option<ContainerImage>, String> {
        let file = format!("[[image]]\nname = 'a'\npattern = 'x'\n{text}");
        let entries = super::super::entry::parse(&file, Path::new("")).map_err(|error| error.to_string())?;
        match entries[0].profile("x").unwrap().source {
            Source::Container(image) => Ok(Some(image)),
            _ => Ok(None),
        }
    }

    #[test]
    fn each_key_has_its_meaning() {
        assert_eq!(template(""), Ok(None));
        let plain = template("executor = 'oci'").unwrap().unwrap();
        assert_eq!(
            (plain.reference.as_str(), plain.pull, plain.limits),
            ("x", PullPolicy::Missing, Limits::default())
        );
        let full = template(
            "executor = 'oci'\nimage = 'localhost/a:1'\npull = 'always'\ngpus = [0, 2]\nmemory_gib = 1.5\ncpus = 2\n\
             pids_limit = 100",
        );
        let full = full.unwrap().unwrap();
        assert_eq!((full.reference.as_str(), full.pull), ("localhost/a:1", PullPolicy::Always));
        let limits = Limits {
            memory_bytes: Some(3 << 29),
            cpu_millis: Some(2000),
            pids: Some(100),
            gpus: Some(Gpus::Indexes(vec![0, 2])),
        };
        assert_eq!(full.limits, limits);
        let all = template("executor = 'oci'\ngpus = 'all'").unwrap().unwrap();
        assert_eq!(all.limits.gpus, Some(Gpus::All));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_key() {
        for (text, expected) in [
            ("pull = 'never'", "pull needs"),
            ("executor = 'sandbox'\ncpus = 1", "cpus needs"),
            ("executor = 'oci'\nimage = ''", "image is empty"),
            ("executor = 'oci'\nmemory_gib = 0", "memory_gib"),
            ("executor = 'oci'\ncpus = -1", "cpus"),
            ("executor = 'oci'\npids_limit = 0", "pids_limit"),
            ("executor = 'oci'\ngpus = 'some'", "gpus"),
            ("executor = 'oci'\ngpus = []", "gpus"),
        ] {
            let error = template(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
