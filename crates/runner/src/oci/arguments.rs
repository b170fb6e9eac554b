//! Describes a workload's container in the engine's own arguments.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::process::Resource;

use super::{Container, EngineKind, Gpus, ROOT_LABEL, WORKLOAD_LABEL, container_name};
use crate::limits::EffectiveLimits;
use crate::workload::{Access, Mount, Network, WorkloadSpec};

/// File in the workload's directory with the container's variables: a command line would show secrets to every user.
const ENVIRONMENT_FILE: &str = "environment.list";
/// File in the workload's directory with what the engine is told of the container.
const ARGUMENTS_FILE: &str = "container.json";
/// Open files a container may have, unless the host allows less.
const OPEN_FILES_LIMIT: u64 = 65_536;
/// Processes that a container's user may have, unless the host allows less. Podman lowers its own limit to about this number,
/// and what it starts cannot get more.
const PROCESSES_LIMIT: u64 = 32_768;
/// Makes the kernel choose the job, not the server, when memory runs out.
const OUT_OF_MEMORY_SCORE: &str = "500";

/// Refuses what cannot be said to an engine. The error is a sentence for the user.
pub(super) fn check(
    spec: &WorkloadSpec,
    container: &Container,
    workload_directory: &Path,
) -> Result<(), String> {
    for (name, value) in &spec.environment {
        let is_plain =
            |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.' || byte == b'-';
        if !name.bytes().all(is_plain) {
            return Err(format!(
                "The environment variable {name:?} cannot be given to a container: use letters, digits and underscores."
            ));
        }
        if value.contains(['\n', '\r']) {
            return Err(format!(
                "The value of the environment variable {name} has a line break, which cannot be given to a container: encode it \
                 (as JSON or base64, say), or pass it in a channel."
            ));
        }
    }
    if matches!(spec.network, Network::Peers { .. }) && !can_share_network(container) {
        return Err(
            "Containers of several hosts can be cut off from the network together with Podman, by a server that runs as root: use \
             that, or turn network isolation off."
                .to_owned(),
        );
    }
    if container.door.is_some() && spec.network != Network::None {
        return Err("A container with a door must have a network of its own.".to_owned());
    }
    let mounted = spec.mounts.iter().flat_map(|mount| [mount.source.as_path(), mount.target.as_path()]);
    for path in mounted.chain([workload_directory]) {
        let is_plain = path.to_str().is_some_and(|text| !text.contains([',', '"', '\n', '\r']));
        if !is_plain {
            return Err(format!(
                "{path:?} cannot be shown to a container: use a path without commas, quotes and line breaks."
            ));
        }
    }
    Ok(())
}

/// Whether a container can be put into a network that this process holds.
fn can_share_network(container: &Container) -> bool {
    container.engine.kind == EngineKind::Podman && rustix::process::geteuid().is_root()
}

/// Writes what the engine is to be told into the workload's directory, for its owner only.
pub(super) fn write(
    spec: &WorkloadSpec,
    container: &Container,
    workload_directory: &Path,
    limits: &EffectiveLimits,
) -> Result<(), String> {
    let lines: String = spec.environment.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    let arguments = create(spec, container, workload_directory, limits);
    let arguments = serde_json::to_string(&arguments).map_err(|error| error.to_string())?;
    for (name, content) in [(ENVIRONMENT_FILE, lines), (ARGUMENTS_FILE, arguments)] {
        let path = workload_directory.join(name);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(content.as_bytes()))
            .map_err(|error| format!("{} cannot be written: {error}.", path.display()))?;
    }
    Ok(())
}

/// Reads the arguments of `create` that [`write`] left.
pub(super) fn read(workload_directory: &Path) -> Result<Vec<String>, String> {
    let path = workload_directory.join(ARGUMENTS_FILE);
    let text = std::fs::read_to_string(&path).map_err(|error| error.to_string());
    let arguments = text.and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()));
    arguments.map_err(|error| format!("{} cannot be read: {error}.", path.display()))
}

