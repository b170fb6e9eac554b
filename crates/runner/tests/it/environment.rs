//! Building and finding Python environments. Packages come from wheels that the tests make, never from the network.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use runner::catalogue::{Framework, ImageProfile, Launcher, Source};
use runner::environment::{Environment, EnvironmentError, Environments, Requirements, Tools};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::sync::OnceCell;

/// A build back end in a few lines: no package is needed to build one. It runs as any `setup.py` would.
const BACK_END: &str = r#"
import os, zipfile
def build_wheel(directory, config_settings=None, metadata_directory=None):
    seen = [p for p in (open(os.path.join(os.path.dirname(__file__), "canaries")).read().split()) if os.path.exists(p)]
    name = "local-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(directory, name), "w") as wheel:
        wheel.writestr("local.py", "seen = %r\nuid = %r\n" % (seen, os.getuid()))
        info = "local-1.0.dist-info/"
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: local\nVersion: 1.0\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(info + "RECORD", "")
    return name
"#;

/// Environments in a folder of their own, with an index of their own.
struct Place {
    _temporary: Option<tempfile::TempDir>,
    folder: PathBuf,
}

impl Place {
    fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        Self::at(temporary.path().to_owned(), Some(temporary))
    }

    fn at(folder: PathBuf, temporary: Option<tempfile::TempDir>) -> Self {
        for name in ["wheels", "source"] {
            fs::create_dir_all(folder.join(name)).unwrap();
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        Place { _temporary: temporary, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes a wheel with one module, whose `version` is its version, and a program.
    fn wheel(&self, name: &str, version: &str) {
        let script = format!(
            "import zipfile\n\
             with zipfile.ZipFile('{name}-{version}-py3-none-any.whl', 'w') as w:\n \
             i = '{name}-{version}.dist-info/'\n \
             w.writestr('{name}.py', 'version = \"{version}\"\\ndef main(): print(version)\\n')\n \
             w.writestr(i + 'METADATA', 'Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n')\n \
             w.writestr(i + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n \
             w.writestr(i + 'entry_points.txt', '[console_scripts]\\n{name}-version = {name}:main\\n')\n \
             w.writestr(i + 'RECORD', '')\n"
        );
        let made = Command::new("python3").args(["-c", &script]).current_dir(self.path("wheels")).status();
        assert!(made.unwrap().success());
    }

    fn environments(&self, tools: Tools) -> Environments {
        let settings = BTreeMap::from([
            ("PATH".to_owned(), path_variable()),
            ("HOME".to_owned(), self.path("home").display().to_string()),
            ("PIP_NO_INDEX".to_owned(), "1".to_owned()),
            ("PIP_FIND_LINKS".to_owned(), self.path("wheels").display().to_string()),
        ]);
        Environments::new(self.path("environments"), tools, settings)
    }
}

#[expect(clippy::disallowed_methods, reason = "the tests use the Python that a person here would use")]
fn path_variable() -> String {
    std::env::var("PATH").unwrap()
}

/// The real programs, but for uv, which tests must do without.
fn tools() -> Tools {
    let path: Vec<PathBuf> = std::env::split_paths(&path_variable()).collect();
    Tools { uv: None, ..Tools::find(&path) }
}

fn profile(packages: &[&str]) -> ImageProfile {
    let packages = packages.iter().map(|one| (*one).to_owned()).collect();
    from(Source::Packages { python: None, exact: false, packages })
}

fn from(source: Source) -> ImageProfile {
    ImageProfile {
        name: "test".into(),
        framework: Framework::ScikitLearn,
        launcher: Launcher::Script,
        source,
    }
}

fn requirements(text: &str, directory: Option<PathBuf>) -> Option<Requirements> {
    Some(Requirements { text: text.to_owned(), directory })
}

/// Ensures, and gives the lines of progress too.
async fn ensure(
    environments: &Environments,
    profile: &ImageProfile,
    requirements: Option<Requirements>,
) -> (Result<Environment, EnvironmentError>, Vec<String>) {
    let mut lines = Vec::new();
    let result = environments.ensure(profile, requirements, &mut |line| lines.push(line.to_owned())).await;
    (result, lines)
}

fn python(environment: &Environment, script: &str) -> String {
    let output = Command::new(&environment.python).args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// An environment with `alpha` 1.0 and `beta` 1.0, whose index also has `beta` 2.0: for tests of what comes on top. It stays
/// for the next run.
pub async fn shared_image() -> Environment {
    static IMAGE: OnceCell<Environment> = OnceCell::const_new();
    let build = || async {
        let place = Place::at(Path::new(env!("CARGO_TARGET_TMPDIR")).join("shared-image"), None);
        for (name, version) in [("alpha", "1.0"), ("beta", "1.0"), ("beta", "2.0")] {
            place.wheel(name, version);
        }
        let environments = place.environments(tools());
        ensure(&environments, &profile(&["alpha", "beta==1.0"]), None).await.0.unwrap()
    };
    IMAGE.get_or_init(build).await.clone()
}

#[tokio::test]
async fn one_build_serves_all_who_ask_and_later_servers() {
    let place = Place::new();
    place.wheel("alpha", "1.0");
    let leftover = place.path("environments/interrupted");
    fs::create_dir_all(leftover.join("lib")).unwrap();
    let environments = place.environments(tools());
    let profile = profile(&["alpha==1.*"]);
    let ((first, lines), (second, more)) =
        tokio::join!(ensure(&environments, &profile, None), ensure(&environments, &profile, None));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first, second);
    let builds =
        lines.iter().chain(&more).filter(|line| line.starts_with("building the environment")).count();
    assert_eq!(builds, 1, "{lines:?} {more:?}");
    assert!(!leftover.exists(), "what an interrupted build left is removed");
    assert_eq!(python(&first, "import alpha, pip; print(alpha.version)"), "1.0");
    assert_eq!(first.framework, Framework::ScikitLearn);
    assert!(first.read_only_paths.iter().any(|path| first.directory.starts_with(path)));
    assert_eq!(first.pip_settings["PIP_NO_INDEX"], "1");

    // Without any program: what was built is found without starting one.
    let restarted = place.environments(Tools::default());
    let (found, lines) = ensure(&restarted, &profile, None).await;
    assert_eq!((found.unwrap(), lines), (first.clone(), Vec::new()));

    // An environment whose Python went away with a system upgrade does not count.
    fs::remove_file(&first.python).unwrap();
    let (result, _) = ensure(&place.environments(Tools::default()), &profile, None).await;
    assert_eq!(result.unwrap_err().step, "looking for Python", "it would be built again");
}

#[tokio::test]
async fn requirements_are_a_confined_layer_over_the_image() {
    let place = Place::new();
    place.wheel("beta", "2.0");
    let environments = place.environments(tools());
    let image = shared_image().await;

    let source = place.path("source");
    let package = source.join("package");
    fs::create_dir(&package).unwrap();
    fs::write(
        package.join("pyproject.toml"),
        "[build-system]\nrequires = []\nbuild-backend = 'back_end'\nbackend-path = ['.']\n",
    )
    .unwrap();
    fs::write(package.join("back_end.py"), BACK_END).unwrap();
    let canary = place.path("canary");
    fs::write(&canary, "secret").unwrap();
    fs::write(package.join("canaries"), format!("{} /etc/shadow {}", canary.display(), package.display()))
        .unwrap();
    // An interpreter of the user's can have requirements too.
    let interpreter = from(Source::Interpreter(image.python.clone()));
    let wanted = || requirements("beta>=2\n./package\n", Some(source.clone()));
    let (layer, lines) = ensure(&environments, &interpreter, wanted()).await;
    let layer = layer.unwrap();
    let script = "import alpha, beta, local; print(alpha.version, beta.version, local.seen, local.uid)";
    assert_eq!(python(&layer, script), "1.0 2.0 [] 64000", "{lines:#?}");
    assert_eq!(
        python(&image, "import beta; print(beta.version)"),
        "1.0",
        "the image's environment is as it was"
    );
    assert!(!package.join("build").exists(), "the source is as it was");
    let program = Command::new(layer.directory.join("bin/beta-version")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&program.stdout), "2.0\n");

    let (again, lines) = ensure(&place.environments(tools()), &interpreter, wanted()).await;
    assert_eq!((again.unwrap().directory, lines), (layer.directory.clone(), Vec::new()));

    let (refused, _) = ensure(&environments, &interpreter, requirements("gamma==7\n", None)).await;
    let error = refused.unwrap_err();
    assert_eq!(error.step, "installing requirements.txt");
    assert!(error.to_string().contains("gamma==7") && error.command.contains("pip install"), "{error}");
    // Nobody's files are read on behalf of a job, nor quoted to it.
    let (refused, lines) =
        ensure(&environments, &interpreter, requirements(&format!("-r {}\n", canary.display()), None)).await;
    let error = refused.unwrap_err().to_string();
    assert!(!error.contains("secret") && !lines.concat().contains("secret"), "{error}");
}

#[tokio::test]
async fn versions_that_cannot_be_had_are_replaced_or_refused() {
    let place = Place::new();
    place.wheel("alpha", "2.5");
    let environments = place.environments(tools());
    let packages = vec!["alpha==1.*".to_owned()];
    let image =
        |exact| from(Source::Packages { python: Some("3.99".into()), exact, packages: packages.clone() });
    let (environment, lines) = ensure(&environments, &image(false), None).await;
    let environment = environment.unwrap();
    assert_eq!(python(&environment, "import alpha; print(alpha.version)"), "2.5");
    let version = &environment.interpreter.version;
    let notes = [
        format!("the image asks for Python 3.99, which is not installed here; Python {version} serves"),
        format!(
            "the versions that the image asks for cannot be had with Python {version}; installed are alpha 2.5 for alpha==1.*"
        ),
    ];
    assert_eq!(environment.notes, notes);
    assert!(notes.iter().all(|note| lines.contains(note)), "{lines:?}");
    let (_, later) = ensure(&environments, &image(false), None).await;
    assert_eq!(later, notes, "every job's log says so");

    let (refused, _) = ensure(&environments, &image(true), None).await;
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("Python 3.99 exactly"), "{text}");
    let exact = from(Source::Packages { python: None, exact: true, packages });
    let (refused, _) = ensure(&environments, &exact, None).await;
    let error = refused.unwrap_err();
    assert_eq!(error.step, "installing packages");
    assert!(error.to_string().contains("alpha==1.*"), "{error}");
    let left = fs::read_dir(place.path("environments")).unwrap().flatten();
    let folders = left.filter(|entry| entry.path().is_dir()).count();
    assert_eq!(folders, 1, "a failed build leaves nothing");
}

