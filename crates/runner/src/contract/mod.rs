//! The training container contract: files under `/opt/ml`, `SM_*` variables, the command, and what a job leaves to be read.

mod arguments;
mod container;
mod distribution;
mod failure;
mod hosts;
mod metrics;
mod processing;
mod python_json;
mod source;
mod variables;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub use container::ContainerCommand;
pub use distribution::{Strategy, unsupported_distribution};
pub use failure::{Traceback, failure_message, failure_reason, traceback};
pub use hosts::{HOMOGENEOUS_GROUP, InstanceGroup, RENDEZVOUS_PORT, Rendezvous};
pub use metrics::{MetricScraper, check_metric_expression};
pub use processing::{ProcessingContract, SPARK_STEP, exit_message};

use crate::catalogue::Launcher;
use crate::environment::Environment;
use python_json::Json;
pub(crate) use source::copy_tree;

/// Where the job's own layer over the image's environment lies in its `/opt/ml`; it takes what the job installs.
pub(crate) const JOB_LAYER: &str = ".environment";

/// The program that notebook jobs start, which the service's own images have.
const NOTEBOOK_PROGRAM: &str = "amazon_sagemaker_scheduler";
const NOTEBOOK_PROGRAM_TEXT: &str = include_str!("../../../../python/launcher/notebook.py");

/// One input channel.
#[derive(Clone, Debug, Default)]
pub struct Channel {
    /// Its name.
    pub name: String,
    /// Media type, passed on to the job.
    pub content_type: Option<String>,
    /// `File`, `FastFile` or `Pipe`.
    pub input_mode: String,
    /// For example `FullyReplicated`.
    pub distribution: String,
    /// For example `None`.
    pub record_wrapper: String,
}

/// What a training job is told about itself.
#[derive(Clone, Debug, Default)]
pub struct TrainingContract {
    /// Name of the job.
    pub job_name: String,
    /// ARN of the job.
    pub job_arn: String,
    /// Region.
    pub region: String,
    /// This host, for example `algo-1`.
    pub current_host: String,
    /// All hosts.
    pub groups: Vec<InstanceGroup>,
    /// How they find and trust each other.
    pub rendezvous: Rendezvous,
    /// Input channels.
    pub channels: Vec<Channel>,
    /// Hyperparameters as on the wire: JSON-encoded or plain text.
    pub hyperparameters: BTreeMap<String, String>,
    /// Variables that the user asked for.
    pub environment: BTreeMap<String, String>,
    /// Entry point of the request.
    pub entrypoint: Option<Vec<String>>,
    /// Arguments of the request.
    pub arguments: Vec<String>,
    /// CPUs that the job may use.
    pub cpus: usize,
    /// Further files of `input/config`, by name.
    pub configurations: BTreeMap<String, Value>,
}

/// What to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Variables of the job, without credentials.
    pub environment: BTreeMap<String, String>,
    /// Where it starts.
    pub working_directory: PathBuf,
    /// What the user should know of it, for the job's log.
    pub notes: Vec<String>,
}

/// Why a job cannot be prepared; a sentence for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ContractError(String);

impl TrainingContract {
    /// S3 URI of the archive with the user's script, where the hyperparameters name one.
    pub fn source_archive(&self) -> Option<String> {
        Some(self.decoded("sagemaker_submit_directory")?.display()).filter(|uri| uri.starts_with("s3://"))
    }

    /// The channel that holds the user's script, where the hyperparameters name one.
    pub fn source_channel(&self) -> Option<String> {
        let named = self.decoded("sagemaker_submit_directory")?.display();
        let below = named.strip_prefix("/opt/ml/input/data/")?;
        below.split('/').next().map(str::to_owned)
    }

    /// Puts source that came with a channel (`sagemaker_submit_directory` names a folder, an archive or a file in
    /// `/opt/ml/input/data`) into `/opt/ml/code`, unless something is there already. Blocks. Call it before the environment is
    /// built, which looks for requirements there; [`TrainingContract::prepare`] does it too.
    ///
    /// # Errors
    /// [`ContractError`] when what is named is not there, or cannot be used.
    pub fn place_source(&self, opt_ml: &Path) -> Result<(), ContractError> {
        let named = self.decoded("sagemaker_submit_directory").map(|value| value.display());
        match named {
            Some(directory) if !directory.starts_with("s3://") && directory != "/opt/ml/code" => {
                source::place(&directory, opt_ml).map_err(ContractError)
            }
            _ => Ok(()),
        }
    }

