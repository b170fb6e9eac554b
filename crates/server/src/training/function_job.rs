//! Jobs of the SDK's decorators `@remote` and `@step`: a driver script of the SDK installs what the function needs, then calls it.
//!
//! What is needed is installed before the job starts, once for all jobs that need the same; the driver is told that nothing is
//! left to install. It also takes for granted that it is root, as in the service's images.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use api::sagemaker::CreateTrainingJobInput;
use runner::archive::read_zip_member;
use runner::catalogue::Source;
use runner::contract::Prepared;
use runner::prepared::read_beneath;

/// The entry point of such a job.
const ENTRY_POINT: [&str; 2] =
    ["/bin/bash", "/opt/ml/input/data/sagemaker_remote_function_bootstrap/job_driver.sh"];
/// Channel with the requirements of a step.
const STEP_CHANNEL: &str = "pre_exec_script_and_dependencies";
/// Archive with the requirements of a function that is no step, and the folder in it.
const WORKSPACE: &str = "input/data/sm_rf_user_ws/workspace.zip";
const WORKSPACE_FOLDER: &str = "sagemaker_remote_function_workspace";
/// Argument that names the file with the requirements.
const DEPENDENCIES: &str = "--dependency_settings";
/// Its value when there is nothing to install.
const NO_DEPENDENCIES: &str = r#"{"dependency_file": null}"#;
/// Largest file of requirements that is looked at.
const MOST_REQUIREMENTS_BYTES: u64 = 1024 * 1024;
/// Largest workspace that is looked into.
const MOST_WORKSPACE_BYTES: u64 = 64 * 1024 * 1024;

/// A job of the SDK's decorators.
#[derive(Clone)]
pub struct FunctionJob {
    /// File with the requirements, where the SDK names one.
    file: Option<String>,
    is_step: bool,
    client_python: Option<String>,
    client_sdk: Option<String>,
    is_installed: bool,
}

impl FunctionJob {
    /// The function job that a request asks for; `None` for any other, and for one that runs in an environment of conda's.
    pub fn of(request: &CreateTrainingJobInput) -> Option<FunctionJob> {
        let specification = request.algorithm_specification.as_ref()?;
        let is_driver =
            specification.container_entrypoint.as_ref().is_some_and(|words| *words == ENTRY_POINT);
        let arguments = specification.container_arguments.as_deref().unwrap_or_default();
        let argument = |name: &str| {
            let at = arguments.iter().position(|word| word == name)?;
            arguments.get(at + 1).cloned()
        };
        let conda_variable =
            request.environment.iter().flatten().any(|(name, _)| name == "SAGEMAKER_JOB_CONDA_ENV");
        if !is_driver || conda_variable || argument("--job_conda_env").is_some() {
            return None;
        }
        let settings =
            argument(DEPENDENCIES).and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
        let file = settings.and_then(|settings| settings["dependency_file"].as_str().map(str::to_owned));
        Some(FunctionJob {
            file: file.filter(|name| !name.contains('/')),
            is_step: argument("--pipeline_execution_id").is_some(),
            client_python: argument("--client_python_version"),
            client_sdk: argument("--client_sagemaker_pysdk_version"),
            is_installed: false,
        })
    }

    /// An image that says no version of Python has that of the client: what one pickles, another cannot read.
    pub fn choose_python(&self, source: &mut Source) {
        if let Source::Packages { python, .. } = source
            && python.is_none()
        {
            python.clone_from(&self.client_python);
        }
    }

