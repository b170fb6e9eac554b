//! `cargo xtask new-op`: the handler stub of an operation, its route, its test and its line in the list of operations.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::edit::{self, Source};
use super::model::{self, Model, target};
use super::{names, read, save};
use crate::setup::Step;

const HANDLERS: &str = "crates/server/src";
const TESTS: &str = "crates/server/tests/it";
const OPERATIONS: &str = "crates/server/operations.txt";
const GUARDS: &str = "crates/server/tests/it/operations.rs";

/// Writes all that a new operation needs but its body; names each file that changed.
pub fn new_operation(operation: &str, service: &str, noun: Option<&str>) -> Step {
    let models = model::all()?;
    let model = models
        .iter()
        .find(|model| model.id == service)
        .ok_or_else(|| format!("there is no service {service}"))?;
    let found = model.operations().into_iter().find(|(name, _)| *name == operation);
    let (_, facts) = found.ok_or_else(|| format!("{service} has no operation {operation}"))?;
    if !model.typed_operations().iter().any(|(name, _)| *name == operation) {
        return Err(format!(
            "{service} {operation} has no types: add it to models/typed_operations.json and run `cargo xtask codegen`"
        ));
    }
    let listed = read(Path::new(OPERATIONS))?;
    let line = format!("{service} {operation}");
    if listed.lines().any(|present| present == line) {
        return Err(format!("{OPERATIONS} has {line} already"));
    }
    let new = NewOperation {
        model,
        operation,
        facts,
        noun: noun.map_or_else(|| noun_of(operation), str::to_owned),
    };
    let mut files = Files::default();
    new.handler(&mut files)?;
    new.test(&mut files)?;
    files.edit(OPERATIONS.into(), |text| Ok(edit::with_line(text, &line)))?;
    files.save()
}

/// Files with their new texts, none of them written before all are known.
#[derive(Default)]
struct Files(Vec<(PathBuf, String)>);

impl Files {
    fn edit(&mut self, path: PathBuf, change: impl FnOnce(&str) -> Step<String>) -> Step {
        let before = match self.0.iter().position(|(known, _)| *known == path) {
            Some(at) => self.0.remove(at).1,
            None => read(&path).unwrap_or_default(),
        };
        let after = change(&before).map_err(|reason| format!("{}: {reason}", path.display()))?;
        self.0.push((path, after));
        Ok(())
    }

    fn save(self) -> Step {
        for (path, text) in self.0 {
            save(&path, &text)?;
            println!("{}", path.display());
        }
        Ok(())
    }
}

struct NewOperation<'run> {
    model: &'run Model,
    operation: &'run str,
    facts: &'run Value,
    noun: String,
}