/// The arguments of `create`.
fn create(
    spec: &WorkloadSpec,
    container: &Container,
    workload_directory: &Path,
    limits: &EffectiveLimits,
) -> Vec<String> {
    let mut list = List(vec!["create".into()]);
    let root = workload_directory.parent().unwrap_or(Path::new("/"));
    list.add("--name", container_name(&spec.id));
    list.add("--label", format!("{ROOT_LABEL}={}", root.display()));
    list.add("--label", format!("{WORKLOAD_LABEL}={}", spec.id));
    list.add("--env-file", workload_directory.join(ENVIRONMENT_FILE).display().to_string());
    // The supervisor keeps the output; the engine need not write it a second time.
    list.add("--log-driver", "none");
    list.add("--pull", "never");
    list.add("--hostname", &spec.hostname);
    if spec.hosts.is_empty() {
        list.add("--add-host", format!("{}:127.0.0.1", spec.hostname));
    }
    spec.hosts.iter().for_each(|(name, address)| list.add("--add-host", format!("{name}:{address}")));
    match spec.network {
        Network::Host => list.add("--network", "host"),
        Network::None => list.add("--network", container.network.as_deref().unwrap_or("none")),
        // The engine is started from the network of the peers, and takes it for the host's.
        Network::Peers { .. } => list.add("--network", "host"),
    }
    list.0.push("--no-healthcheck".into());
    if container.engine.kind == EngineKind::Podman {
        // The engine's own proxy settings, which may hold credentials, are for its pulls.
        list.0.push("--http-proxy=false".into());
    }
    confinement(&mut list, container);
    add_limits(&mut list, container, limits);
    add_gpus(&mut list, container, &spec.gpus);
    let mut mounts: Vec<&Mount> = spec.mounts.iter().collect();
    mounts.sort_by_key(|mount| mount.target.components().count());
    for mount in mounts {
        let access = if mount.access == Access::ReadOnly { ",readonly" } else { "" };
        let (source, target) = (mount.source.display(), mount.target.display());
        list.add("--mount", format!("type=bind,source={source},target={target}{access}"));
    }
    let mut words = container.entrypoint.iter().flatten();
    if let Some(program) = words.next() {
        list.add("--entrypoint", program);
    }
    list.0.push(container.image.clone());
    list.0.extend(words.chain(&spec.command).cloned());
    list.0
}

/// What a job has no use for: new privileges, device nodes, and raw packets on the host's network.
fn confinement(list: &mut List, container: &Container) {
    list.add("--security-opt", "no-new-privileges");
    // The job's folder is shared with the server, whose files carry another label.
    list.add("--security-opt", "label=disable");
    list.add("--cap-drop", "MKNOD");
    list.add("--cap-drop", "NET_RAW");
    list.add("--oom-score-adj", OUT_OF_MEMORY_SCORE);
    if let (EngineKind::Docker, Some(runtime)) = (container.engine.kind, &container.engine.runtime) {
        list.add("--runtime", runtime);
    }
}

/// The limits of each process. Podman asks for more than this process may give where the machine withholds the capability to
/// raise limits; saying no more than what is allowed works everywhere.
pub(super) fn process_limits(kind: EngineKind) -> Vec<String> {
    let hard = |resource| rustix::process::getrlimit(resource).maximum;
    let files = hard(Resource::Nofile).map_or(OPEN_FILES_LIMIT, |hard| hard.min(OPEN_FILES_LIMIT));
    let mut limits = vec![format!("nofile={files}:{files}"), "core=0:0".to_owned()];
    if kind == EngineKind::Podman {
        let processes = hard(Resource::Nproc).map_or(PROCESSES_LIMIT, |hard| hard.min(PROCESSES_LIMIT));
        limits.push(format!("nproc={processes}:{processes}"));
    }
    limits
}

