//! Real container images: which engine runs them here, and which images it runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use runner::catalogue::{Catalogue, ContainerImage, ImageProfile, Source};
use runner::executor::ProcessExecutor;
use runner::oci::{Engine, EngineState, ImageDetails, probe};
use serde::Deserialize;
use tokio::sync::OnceCell;

use crate::app::App;
use crate::job_log::JobLog;

/// Programs that are looked for when the settings name none.
const KNOWN_ENGINES: [&str; 2] = ["podman", "docker"];

/// What to do when there is no engine.
const INSTALL: &str = "install Podman (apt-get install podman) or Docker";

/// The `[containers]` table of the settings file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContainerFile {
    /// `podman`, `docker`, the path of either, or `none`.
    engine: Option<String>,
    /// Options before each of its sub-commands.
    options: Vec<String>,
    /// Its low-level runtime.
    runtime: Option<String>,
    /// Whether images outside the catalogue are run.
    unlisted_images: Option<bool>,
    /// The network of the engine that containers of models join; without one they reach this server and nothing else.
    model_network: Option<String>,
}

/// How real images are run.
#[derive(Debug, Clone, Default)]
pub struct ContainerConfig {
    /// The engine; `None` when there is none, or none is wanted.
    pub engine: Option<Engine>,
    /// Whether the settings name the engine.
    pub is_named: bool,
    /// Whether an image that is not in the catalogue is run as a container.
    pub unlisted_images: bool,
    /// The network of the engine that containers of models join.
    pub model_network: Option<String>,
}

impl ContainerConfig {
    /// Finds the engine that the settings mean. `variables` is the environment of engines.
    ///
    /// # Errors
    /// When the named engine is not there, or models cannot be in the named network.
    pub fn resolve(
        file: ContainerFile,
        search_path: &[PathBuf],
        variables: &BTreeMap<String, String>,
    ) -> Result<ContainerConfig, String> {
        let found = match file.engine.as_deref() {
            Some("none") => None,
            Some(name) => {
                let engine = Engine::named(name, search_path, variables.clone());
                Some(engine.ok_or_else(|| {
                    format!(
                        "containers.engine = {name:?}: there is no such program; {INSTALL}, or say \"none\""
                    )
                })?)
            }
            None => KNOWN_ENGINES.iter().find_map(|name| Engine::named(name, search_path, variables.clone())),
        };
        let model_network = file.model_network.filter(|network| network != "none");
        if let Some(network) = &model_network {
            check_model_network(network)?;
        }
        let engine = found.map(|engine| Engine { options: file.options, runtime: file.runtime, ..engine });
        Ok(ContainerConfig {
            is_named: file.engine.is_some() && engine.is_some(),
            engine,
            unlisted_images: file.unlisted_images.unwrap_or(true),
            model_network,
        })
    }
}

/// All models listen on the same port, so that each has a network of its own.
fn check_model_network(network: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("containers.model_network = {network:?}: {why}"));
    if network == "host" || network.starts_with("container:") || network.starts_with("ns:") {
        return wrong(
            "models cannot share a network; name one of the engine that gives each container its own, such as \"bridge\"",
        );
    }
    if network.is_empty() || network.starts_with('-') || network.contains(char::is_whitespace) {
        return wrong("that is not the name of a network");
    }
    Ok(())
}

/// The variables of the server that engines see: where they keep things, and how they reach daemons and registries.
pub fn is_engine_variable(name: &str) -> bool {
    let own = matches!(
        name,
        "PATH"
            | "HOME"
            | "TMPDIR"
            | "XDG_RUNTIME_DIR"
            | "XDG_CONFIG_HOME"
            | "XDG_DATA_HOME"
            | "DBUS_SESSION_BUS_ADDRESS"
            | "DOCKER_HOST"
            | "DOCKER_CONFIG"
            | "DOCKER_CONTEXT"
            | "DOCKER_CERT_PATH"
            | "DOCKER_TLS_VERIFY"
            | "CONTAINERS_CONF"
            | "CONTAINERS_STORAGE_CONF"
            | "CONTAINERS_REGISTRIES_CONF"
            | "REGISTRY_AUTH_FILE"
    );
    own || crate::config::is_network_variable(name)
}

/// The registries' credentials of a data directory, in the format of Docker's `config.json`.
pub fn credentials(data_dir: &Path) -> PathBuf {
    data_dir.join("registries/config.json")
}

/// The engine of this server, tried before its first use.
pub struct Containers {
    config: ContainerConfig,
    search_path: Vec<PathBuf>,
    working: OnceCell<Engine>,
}

impl Containers {
    /// Nothing is tried yet.
    pub fn new(config: ContainerConfig, search_path: Vec<PathBuf>) -> Containers {
        Containers { config, search_path, working: OnceCell::new() }
    }

