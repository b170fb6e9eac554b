//! The kernel's Landlock, as a second lock on files, abstract sockets and signals.

use std::path::PathBuf;

use ::landlock::{
    ABI, Access, AccessFs, Compatible, LandlockStatus, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

/// Places that a job without a sandbox of its own may read besides what is mounted for it.
pub(crate) const SYSTEM_PLACES: [&str; 11] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt", "/nix", "/proc", "/sys"];

/// Places in which every job may write as far as the owner and mode of the files there let it.
pub(crate) const SCRATCH_PLACES: [&str; 4] = ["/dev", "/proc", "/tmp", "/var/tmp"];

/// Newest interface that the rules below are written for; an older kernel enforces what it knows.
const NEWEST: ABI = ABI::V6;

/// Where a job may read and write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places {
    /// Reading and executing below these.
    pub read: Vec<PathBuf>,
    /// Everything below these.
    pub write: Vec<PathBuf>,
}

/// Limits this process, which must have one thread, and all that it starts. Places that do not exist are left
/// out. The text says what is enforced.
///
/// # Errors
/// Why the lock does not hold.
pub(crate) fn engage(places: &Places) -> Result<String, String> {
    let status = restrict(places).map_err(|error| error.to_string())?;
    let version = match status.landlock {
        LandlockStatus::Available { effective_abi, kernel_abi } => kernel_abi.unwrap_or(effective_abi as i32),
        LandlockStatus::NotEnabled => {
            return Err("the kernel has Landlock, but it is not turned on".to_owned());
        }
        LandlockStatus::NotImplemented => return Err("the kernel has no Landlock".to_owned()),
    };
    match status.ruleset {
        RulesetStatus::FullyEnforced => Ok(format!("version {version}: files, abstract sockets, signals")),
        RulesetStatus::PartiallyEnforced => Ok(format!("version {version}: files")),
        RulesetStatus::NotEnforced => Err("the kernel enforces none of it".to_owned()),
    }
}

fn restrict(places: &Places) -> Result<::landlock::RestrictionStatus, RulesetError> {
    Ruleset::default()
        .set_compatibility(::landlock::CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .add_rules(path_beneath_rules(&places.read, AccessFs::from_read(NEWEST)))?
        .add_rules(path_beneath_rules(&places.write, AccessFs::from_all(NEWEST)))?
        .restrict_self()
}
