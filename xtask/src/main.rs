//! `cargo xtask`: every chore of the project that has logic.

mod bench;
mod codegen;
mod demo;
mod setup;
mod suite;
mod tidy;

use std::process::ExitCode;

use setup::Step;

const USAGE: &str = "\
cargo xtask COMMAND

  demo                     set up, build, start the server, train and deploy an example
  test                     every check, as continuous integration runs them
  bench [NAME...]          side-by-side measurements on a release build
  tidy                     house rules that no compiler checks
  codegen [--check]        models/*.json to crates/api/src/generated
  compatibility [--check]  docs/compatibility.md from the models and crates/server/operations.txt
  new-op OPERATION [--service SERVICE] [--file NOUN]
                           a handler stub, its route and its test
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let Some(done) = command(&words) else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("xtask: {text}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a command; `None` where there is no such command.
fn command(words: &[&str]) -> Option<Step> {
    Some(match words {
        ["demo"] => demo::demo(),
        ["test"] => suite::test(),
        ["bench", names @ ..] => {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            bench::bench(&names)
        }
        ["tidy"] => tidy::tidy(),
        ["codegen"] => codegen::write(),
        ["codegen", "--check"] => codegen::check(),
        ["compatibility"] => codegen::write_compatibility(),
        ["compatibility", "--check"] => codegen::check_compatibility(),
        ["new-op", operation, options @ ..] => {
            let (mut service, mut noun) = ("sagemaker", None);
            for pair in options.chunks(2) {
                match pair {
                    ["--service", name] => service = name,
                    ["--file", name] => noun = Some(*name),
                    _ => return None,
                }
            }
            codegen::new_operation(operation, service, noun)
        }
        _ => return None,
    })
}
