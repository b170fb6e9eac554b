//! `modelyard env`: the lines that point a shell at the server.

use std::path::Path;

use super::output;
use crate::config::variable;
use crate::data_dir::Connection;

/// Flags of `modelyard env`.
#[derive(clap::Args)]
pub struct Flags {
    /// Print KEY=VALUE lines without `export`, for env files
    #[arg(long)]
    plain: bool,
}

/// Prints the lines.
///
/// # Errors
/// When no server has used the data directory yet.
pub fn env(data_dir: &Path, flags: &Flags) -> Result<(), String> {
    let connection = Connection::read(data_dir)?;
    for (name, value) in variables(data_dir, &connection) {
        if flags.plain {
            output::line(&format!("{name}={value}"));
        } else {
            output::line(&format!("export {name}={}", quoted(&value)));
        }
    }
    Ok(())
}

/// What a process needs so that SDKs and tools reach the server.
pub fn variables(data_dir: &Path, connection: &Connection) -> Vec<(&'static str, String)> {
    let mut variables = vec![
        ("AWS_ENDPOINT_URL", connection.endpoint.clone()),
        ("AWS_DEFAULT_REGION", connection.region.clone()),
        ("AWS_REGION", connection.region.clone()),
        ("AWS_ACCESS_KEY_ID", connection.access_key_id.clone()),
        ("AWS_SECRET_ACCESS_KEY", connection.secret_access_key.clone()),
        // Keys of the shell's other life must not be mixed with these.
        ("AWS_SESSION_TOKEN", String::new()),
        ("PYTHONPATH", python_path(&crate::hook::directory(data_dir), variable("PYTHONPATH").as_deref())),
    ];
    if let Some(bundle) = &connection.ca_bundle {
        variables.push(("AWS_CA_BUNDLE", bundle.display().to_string()));
    }
    let defaults = crate::hook::sdk_defaults(data_dir).display().to_string();
    if variable("SAGEMAKER_USER_CONFIG_OVERRIDE").is_none_or(|path| path == defaults) {
        variables.push(("SAGEMAKER_USER_CONFIG_OVERRIDE", defaults));
    }
    variables
}

/// The hook first, then what was there; asking twice changes nothing.
fn python_path(hook: &Path, present: Option<&str>) -> String {
    let hook = hook.display().to_string();
    let rest = present.unwrap_or_default().split(':').filter(|entry| !entry.is_empty() && *entry != hook);
    std::iter::once(hook.as_str()).chain(rest).collect::<Vec<_>>().join(":")
}

fn quoted(value: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "/:.,_-@%+=".contains(character);
    if !value.is_empty() && value.chars().all(plain) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_a_shell() {
        assert_eq!(quoted("http://127.0.0.1:9000"), "http://127.0.0.1:9000");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
    }

    #[test]
    fn the_hook_comes_first_and_once() {
        let hook = Path::new("/d/python-hook");
        assert_eq!(python_path(hook, None), "/d/python-hook");
        assert_eq!(python_path(hook, Some("/a:/d/python-hook:/b")), "/d/python-hook:/a:/b");
    }
}
