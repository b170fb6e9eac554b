//! Hosts of a training job in real containers: the image is had once, each host gets its files and its mounts.

use std::path::{Path, PathBuf};

use runner::catalogue::ContainerImage;
use runner::oci::{Container, Limits};
use runner::workload::{Confinement, Mount};

use super::prepare::{Furnished, Program, Step, failed};
use crate::app::App;
use crate::containers::{self, HadImage};
use crate::job_log::JobLog;
use crate::workloads;

/// An image that the engine has.
pub struct Image {
    had: HadImage,
    limits: Limits,
}

impl Image {
    /// Has the image, pulled if need be, with the progress in the job's log.
    pub async fn have(app: &App, image: &ContainerImage, log: &JobLog) -> Step<Image> {
        match containers::have(app, image, log).await {
            Ok(had) => Ok(Image { had, limits: image.limits.clone() }),
            Err(reason) => failed("image", format!("ClientError: Cannot pull algorithm container. {reason}")),
        }
    }

    /// What a host runs, once the files of its contract are written below `opt_ml`.
    pub fn program(&self, app: &App, furnished: &Furnished, opt_ml: &Path) -> Step<Program> {
        let mut command = match furnished.contract.prepare_container(opt_ml) {
            Ok(command) => command,
            Err(error) => return failed("request", format!("ClientError: {error}")),
        };
        // The image's own path would be hidden by that of the connection.
        if let Some(own) = self.had.details.environment.get("PYTHONPATH").filter(|own| !own.is_empty()) {
            command.environment.entry("PYTHONPATH".to_owned()).or_insert_with(|| own.clone());
        }
        let container = Container {
            engine: self.had.engine.clone(),
            image: self.had.details.id.clone(),
            entrypoint: command.entrypoint,
            has_own_user: self.had.details.user.is_some(),
            limits: self.limits.clone(),
            network: None,
            door: None,
        };
        Ok(Program {
            command: command.arguments,
            environment: command.environment,
            working_directory: PathBuf::from("/"),
            mounts: mounts(app, furnished, opt_ml),
            confinement: Confinement::Container(Box::new(container)),
        })
    }
}

/// The folders of the contract, with the channels read-only; what was prepared to be mounted comes first.
fn mounts(app: &App, furnished: &Furnished, opt_ml: &Path) -> Vec<Mount> {
    let mut mounts = workloads::connection_mounts(app);
    mounts.extend(furnished.mounts.clone());
    for (name, access) in furnished.contract.container_folders() {
        let target = Path::new("/opt/ml").join(&name);
        if !mounts.iter().any(|mount| mount.target == target) {
            mounts.push(Mount { source: opt_ml.join(name), target, access });
        }
    }
    mounts
}
