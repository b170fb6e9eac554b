//! Images of an engine: pulled when wanted, and what they say about themselves.

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::engine::{Engine, EngineKind, last_words};

/// How long the engine may take for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// How long a pull may take: tens of GB over a slow line.
const PULL_LIMIT: Duration = Duration::from_secs(4 * 3600);
/// Lines of a pull's output that are kept for the error.
const KEPT_LINES: usize = 20;

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PullPolicy {
    /// Before each use, so that a moved tag is followed.
    Always,
    /// When the engine does not have it.
    #[default]
    Missing,
    /// Never: it was loaded or built on this machine.
    Never,
}

/// What is known of an image that the engine has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageDetails {
    /// Its id: names this very content.
    pub id: String,
    /// The user that its programs run as, where it names one other than root.
    pub user: Option<String>,
    /// Variables that it sets.
    pub environment: BTreeMap<String, String>,
}

/// Why an image cannot be used: what is wrong, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ImageError(pub String);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    config: Option<InspectedConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InspectedConfig {
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    env: Option<Vec<String>>,
}

impl Engine {
    /// The image, pulled first if the policy wants it; `progress` gets the lines of the pull. `credentials` is a file in the
    /// format of Docker's `config.json`, used when it is there, beside the engine's own. Dropping the future ends the pull.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the image, and how to mend it.
    pub async fn ensure_image(
        &self,
        reference: &str,
        policy: PullPolicy,
        credentials: &Path,
        progress: &mut (dyn FnMut(&str) + Send),
    ) -> Result<ImageDetails, ImageError> {
        // It would be read as an option.
        if reference.is_empty() || reference.starts_with('-') || reference.contains(char::is_whitespace) {
            return Err(ImageError(format!("{reference:?} is not the name of an image.")));
        }
        let present = self.inspect_image(reference).await;
        match (policy, present) {
            (PullPolicy::Missing | PullPolicy::Never, Some(details)) => return details,
            (PullPolicy::Never, None) => {
                return Err(ImageError(format!(
                    "The image {reference:?} is not on this machine, and its pull policy is \"never\": load it with `{} load`, \
                     or build it, or set pull = \"missing\" in the image catalogue.",
                    self.shown()
                )));
            }
            (PullPolicy::Always, _) | (PullPolicy::Missing, None) => {}
        }
        self.pull(reference, credentials, progress).await?;
        self.inspect_image(reference).await.unwrap_or_else(|| {
            Err(ImageError(format!(
                "The image {reference:?} was pulled, and {} does not have it.",
                self.shown()
            )))
        })
    }

    /// What the engine says of an image; `None` when it has none of this name.
    async fn inspect_image(&self, reference: &str) -> Option<Result<ImageDetails, ImageError>> {
        let (engine, name) = (self.clone(), reference.to_owned());
        let asked =
            tokio::task::spawn_blocking(move || engine.call(&["image", "inspect", &name], ANSWER_LIMIT));
        let answer = match asked.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if is_unknown(&error.0) => return None,
            Ok(Err(error)) => {
                return Some(Err(ImageError(format!(
                    "The image {reference:?} cannot be looked up: {error}"
                ))));
            }
            Err(error) => return Some(Err(ImageError(error.to_string()))),
        };
        Some(parse(&answer).ok_or_else(|| {
            ImageError(format!("{} image inspect gave an answer that cannot be read.", self.shown()))
        }))
    }

    async fn pull(
        &self,
        reference: &str,
        credentials: &Path,
        progress: &mut (dyn FnMut(&str) + Send),
    ) -> Result<(), ImageError> {
        let failed = |text: &str| ImageError(format!("The image {reference:?} could not be pulled: {text}"));
        let credentials = usable_credentials(credentials).map_err(|text| failed(&text))?;
        let mut command = self.command();
        if let (EngineKind::Docker, Some(folder)) = (self.kind, credentials.and_then(Path::parent)) {
            command.arg("--config").arg(folder);
        }
        command.arg("pull");
        if let (EngineKind::Podman, Some(file)) = (self.kind, credentials) {
            command.arg("--authfile").arg(file);
        }
        command.arg(reference);
        // Podman tells its progress on standard error and the image's id on standard output, Docker the reverse.
        let mut command = tokio::process::Command::from(command);
        let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn();
        let mut child =
            spawned.map_err(|error| failed(&format!("{} cannot be run: {error}.", self.shown())))?;
        let (Some(output), Some(complaints)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(failed("its output cannot be read."));
        };
        let (mut output, mut complaints) =
            (BufReader::new(output).lines(), BufReader::new(complaints).lines());
        let mut kept = VecDeque::new();
        let watched = tokio::time::timeout(PULL_LIMIT, async {
            let (mut output_is_open, mut complaints_are_open) = (true, true);
            while output_is_open || complaints_are_open {
                let line = tokio::select! {
                    line = output.next_line(), if output_is_open => match line {
                        Ok(Some(line)) => line,
                        _ => { output_is_open = false; continue }
                    },
                    line = complaints.next_line(), if complaints_are_open => match line {
                        Ok(Some(line)) => {
                            kept.push_back(line.clone());
                            if kept.len() > KEPT_LINES {
                                kept.pop_front();
                            }
                            line
                        }
                        _ => { complaints_are_open = false; continue }
                    },
                };
                progress(line.trim_end());
            }
            child.wait().await
        });
        match watched.await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => {
                let complaint = kept.make_contiguous().join("\n");
                let words = last_words(&complaint);
                let words = if words.is_empty() {
                    status.to_string()
                } else {
                    words.trim_end_matches('.').to_owned()
                };
                Err(failed(&format!("{words}. {}", self.remedy(&words))))
            }
            Ok(Err(error)) => Err(failed(&error.to_string())),
            Err(_) => Err(failed(&format!("it took more than {} hours.", PULL_LIMIT.as_secs() / 3600))),
        }
    }

    /// What mends a failed pull, going by the engine's words.
    fn remedy(&self, words: &str) -> String {
        let words = words.to_lowercase();
        let any = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
        let program = self.shown();
        if any(&["no space left"]) {
            format!("Free some space, for example with `{program} image prune`.")
        } else if any(&["unauthorized", "authentication required", "denied", "403", "no basic auth"]) {
            "Put the registry's credentials into registries/config.json in the data directory, in the format of Docker's \
             config.json, or log in with the engine as the server's user."
                .to_owned()
        } else if any(&["short-name"]) {
            "Give the image's whole name, with its registry.".to_owned()
        } else if any(&["manifest unknown", "name unknown", "not found", "does not exist"]) {
            "Check the image's name and tag.".to_owned()
        } else if any(&[
            "no such host",
            "dial tcp",
            "timeout",
            "refused",
            "unreachable",
            "server misbehaving",
        ]) {
            format!(
                "The registry cannot be reached from here: load the image with `{program} load`, or let the image catalogue say \
                 what the image means."
            )
        } else {
            format!("Try it by hand: {program} pull IMAGE.")
        }
    }
}

