//! `cargo xtask test`: sets up what is missing and runs every check, as continuous integration does.

use std::process::Command;
use std::time::Instant;

use crate::setup::{self, Step, run};

/// Runs everything, in the order in which mistakes are cheapest to find.
pub fn test() -> Step {
    let cargo = || Command::new(env!("CARGO"));
    part("system packages", setup::system_packages)?;
    part("formatting", || run(cargo().args(["fmt", "--all", "--check"])))?;
    part("generated files", || {
        crate::codegen::check()?;
        crate::codegen::check_compatibility()
    })?;
    part("tidy", crate::tidy::tidy)?;
    part("lints", || {
        run(cargo().args(["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"]))
    })?;
    part("Rust tests", || {
        let tests = || run(cargo().args(["test", "--workspace", "--locked", "--quiet", "--no-fail-fast"]));
        again_if_failed(tests, tests)
    })?;
    part("Python side", || {
        run(Command::new("python3")
            .args(["-m", "unittest", "discover", "-q", "-s", "python", "-t", "python"]))
    })?;
    part("client tests", clients)
}

fn clients() -> Step {
    let server = setup::build_server()?;
    let tools = setup::tools()?;
    let sdk2 = setup::client_environment("sdk2")?;
    let sdk3 = setup::client_environment("sdk3")?;
    let open = setup::client_environment("open")?;
    let onnx = setup::client_environment("onnx")?;
    let path = setup::path_with(&tools)?;
    let cache = setup::target_folder().join("client-tests");
    let tests = |only: &[&str]| {
        run(Command::new(&sdk2)
            .args(["-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "--durations=12"])
            .args(only)
            .arg("-o")
            .arg(format!("cache_dir={}", cache.display()))
            .arg("tests/clients")
            .env("PATH", &path)
            .env("MODELYARD_BINARY", &server)
            .env("MODELYARD_SDK3_PYTHON", &sdk3)
            .env("MODELYARD_OPEN_PYTHON", &open)
            .env("MODELYARD_ONNX_PYTHON", &onnx))
    };
    again_if_failed(|| tests(&[]), || tests(&["--last-failed", "--last-failed-no-failures=none"]))
}

/// Runs tests, and once more where some failed: these start hundreds of real processes, and a machine whose
/// cores are taken away for seconds can fail any of them. What fails twice is a defect. What fails once is
/// one too, of the test or of what it tests, and is shouted about; it does not hide the verdict on the rest.
fn again_if_failed(tests: impl FnOnce() -> Step, again: impl FnOnce() -> Step) -> Step {
    let Err(first) = tests() else { return Ok(()) };
    println!("== some tests failed ({first}); they run once more");
    again()?;
    println!("== UNSTEADY: the tests that failed above passed when they ran again; find out why");
    Ok(())
}

fn part(name: &str, work: impl FnOnce() -> Step) -> Step {
    println!("\n== {name}");
    let started = Instant::now();
    work()?;
    println!("== {name}: done in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}
