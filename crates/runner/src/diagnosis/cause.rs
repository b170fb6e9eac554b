//! The fixed list of causes, as they stand on cards and in `docs/failures.md`.

use std::fmt;

/// Why a job failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The program ended with an uncaught Python exception.
    Exception,
    /// The program ended with an exit code other than 0 for a reason of its own.
    Exit,
    /// A signal ended the program.
    Signal,
    /// The memory of the job or of the machine was used up.
    OutOfMemory,
    /// The memory of a GPU was used up.
    GpuOutOfMemory,
    /// A disk, or the job's share of it, was full.
    DiskFull,
    /// Another limit than memory and disk was passed.
    Limit,
    /// It neither logged nor computed for too long.
    Hang,
    /// A requirement could not be resolved or installed.
    Dependency,
    /// The environment of the image could not be built.
    Environment,
    /// The image could not be had.
    Image,
    /// An object or bucket does not exist.
    MissingObject,
    /// An action on a resource was denied.
    AccessDenied,
    /// The input could not be brought to the job.
    Input,
    /// The machine can never give what the job asks for.
    Capacity,
    /// The request cannot be carried out as it stands.
    Request,
    /// The machine did not pass the check that the job asked for.
    InfraCheck,
    /// The program could not be started.
    Launch,
    /// The job's supervisor was killed.
    Supervisor,
    /// Checkpoints could not be stored.
    Checkpoint,
    /// What the job left could not be stored.
    Output,
    /// The time limit was reached.
    TimeLimit,
}

impl Cause {
    /// All of them.
    pub const ALL: [Cause; 22] = [
        Cause::Exception,
        Cause::Exit,
        Cause::Signal,
        Cause::OutOfMemory,
        Cause::GpuOutOfMemory,
        Cause::DiskFull,
        Cause::Limit,
        Cause::Hang,
        Cause::Dependency,
        Cause::Environment,
        Cause::Image,
        Cause::MissingObject,
        Cause::AccessDenied,
        Cause::Input,
        Cause::Capacity,
        Cause::Request,
        Cause::InfraCheck,
        Cause::Launch,
        Cause::Supervisor,
        Cause::Checkpoint,
        Cause::Output,
        Cause::TimeLimit,
    ];

    /// Its word on a card.
    pub fn word(self) -> &'static str {
        match self {
            Cause::Exception => "exception",
            Cause::Exit => "exit",
            Cause::Signal => "signal",
            Cause::OutOfMemory => "out_of_memory",
            Cause::GpuOutOfMemory => "gpu_out_of_memory",
            Cause::DiskFull => "disk_full",
            Cause::Limit => "limit",
            Cause::Hang => "hang",
            Cause::Dependency => "dependency",
            Cause::Environment => "environment",
            Cause::Image => "image",
            Cause::MissingObject => "missing_object",
            Cause::AccessDenied => "access_denied",
            Cause::Input => "input",
            Cause::Capacity => "capacity",
            Cause::Request => "request",
            Cause::InfraCheck => "infra_check",
            Cause::Launch => "launch",
            Cause::Supervisor => "supervisor",
            Cause::Checkpoint => "checkpoint",
            Cause::Output => "output",
            Cause::TimeLimit => "time_limit",
        }
    }

    /// The cause with this word.
    pub fn from_word(word: &str) -> Option<Cause> {
        Cause::ALL.into_iter().find(|cause| cause.word() == word)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_in_the_guide_and_found_by_its_word() {
        let guide = include_str!("../../../../docs/failures.md");
        for cause in Cause::ALL {
            assert_eq!(Cause::from_word(cause.word()), Some(cause));
            assert!(guide.contains(&format!("`{cause}`")), "docs/failures.md does not say what `{cause}` is");
        }
        assert_eq!(Cause::from_word("bad luck"), None);
    }
}
