//! The data directory: who may read it, that one server owns it, and where the running server says how to reach it.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use failpoint::Point;
use serde::{Deserialize, Serialize};

/// What a running server writes for the command line: where it listens and the key of the first account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Connection {
    /// Endpoint URL, for example `http://127.0.0.1:9000`.
    pub endpoint: String,
    /// Default region.
    pub region: String,
    /// Twelve-digit account of the key.
    pub account: String,
    /// Public half of the key.
    pub access_key_id: String,
    /// Secret half of the key.
    pub secret_access_key: String,
    /// Certificate that clients must trust, where the server made it.
    pub ca_bundle: Option<PathBuf>,
}

impl Connection {
    /// Reads what the server of this data directory wrote.
    ///
    /// # Errors
    /// A text that says what to do.
    pub fn read(data_dir: &Path) -> Result<Connection, String> {
        let path = data_dir.join("connection.json");
        let text = std::fs::read(&path).map_err(|_| {
            format!(
                "no server has used {} yet; start one with: modelyard serve --data-dir {}",
                data_dir.display(),
                data_dir.display()
            )
        })?;
        serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Writes it whole or not at all, readable by the owner alone.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, data_dir: &Path) -> std::io::Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        write_private(&data_dir.join("connection.json"), &text)
    }
}

/// Held as long as the server runs: the kernel lets go of it however the process ends.
pub struct OwnerLock {
    _file: std::fs::File,
}

/// Makes the directory (mode 0700) and takes it for this process. Where nobody else may enter it, the umask of this process becomes 022:
/// jobs and models have users of their own, who must read what they are shown.
///
/// # Errors
/// When another server has it, or it cannot be made.
pub fn take(directory: &Path) -> Result<OwnerLock, String> {
    let shown = directory.display();
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(directory).map_err(|error| format!("{shown}: {error}"))?;
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(directory.join("server.lock"))
        .map_err(|error| format!("{shown}: {error}"))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        format!("{shown} is in use by another modelyard server; stop it or choose another --data-dir")
    })?;
    let metadata = std::fs::metadata(directory).map_err(|error| format!("{shown}: {error}"))?;
    if metadata.permissions().mode() & 0o077 == 0 {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    }
    Ok(OwnerLock { _file: file })
}

/// Replaces a file in one step, readable by the owner alone.
///
/// # Errors
/// When it cannot be written.
pub fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file =
        std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&partial)?;
    file.write_all(content)?;
    failpoint::at(Point::PrivateFileSync)?;
    file.sync_all()?;
    failpoint::at(Point::PrivateFileRename)?;
    std::fs::rename(&partial, path)
}