fn add_limits(list: &mut List, container: &Container, limits: &EffectiveLimits) {
    for limit in process_limits(container.engine.kind).iter().filter(|limit| !limit.starts_with("nofile=")) {
        list.add("--ulimit", limit);
    }
    list.add("--ulimit", format!("nofile={0}:{0}", limits.open_files));
    // Larger numbers stand for a machine that does not tell its size.
    if let Ok(bytes) = i64::try_from(limits.disk_bytes) {
        list.add("--ulimit", format!("fsize={bytes}:{bytes}"));
    }
    if let Ok(bytes) = i64::try_from(limits.memory_bytes) {
        list.add("--memory", format!("{bytes}b"));
        // No more with swap than without.
        list.add("--memory-swap", format!("{bytes}b"));
        // Data loaders pass batches through it; the default of 64 MB ends them with a bus error.
        list.add("--shm-size", format!("{}b", bytes / 2));
    }
    let whole = limits.cpus.map(|cpus| u64::from(cpus) * 1000);
    if let Some(millis) = whole.into_iter().chain(container.limits.cpu_millis).min() {
        list.add("--cpus", format!("{}.{:03}", millis / 1000, millis % 1000));
    }
    list.add("--pids-limit", limits.processes.to_string());
}

/// The GPUs of the image's entry, or else those that the job was given.
fn add_gpus(list: &mut List, container: &Container, granted: &[u32]) {
    let granted = (!granted.is_empty()).then(|| Gpus::Indexes(granted.to_vec()));
    let Some(gpus) = container.limits.gpus.clone().or(granted) else { return };
    match (container.engine.kind, gpus) {
        (EngineKind::Podman, Gpus::All) => list.add("--device", "nvidia.com/gpu=all"),
        (EngineKind::Podman, Gpus::Indexes(indexes)) => {
            indexes.iter().for_each(|index| list.add("--device", format!("nvidia.com/gpu={index}")));
        }
        (EngineKind::Docker, Gpus::All) => list.add("--gpus", "all"),
        (EngineKind::Docker, Gpus::Indexes(indexes)) => {
            let indexes: Vec<String> = indexes.iter().map(u32::to_string).collect();
            // Docker reads it as a line of comma-separated values, hence the quotes.
            list.add("--gpus", format!("\"device={}\"", indexes.join(",")));
        }
    }
}

/// Arguments in the making.
struct List(Vec<String>);

