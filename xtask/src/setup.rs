//! What the commands need on a machine: system packages, and Python environments under `.venvs`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Pinned so that two machines resolve alike.
const UV: &str = "uv==0.13.8";

/// Result of a step; the text is for the person who runs it.
pub type Step<T = ()> = Result<T, String>;

/// Top folder of the repository.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Runs a command in the top folder, its output shown.
pub fn run(command: &mut Command) -> Step {
    let shown = shown(command);
    println!("$ {shown}");
    let status = command.current_dir(root()).stdin(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{shown}: {status}")),
        Err(error) => Err(format!("{shown}: {error}")),
    }
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn works(program: &str, arguments: &[&str]) -> bool {
    let quiet = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}

/// Installs missing system packages where root rights allow it; prints the line to run where they do not.
pub fn system_packages() -> Step {
    let mut missing = Vec::new();
    if !works("bwrap", &["--version"]) {
        missing.push("bubblewrap");
    }
    if !works("cc", &["--version"]) {
        missing.push("build-essential");
    }
    if !works("python3", &["-c", "import venv, ensurepip"]) {
        missing.push("python3-venv");
    }
    if !works("podman", &["--version"]) {
        missing.push("podman");
    }
    if !works("runc", &["--version"]) {
        missing.push("runc");
    }
    // Alone in an image it must not need libraries; ldd fails for a program without any.
    if !works("busybox", &["true"]) || works("ldd", &["/bin/busybox"]) {
        missing.push("busybox-static");
    }
    if missing.is_empty() {
        return Ok(());
    }
    let root_user = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    if root_user && works("apt-get", &["--version"]) {
        run(Command::new("apt-get").args(["update", "-qq"]))?;
        return run(Command::new("apt-get")
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(&missing));
    }
    Err(format!("these packages are missing; install them with: sudo apt-get install {}", missing.join(" ")))
}

/// Folder with `uv`, which builds the other environments here and inside the server.
pub fn tools() -> Step<PathBuf> {
    let folder = root().join(".venvs/tools");
    make_once(&folder, UV, || {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
        run(Command::new(folder.join("bin/pip")).args([
            "install",
            "--quiet",
            "--disable-pip-version-check",
            UV,
        ]))
    })?;
    Ok(folder.join("bin"))
}

/// Python environment of the clients: `sdk2`, `sdk3` or `open`, from `tests/clients/requirements-NAME.txt`.
pub fn client_environment(name: &str) -> Step<PathBuf> {
    let tools = tools()?;
    let folder = root().join(".venvs").join(name);
    let requirements = root().join(format!("tests/clients/requirements-{name}.txt"));
    let wanted = std::fs::read_to_string(&requirements).map_err(|error| error.to_string())?;
    make_once(&folder, &wanted, || {
        let uv = tools.join("uv");
        run(Command::new(&uv).args(["venv", "--quiet", "--clear", "--python", "python3"]).arg(&folder))?;
        let python = folder.join("bin/python");
        run(Command::new(&uv)
            .args(["pip", "install", "--quiet", "--python"])
            .arg(python)
            .arg("-r")
            .arg(&requirements))
    })?;
    Ok(folder.join("bin/python"))
}

/// Makes a folder unless it was finished before for the same recipe.
fn make_once(folder: &Path, recipe: &str, make: impl FnOnce() -> Step) -> Step {
    let marker = folder.join("finished-recipe");
    if std::fs::read_to_string(&marker).is_ok_and(|finished| finished == recipe) {
        return Ok(());
    }
    make()?;
    std::fs::write(&marker, recipe).map_err(|error| format!("{}: {error}", marker.display()))
}

/// `PATH` with a folder in front.
pub fn path_with(folder: &Path) -> Step<std::ffi::OsString> {
    let present = variable("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&present));
    std::env::join_paths(folders).map_err(|error| error.to_string())
}

/// A variable of the process.
#[expect(clippy::disallowed_methods, reason = "the chores look at PATH and CARGO_TARGET_DIR as cargo does")]
fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}

/// Where cargo puts what it builds.
pub fn target_folder() -> PathBuf {
    variable("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Builds the server in the development profile; returns the binary.
pub fn build_server() -> Step<PathBuf> {
    run(Command::new(env!("CARGO")).args(["build", "--locked", "--package", "server"]))?;
    Ok(target_folder().join("debug/modelyard"))
}
