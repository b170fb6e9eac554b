//! `cargo xtask bench [NAME...]`: the side-by-side measurements, on a release build.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setup::{self, Step, root, run};

/// Sets up the peers, builds the server in release, and runs the benchmarks that are named, or all.
pub fn bench(names: &[String]) -> Step {
    setup::system_packages()?;
    let tools = setup::tools()?;
    let python = environment(&tools.join("uv"))?;
    run(Command::new(env!("CARGO")).args(["build", "--release", "--locked", "--package", "server"]))?;
    let target = setup::target_folder();
    run(Command::new(python)
        .arg("bench/run.py")
        .args(names)
        .arg("--modelyard")
        .arg(target.join("release/modelyard"))
        .env("PATH", setup::path_with(&tools)?))
}

/// Python environment of the benchmarks and their peers.
fn environment(uv: &Path) -> Step<PathBuf> {
    let folder = root().join(".venvs/bench");
    let python = folder.join("bin/python");
    if !python.exists() {
        run(Command::new(uv).args(["venv", "--quiet", "--clear", "--python", "python3"]).arg(&folder))?;
    }
    // Takes a moment only when everything is there.
    run(Command::new(uv).args(["pip", "install", "--quiet", "--python"]).arg(&python).args([
        "--requirements",
        "bench/requirements.txt",
        "--overrides",
        "bench/overrides.txt",
    ]))?;
    Ok(python)
}
