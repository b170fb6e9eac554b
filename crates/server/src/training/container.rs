//! Hosts of a training job in real containers: the image is had once, each host gets its files and its mounts.

use std::path::{Path, PathBuf};

use runner::catalogue::ContainerImage;
use runner::oci::{Container, Engine, ImageDetails, Limits};
use runner::workload::{Access, Confinement, Mount};

use super::prepare::{Furnished, Program, Step, failed};
use crate::app::App;
use crate::containers;
use crate::job_log::JobLog;
use crate::workloads;

/// What a container may write, below `/opt/ml`. The rest of that folder is the image's own: many keep their code there.
const WRITABLE: [&str; 4] = ["input", "model", "output", "checkpoints"];

/// An image that the engine has.
pub struct Image {
    engine: Engine,
    details: ImageDetails,
    limits: Limits,
}

impl Image {
    /// Has the image, pulled if need be, with the progress in the job's log.
    pub async fn have(app: &App, image: &ContainerImage, log: &JobLog) -> Step<Image> {
        let cannot_pull =
            |text: String| failed("image", format!("ClientError: Cannot pull algorithm container. {text}"));
        let engine = match app.containers.engine().await {
            Ok(engine) => engine,
            Err(reason) => {
                return cannot_pull(format!(
                    "The image {:?} is to be run as a container: {reason}",
                    image.reference
                ));
            }
        };
        let (lines, mut received) = tokio::sync::mpsc::unbounded_channel::<String>();
        let credentials = containers::credentials(&app.config.data_dir);
        let pulling = engine.clone();
        let have = async move {
            let mut progress = move |line: &str| {
                // The receiver lives as long as the pull.
                let _ = lines.send(line.to_owned());
            };
            pulling.ensure_image(&image.reference, image.pull, &credentials, &mut progress).await
        };
        let write = async {
            while let Some(line) = received.recv().await {
                log.line(&format!("modelyard: {line}")).await;
            }
        };
        // The channel closes when the pull ends, and with it the writing.
        match tokio::join!(have, write) {
            (Ok(details), ()) => Ok(Image { engine, details, limits: image.limits.clone() }),
            (Err(error), ()) => cannot_pull(error.to_string()),
        }
    }

    /// What a host runs, once the files of its contract are written below `opt_ml`.
    pub fn program(&self, app: &App, furnished: &Furnished, opt_ml: &Path) -> Step<Program> {
        let mut command = match furnished.contract.prepare_container(opt_ml) {
            Ok(command) => command,
            Err(error) => return failed("request", format!("ClientError: {error}")),
        };
        // The image's own path would be hidden by that of the connection.
        if let Some(own) = self.details.environment.get("PYTHONPATH").filter(|own| !own.is_empty()) {
            command.environment.entry("PYTHONPATH".to_owned()).or_insert_with(|| own.clone());
        }
        let container = Container {
            engine: self.engine.clone(),
            image: self.details.id.clone(),
            entrypoint: command.entrypoint,
            has_own_user: self.details.user.is_some(),
            limits: self.limits.clone(),
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
    // A channel that is a stream has FIFOs, which the job opens and the server fills.
    let channels = furnished.contract.channels.iter().filter(|channel| channel.input_mode != "Pipe");
    let channels = channels.map(|channel| (format!("input/data/{}", channel.name), Access::ReadOnly));
    let folders = WRITABLE.map(|name| (name.to_owned(), Access::ReadWrite));
    for (name, access) in folders.into_iter().chain(channels) {
        let target = Path::new("/opt/ml").join(&name);
        if !mounts.iter().any(|mount| mount.target == target) {
            mounts.push(Mount { source: opt_ml.join(name), target, access });
        }
    }
    mounts
}