/// The credentials file if it is there; one that others may read is refused.
fn usable_credentials(file: &Path) -> Result<Option<&Path>, String> {
    match std::fs::metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("the credentials {} cannot be read: {error}.", file.display())),
        Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
            let shown = file.display();
            Err(format!("the credentials {shown} can be read by others: chmod 600 {shown}"))
        }
        Ok(_) => Ok(Some(file)),
    }
}

/// Whether the engine says that it has no such image, which is no failure.
fn is_unknown(words: &str) -> bool {
    let words = words.to_lowercase();
    ["image not known", "no such image", "no such object"].iter().any(|part| words.contains(part))
}

fn parse(answer: &str) -> Option<ImageDetails> {
    let inspected = serde_json::from_str::<Vec<Inspected>>(answer).ok()?.into_iter().next()?;
    let (user, environment) = inspected.config.map_or((None, None), |config| (config.user, config.env));
    // A user may come with a group, by name or number.
    let is_root = |user: &String| matches!(user.split(':').next(), None | Some("" | "root" | "0"));
    Some(ImageDetails {
        id: inspected.id,
        user: user.filter(|user| !is_root(user)),
        environment: environment
            .into_iter()
            .flatten()
            .filter_map(|pair| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_both_engines_are_read() {
        let podman =
            r#"[{"Id":"344b","Digest":"sha256:9","Config":{"Env":["PATH=/bin","A=b=c"],"User":"app:app"}}]"#;
        let details = parse(podman).unwrap();
        assert_eq!((details.id.as_str(), details.user.as_deref()), ("344b", Some("app:app")));
        assert_eq!(details.environment["A"], "b=c");
        let docker = r#"[{"Id":"sha256:344b","Config":{"User":"0:0","Env":null,"Cmd":["sh"]}}]"#;
        assert_eq!(
            parse(docker).unwrap(),
            ImageDetails { id: "sha256:344b".into(), ..ImageDetails::default() }
        );
        assert_eq!(parse("[]"), None);
    }

    #[test]
    fn each_cause_has_its_remedy() {
        let engine = Engine {
            kind: EngineKind::Podman,
            program: "podman".into(),
            options: Vec::new(),
            runtime: None,
            variables: BTreeMap::new(),
        };
        for (words, expected) in [
            (
                "initializing source docker://h/x:1: reading manifest: unauthorized: access to the resource",
                "credentials",
            ),
            ("dial tcp: lookup h on 10.0.0.1:53: no such host", "cannot be reached"),
            ("reading manifest 9 in docker.io/library/busybox: manifest unknown", "name and tag"),
            ("short-name \"x\" did not resolve to an alias", "whole name"),
            ("writing blob: no space left on device", "image prune"),
            ("something else", "podman pull"),
        ] {
            let remedy = engine.remedy(words);
            assert!(remedy.contains(expected), "{words}: {remedy}");
        }
    }

    #[test]
    fn credentials_that_others_may_read_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        assert_eq!(usable_credentials(&file), Ok(None));
        std::fs::write(&file, "{}").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(usable_credentials(&file).unwrap_err().contains("chmod 600"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(usable_credentials(&file), Ok(Some(file.as_path())));
    }
}
