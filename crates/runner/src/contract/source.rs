//! The user's source: where it comes from inside the container, what kind of program it is, how that is started.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::arguments::shell_quoted;
use crate::archive::{Limits, extract_tar_gz};

/// Far above what source code is, far below what fills a disk by surprise.
const MAX_SOURCE_BYTES: u64 = 20 << 30;

/// How a program is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A Python file.
    Script,
    /// A module of a package with a `setup.py`, which is installed first.
    Package,
    /// Anything else that is executable, such as a shell script.
    Command,
}

/// What `program` in the folder `code` is. A command is made executable.
///
/// # Errors
/// A sentence when there is no such file.
pub fn kind(program: &str, code: &Path) -> Result<Kind, String> {
    let missing = || {
        format!(
            "the source has no file {program:?}, which the hyperparameter sagemaker_program names: put it at the top of source_dir."
        )
    };
    if !program.ends_with(".sh") && code.join("setup.py").exists() {
        return Ok(Kind::Package);
    }
    let file = open_below(code, program).map_err(|_| missing())?;
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err(missing());
    }
    if program.ends_with(".py") {
        return Ok(Kind::Script);
    }
    let executable = std::fs::Permissions::from_mode(0o777);
    file.set_permissions(executable)
        .map_err(|error| format!("{program:?} cannot be made executable: {error}."))?;
    Ok(Kind::Command)
}

impl Kind {
    /// The command line, with the words of the hyperparameters.
    pub fn command(self, program: &str, python: &Path, arguments: Vec<String>) -> Vec<String> {
        let python = python.display().to_string();
        let mut command = match self {
            Kind::Script => vec![python, program.to_owned()],
            Kind::Package => {
                // The environment has the source's requirements.txt already; what setup.py asks for comes with this.
                let line = "\"$0\" -m pip install --no-input . && exec \"$0\" \"$@\"";
                let module = program.strip_suffix(".py").unwrap_or(program).replace('/', ".");
                vec!["/bin/sh".into(), "-c".into(), line.into(), python, "-m".into(), module]
            }
            Kind::Command => {
                let words: Vec<String> = arguments.iter().map(|word| shell_quoted(word)).collect();
                let line = format!("./{} {}", shell_quoted(program), words.join(" "));
                return vec!["/bin/sh".into(), "-c".into(), line.trim_end().to_owned()];
            }
        };
        command.extend(arguments);
        command
    }
}

/// Refuses names that are no plain path inside the source: they would be read as options, or lead elsewhere.
///
/// # Errors
/// A sentence that says what is wrong with the name.
pub fn check_name(program: &str) -> Result<(), String> {
    let plain = |character: char| character.is_ascii_alphanumeric() || "._+-/".contains(character);
    let segments = || program.split('/');
    let is_fine = program.chars().all(plain)
        && !program.starts_with(['-', '+'])
        && segments().all(|segment| !segment.is_empty() && segment != "." && segment != "..");
    if is_fine {
        return Ok(());
    }
    Err(format!(
        "the script's name {program:?} cannot be used: it must be a path inside the source, of letters, digits and . _ + - /, \
         such as train.py or bin/train.sh."
    ))
}

/// Opens a file of a folder without leaving it, whatever links there are.
fn open_below(directory: &Path, name: &str) -> std::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let top = rustix::fs::openat(CWD, directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let file = rustix::fs::openat2(&top, name, flags, Mode::empty(), ResolveFlags::BENEATH)?;
    Ok(File::from(file))
}

/// Puts what lies at `named`, a path of the container below `/opt/ml`, into the folder of the code, when that is empty.
///
/// # Errors
/// A sentence when it is not there or cannot be used.
pub fn place(named: &str, opt_ml: &Path) -> Result<(), String> {
    let code = opt_ml.join("code");
    if std::fs::read_dir(&code).is_ok_and(|mut entries| entries.next().is_some()) {
        return Ok(());
    }
    let plain = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
    let relative =
        Path::new(named).strip_prefix("/opt/ml").ok().filter(|path| plain(path)).ok_or_else(|| {
            format!("sagemaker_submit_directory is {named:?}: give an S3 URI or a path below /opt/ml.")
        })?;
    let failed = |error: &dyn std::fmt::Display| format!("the source {named} cannot be used: {error}");
    let mut file = open_below(opt_ml, &relative.to_string_lossy()).map_err(|error| failed(&error))?;
    std::fs::create_dir_all(&code).map_err(|error| failed(&error))?;
    let origin = opt_ml.join(relative);
    if file.metadata().map_err(|error| failed(&error))?.is_dir() {
        return copy_tree(&origin, &code).map_err(|error| failed(&error));
    }
    let mut magic = [0; 2];
    let is_archive = file.read(&mut magic).is_ok_and(|count| count == 2) && magic == [0x1f, 0x8b];
    let mut file = open_below(opt_ml, &relative.to_string_lossy()).map_err(|error| failed(&error))?;
    if is_archive {
        let limits = Limits { max_bytes: MAX_SOURCE_BYTES, ..Limits::default() };
        return extract_tar_gz(file, &code, limits).map(|_| ()).map_err(|error| failed(&error));
    }
    let name = relative.file_name().unwrap_or_default();
    let mut copy = File::create(code.join(name)).map_err(|error| failed(&error))?;
    std::io::copy(&mut file, &mut copy).map(|_| ()).map_err(|error| failed(&error))
}

/// Copies folders and plain files; links and special files are left out.
pub fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            std::fs::create_dir_all(&target)?;
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_are_refused() {
        for name in ["train.py", "bin/train.sh", "_repack_script_launcher.sh", "a+b.py"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["", "-c", "/etc/passwd", "../up.py", "a/./b", "a;b.py", "a b.py", "a//b", "é.py"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn commands_are_quoted_once() {
        let words = vec!["--text".to_owned(), "it's $HOME".to_owned()];
        let command = Kind::Command.command("run.sh", Path::new("/bin/python"), words.clone());
        assert_eq!(command, ["/bin/sh", "-c", "./run.sh --text 'it'\"'\"'s $HOME'"]);
        let script = Kind::Script.command("a.py", Path::new("/bin/python"), words);
        assert_eq!(script, ["/bin/python", "a.py", "--text", "it's $HOME"]);
    }
}
