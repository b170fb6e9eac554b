//! The import hook that `modelyard env` puts on `PYTHONPATH`: the SageMaker SDK asks STS at a hard-coded host, and this
//! sends those calls to the configured endpoint.

use std::path::{Path, PathBuf};

const SITECUSTOMIZE: &str = include_str!("sitecustomize.py");
const PATCHES: &str = include_str!("modelyard_patches.py");
const WARM_START: &str = include_str!("warm_start.py");
const AHEAD: &str = include_str!("../../../../python/model_host/ahead.py");
const SDK_DEFAULTS: &str = include_str!("sagemaker-defaults.yaml");

/// Folder that goes on `PYTHONPATH`.
pub fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("python-hook")
}

/// Settings for the SageMaker SDK that switch its telemetry off.
pub fn sdk_defaults(data_dir: &Path) -> PathBuf {
    directory(data_dir).join("sagemaker-defaults.yaml")
}

/// Writes the files where they differ.
///
/// # Errors
/// When the folder cannot be written.
pub fn install(data_dir: &Path) -> std::io::Result<()> {
    let directory = directory(data_dir);
    std::fs::create_dir_all(&directory)?;
    for (name, content) in [
        ("sitecustomize.py", SITECUSTOMIZE),
        ("modelyard_patches.py", PATCHES),
        ("warm_start.py", WARM_START),
        ("modelyard_ahead.py", AHEAD),
        ("sagemaker-defaults.yaml", SDK_DEFAULTS),
    ] {
        let path = directory.join(name);
        if !std::fs::read_to_string(&path).is_ok_and(|present| present == content) {
            let partial = directory.join(format!("{name}.partial"));
            std::fs::write(&partial, content)?;
            failpoint::at(failpoint::Point::HookFile)?;
            std::fs::rename(&partial, &path)?;
        }
    }
    Ok(())
}
