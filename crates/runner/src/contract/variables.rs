//! The variables that the SageMaker training toolkit computes for a user's script.

use std::collections::BTreeMap;

use super::hosts::NETWORK_INTERFACE;
use super::python_json::Json;
use super::{TrainingContract, arguments};
use crate::catalogue::Framework;

/// Hyperparameters that the toolkit itself consumes; other `sagemaker_*` ones reach the script as framework parameters.
pub const CONSUMED: &[&str] = &[
    "_tuning_objective_metric",
    "default_user_module_name",
    "sagemaker_container_log_level",
    "sagemaker_enable_cloudwatch_metrics",
    "sagemaker_job_name",
    "sagemaker_program",
    "sagemaker_region",
    "sagemaker_s3_output",
    "sagemaker_submit_directory",
];

/// All variables that a script-mode job gets from the toolkit and from the image's framework.
pub fn script_variables(
    contract: &TrainingContract,
    program: &str,
    framework: Framework,
) -> BTreeMap<String, String> {
    let known = Known::of(contract, program, framework);
    let mut values: BTreeMap<String, Json> = known.shared();
    values.insert("training_env".into(), known.training_env());
    values.insert("hps".into(), Json::Dictionary(known.own.clone()));
    values.insert("framework_params".into(), Json::Dictionary(known.framework_parameters.clone()));
    values.insert("channels".into(), Json::texts(known.channels.keys().cloned()));
    values.insert("user_args".into(), Json::texts(arguments::command_line(&known.own)));
    for (name, directory) in known.channels {
        values.insert(format!("channel_{name}"), directory);
    }
    for (name, value) in known.own {
        values.insert(format!("hp_{name}"), value);
    }
    let mut variables: BTreeMap<String, String> = values
        .into_iter()
        .map(|(name, value)| (format!("SM_{}", name.to_uppercase()), variable_text(&value)))
        // A name with these bytes cannot be a variable.
        .filter(|(name, _)| !name.contains(['=', '\0']))
        .collect();
    let text = |name: &str| contract.decoded(name).map(|value| value.display());
    variables.insert("CURRENT_HOST".into(), contract.current_host.clone());
    variables.insert("SAGEMAKER_JOB_NAME".into(), text("sagemaker_job_name").unwrap_or_default());
    let region = text("sagemaker_region").unwrap_or_else(|| contract.region.clone());
    variables.insert("SAGEMAKER_REGION".into(), region);
    if framework == Framework::Pytorch || framework == Framework::Huggingface {
        variables.insert("MASTER_ADDR".into(), contract.master());
        variables.insert("MASTER_PORT".into(), contract.rendezvous.port.to_string());
        variables.insert("NCCL_SOCKET_IFNAME".into(), NETWORK_INTERFACE.into());
        variables.insert("NCCL_IB_DISABLE".into(), "1".into());
        variables.insert("NCCL_DEBUG".into(), "WARN".into());
    }
    variables
}

/// Module that the framework's image names as the one that starts training.
fn framework_module(framework: Framework) -> Json {
    let package = match framework {
        Framework::ScikitLearn => "sagemaker_sklearn_container",
        Framework::Xgboost => "sagemaker_xgboost_container",
        Framework::Pytorch | Framework::Huggingface => "sagemaker_pytorch_container",
        Framework::Tensorflow => "sagemaker_tensorflow_container",
        Framework::Python => return Json::Null,
    };
    Json::Text(format!("{package}.training:main"))
}

/// What both the single variables and `SM_TRAINING_ENV` show.
struct Known<'a> {
    contract: &'a TrainingContract,
    program: &'a str,
    own: BTreeMap<String, Json>,
    framework_parameters: BTreeMap<String, Json>,
    channels: BTreeMap<String, Json>,
    framework_module: Json,
}

