//! Layers: environments of their own, made in milliseconds, that see the packages of the environment below and take further
//! ones. A job's requirements are a layer over its image's environment, and what a job installs itself goes to a third.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use failpoint::Point;
use sha2::{Digest, Sha256};

use super::Environment;
use crate::contract::JOB_LAYER;

/// Programs of the environment below that are larger are not scripts.
const MAX_SCRIPT_BYTES: u64 = 64 * 1024;

/// Writes a layer over `base` into `directory`, where it has no effect until it is seen at `shown_at`.
///
/// # Errors
/// What the disk says.
pub fn write(directory: &Path, shown_at: &Path, base: &Environment) -> io::Result<()> {
    if fs::symlink_metadata(directory).is_ok() {
        fs::remove_dir_all(directory)?;
    }
    let interpreter = &base.interpreter;
    let bin = directory.join("bin");
    let site_packages = directory.join(format!("lib/python{}/site-packages", interpreter.version));
    fs::create_dir_all(&bin)?;
    fs::create_dir_all(&site_packages)?;
    symlink("lib", directory.join("lib64"))?;
    for name in ["python", "python3", &format!("python{}", interpreter.version)] {
        symlink(&interpreter.base_executable, bin.join(name))?;
    }
    let home = interpreter.base_executable.parent().unwrap_or(Path::new("/usr/bin"));
    let settings = format!(
        "home = {}\ninclude-system-site-packages = false\nversion = {}\n",
        home.display(),
        interpreter.version
    );
    fs::write(directory.join("pyvenv.cfg"), settings)?;
    // Read after all other .pth files of the layer, so that what is below comes last. addsitedir, unlike a plain line, reads
    // the .pth files below too.
    let lines: Vec<String> = interpreter
        .site_packages
        .iter()
        .map(|path| format!("import site; site.addsitedir({:?})\n", path.display().to_string()))
        .collect();
    fs::write(site_packages.join("zzz-below.pth"), lines.concat())?;
    match &base.job_scripts {
        Some(shared) if shown_at == job_place() => link_scripts(&bin, shared),
        _ => write_scripts(&bin, shown_at, base),
    }
}

/// Where every job sees its own layer.
fn job_place() -> PathBuf {
    Path::new("/opt/ml").join(JOB_LAYER)
}

/// Writes the scripts of the layers of jobs over `base` into a folder below `parent`, unless they are there: a job links to
/// them, since there may be hundreds. To be called by one at a time. The folder's name says what it was made from; its content never changes.
///
/// # Errors
/// What the disk says.
pub fn share_scripts(parent: &Path, base: &Environment) -> io::Result<PathBuf> {
    let bin = base.directory.join("bin");
    let changed_at = fs::metadata(&bin)?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut key = Sha256::new();
    key.update(bin.as_os_str().as_encoded_bytes());
    key.update(changed_at.as_nanos().to_le_bytes());
    let name = format!("scripts-{}", &hex::encode(key.finalize())[..32]);
    let folder = parent.join(&name);
    if folder.is_dir() {
        return Ok(folder);
    }
    let partial = parent.join(format!("{name}.partial"));
    if partial.is_dir() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial)?;
    write_scripts(&partial, &job_place(), base)?;
    failpoint::at(Point::EnvironmentScripts)?;
    fs::rename(&partial, &folder)?;
    Ok(folder)
}

fn link_scripts(bin: &Path, shared: &Path) -> io::Result<()> {
    for script in fs::read_dir(shared)? {
        let script = script?;
        symlink(script.path(), bin.join(script.file_name()))?;
    }
    Ok(())
}

/// Programs that start Python do so in the layer: those of the environment below, and `pip`.
fn write_scripts(bin: &Path, shown_at: &Path, base: &Environment) -> io::Result<()> {
    let python = shown_at.join("bin/python").display().to_string();
    let below = base.directory.join("bin");
    let pip = format!("#!{python}\nimport sys\nfrom pip._internal.cli.main import main\nsys.exit(main())\n");
    for name in ["pip", "pip3", &format!("pip{}", base.interpreter.version)] {
        write_script(&bin.join(name), pip.as_bytes())?;
    }
    for entry in fs::read_dir(&below).into_iter().flatten().flatten() {
        let path = entry.path();
        let target = bin.join(entry.file_name());
        let is_small =
            entry.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() <= MAX_SCRIPT_BYTES);
        if !is_small || target.exists() {
            continue;
        }
        let mut script = Vec::new();
        fs::File::open(&path)?.take(MAX_SCRIPT_BYTES).read_to_end(&mut script)?;
        if let Some(changed) = with_interpreter(&script, &below, &python) {
            write_script(&target, &changed)?;
        }
    }
    Ok(())
}

/// A script that starts with a Python of `bin`, starting with `python` instead.
fn with_interpreter(script: &[u8], bin: &Path, python: &str) -> Option<Vec<u8>> {
    let line_end = script.iter().position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(&script[..line_end]).ok()?;
    let program = Path::new(line.strip_prefix("#!")?.trim());
    let name = program.strip_prefix(bin).ok()?.to_str()?;
    let changed = [b"#!", python.as_bytes(), &script[line_end..]].concat();
    name.starts_with("python").then_some(changed)
}

fn write_script(path: &Path, content: &[u8]) -> io::Result<()> {
    fs::write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scripts_of_the_python_below_change() {
        let bin = Path::new("/base/bin");
        let changed = |script: &[u8]| with_interpreter(script, bin, "/layer/bin/python");
        assert_eq!(changed(b"#!/base/bin/python3\nx\n").unwrap(), b"#!/layer/bin/python\nx\n");
        assert_eq!(changed(b"#!/usr/bin/python3\nx\n"), None);
        assert_eq!(changed(b"#!/base/bin/other\nx\n"), None);
        assert_eq!(changed(b"\x7fELF\n"), None);
    }
}