    /// The engine, as it works here.
    ///
    /// # Errors
    /// A text for people: there is none, or what it said, and what mends it.
    pub async fn engine(&self) -> Result<Engine, String> {
        // Only success is remembered: who mends the engine need not restart the server.
        let working = self.working.get_or_try_init(|| async {
            let engine = self
                .config
                .engine
                .clone()
                .ok_or_else(|| format!("there is no container engine: {INSTALL}"))?;
            let search_path = self.search_path.clone();
            let report = tokio::task::spawn_blocking(move || probe(&engine, &search_path)).await;
            let report = report.map_err(|error| error.to_string())?;
            match report.state {
                EngineState::Works => Ok(report.engine),
                EngineState::Broken => {
                    let remedy =
                        report.remedy.unwrap_or_else(|| "`modelyard doctor` tries it again.".to_owned());
                    Err(format!("{} {remedy}", report.detail))
                }
            }
        });
        working.await.cloned()
    }

    /// Whether an image is run as a real container, as far as the catalogue says.
    pub fn is_container(&self, catalogue: &Catalogue, image: &str) -> bool {
        catalogue.resolve(image).map_or(true, |profile| matches!(profile.source, Source::Container(_)))
    }

    /// What an image means: what the catalogue says, or else the image itself, run as a container.
    ///
    /// # Errors
    /// A text for people that names the image and the ways to make it known.
    pub async fn profile(&self, catalogue: &Catalogue, image: &str) -> Result<ImageProfile, String> {
        let unlisted = match catalogue.resolve(image) {
            Ok(profile) => return Ok(profile),
            Err(error) => error,
        };
        if !self.config.unlisted_images {
            return Err(format!(
                "{unlisted}. Images outside the catalogue are not run here: containers.unlisted_images is false."
            ));
        }
        match self.engine().await {
            Ok(_) => Ok(ImageProfile::of_container(image)),
            Err(reason) => Err(format!("{unlisted}. It cannot be run as a real container either: {reason}")),
        }
    }
}

/// An image that the engine has.
pub struct HadImage {
    /// The engine.
    pub engine: Engine,
    /// What the image says of itself.
    pub details: ImageDetails,
}

/// Has the image, pulled if need be, with the progress in a log.
///
/// # Errors
/// A text for people that says what is wrong with the engine or the image, and what mends it.
pub async fn have(app: &App, image: &ContainerImage, log: &JobLog) -> Result<HadImage, String> {
    let engine =
        app.containers.engine().await.map_err(|reason| {
            format!("The image {:?} is to be run as a container: {reason}", image.reference)
        })?;
    let (lines, mut received) = tokio::sync::mpsc::unbounded_channel::<String>();
    let credentials = credentials(&app.config.data_dir);
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
    let (had, ()) = tokio::join!(have, write);
    had.map(|details| HadImage { engine, details }).map_err(|error| error.to_string())
}

/// Removes, in the background, containers of an earlier life that nobody watches any more.
pub fn remove_strays(executor: &ProcessExecutor, config: &ContainerConfig) {
    let Some(engine) = config.engine.clone() else { return };
    let (executor, is_named) = (executor.clone(), config.is_named);
    tokio::task::spawn_blocking(move || match executor.remove_stray_containers(&engine) {
        Ok(removed) if removed.is_empty() => {}
        Ok(removed) => tracing::warn!(?removed, "containers that nobody watched were removed"),
        Err(error) if is_named => {
            tracing::warn!(%error, "containers of an earlier life could not be looked for")
        }
        // An engine that is only lying around need not work.
        Err(error) => tracing::debug!(%error, "containers of an earlier life could not be looked for"),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str, path: &[PathBuf]) -> Result<ContainerConfig, String> {
        ContainerConfig::resolve(toml::from_str(text).unwrap(), path, &BTreeMap::new())
    }

    #[test]
    fn an_engine_is_found_named_or_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = [folder.path().to_owned()];
        assert!(resolve("", &path).unwrap().engine.is_none());
        let missing = resolve("engine = 'podman'", &path).unwrap_err();
        assert!(
            missing.contains("containers.engine = \"podman\"") && missing.contains("apt-get install"),
            "{missing}"
        );
        for name in KNOWN_ENGINES {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let found = resolve("", &path).unwrap();
        assert!(!found.is_named && found.unlisted_images);
        assert_eq!(found.engine.unwrap().program, folder.path().join("podman"));
        let named = resolve(
            "engine = 'docker'\noptions = ['--context', 'x']\nruntime = 'runc'\nunlisted_images = false",
            &path,
        );
        let named = named.unwrap();
        assert!(named.is_named && !named.unlisted_images);
        let engine = named.engine.unwrap();
        assert_eq!(
            (engine.options, engine.runtime),
            (vec!["--context".to_owned(), "x".to_owned()], Some("runc".to_owned()))
        );
        assert!(resolve("engine = 'none'", &path).unwrap().engine.is_none());
    }

    #[test]
    fn models_are_in_no_network_that_they_share() {
        let network = |name: &str| resolve(&format!("model_network = '{name}'"), &[]);
        assert_eq!(network("bridge").unwrap().model_network.as_deref(), Some("bridge"));
        assert_eq!(network("none").unwrap().model_network, None);
        for name in ["host", "container:x", "ns:/x", "", "--privileged", "a b"] {
            assert!(network(name).unwrap_err().contains("containers.model_network"), "{name}");
        }
    }
}
