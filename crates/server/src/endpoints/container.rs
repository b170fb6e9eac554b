//! Replicas in real containers: the image as the service runs it, in a network that only the server can enter.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use runner::catalogue::ContainerImage;
use runner::oci::{Container, Door, WayOut};
use runner::workload::{Access, Confinement, Mount, Network};
use serving::Protocol;

use super::many_models::MODELS_TARGET;
use super::record::DeployedVariant;
use crate::app::App;
use crate::containers;
use crate::job_log::JobLog;
use crate::workloads::{self, JobIdentity};

/// Tells the container where to listen.
const PORT_VARIABLE: &str = "SAGEMAKER_BIND_TO_PORT";
/// Tells the toolkits in it that it has many models.
const MULTI_MODEL_VARIABLE: &str = "SAGEMAKER_MULTI_MODEL";
/// Where it listens when its environment says nothing else, as in the service.
const PORT: u16 = 8080;

/// What a replica's container is made of.
pub struct ModelContainer<'a> {
    /// The image.
    pub image: &'a ContainerImage,
    /// The variant.
    pub variant: &'a DeployedVariant,
    /// Who it acts as.
    pub identity: JobIdentity<'a>,
    /// How long its credentials hold.
    pub credentials_seconds: i64,
    /// Folder of the unpacked model, or of its models.
    pub model: &'a Path,
    /// Where the server enters its network.
    pub socket: &'a Path,
}

/// The parts of a workload that are a container's own.
pub struct ContainerParts {
    /// Its variables.
    pub environment: BTreeMap<String, String>,
    /// What it sees of the host.
    pub mounts: Vec<Mount>,
    /// The container.
    pub confinement: Confinement,
}

impl ModelContainer<'_> {
    /// Has the image, pulled if need be, and says how it is run: as `IMAGE serve`.
    ///
    /// # Errors
    /// A text for people.
    pub async fn parts(self, app: &App, log: &JobLog) -> Result<ContainerParts, String> {
        let port = port(&self.variant.environment)?;
        let image = containers::have(app, self.image, log).await?;
        let is_isolated = self.variant.network_isolation;
        let way_out = if is_isolated { None } else { way_out(&app.connection.endpoint, port) };
        let mut environment = BTreeMap::new();
        let mut mounts = Vec::new();
        if !is_isolated {
            // Without a network there is nobody to use credentials with.
            environment = workloads::connection_environment(app, self.identity, self.credentials_seconds);
            mounts = workloads::connection_mounts(app);
        }
        if let Some(way) = &way_out {
            let scheme = app.connection.endpoint.split("://").next().unwrap_or("http");
            for name in ["AWS_ENDPOINT_URL", "S3_ENDPOINT_URL"] {
                environment.insert(name.into(), format!("{scheme}://{}", way.inside));
            }
        }
        let hook = environment.remove("PYTHONPATH");
        environment.insert("PYTHONUNBUFFERED".into(), "1".into());
        environment.insert(PORT_VARIABLE.into(), PORT.to_string());
        environment.extend(self.variant.environment.clone());
        // What is set here hides what the image sets.
        let own = environment.get("PYTHONPATH").or(image.details.environment.get("PYTHONPATH"));
        let paths: Vec<&str> =
            hook.iter().chain(own).map(String::as_str).filter(|path| !path.is_empty()).collect();
        if !paths.is_empty() {
            environment.insert("PYTHONPATH".into(), paths.join(":"));
        }
        if self.variant.model_data.is_some() {
            if image.details.user.is_some() {
                open_to_all(self.model).await?;
            }
            let has_many = self.variant.models.is_some();
            if has_many {
                environment.insert(MULTI_MODEL_VARIABLE.into(), "true".into());
            }
            mounts.push(Mount {
                source: self.model.to_owned(),
                target: PathBuf::from(if has_many { MODELS_TARGET } else { "/opt/ml/model" }),
                access: Access::ReadOnly,
            });
        }
        let container = Container {
            engine: image.engine,
            image: image.details.id,
            entrypoint: None,
            has_own_user: image.details.user.is_some(),
            limits: self.image.limits.clone(),
            network: app.config.containers.model_network.clone().filter(|_| !is_isolated),
            door: Some(Door { socket: self.socket.to_owned(), way_out }),
        };
        Ok(ContainerParts { environment, mounts, confinement: Confinement::Container(Box::new(container)) })
    }
}