/// A `uv` that tells its pid, and that of a child in the background, and never ends.
fn endless_tools(place: &Place) -> Tools {
    let program = place.path("uv");
    fs::write(&program, "#!/bin/sh\nsleep 31536000 & echo pids $$ $!\nwait\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    Tools { uv: Some(program), ..tools() }
}

fn wait_until_gone(pid: i32) {
    // A pid that cannot be opened is gone already.
    let Ok(handle) = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()) else { return };
    let limit = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
    // The end of the test's own children interrupts the wait.
    let ended = retry_on_intr(|| poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&limit))).unwrap();
    assert_eq!(ended, 1, "process {pid} still runs");
}

fn pids(line: &str) -> Vec<i32> {
    line.split(' ').skip(1).map(|pid| pid.parse().unwrap()).collect()
}

#[tokio::test]
async fn a_build_that_is_given_up_leaves_no_process() {
    let place = Place::new();
    let environments = place.environments(endless_tools(&place));
    let profile = profile(&["alpha"]);
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let mut progress = move |line: &str| {
        if line.starts_with("pids") {
            sender.send(pids(line)).unwrap();
        }
    };
    let started = tokio::select! {
        result = environments.ensure(&profile, None, &mut progress) => panic!("{result:?}"),
        started = receiver.recv() => started.unwrap(),
    };
    assert_eq!(started.len(), 2);
    started.into_iter().for_each(wait_until_gone);
}

#[tokio::test]
async fn a_build_ends_at_its_time_limit() {
    let place = Place::new();
    let environments = place.environments(endless_tools(&place)).with_time_limit(Duration::from_secs(1));
    let (result, lines) = ensure(&environments, &profile(&["alpha"]), None).await;
    let text = result.unwrap_err().to_string();
    assert!(
        text.contains("making the environment failed") && text.contains("time limit of 1 seconds"),
        "{text}"
    );
    let started = lines.iter().find(|line| line.starts_with("pids")).unwrap();
    pids(started).into_iter().for_each(wait_until_gone);
}

/// Servers build in tasks that move between threads.
#[tokio::test]
async fn an_interpreter_that_does_not_start_is_named() {
    let place = Place::new();
    let profile = from(Source::Interpreter(Path::new("/nowhere/python").to_owned()));
    let environments = place.environments(tools());
    let result = tokio::spawn(async move { ensure(&environments, &profile, None).await.0 }).await.unwrap();
    let text = result.unwrap_err().to_string();
    assert!(text.starts_with("starting /nowhere/python failed"), "{text}");
}
