//! The contract of a processing container: files under `/opt/ml/config`, a few variables, the command of the request.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::failure::{WRITTEN_BYTES, written};
use super::{ContainerCommand, ContractError, JOB_LAYER, Prepared};
use crate::environment::Environment;

/// What lies beside a program of ours in the job's own layer.
struct Program {
    /// The entry point that asks for it.
    name: &'static str,
    /// Programs, the entry point among them.
    programs: &'static [(&'static str, &'static str)],
    /// Modules that they import.
    modules: &'static [(&'static str, &'static str)],
}

const SPARK: &str = include_str!("../../../../python/launcher/spark.py");
const S3_GATEWAY: (&str, &str) = ("s3_gateway.py", include_str!("../../../../python/launcher/s3_gateway.py"));

/// The entry points that run an application on a local Spark here.
const PROGRAMS: &[Program] = &[
    Program { name: "smspark-submit", programs: &[("smspark-submit", SPARK)], modules: &[S3_GATEWAY] },
    Program {
        name: SPARK_STEP,
        programs: &[
            (SPARK_STEP, include_str!("../../../../python/launcher/emr.py")),
            ("spark-submit", include_str!("../../../../python/launcher/spark_submit.py")),
            ("sudo", include_str!("../../../../python/launcher/sudo.py")),
        ],
        modules: &[S3_GATEWAY, ("spark.py", SPARK)],
    },
];

/// The entry point of a step that was written for a cluster; its arguments are pieces of one JSON text.
pub const SPARK_STEP: &str = "spark-step";

/// Where a program starts that runs in an environment.
const WORKING_DIRECTORY: &str = "/opt/ml/processing";

/// What a processing job is told about itself.
#[derive(Clone, Debug, Default)]
pub struct ProcessingContract {
    /// ARN of the job.
    pub job_arn: String,
    /// Region.
    pub region: String,
    /// This host, for example `algo-1`.
    pub current_host: String,
    /// All hosts.
    pub hosts: Vec<String>,
    /// Content of `processingjobconfig.json`.
    pub configuration: Value,
    /// Variables that the user asked for.
    pub environment: BTreeMap<String, String>,
    /// Entry point of the request.
    pub entrypoint: Option<Vec<String>>,
    /// Arguments of the request.
    pub arguments: Vec<String>,
}

impl Program {
    fn write(&self, folder: &Path, layer: &Path) -> std::io::Result<()> {
        for (name, text) in self.programs {
            super::write_program(&folder.join(name), layer, text)?;
        }
        self.modules.iter().try_for_each(|(name, text)| std::fs::write(folder.join(name), text))
    }
}

impl ProcessingContract {
    /// Writes the files of the contract into `opt_ml`, where inputs have been put already, and says what to run in an
    /// environment. Blocks for some milliseconds.
    ///
    /// # Errors
    /// [`ContractError`] when the request names no entry point, or a file cannot be written.
    pub fn prepare(&self, opt_ml: &Path, environment: &Environment) -> Result<Prepared, ContractError> {
        let Some(entrypoint) = self.entrypoint.as_ref().filter(|words| !words.is_empty()) else {
            return Err(ContractError(
                "AppSpecification.ContainerEntrypoint is missing, and the image stands for a Python environment here, which \
                 starts nothing by itself: give it, for example [\"python3\", \"/opt/ml/processing/input/code/script.py\"]."
                    .to_owned(),
            ));
        };
        let at_opt_ml = |error: std::io::Error| ContractError(format!("{}: {error}", opt_ml.display()));
        self.write_files(opt_ml).map_err(at_opt_ml)?;
        let (written, layer) = (opt_ml.join(JOB_LAYER), Path::new("/opt/ml").join(JOB_LAYER));
        environment.write_layer(&written, &layer).map_err(at_opt_ml)?;
        if let Some(program) = PROGRAMS.iter().find(|program| program.name == entrypoint[0]) {
            program.write(&written.join("bin"), &layer).map_err(at_opt_ml)?;
        }
        let mut variables = super::environment_variables(&layer, environment);
        variables.extend(self.variables());
        let command = entrypoint.iter().chain(&self.arguments).cloned().collect();
        let working_directory = PathBuf::from(WORKING_DIRECTORY);
        Ok(Prepared { command, environment: variables, working_directory, notes: Vec::new() })
    }

