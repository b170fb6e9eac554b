//! Finds out whether an engine works here by running the smallest of containers, and what would mend it.

use std::path::PathBuf;
use std::time::Duration;

use super::arguments::process_limits;
use super::engine::{Engine, EngineError, EngineKind};

/// What became of trying to run a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineReport {
    /// Whether containers can be run here.
    pub state: EngineState,
    /// The engine as it works: with a runtime, if its own choice does not.
    pub engine: Engine,
    /// One sentence: what works, or what was tried and what came back.
    pub detail: String,
    /// The command or setting that mends it, when one is known.
    pub remedy: Option<String>,
}

/// Whether containers can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineState {
    /// A container was run.
    Works,
    /// The engine is there and does not run containers.
    Broken,
}

/// How long one call may take.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// Makes a tiny image, runs it, removes it and reports. Takes about a second; blocks.
///
/// `search_path` is searched for another runtime when the engine's own choice fails.
pub fn probe(engine: &Engine, search_path: &[PathBuf]) -> EngineReport {
    let report = |state, engine: Engine, detail, remedy| EngineReport { state, engine, detail, remedy };
    let version = match engine.call(&["version", "--format", "{{.Client.Version}}"], CALL_LIMIT) {
        Ok(version) => version.trim().to_owned(),
        Err(error) => {
            let (detail, remedy) =
                (format!("{} does not answer: {error}.", engine.shown()), remedy(engine, &error.0));
            return report(EngineState::Broken, engine.clone(), detail, remedy);
        }
    };
    if let Some((detail, remedy)) = unreadable_files(engine) {
        return report(EngineState::Broken, engine.clone(), detail, Some(remedy));
    }
    let name = format!("{} {version}", engine.kind.as_str());
    let mut attempts = vec![engine.clone()];
    // The newer runtime refuses machines with both versions of control groups; the older one runs there.
    if engine.runtime.is_none() && search_path.iter().any(|folder| folder.join("runc").is_file()) {
        attempts.push(Engine { runtime: Some("runc".to_owned()), ..engine.clone() });
    }
    let mut first_error = None;
    for attempt in attempts {
        match run_smallest(&attempt) {
            Ok(()) => {
                let runtime =
                    attempt.runtime.as_ref().map(|runtime| format!(" with {runtime}")).unwrap_or_default();
                return report(EngineState::Works, attempt, format!("{name} runs containers{runtime}"), None);
            }
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    let error = first_error.map(|error| error.0).unwrap_or_default();
    let remedy = remedy(engine, &error);
    report(EngineState::Broken, engine.clone(), format!("{name} does not run containers: {error}."), remedy)
}

/// A daemon that runs as root gives what containers write to root.
fn unreadable_files(engine: &Engine) -> Option<(String, String)> {
    let uid = rustix::process::geteuid();
    if engine.kind != EngineKind::Docker || uid.is_root() {
        return None;
    }
    let options = engine.call(&["info", "--format", "{{json .SecurityOptions}}"], CALL_LIMIT).ok()?;
    (!options.contains("rootless")).then(|| {
        (
            format!(
                "Docker's daemon gives the files of containers to root, and the user {} may not read them.",
                uid.as_raw()
            ),
            "Use Podman, or Docker in rootless mode, or run the server as root.".to_owned(),
        )
    })
}

fn remedy(engine: &Engine, words: &str) -> Option<String> {
    let words = words.to_lowercase();
    let any = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    if any(&["cannot connect to the docker daemon", "daemon running", "connection refused"]) {
        Some("Start the daemon: systemctl start docker. Or install Podman, which needs none: apt-get install podman".to_owned())
    } else if any(&["permission denied while trying to connect"]) {
        Some("Add the server's user to the group docker.".to_owned())
    } else if any(&["newuidmap", "subuid", "subgid", "insufficient uids"]) {
        Some("apt-get install uidmap, and give the user a range in /etc/subuid and /etc/subgid: usermod --add-subuids \
              100000-165535 --add-subgids 100000-165535 USER"
            .to_owned())
    } else if engine.kind == EngineKind::Podman
        && any(&["cgroups in hybrid mode", "crun", "no such file or directory: oci"])
    {
        Some("Install another runtime: apt-get install runc".to_owned())
    } else {
        None
    }
}

fn run_smallest(engine: &Engine) -> Result<(), EngineError> {
    let Some(program) = smallest_program() else {
        // On other processors the engine's own word has to do.
        return engine.call(&["info"], CALL_LIMIT).map(drop);
    };
    let image = format!("localhost/modelyard-probe:{}", std::process::id());
    let archive = image_archive(&program).map_err(|error| EngineError(error.to_string()))?;
    let mut import = engine.command();
    import.args(["import", "-", &image]).stdin(archive);
    engine.run(import, "import", CALL_LIMIT)?;
    let mut arguments: Vec<String> =
        ["run", "--rm", "--pull", "never", "--network", "none", "--log-driver", "none"]
            .map(str::to_owned)
            .to_vec();
    for limit in process_limits(engine.kind) {
        arguments.extend(["--ulimit".to_owned(), limit]);
    }
    if let (EngineKind::Docker, Some(runtime)) = (engine.kind, &engine.runtime) {
        arguments.extend(["--runtime".to_owned(), runtime.clone()]);
    }
    arguments.extend([image.clone(), "/probe".to_owned()]);
    let ran = engine.call(&arguments, CALL_LIMIT);
    // Of no consequence for the answer: an image of a few hundred bytes would stay.
    let _ = engine.call(&["rmi", "--force", &image], CALL_LIMIT);
    ran.map(drop)
}

/// A file system with the program and nothing else, as a tar archive.
fn image_archive(program: &[u8]) -> std::io::Result<std::fs::File> {
    use std::io::Seek;
    let file = std::fs::File::from(rustix::fs::memfd_create("probe", rustix::fs::MemfdFlags::CLOEXEC)?);
    let mut builder = tar::Builder::new(file);
    let mut header = tar::Header::new_gnu();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    builder.append_data(&mut header, "probe", program)?;
    let mut file = builder.into_inner()?;
    file.rewind()?;
    Ok(file)
}

/// A static program that does nothing but return 0: an ELF header, one segment, and the system call `exit`.
fn smallest_program() -> Option<Vec<u8>> {
    const HEADER_BYTES: u64 = 64;
    const SEGMENT_BYTES: u64 = 56;
    const LOADED_AT: u64 = 0x40_0000;
    let (machine, code): (u16, &[u8]) = match std::env::consts::ARCH {
        // xor edi, edi; mov eax, 60; syscall
        "x86_64" => (62, &[0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]),
        // mov x0, #0; mov x8, #93; svc #0
        "aarch64" => (183, &[0, 0, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 0x01, 0, 0, 0xd4]),
        _ => return None,
    };
    let size = HEADER_BYTES + SEGMENT_BYTES + code.len() as u64;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // Executable, machine, version, entry point, segments after the header, no sections, no flags, sizes and counts.
    file.extend(2_u16.to_le_bytes());
    file.extend(machine.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    file.extend((LOADED_AT + HEADER_BYTES + SEGMENT_BYTES).to_le_bytes());
    file.extend(HEADER_BYTES.to_le_bytes());
    file.extend(0_u64.to_le_bytes());
    file.extend(0_u32.to_le_bytes());
    for half in [HEADER_BYTES as u16, SEGMENT_BYTES as u16, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // To be loaded whole, readable and executable: kind, flags, offset, two addresses, two sizes, alignment.
    file.extend(1_u32.to_le_bytes());
    file.extend(5_u32.to_le_bytes());
    for word in [0, LOADED_AT, LOADED_AT, size, size, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    Some(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::os::unix::fs::OpenOptionsExt;

    #[test]
    fn the_smallest_program_runs() {
        use std::io::Write;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("probe");
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(&path).unwrap();
        file.write_all(&smallest_program().unwrap()).unwrap();
        drop(file);
        // Another test's child may hold the file open for writing for a moment.
        let status = loop {
            match std::process::Command::new(&path).status() {
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {}
                status => break status.unwrap(),
            }
        };
        assert!(status.success(), "{status}");
    }

    #[test]
    fn a_program_that_is_no_engine_is_broken() {
        let engine = |program: &str| Engine {
            kind: EngineKind::Podman,
            program: program.into(),
            options: Vec::new(),
            runtime: None,
            variables: BTreeMap::new(),
        };
        let broken = probe(&engine("/bin/false"), &[]);
        assert_eq!(broken.state, EngineState::Broken);
        assert!(broken.detail.contains("does not answer"), "{}", broken.detail);
        let docker =
            remedy(&engine("docker"), "Cannot connect to the Docker daemon at unix:///var/run/docker.sock.");
        assert!(docker.unwrap().contains("systemctl start docker"));
    }
}
