//! `cargo xtask demo`: from nothing to predictions, with the time that each part took.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::setup::{self, Step, root, run};

/// Sets up, builds, starts a server on `target/demo-data`, and runs the example against it.
pub fn demo() -> Step {
    let mut times = Vec::new();
    let mut timed = |name: &'static str, work: &mut dyn FnMut() -> Step| {
        println!("\n== {name}");
        let started = Instant::now();
        let done = work();
        times.push((name, started.elapsed().as_secs_f64()));
        done
    };
    let (mut binary, mut python, mut path) = (None, None, None);
    timed("install what is missing", &mut || {
        setup::system_packages()?;
        path = Some(setup::path_with(&setup::tools()?)?);
        python = Some(setup::client_environment("sdk2")?);
        Ok(())
    })?;
    timed("build the server", &mut || {
        binary = Some(setup::build_server()?);
        Ok(())
    })?;
    let (Some(binary), Some(python), Some(path)) = (binary, python, path) else {
        return Err("a step did not give its result".into());
    };
    let data_dir = root().join("target/demo-data");
    let mut server = None;
    timed("start the server", &mut || {
        let mut child = Command::new(&binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(&data_dir)
            .env("PATH", &path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", binary.display()))?;
        let ready = wait_until_ready(&mut child);
        server = Some(child);
        ready
    })?;
    let ran = timed("train, deploy and predict with the SageMaker SDK", &mut || {
        run(Command::new(&binary)
            .args(["run", "--data-dir"])
            .arg(&data_dir)
            .arg("--")
            .arg(&python)
            .arg("examples/train_deploy_predict.py")
            // Seven notices that version 2 of the SDK ages would bury what the demo shows.
            .env("SAGEMAKER_SUPPRESS_V2_WARNING", "1"))
    });
    if let Some(server) = server {
        stop(server)?;
    }
    ran?;
    println!("\nTime of each part:");
    for (name, seconds) in times {
        println!("  {seconds:8.1} s  {name}");
    }
    Ok(())
}

fn wait_until_ready(child: &mut Child) -> Step {
    let output = child.stdout.take().ok_or("the server's output cannot be read")?;
    let mut lines = BufReader::new(output).lines();
    // `your_script.py` stands in the last line of the greeting.
    for line in lines.by_ref() {
        let line = line.map_err(|error| error.to_string())?;
        println!("{line}");
        if line.contains("your_script.py") {
            return Ok(());
        }
    }
    Err("the server ended before it was ready".into())
}

/// Asks the server to stop as a person would, by SIGTERM, and waits for it.
fn stop(mut server: Child) -> Step {
    let asked = Command::new("kill").arg(server.id().to_string()).status();
    asked.map_err(|error| error.to_string())?;
    let status = server.wait().map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("the server ended with {status}")) }
}
