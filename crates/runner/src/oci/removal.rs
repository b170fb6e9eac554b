//! Takes containers away: after their end, after the death of those who watched them, and strays of earlier lives.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::engine::{Engine, EngineKind};
use super::{ROOT_LABEL, container_name, container_of, files};
use crate::supervisor::directory::WorkloadDirectory;
use crate::workload::WorkloadSpec;

/// File in the workload's directory: there may be a container. Made before the container, removed after it.
const MARKER: &str = "container";
/// How long the engine may take to remove a container.
const REMOVAL_LIMIT: Duration = Duration::from_secs(120);

/// Notes that there may be a container from now on.
pub(super) fn announce(directory: &WorkloadDirectory) -> io::Result<()> {
    failpoint::at(failpoint::Point::ContainerNote)?;
    fs::File::create(directory.path().join(MARKER))?.sync_all()?;
    fs::File::open(directory.path())?.sync_all()
}

/// Ends and removes the workload's container, if there may be one. The error is a sentence.
pub(super) fn remove(directory: &WorkloadDirectory, spec: &WorkloadSpec) -> Result<(), String> {
    let Some(container) = container_of(spec) else { return Ok(()) };
    let marker = directory.path().join(MARKER);
    if !marker.exists() {
        return Ok(());
    }
    let name = container_name(&spec.id);
    remove_named(&container.engine, &name)?;
    match fs::remove_file(&marker) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("{} cannot be removed: {error}.", marker.display()))
        }
        _ => Ok(()),
    }
}

/// What is left to do when a workload's warden is gone: no container stays, and its files are the server's. Whether the
/// workload has a container at all.
pub(crate) fn finish(directory: &WorkloadDirectory, spec: &WorkloadSpec) -> Result<bool, String> {
    let Some(container) = container_of(spec) else { return Ok(false) };
    remove(directory, spec)?;
    files::take_back(&container.engine, &spec.mounts).map(|()| true)
}

/// What to run, if the workload runs in a container.
pub(crate) fn contained(directory: &WorkloadDirectory) -> io::Result<Option<WorkloadSpec>> {
    let assignment = directory.assignment()?;
    Ok(assignment.map(|assignment| assignment.spec).filter(|spec| container_of(spec).is_some()))
}

/// Removes the containers of workloads in `root` for which `is_supervised` says no; gives their workloads' ids.
pub(crate) fn strays(
    engine: &Engine,
    root: &Path,
    is_supervised: impl Fn(&str) -> bool,
) -> Result<Vec<String>, String> {
    let filter = format!("label={ROOT_LABEL}={}", root.display());
    let arguments = ["ps", "--all", "--no-trunc", "--filter", &filter, "--format", "{{.Names}}"];
    let listed = engine.call(&arguments, REMOVAL_LIMIT).map_err(|error| error.to_string())?;
    let mut removed = Vec::new();
    for name in listed.lines().map(str::trim) {
        let Some(id) = name.strip_prefix("modelyard-") else { continue };
        if !is_supervised(id) {
            remove_named(engine, name)?;
            removed.push(id.to_owned());
        }
    }
    Ok(removed)
}

/// Removes a container whatever its state; one that is not there is fine.
fn remove_named(engine: &Engine, name: &str) -> Result<(), String> {
    let mut arguments = vec!["rm", "--force"];
    if engine.kind == EngineKind::Podman {
        // Docker never waits here; Podman would first ask politely, for ten seconds.
        arguments.extend(["--time", "0"]);
    }
    arguments.extend(["--volumes", name]);
    match engine.call(&arguments, REMOVAL_LIMIT) {
        Ok(_) => Ok(()),
        Err(error) if error.0.to_lowercase().contains("no such container") => Ok(()),
        Err(error) => Err(format!("The container {name} cannot be removed: {error}.")),
    }
}
