//! Which package index installers use: the server's `PIP_*` variables, for pip, for uv and inside jobs.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::process::Variables;

/// Names of pip's variables and what uv calls them.
const SAME_FOR_UV: [(&str, &str); 7] = [
    ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"),
    ("PIP_EXTRA_INDEX_URL", "UV_EXTRA_INDEX_URL"),
    ("PIP_TRUSTED_HOST", "UV_INSECURE_HOST"),
    ("PIP_NO_INDEX", "UV_NO_INDEX"),
    ("PIP_CERT", "SSL_CERT_FILE"),
    ("PIP_DEFAULT_TIMEOUT", "UV_HTTP_TIMEOUT"),
    ("PIP_CONSTRAINT", "UV_CONSTRAINT"),
];

/// pip's variables that jobs get, so that `pip install` in a job finds the same packages.
const FOR_JOBS: [&str; 11] = [
    "PIP_CERT",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_DISABLE_PIP_VERSION_CHECK",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_INDEX_URL",
    "PIP_NO_INDEX",
    "PIP_ONLY_BINARY",
    "PIP_PREFER_BINARY",
    "PIP_RETRIES",
    "PIP_TRUSTED_HOST",
];

/// Variables whose values are, or contain, paths that an installer reads.
const WITH_PATHS: [&str; 9] = [
    "PIP_CERT",
    "PIP_CLIENT_CERT",
    "PIP_CONFIG_FILE",
    "PIP_CONSTRAINT",
    "PIP_FIND_LINKS",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
];

/// The variables for uv: its own, and pip's under its names.
pub fn for_uv(settings: &Variables) -> Variables {
    let mut variables = settings.clone();
    for (pip, uv) in SAME_FOR_UV {
        if let Some(value) = settings.get(pip).filter(|_| !settings.contains_key(uv)) {
            variables.insert(uv.to_owned(), value.clone());
        }
    }
    if let Some(links) = settings.get("PIP_FIND_LINKS").filter(|_| !settings.contains_key("UV_FIND_LINKS")) {
        // uv fails where pip only warns: at a folder that is not there.
        let usable: Vec<&str> = links
            .split_whitespace()
            .filter(|link| !link.starts_with('/') || Path::new(link).exists())
            .collect();
        if !usable.is_empty() {
            variables.insert("UV_FIND_LINKS".to_owned(), usable.join(","));
        }
    }
    variables
}

/// The variables for pip inside jobs.
pub fn for_jobs(settings: &Variables) -> Variables {
    let chosen = settings.iter().filter(|(name, _)| FOR_JOBS.contains(&name.as_str()));
    let mut variables: Variables = chosen.map(|(name, value)| (name.clone(), value.clone())).collect();
    variables.entry("PIP_DISABLE_PIP_VERSION_CHECK".to_owned()).or_insert_with(|| "1".to_owned());
    variables
}

/// Host files and folders that installers read because the settings name them.
pub fn local_paths(settings: &Variables) -> Vec<PathBuf> {
    let values = settings.iter().filter(|(name, _)| WITH_PATHS.contains(&name.as_str()));
    let words = values.flat_map(|(_, value)| value.split_whitespace());
    let paths = words.map(|word| Path::new(word.strip_prefix("file://").unwrap_or(word)));
    let mut found: Vec<PathBuf> =
        paths.filter(|path| path.is_absolute() && path.exists()).map(Path::to_owned).collect();
    found.sort();
    found.dedup();
    found
}

/// Folders of packages that pip inside jobs is told of, and that the jobs' user can read.
pub fn shown_to_jobs(settings: &Variables) -> Vec<PathBuf> {
    let links = settings.get("PIP_FIND_LINKS").map_or("", String::as_str).split_whitespace();
    let folders = links.map(|link| PathBuf::from(link.strip_prefix("file://").unwrap_or(link)));
    let is_readable = |path: &PathBuf| {
        let metadata = path.symlink_metadata();
        path.is_absolute() && metadata.is_ok_and(|one| one.is_dir() && one.permissions().mode() & 0o5 == 0o5)
    };
    folders.filter(is_readable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pip_settings_reach_uv_and_jobs() {
        let settings: Variables = [
            ("PIP_INDEX_URL", "https://index/simple"),
            ("PIP_FIND_LINKS", "/nowhere /usr https://links"),
            ("UV_HTTP_TIMEOUT", "5"),
            ("PIP_DEFAULT_TIMEOUT", "180"),
            ("HOME", "/root"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        let uv = for_uv(&settings);
        assert_eq!(uv["UV_DEFAULT_INDEX"], "https://index/simple");
        assert_eq!(uv["UV_FIND_LINKS"], "/usr,https://links");
        assert_eq!(uv["UV_HTTP_TIMEOUT"], "5");
        let jobs = for_jobs(&settings);
        assert_eq!(jobs["PIP_INDEX_URL"], "https://index/simple");
        assert!(!jobs.contains_key("HOME"));
        assert_eq!(local_paths(&settings), [PathBuf::from("/usr")]);
    }
}