    /// Writes the files of the contract into `opt_ml`, where channels and code have been put already, and says what to run.
    /// Blocks for some milliseconds.
    ///
    /// # Errors
    /// [`ContractError`] when neither an entry point nor a usable script is named, or a file cannot be written.
    pub fn prepare(&self, opt_ml: &Path, environment: &Environment) -> Result<Prepared, ContractError> {
        let at_opt_ml = |error: std::io::Error| ContractError(format!("{}: {error}", opt_ml.display()));
        self.write_files(opt_ml).map_err(at_opt_ml)?;
        let (written, layer) = (opt_ml.join(JOB_LAYER), Path::new("/opt/ml").join(JOB_LAYER));
        // In a sandbox that was prepared it is there, and an interpreter runs from it.
        if !written.join("pyvenv.cfg").exists() {
            environment.write_layer(&written, &layer).map_err(at_opt_ml)?;
        }
        let mut variables = self.base_variables(&layer, environment);
        variables.extend(self.environment.clone());
        let Some(entrypoint) = &self.entrypoint else {
            self.check_script_mode(environment.launcher)?;
            let program = self.program()?;
            self.place_source(opt_ml)?;
            source::check_name(&program).map_err(ContractError)?;
            let kind = source::kind(&program, &opt_ml.join("code")).map_err(ContractError)?;
            let python_path = match self.environment.get("PYTHONPATH").filter(|path| !path.is_empty()) {
                Some(path) => format!("/opt/ml/code:{path}"),
                None => "/opt/ml/code".to_owned(),
            };
            variables.extend(variables::script_variables(self, &program, environment.framework));
            variables.insert("PYTHONPATH".to_owned(), python_path);
            let arguments = arguments::command_line(&self.user_hyperparameters());
            let strategy = self.strategy(environment.framework);
            let command = match strategy {
                Strategy::Plain => kind.command(&program, &layer.join("bin/python"), arguments),
                Strategy::Torchrun | Strategy::TorchrunForDataParallel => {
                    self.check_program("torchrun", "torch", opt_ml, environment)?;
                    for (name, value) in distribution::TORCHRUN_VARIABLES {
                        variables.insert((*name).to_owned(), (*value).to_owned());
                    }
                    self.torchrun(&program, kind, arguments)?
                }
                Strategy::Mpi => {
                    let launcher = opt_ml.join(JOB_LAYER).join(distribution::MPI_LAUNCHER);
                    write_program(&launcher, &layer, distribution::MPI_LAUNCHER_TEXT).map_err(at_opt_ml)?;
                    variables.insert("MODELYARD_PEER_SECRET".to_owned(), self.rendezvous.secret.clone());
                    self.mpi(&program, kind, &layer, arguments)?
                }
            };
            let mut notes = Vec::new();
            if strategy == Strategy::TorchrunForDataParallel {
                notes.push("the script is started by torchrun, since SageMaker's data-parallel library does not exist here".into());
            }
            return Ok(Prepared {
                command,
                environment: variables,
                working_directory: "/opt/ml/code".into(),
                notes,
            });
        };
        if entrypoint.first().is_some_and(|program| program == NOTEBOOK_PROGRAM) {
            let program = written.join("bin").join(NOTEBOOK_PROGRAM);
            write_program(&program, &layer, NOTEBOOK_PROGRAM_TEXT).map_err(at_opt_ml)?;
        }
        let command = entrypoint.iter().chain(&self.arguments).cloned().collect();
        let notes = Vec::new();
        Ok(Prepared { command, environment: variables, working_directory: "/opt/ml".into(), notes })
    }

    fn write_files(&self, opt_ml: &Path) -> std::io::Result<()> {
        for directory in [
            "input/config",
            "input/data",
            "model",
            "output/data",
            "output/intermediate",
            "code",
            "checkpoints",
        ] {
            std::fs::create_dir_all(opt_ml.join(directory))?;
        }
        // A channel that is a stream has FIFOs instead of a folder.
        for channel in self.channels.iter().filter(|channel| channel.input_mode != "Pipe") {
            std::fs::create_dir_all(opt_ml.join("input/data").join(&channel.name))?;
        }
        let write =
            |name: &str, content: String| std::fs::write(opt_ml.join("input/config").join(name), content);
        let hyperparameters =
            self.hyperparameters.iter().map(|(name, text)| (name.clone(), Json::Text(text.clone())));
        write("hyperparameters.json", Json::dictionary(hyperparameters).dumps())?;
        write("resourceconfig.json", self.resource_config().dumps())?;
        write("inputdataconfig.json", self.input_data_config().dumps())?;
        for (name, content) in &self.configurations {
            write(name, content.to_string())?;
        }
        Ok(())
    }