/// The network of a model's container: its own, which the container's `network` may lead out of.
pub const NETWORK: Network = Network::None;

/// The arguments of the image's entry point.
pub fn command() -> Vec<String> {
    vec!["serve".to_owned()]
}

/// How a container with these variables is spoken to.
pub fn protocol(environment: &BTreeMap<String, String>) -> Protocol {
    Protocol::Http { port: port(environment).unwrap_or(PORT) }
}

fn port(environment: &BTreeMap<String, String>) -> Result<u16, String> {
    let Some(text) = environment.get(PORT_VARIABLE) else { return Ok(PORT) };
    let port = text.parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| format!("{PORT_VARIABLE}: {text:?} is not the number of a port, 1 to 65535."))
}

/// The way from a container's loopback to this server, by the port that its clients know where the model leaves that free.
fn way_out(endpoint: &str, model_port: u16) -> Option<WayOut> {
    let server: SocketAddr = endpoint.split("://").nth(1)?.trim_end_matches('/').parse().ok()?;
    let port = if server.port() == model_port {
        model_port.checked_add(1).unwrap_or(model_port - 1)
    } else {
        server.port()
    };
    Some(WayOut { inside: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port), server })
}

/// Lets every user read what is below a folder, as far as its owner may.
///
/// # Errors
/// A text for people.
pub async fn open_to_all(folder: &Path) -> Result<(), String> {
    let folder = folder.to_owned();
    let opened = tokio::task::spawn_blocking(move || open_to_readers(&folder)).await;
    opened
        .map_err(|error| error.to_string())?
        .map_err(|error| format!("The model cannot be made readable for the user of the image: {error}."))
}

/// Lets every user read what is below, as far as its owner may: the numbers of an image's users are not known outside of it.
///
/// # Errors
/// When modes cannot be changed.
pub fn open_to_readers(path: &Path) -> std::io::Result<()> {
    let metadata = std::fs::symlink_metadata(path)?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let mode = metadata.permissions().mode() & 0o777;
    let owners = (mode & 0o500) >> 6;
    let wanted = mode | owners | owners << 3;
    if wanted != mode {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(wanted))?;
    }
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path)? {
            open_to_readers(&entry?.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_8080_or_what_the_environment_says() {
        let of = |text: &str| port(&BTreeMap::from([(PORT_VARIABLE.to_owned(), text.to_owned())]));
        assert_eq!(port(&BTreeMap::new()), Ok(8080));
        assert_eq!(of("9000"), Ok(9000));
        for wrong in ["0", "x", "70000", ""] {
            assert!(of(wrong).unwrap_err().contains(PORT_VARIABLE), "{wrong}");
        }
    }

    #[test]
    fn the_way_out_leaves_the_models_port_free() {
        let inside = |endpoint: &str, port| way_out(endpoint, port).map(|way| way.inside.to_string());
        assert_eq!(inside("http://127.0.0.1:8470", 8080).as_deref(), Some("127.0.0.1:8470"));
        assert_eq!(inside("https://192.168.1.5:8080/", 8080).as_deref(), Some("127.0.0.1:8081"));
        assert_eq!(inside("http://[::1]:65535", 65535).as_deref(), Some("127.0.0.1:65534"));
        assert_eq!(inside("http://example.com", 8080), None);
    }

    #[test]
    fn readers_get_what_the_owner_has_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (outside, model) = (folder.path().join("outside"), folder.path().join("model"));
        std::fs::create_dir(&model).unwrap();
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        for (path, mode) in [(&outside, 0o600), (&model.join("weights"), 0o600), (&model.join("run"), 0o700)]
        {
            std::fs::write(path, "x").unwrap();
            set(path, mode);
        }
        std::os::unix::fs::symlink(&outside, model.join("link")).unwrap();
        set(&model, 0o700);
        open_to_readers(&model).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode(&model), mode(&model.join("weights")), mode(&model.join("run"))),
            (0o755, 0o644, 0o755)
        );
        assert_eq!(mode(&outside), 0o600);
    }
}
