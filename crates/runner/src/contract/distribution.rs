//! Launchers of distributed scripts: the SDK's `distribution=` as the hyperparameters carry it, and the commands that the
//! framework's images start for it.

use std::collections::BTreeMap;
use std::path::Path;

use super::hosts::NETWORK_INTERFACE;
use super::python_json::Json;
use super::source::Kind;
use super::{ContractError, TrainingContract, variables};
use crate::catalogue::Framework;

/// Framework parameters that say that the script runs distributed over its instance group.
const STRATEGIES: &[&str] = &[
    "sagemaker_distributed_dataparallel_enabled",
    "sagemaker_mpi_enabled",
    "sagemaker_multi_worker_mirrored_strategy_enabled",
    "sagemaker_parameter_server_enabled",
    "sagemaker_pytorch_ddp_enabled",
    "sagemaker_pytorch_xla_multi_worker_enabled",
    "sagemaker_torch_distributed_enabled",
];

/// Those that nothing here starts.
const UNSUPPORTED: &[&str] = &[
    "sagemaker_multi_worker_mirrored_strategy_enabled",
    "sagemaker_parameter_server_enabled",
    "sagemaker_pytorch_xla_multi_worker_enabled",
];

/// What the image sets for `torchrun`. It also turns on EFA for some instance types, whose network does not exist here.
pub(super) const TORCHRUN_VARIABLES: &[(&str, &str)] =
    &[("NCCL_SOCKET_IFNAME", NETWORK_INTERFACE), ("NCCL_PROTO", "simple")];

/// Name of the MPI launcher in the job's layer.
pub(super) const MPI_LAUNCHER: &str = "bin/modelyard-mpi";

/// What it does: leads, serves the leading host, or starts a daemon on another host.
pub(super) const MPI_LAUNCHER_TEXT: &str = include_str!("../../../../python/launcher/mpi.py");

/// How a script is started on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// On each host by itself.
    Plain,
    /// By PyTorch's `torchrun` on each host.
    Torchrun,
    /// By `torchrun`, in place of SageMaker's own data-parallel launcher.
    TorchrunForDataParallel,
    /// By `mpirun` on the first host.
    Mpi,
}

/// The hyperparameter, if any, that asks a script-mode job for a launcher that does not exist here.
pub fn unsupported_distribution(hyperparameters: &BTreeMap<String, String>) -> Option<&'static str> {
    let is_on = |name: &&&str| hyperparameters.get(**name).is_some_and(|text| Json::decode(text).is_truthy());
    UNSUPPORTED.iter().find(is_on).copied()
}

impl TrainingContract {
    /// The hyperparameters that are for the framework's image.
    pub(super) fn framework_parameters(&self) -> BTreeMap<String, Json> {
        self.hyperparameters
            .iter()
            .filter(|(name, _)| {
                name.starts_with("sagemaker_") && !variables::CONSUMED.contains(&name.as_str())
            })
            .map(|(name, text)| (name.clone(), Json::decode(text)))
            .collect()
    }

    /// The instance groups that the script is distributed over.
    pub(super) fn distribution_groups(&self) -> Json {
        let parameters = self.framework_parameters();
        let is_on = |name: &&str| parameters.get(*name).is_some_and(Json::is_truthy);
        match parameters.get("sagemaker_distribution_instance_groups") {
            Some(groups) => groups.clone(),
            None if STRATEGIES.iter().any(is_on) => Json::texts([self.group().name]),
            None => Json::List(Vec::new()),
        }
    }

    /// The hosts of those groups.
    pub(super) fn distribution_hosts(&self) -> Vec<String> {
        let Json::List(names) = self.distribution_groups() else { return Vec::new() };
        let is_named = |group: &&super::InstanceGroup| names.contains(&Json::Text(group.name.clone()));
        let mut hosts = Vec::new();
        for group in self.groups.iter().filter(is_named) {
            let mut own = group.hosts.clone();
            own.sort_unstable();
            hosts.extend(own);
        }
        hosts
    }