    /// Writes what the function needs as `requirements.txt` into a folder beside `opt_ml`, and answers the folder. `None` when
    /// the driver has to install it: an environment of conda's, or a file that is not where it is expected. Blocks.
    ///
    /// # Errors
    /// What the disk says.
    pub fn write_requirements(&self, opt_ml: &Path) -> std::io::Result<Option<PathBuf>> {
        let given = match &self.file {
            None => String::new(),
            Some(file) if file.ends_with(".txt") => match self.requirements(opt_ml, file) {
                Some(text) => text,
                None => return Ok(None),
            },
            Some(_) => return Ok(None),
        };
        let Some(text) = self.with_sdk(given) else { return Ok(None) };
        let folder = opt_ml.with_file_name("function");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("requirements.txt"), text)?;
        Ok(Some(folder))
    }

    fn requirements(&self, opt_ml: &Path, file: &str) -> Option<String> {
        if self.is_step {
            let path = Path::new("input/data").join(STEP_CHANNEL).join(file);
            let text = read_beneath(opt_ml, &path, MOST_REQUIREMENTS_BYTES).ok()?;
            // One that is longer was cut off.
            return Some(text).filter(|text| (text.len() as u64) < MOST_REQUIREMENTS_BYTES);
        }
        let path = opt_ml.join(WORKSPACE);
        if std::fs::metadata(&path).ok()?.len() > MOST_WORKSPACE_BYTES {
            return None;
        }
        let archive = Cursor::new(std::fs::read(path).ok()?);
        let member = format!("{WORKSPACE_FOLDER}/{file}");
        let content = read_zip_member(archive, &member, MOST_REQUIREMENTS_BYTES).ok()??;
        String::from_utf8(content).ok()
    }

    /// The requirements with the client's version of the SDK, unless they name one: the driver is a program of the SDK.
    fn with_sdk(&self, given: String) -> Option<String> {
        let is_sdk = |line: &str| {
            let rest = line.trim().strip_prefix("sagemaker");
            rest.is_some_and(|rest| {
                !rest.starts_with(|next: char| next.is_alphanumeric() || "-_.".contains(next))
            })
        };
        if given.lines().any(is_sdk) {
            return Some(given);
        }
        let is_version =
            |text: &&String| text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '.');
        let version = self.client_sdk.as_ref().filter(is_version)?;
        let end = if given.is_empty() || given.ends_with('\n') { "" } else { "\n" };
        Some(format!("{given}{end}sagemaker=={version}\n"))
    }

    /// The same, with its requirements in the environment.
    pub fn installed(&self) -> FunctionJob {
        FunctionJob { is_installed: true, ..self.clone() }
    }

    /// Tells the driver what it does not have to do.
    pub fn adapt(&self, prepared: &mut Prepared) {
        prepared.environment.entry("LOGNAME".to_owned()).or_insert_with(|| "root".to_owned());
        if !self.is_installed {
            return;
        }
        let at = prepared.command.iter().position(|word| word == DEPENDENCIES);
        if let Some(value) = at.and_then(|at| prepared.command.get_mut(at + 1)) {
            NO_DEPENDENCIES.clone_into(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(arguments: &[&str]) -> CreateTrainingJobInput {
        let specification = json!({
            "TrainingImage": "image", "TrainingInputMode": "File",
            "ContainerEntrypoint": ENTRY_POINT, "ContainerArguments": arguments,
        });
        let request = json!({
            "TrainingJobName": "f", "RoleArn": "arn:aws:iam::123456789012:role/r",
            "AlgorithmSpecification": specification, "OutputDataConfig": {"S3OutputPath": "s3://b/o"},
        });
        serde_json::from_value(request).unwrap()
    }

    fn job(arguments: &[&str]) -> FunctionJob {
        FunctionJob::of(&request(arguments)).unwrap()
    }

    #[test]
    fn only_the_driver_of_the_sdk_counts() {
        let mut other = request(&[]);
        other.algorithm_specification.as_mut().unwrap().container_entrypoint = Some(vec!["/bin/bash".into()]);
        assert!(FunctionJob::of(&other).is_none());
        assert!(FunctionJob::of(&request(&["--job_conda_env", "base"])).is_none());
        assert!(job(&["--region", "us-east-1"]).file.is_none());
        assert!(job(&[DEPENDENCIES, r#"{"dependency_file": "../x.txt"}"#]).file.is_none());
    }

    #[test]
    fn requirements_of_a_step_become_those_of_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let opt_ml = folder.path().join("opt-ml");
        let channel = opt_ml.join("input/data").join(STEP_CHANNEL);
        std::fs::create_dir_all(&channel).unwrap();
        std::fs::write(channel.join("r.txt"), "numpy").unwrap();
        let arguments = [
            "--client_sagemaker_pysdk_version",
            "2.257.7",
            DEPENDENCIES,
            r#"{"dependency_file": "r.txt"}"#,
            "--pipeline_execution_id",
            "x",
        ];
        let job = job(&arguments);
        let written = job.write_requirements(&opt_ml).unwrap().unwrap().join("requirements.txt");
        assert_eq!(std::fs::read_to_string(written).unwrap(), "numpy\nsagemaker==2.257.7\n");
        std::fs::write(channel.join("r.txt"), "sagemaker-core\nsagemaker>=2.256.0,<3.0.0\n").unwrap();
        let written = job.write_requirements(&opt_ml).unwrap().unwrap().join("requirements.txt");
        assert!(!std::fs::read_to_string(written).unwrap().contains("=="));
        let command = ENTRY_POINT.iter().chain(&arguments).map(|word| (*word).to_owned()).collect();
        let mut prepared = Prepared {
            command,
            environment: std::collections::BTreeMap::new(),
            working_directory: PathBuf::new(),
            notes: Vec::new(),
        };
        job.installed().adapt(&mut prepared);
        assert_eq!(prepared.command[5], NO_DEPENDENCIES);
        assert_eq!(prepared.environment["LOGNAME"], "root");
    }
}