    /// Writes the files of the contract into `opt_ml` and says how a container is run: by its own entry point, unless the
    /// request names one.
    ///
    /// # Errors
    /// [`ContractError`] when a file cannot be written.
    pub fn prepare_container(&self, opt_ml: &Path) -> Result<ContainerCommand, ContractError> {
        let failed = |error: std::io::Error| ContractError(format!("{}: {error}", opt_ml.display()));
        self.write_files(opt_ml).map_err(failed)?;
        let mut environment = self.variables();
        // Lines reach the log when they are written, as in the other kind of job.
        environment.entry("PYTHONUNBUFFERED".to_owned()).or_insert_with(|| "1".to_owned());
        let entrypoint = self.entrypoint.clone().filter(|words| !words.is_empty());
        Ok(ContainerCommand { entrypoint, arguments: self.arguments.clone(), environment })
    }

    fn variables(&self) -> BTreeMap<String, String> {
        let own = [("PROCESSING_JOB_ARN", &self.job_arn), ("AWS_REGION", &self.region)];
        let mut variables: BTreeMap<String, String> =
            own.map(|(name, value)| (name.to_owned(), value.clone())).into();
        variables.extend(self.environment.clone());
        variables
    }

    fn write_files(&self, opt_ml: &Path) -> std::io::Result<()> {
        for directory in ["config", "processing", "output"] {
            std::fs::create_dir_all(opt_ml.join(directory))?;
        }
        let resources = json!({"current_host": self.current_host, "hosts": self.hosts});
        for (name, content) in
            [("processingjobconfig.json", &self.configuration), ("resourceconfig.json", &resources)]
        {
            std::fs::write(opt_ml.join("config").join(name), content.to_string())?;
        }
        Ok(())
    }
}

/// The beginning of what a job wrote to `output/message`; nothing when it wrote nothing. A link is not followed.
///
/// # Errors
/// [`ContractError`] when it is not UTF-8.
pub fn exit_message(opt_ml: &Path) -> Result<Option<String>, ContractError> {
    let Some(mut bytes) = written(opt_ml, "output/message").filter(|bytes| !bytes.is_empty()) else {
        return Ok(None);
    };
    if let Err(error) = std::str::from_utf8(&bytes) {
        let is_cut = error.error_len().is_none() && bytes.len() as u64 == WRITTEN_BYTES;
        if !is_cut {
            return Err(ContractError(
                "what the job wrote to /opt/ml/output/message is not UTF-8".to_owned(),
            ));
        }
        bytes.truncate(error.valid_up_to());
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_runs_its_own_entry_point_unless_the_request_has_one() {
        let folder = tempfile::tempdir().unwrap();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let contract = ProcessingContract {
            job_arn: "arn:job".into(),
            current_host: "algo-2".into(),
            hosts: words(&["algo-1", "algo-2"]),
            configuration: json!({"ProcessingJobName": "p"}),
            environment: BTreeMap::from([("OWN".to_owned(), "1".to_owned())]),
            arguments: words(&["--all"]),
            ..ProcessingContract::default()
        };
        let command = contract.prepare_container(folder.path()).unwrap();
        assert_eq!((command.entrypoint, command.arguments), (None, words(&["--all"])));
        assert_eq!(command.environment["PROCESSING_JOB_ARN"], "arn:job");
        assert_eq!(command.environment["OWN"], "1");
        let written = |name: &str| {
            let text = std::fs::read_to_string(folder.path().join("config").join(name)).unwrap();
            serde_json::from_str::<Value>(&text).unwrap()
        };
        assert_eq!(
            written("resourceconfig.json"),
            json!({"current_host": "algo-2", "hosts": ["algo-1", "algo-2"]})
        );
        assert_eq!(written("processingjobconfig.json"), json!({"ProcessingJobName": "p"}));
        assert!(folder.path().join("processing").is_dir());
    }

    #[test]
    fn the_exit_message_is_the_jobs_own_file() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(exit_message(folder.path()), Ok(None));
        std::fs::create_dir(folder.path().join("output")).unwrap();
        let path = folder.path().join("output/message");
        std::fs::write(&path, format!("x{}", "é".repeat(5_000))).unwrap();
        assert_eq!(exit_message(folder.path()).unwrap().unwrap().len(), 4_095, "cut between two letters");
        std::fs::write(&path, b"caf\xe9").unwrap();
        assert!(exit_message(folder.path()).unwrap_err().to_string().contains("UTF-8"));
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert_eq!(exit_message(folder.path()), Ok(None));
    }
}