    fn input_data_config(&self) -> Json {
        Json::dictionary(self.channels.iter().map(|channel| {
            let mut shown = vec![
                ("TrainingInputMode", &channel.input_mode),
                ("S3DistributionType", &channel.distribution),
                ("RecordWrapperType", &channel.record_wrapper),
            ];
            shown.extend(channel.content_type.as_ref().map(|content_type| ("ContentType", content_type)));
            let pairs = shown.into_iter().map(|(name, text)| (name, Json::Text(text.clone())));
            (channel.name.clone(), Json::dictionary(pairs))
        }))
    }

    fn base_variables(&self, layer: &Path, environment: &Environment) -> BTreeMap<String, String> {
        let mut variables = environment_variables(layer, environment);
        variables.extend([
            ("TRAINING_JOB_NAME".to_owned(), self.job_name.clone()),
            ("TRAINING_JOB_ARN".to_owned(), self.job_arn.clone()),
            ("AWS_REGION".to_owned(), self.region.clone()),
        ]);
        variables
    }

    /// Finds out before the start that a launcher is missing.
    fn check_program(
        &self,
        program: &str,
        package: &str,
        opt_ml: &Path,
        environment: &Environment,
    ) -> Result<(), ContractError> {
        let places = [opt_ml.join(JOB_LAYER).join("bin"), environment.directory.join("bin")];
        // Who sets a PATH knows more than can be seen from here.
        if self.environment.contains_key("PATH") || places.iter().any(|place| place.join(program).exists()) {
            return Ok(());
        }
        Err(ContractError(format!(
            "the job asks for {program}, which its image does not have: add {package} to requirements.txt or to the image in \
             the catalogue."
        )))
    }

    /// A hyperparameter decoded as the toolkit does: JSON where it is JSON, else the text.
    fn decoded(&self, name: &str) -> Option<Json> {
        self.hyperparameters.get(name).map(|text| Json::decode(text))
    }

    fn check_script_mode(&self, launcher: Launcher) -> Result<(), ContractError> {
        if !self.arguments.is_empty() {
            return Err(ContractError(
                "ContainerArguments go to the image's own entry point, which does not exist here: give ContainerEntrypoint \
                 too, or pass hyperparameters to the script."
                    .to_owned(),
            ));
        }
        if launcher == Launcher::Entrypoint {
            return Err(ContractError(
                "the image catalogue says launcher = \"entrypoint\" for this image, so that the job needs \
                 AlgorithmSpecification.ContainerEntrypoint: give it, or set launcher = \"script\"."
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// The script: the variable `SAGEMAKER_PROGRAM` wins over the hyperparameter, as in the toolkit.
    fn program(&self) -> Result<String, ContractError> {
        let variable = self.environment.get("SAGEMAKER_PROGRAM").cloned();
        let hyperparameter = || self.decoded("sagemaker_program").map(|value| value.display());
        variable.or_else(hyperparameter).filter(|name| !name.is_empty()).ok_or_else(|| {
            ContractError(
                "the job names no script: set the hyperparameter sagemaker_program, as the SDK's estimators do, or give \
                 AlgorithmSpecification.ContainerEntrypoint."
                    .to_owned(),
            )
        })
    }

    /// The hyperparameters that are the user's own, decoded.
    fn user_hyperparameters(&self) -> BTreeMap<String, Json> {
        let is_own = |name: &str| !name.starts_with("sagemaker_") && !variables::CONSUMED.contains(&name);
        let own = self.hyperparameters.iter().filter(|(name, _)| is_own(name));
        own.map(|(name, text)| (name.clone(), Json::decode(text))).collect()
    }
}

/// With which a program finds the environment and the job's own layer over it.
fn environment_variables(layer: &Path, environment: &Environment) -> BTreeMap<String, String> {
    let path = format!(
        "{}/bin:{}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        layer.display(),
        environment.directory.display()
    );
    let mut variables = environment.pip_settings.clone();
    variables.extend([
        ("PATH".to_owned(), path),
        ("VIRTUAL_ENV".to_owned(), layer.display().to_string()),
        ("PYTHONUNBUFFERED".to_owned(), "1".to_owned()),
    ]);
    variables
}

/// A program in Python that the interpreter of a layer runs.
fn write_program(path: &Path, layer: &Path, text: &str) -> std::io::Result<()> {
    let python = layer.join("bin/python").display().to_string();
    std::fs::write(path, format!("#!{python}\n{text}"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}