impl List {
    fn add(&mut self, option: &str, value: impl Into<String>) {
        self.0.push(option.to_owned());
        self.0.push(value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Engine, Limits};
    use crate::workload::Confinement;
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    fn container(kind: EngineKind) -> Container {
        let engine = Engine {
            kind,
            program: "/usr/bin/engine".into(),
            options: Vec::new(),
            runtime: Some("runc".into()),
            variables: BTreeMap::new(),
        };
        Container {
            engine,
            image: "sha256:1".into(),
            entrypoint: None,
            has_own_user: false,
            limits: Limits::default(),
            network: None,
            door: None,
        }
    }

    fn spec(container: &Container) -> WorkloadSpec {
        let confinement = Confinement::Container(Box::new(container.clone()));
        WorkloadSpec { confinement, ..WorkloadSpec::plain("job-1", vec!["train".to_owned()]) }
    }

    fn shown(spec: &WorkloadSpec, container: &Container) -> String {
        let limits = EffectiveLimits {
            memory_bytes: 1 << 30,
            cpus: None,
            processes: 99,
            open_files: 1000,
            disk_bytes: 1 << 40,
        };
        create(spec, container, Path::new("/data/workloads/job-1"), &limits).join(" ")
    }

    #[test]
    fn the_image_comes_last_and_its_arguments_after_it() {
        let mut container = container(EngineKind::Podman);
        let text = shown(&spec(&container), &container);
        assert!(text.ends_with(" sha256:1 train") && !text.contains("--entrypoint"), "{text}");
        assert!(
            text.contains("--label modelyard.workloads=/data/workloads --label modelyard.workload=job-1"),
            "{text}"
        );
        container.entrypoint = Some(vec!["python".into(), "-u".into()]);
        let text = shown(&spec(&container), &container);
        assert!(text.ends_with("--entrypoint python sha256:1 -u train"), "{text}");
    }

    #[test]
    fn limits_are_passed_in_the_words_of_each_engine() {
        let mut podman = container(EngineKind::Podman);
        let text = shown(&spec(&podman), &podman);
        for option in [
            "--memory 1073741824b --memory-swap 1073741824b --shm-size 536870912b",
            "--pids-limit 99",
            "--ulimit nofile=1000:1000",
            "--ulimit fsize=1099511627776:1099511627776",
        ] {
            assert!(text.contains(option), "{option}: {text}");
        }
        for option in ["--cpus", "--gpus", "--device", "--runtime"] {
            assert!(!text.contains(option), "{option}: {text}");
        }
        let granted = WorkloadSpec { gpus: vec![1], ..spec(&podman) };
        assert!(shown(&granted, &podman).contains("--device nvidia.com/gpu=1"));
        podman.limits.cpu_millis = Some(2_050);
        podman.limits.gpus = Some(Gpus::Indexes(vec![0, 3]));
        let text = shown(&granted, &podman);
        assert!(text.contains("--cpus 2.050"), "{text}");
        assert!(text.contains("--device nvidia.com/gpu=0 --device nvidia.com/gpu=3"), "{text}");
        assert!(!text.contains("gpu=1"), "{text}");
        let docker = Container { engine: container(EngineKind::Docker).engine, ..podman };
        let text = shown(&spec(&docker), &docker);
        assert!(text.contains("--gpus \"device=0,3\"") && text.contains("--runtime runc"), "{text}");
    }

    #[test]
    fn every_host_of_a_job_is_known() {
        let container = container(EngineKind::Podman);
        let mut spec = spec(&container);
        assert!(shown(&spec, &container).contains("--hostname algo-1 --add-host algo-1:127.0.0.1"));
        spec.hosts = [1, 2].map(|last| (format!("algo-{last}"), [127, 0, 1, last].into())).into();
        let text = shown(&spec, &container);
        assert!(text.contains("--add-host algo-1:127.0.1.1 --add-host algo-2:127.0.1.2"), "{text}");
    }

    #[test]
    fn inner_mounts_come_after_outer_ones() {
        let container = container(EngineKind::Podman);
        let mut spec = spec(&container);
        let mount = |target: &str, access| Mount { source: "/src".into(), target: target.into(), access };
        spec.mounts =
            vec![mount("/opt/ml/input/data/train", Access::ReadOnly), mount("/opt/ml", Access::ReadWrite)];
        let expected = "--mount type=bind,source=/src,target=/opt/ml \
                        --mount type=bind,source=/src,target=/opt/ml/input/data/train,readonly sha256:1";
        let text = shown(&spec, &container);
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn what_cannot_be_said_is_refused_by_name() {
        let (container, docker) = (container(EngineKind::Podman), container(EngineKind::Docker));
        let plain = spec(&container);
        let directory = Path::new("/data/workloads/job-1");
        let shared =
            WorkloadSpec { network: Network::Peers { place: "/data/network".into() }, ..plain.clone() };
        assert!(check(&shared, &docker, directory).unwrap_err().contains("with Podman"));
        let check = |spec: &WorkloadSpec| check(spec, &container, directory);
        assert_eq!(check(&plain), Ok(()));
        let with = |name: &str, value: &str| {
            let mut spec = plain.clone();
            spec.environment.insert(name.to_owned(), value.to_owned());
            check(&spec)
        };
        assert_eq!(with("A", " x = \"y\" # z"), Ok(()));
        assert!(with("NOTES", "a\nb").unwrap_err().contains("variable NOTES has a line break"));
        assert!(with("#A", "x").unwrap_err().contains("#A"));
        let mut comma = plain.clone();
        let source = PathBuf::from("/data,readonly");
        comma.mounts.push(Mount { source, target: "/opt/ml".into(), access: Access::ReadWrite });
        assert!(check(&comma).unwrap_err().contains("without commas"));
    }
}