    /// The host that the others meet at.
    pub(super) fn master(&self) -> String {
        self.distribution_hosts().into_iter().chain(self.hosts()).next().unwrap_or_default()
    }

    /// How the image of a framework starts the script on this host.
    pub fn strategy(&self, framework: Framework) -> Strategy {
        let parameters = self.framework_parameters();
        let is_on = |name: &str| parameters.get(name).is_some_and(Json::is_truthy);
        let has_torch = match framework {
            Framework::Pytorch | Framework::Huggingface | Framework::Python => true,
            Framework::Tensorflow => false,
            // These images start the script on each host and leave the rest to it.
            Framework::ScikitLearn | Framework::Xgboost => return Strategy::Plain,
        };
        if !self.distribution_hosts().contains(&self.current_host) {
            Strategy::Plain
        } else if is_on("sagemaker_mpi_enabled") {
            Strategy::Mpi
        } else if has_torch && is_on("sagemaker_torch_distributed_enabled") {
            Strategy::Torchrun
        } else if has_torch
            && (is_on("sagemaker_pytorch_ddp_enabled") || is_on("sagemaker_distributed_dataparallel_enabled"))
        {
            Strategy::TorchrunForDataParallel
        } else {
            Strategy::Plain
        }
    }

    /// Processes per host: as asked for, else one.
    fn processes_per_host(&self) -> i64 {
        let parameters = self.framework_parameters();
        let given = parameters.get("sagemaker_mpi_num_of_processes_per_host").map(Json::display);
        given.and_then(|text| text.parse().ok()).filter(|count| *count > 0).unwrap_or(1)
    }

    /// The command of `torchrun` on this host.
    pub(super) fn torchrun(
        &self,
        program: &str,
        kind: Kind,
        arguments: Vec<String>,
    ) -> Result<Vec<String>, ContractError> {
        if kind != Kind::Script {
            return Err(ContractError(format!(
                "torchrun starts Python scripts, and {program:?} is none, or its source has a setup.py: name a .py file, and put \
                 what it needs into requirements.txt."
            )));
        }
        let hosts = self.distribution_hosts();
        let mut command = words(&["torchrun", "--nnodes"]);
        command.push(hosts.len().to_string());
        command.extend(["--nproc_per_node".to_owned(), self.processes_per_host().to_string()]);
        if hosts.len() > 1 {
            let rank = hosts.iter().position(|host| *host == self.current_host).unwrap_or_default();
            command.extend(["--master_addr".to_owned(), self.master()]);
            command.extend(["--master_port".to_owned(), self.rendezvous.port.to_string()]);
            command.extend(["--node_rank".to_owned(), rank.to_string()]);
        }
        command.push(program.to_owned());
        command.extend(arguments);
        Ok(command)
    }

    /// The command of this host of an MPI job: the first host runs `mpirun`, the others run what it sends.
    pub(super) fn mpi(
        &self,
        program: &str,
        kind: Kind,
        layer: &Path,
        arguments: Vec<String>,
    ) -> Result<Vec<String>, ContractError> {
        let launcher = layer.join(MPI_LAUNCHER).display().to_string();
        let hosts = self.distribution_hosts();
        let master = self.master();
        if self.current_host != master {
            return Ok(vec![launcher, "serve".to_owned()]);
        }
        let script = match kind {
            Kind::Script => {
                // mpi4py ends all ranks when one of them ends with an exception.
                let python = layer.join("bin/python").display().to_string();
                let mut script = vec![python, "-m".to_owned(), "mpi4py".to_owned(), program.to_owned()];
                script.extend(arguments);
                script
            }
            Kind::Command => kind.command(program, &layer.join("bin/python"), arguments),
            Kind::Package => {
                return Err(ContractError(
                    "mpirun starts scripts, and this source is a package with a setup.py: put what the script needs into \
                     requirements.txt instead."
                        .to_owned(),
                ));
            }
        };
        let others = hosts.iter().filter(|host| **host != master).cloned().collect::<Vec<_>>().join(",");
        let mut command = vec![launcher, "lead".to_owned(), others];
        command.extend(self.mpirun(&hosts));
        command.extend(script);
        Ok(command)
    }