impl NewOperation<'_> {
    fn handler(&self, files: &mut Files) -> Step {
        let folder = Path::new(HANDLERS).join(folder(&self.model.id));
        let (module, method) = (names::module(&self.model.id), names::field(self.operation));
        let operation = self.operation;
        let route = format!("    registry.on::<api::{module}::{operation}, _, _, _>({method});\n");
        let stub = |source: &Source| {
            let word = |name: &str| source.word("crate", name);
            let input = format!("api::{module}::{operation}Input");
            format!(
                "async fn {method}(_cx: {}, _input: {input}) -> {}<api::{module}::{operation}Output> {{\n    \
                     Err({}::NotImplemented(\"Modelyard does not implement {operation} yet.\".into()))\n}}\n",
                word("Cx"),
                word("Result"),
                word("Error"),
            )
        };
        let add = |text: &str| {
            let with_route = edit::with_route(text, &route)?;
            Ok(edit::with_item(&with_route, &stub(&Source(text))))
        };
        let whole = folder.with_extension("rs");
        if read(&whole).is_ok() {
            return files.edit(whole, add);
        }
        let outer = folder.join("mod.rs");
        if read(&outer).is_err() {
            return Err(format!(
                "there is no {}: make it with a routes() that app::registry() calls, then run this again",
                outer.display()
            ));
        }
        let file = folder.join(&self.noun).with_extension("rs");
        if read(&file).is_err() {
            let noun = &self.noun;
            files.edit(outer, |text| {
                let with_module = edit::with_module(text, noun)?;
                edit::with_route(&with_module, &format!("    {noun}::routes(registry);\n"))
            })?;
            let title = edit::sentence(noun);
            let empty = format!(
                "//! {title}.\n\nuse crate::{{Cx, Error, Registry, Result}};\n\n\
                 /// Registers the operations.\npub fn routes(registry: &mut Registry) {{\n}}\n"
            );
            return files.edit(file, |_| add(&empty));
        }
        files.edit(file, add)
    }

    fn test(&self, files: &mut Files) -> Step {
        let folder = Path::new(TESTS).join(folder(&self.model.id));
        let whole = folder.with_extension("rs");
        let file = if read(&whole).is_ok() { whole } else { folder.join(&self.noun).with_extension("rs") };
        if read(&file).is_err() {
            let outer = folder.join("mod.rs");
            if read(&outer).is_err() {
                let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                files.edit(Path::new(TESTS).join("main.rs"), |text| edit::with_module(text, name))?;
            }
            files.edit(outer, |text| {
                let text = if text.is_empty() {
                    format!("//! The service {}.\n\n", self.model.id)
                } else {
                    text.to_owned()
                };
                edit::with_module(&text, &self.noun)
            })?;
        }
        let operation = names::field(self.operation);
        let json = if self.protocol() == "json" { "use serde_json::json;\n\n" } else { "" };
        let title = edit::sentence(&self.noun);
        files.edit(file.clone(), |text| {
            let text = if text.is_empty() {
                format!("//! {title}.\n\n{json}use crate::app::TestApp;\n")
            } else {
                text.to_owned()
            };
            let source = Source(&text);
            let test = format!(
                "#[tokio::test]\nasync fn {operation}_is_refused_so_far() {{\n    let app = {}::new().await;\n{}    \
                 assert_eq!(answer.status, 400, \"{{}}\", answer.text());\n}}\n",
                source.word("crate::app", "TestApp"),
                self.call(&source),
            );
            Ok(edit::with_item(&text, &test))
        })?;
        let included = file.strip_prefix(TESTS).map_err(|error| error.to_string())?.display().to_string();
        files.edit(GUARDS.into(), |text| edit::with_included(text, &included))
    }

    /// The first protocol of the service that tests speak.
    fn protocol(&self) -> &str {
        let protocols = self.model.protocols();
        protocols.into_iter().find(|protocol| *protocol != "smithy-rpc-v2-cbor").unwrap_or_default()
    }

    /// Statements that call the operation.
    fn call(&self, source: &Source) -> String {
        let input = self.sample(target(&self.facts["input"]), 0);
        match self.protocol() {
            "query" => {
                let version = self.model.metadata("apiVersion").unwrap_or_default();
                let form = format!("Action={}&Version={version}", self.operation);
                format!("    let answer = app.form(\"{}\", \"{form}\", &app.key()).await;\n", self.model.id)
            }
            "json" => {
                let target =
                    format!("{}.{}", self.model.metadata("targetPrefix").unwrap_or_default(), self.operation);
                format!(
                    "    let answer = app.call(\"{target}\", {}!({input})).await;\n",
                    source.word("serde_json", "json")
                )
            }
            _ => {
                let http = &self.facts["http"];
                let (method, uri) =
                    (http["method"].as_str().unwrap_or("POST"), http["requestUri"].as_str().unwrap_or("/"));
                let signing = self.model.metadata("signingName").unwrap_or(&self.model.id);
                format!(
                    "    let request = http::Request::builder().method(\"{method}\").uri(\"{}\").body(()).unwrap();\n    \
                     let answer = app.send_signed(request, bytes::Bytes::new(), \"{signing}\", &app.key()).await;\n",
                    edit::filled_path(uri)
                )
            }
        }
    }

    /// A value of a shape with what is required, for a person to make sensible.
    fn sample(&self, name: &str, depth: u32) -> Value {
        let shape = self.model.shape(name);
        let least = shape["min"].as_u64().unwrap_or(0).min(64) as usize;
        match shape["type"].as_str().unwrap_or_default() {
            "structure" if depth < 8 => {
                let required = model::members(shape).filter(|(member, _)| model::is_required(shape, member));
                required
                    .map(|(member, value)| (member.to_owned(), self.sample(target(value), depth + 1)))
                    .collect()
            }
            "list" => (0..least.max(1)).map(|_| self.sample(target(&shape["member"]), depth + 1)).collect(),
            "string" => match model::enumerated(shape).first() {
                Some(first) => Value::from(*first),
                None => Value::from("a".repeat(least.max(1))),
            },
            "integer" | "long" | "float" | "double" => shape["min"].as_i64().unwrap_or(1).into(),
            "boolean" => false.into(),
            "timestamp" => 1_770_000_000.into(),
            "blob" => "".into(),
            _ => Value::Object(serde_json::Map::new()),
        }
    }
}

/// Folder of a service's handlers and tests.
fn folder(service: &str) -> String {
    match service {
        "application-autoscaling" => "autoscaling".to_owned(),
        "sagemaker-runtime" => "sagemaker".to_owned(),
        other => names::module(other),
    }
}

/// The plural noun that an operation is about: `DescribeTrainingJob` is about `training_jobs`.
fn noun_of(operation: &str) -> String {
    let snake = names::field(operation);
    let rest = snake.strip_prefix("batch_").unwrap_or(&snake);
    let noun = rest.split_once('_').map_or(rest, |(_, noun)| noun);
    match noun {
        _ if noun.ends_with("ss") || noun.ends_with('x') || noun.ends_with("ch") => format!("{noun}es"),
        _ if noun.ends_with('s') => noun.to_owned(),
        _ => match noun.strip_suffix('y') {
            Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
            _ => format!("{noun}s"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::noun_of;

    #[test]
    fn nouns_are_plural() {
        for (operation, noun) in [
            ("DescribeTrainingJob", "training_jobs"),
            ("ListModels", "models"),
            ("CreateCodeRepository", "code_repositories"),
            ("BatchDescribeModelPackage", "model_packages"),
            ("DeleteIndex", "indexes"),
        ] {
            assert_eq!(noun_of(operation), noun);
        }
    }
}