impl<'a> Known<'a> {
    fn of(contract: &'a TrainingContract, program: &'a str, framework: Framework) -> Known<'a> {
        let channel = |name: &String| (name.clone(), Json::Text(format!("/opt/ml/input/data/{name}")));
        let module = contract.environment.get("SAGEMAKER_TRAINING_MODULE").cloned().map(Json::Text);
        Known {
            contract,
            program,
            own: contract.user_hyperparameters(),
            framework_parameters: contract.framework_parameters(),
            channels: contract.channels.iter().map(|one| channel(&one.name)).collect(),
            framework_module: module.unwrap_or_else(|| framework_module(framework)),
        }
    }

    /// Values that appear under the same name in both.
    fn shared(&self) -> BTreeMap<String, Json> {
        let contract = self.contract;
        let text = |text: &str| Json::Text(text.to_owned());
        let own_group = contract.group();
        let group_names = contract.groups.iter().map(|group| group.name.clone());
        let groups = contract.groups.iter().map(|group| (group.name.clone(), group.to_json()));
        let count = |count: usize| Json::Integer(count.to_string());
        let log_level = contract.decoded("sagemaker_container_log_level");
        let module_directory = contract.decoded("sagemaker_submit_directory").map(|value| value.display());
        let pairs = [
            ("current_host", text(&contract.current_host)),
            ("current_instance_group", text(&own_group.name)),
            ("current_instance_group_hosts", own_group.hosts_json()),
            ("current_instance_type", text(&own_group.instance_type)),
            ("distribution_instance_groups", contract.distribution_groups()),
            ("framework_module", self.framework_module.clone()),
            ("hosts", Json::texts(contract.hosts())),
            ("input_config_dir", text("/opt/ml/input/config")),
            ("input_data_config", contract.input_data_config()),
            ("input_dir", text("/opt/ml/input")),
            ("instance_groups", Json::texts(group_names)),
            ("instance_groups_dict", Json::dictionary(groups)),
            ("is_hetero", Json::Bool(contract.groups.len() > 1)),
            ("log_level", log_level.unwrap_or_else(|| Json::Integer("20".into()))),
            ("model_dir", text("/opt/ml/model")),
            ("module_dir", Json::Text(module_directory.unwrap_or_else(|| "/opt/ml/code".into()))),
            ("module_name", text(self.program.strip_suffix(".py").unwrap_or(self.program))),
            ("network_interface_name", text(NETWORK_INTERFACE)),
            ("num_cpus", count(contract.cpus)),
            ("num_gpus", count(0)),
            ("num_neurons", count(0)),
            ("output_data_dir", text("/opt/ml/output/data")),
            ("output_dir", text("/opt/ml/output")),
            ("output_intermediate_dir", text("/opt/ml/output/intermediate")),
            ("resource_config", contract.resource_config()),
            ("user_entry_point", text(self.program)),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Everything in one dictionary.
    fn training_env(&self) -> Json {
        let contract = self.contract;
        let mut all = self.shared();
        let master = contract.master();
        let model_parallel = match contract.environment.get("SM_HP_MP_PARAMETERS") {
            None => Json::Null,
            Some(empty) if empty.is_empty() => Json::Text(String::new()),
            Some(parameters) => Json::Bool(parameters != "{}"),
        };
        let additional = [
            ("additional_framework_parameters", Json::Dictionary(self.framework_parameters.clone())),
            ("channel_input_dirs", Json::Dictionary(self.channels.clone())),
            ("distribution_hosts", Json::texts(contract.distribution_hosts())),
            ("hyperparameters", Json::Dictionary(self.own.clone())),
            ("is_master", Json::Bool(contract.current_host == master)),
            ("is_modelparallel_enabled", model_parallel),
            ("is_smddpmprun_installed", Json::Bool(false)),
            ("is_smddprun_installed", Json::Bool(false)),
            ("job_name", Json::Text(contract.job_name.clone())),
            ("master_hostname", Json::Text(master)),
            ("topology", Json::List(Vec::new())),
        ];
        all.extend(additional.map(|(name, value)| (name.to_owned(), value)));
        Json::Dictionary(all)
    }
}

/// Text as it is, nothing for null, all else as compact JSON with sorted keys.
fn variable_text(value: &Json) -> String {
    match value {
        Json::Null => String::new(),
        Json::Text(text) => text.clone(),
        other => other.dumps(),
    }
}