    /// `mpirun` with the options of the framework's images. Options of its own have two dashes, which versions 4 and 5 take.
    fn mpirun(&self, hosts: &[String]) -> Vec<String> {
        let parameters = self.framework_parameters();
        let per_host = self.processes_per_host();
        let shown: Vec<String> = if per_host == 1 {
            hosts.to_vec()
        } else {
            hosts.iter().map(|host| format!("{host}:{per_host}")).collect()
        };
        let asked = parameters.get("sagemaker_mpi_num_processes").map(Json::display);
        let processes = asked
            .and_then(|text| text.parse::<i64>().ok())
            .filter(|count| *count > 0)
            .unwrap_or(per_host * hosts.len() as i64);
        let custom =
            parameters.get("sagemaker_mpi_custom_mpi_options").map(Json::display).unwrap_or_default();
        let (debug, custom) = custom_options(&custom);
        let mut command = words(&["mpirun", "--host"]);
        command.extend([shown.join(","), "-np".to_owned(), processes.to_string()]);
        command.extend(words(&["--allow-run-as-root", "--display-map", "--tag-output"]));
        for (name, value) in [
            ("btl_tcp_if_include", NETWORK_INTERFACE),
            ("oob_tcp_if_include", NETWORK_INTERFACE),
            ("plm_rsh_no_tree_spawn", "1"),
        ] {
            command.extend(words(&["-mca", name, value]));
        }
        command.extend(words(&["--bind-to", "none", "--map-by", "slot"]));
        for (name, value) in [
            ("pml", "ob1"),
            ("btl", "^openib"),
            ("orte_abort_on_non_zero_status", "1"),
            ("btl_vader_single_copy_mechanism", "none"),
        ] {
            command.extend(words(&["-mca", name, value]));
        }
        let mut exported = vec![
            "NCCL_MIN_NRINGS=4".to_owned(),
            format!("NCCL_SOCKET_IFNAME={NETWORK_INTERFACE}"),
            format!("NCCL_DEBUG={debug}"),
            "PATH".to_owned(),
        ];
        // mpirun complains about a variable that is not there.
        if self.environment.contains_key("LD_LIBRARY_PATH") {
            exported.push("LD_LIBRARY_PATH".to_owned());
        }
        for variable in exported {
            command.extend(["-x".to_owned(), variable]);
        }
        command.extend(custom);
        command
    }
}

/// NCCL's level of logging, which has an option of its own, and the other options of the user.
fn custom_options(text: &str) -> (String, Vec<String>) {
    let mut debug = "INFO".to_owned();
    let mut others = Vec::new();
    let mut given = text.split_whitespace();
    while let Some(word) = given.next() {
        if word == "--NCCL_DEBUG" {
            debug = given.next().unwrap_or("INFO").to_owned();
        } else if let Some(level) = word.strip_prefix("--NCCL_DEBUG=") {
            debug = level.to_owned();
        } else {
            others.push(word.to_owned());
        }
    }
    (debug, others)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_of_nccl_is_taken_out_of_the_options() {
        let (debug, others) = custom_options("--NCCL_DEBUG WARN -x A=1");
        assert_eq!((debug.as_str(), others), ("WARN", words(&["-x", "A=1"])));
        assert_eq!(custom_options("--NCCL_DEBUG=TRACE"), ("TRACE".to_owned(), Vec::new()));
        assert_eq!(custom_options(""), ("INFO".to_owned(), Vec::new()));
    }

    #[test]
    fn what_nothing_starts_is_named() {
        let of = |name: &str, value: &str| {
            unsupported_distribution(&BTreeMap::from([(name.to_owned(), value.to_owned())]))
        };
        assert_eq!(
            of("sagemaker_parameter_server_enabled", "true"),
            Some("sagemaker_parameter_server_enabled")
        );
        assert_eq!(of("sagemaker_parameter_server_enabled", "false"), None);
        assert_eq!(of("sagemaker_mpi_enabled", "true"), None);
    }
}
