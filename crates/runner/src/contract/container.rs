//! The contract as a real container has it: the files and a few variables; all else is in the image.

use std::collections::BTreeMap;
use std::path::Path;

use super::{ContractError, TrainingContract};

/// How a training container is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerCommand {
    /// Replaces the image's entry point.
    pub entrypoint: Option<Vec<String>>,
    /// What the entry point is given.
    pub arguments: Vec<String>,
    /// Variables of the job, without credentials.
    pub environment: BTreeMap<String, String>,
}

impl TrainingContract {
    /// Writes the files of the contract into `opt_ml`, where channels have been put already, and says how a container is run:
    /// as `IMAGE train`, unless the request names an entry point or arguments.
    ///
    /// # Errors
    /// [`ContractError`] when a file cannot be written.
    pub fn prepare_container(&self, opt_ml: &Path) -> Result<ContainerCommand, ContractError> {
        let failed = |error: std::io::Error| ContractError(format!("{}: {error}", opt_ml.display()));
        self.write_files(opt_ml).map_err(failed)?;
        let mut environment: BTreeMap<String, String> = [
            ("TRAINING_JOB_NAME", &self.job_name),
            ("TRAINING_JOB_ARN", &self.job_arn),
            ("AWS_REGION", &self.region),
        ]
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .into();
        // Lines reach the log when they are written, as in the other kind of job.
        environment.insert("PYTHONUNBUFFERED".to_owned(), "1".to_owned());
        environment.extend(self.environment.clone());
        let entrypoint = self.entrypoint.clone().filter(|words| !words.is_empty());
        let arguments = match (&entrypoint, self.arguments.is_empty()) {
            (None, true) => vec!["train".to_owned()],
            _ => self.arguments.clone(),
        };
        Ok(ContainerCommand { entrypoint, arguments, environment })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_run_with_train_unless_the_request_says_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        for (entrypoint, arguments, expected) in [
            (None, words(&[]), (None, words(&["train"]))),
            (None, words(&["--epochs", "3"]), (None, words(&["--epochs", "3"]))),
            (Some(words(&["python", "a.py"])), words(&[]), (Some(words(&["python", "a.py"])), words(&[]))),
            (Some(words(&["sh"])), words(&["-c", "x"]), (Some(words(&["sh"])), words(&["-c", "x"]))),
        ] {
            let contract = TrainingContract { entrypoint, arguments, ..TrainingContract::default() };
            let command = contract.prepare_container(folder.path()).unwrap();
            assert_eq!((command.entrypoint, command.arguments), expected);
        }
        assert!(folder.path().join("input/config/hyperparameters.json").is_file());
        assert!(folder.path().join("checkpoints").is_dir());
    }
}
