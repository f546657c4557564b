//! Exit codes: stable, scripts rely on them.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExitStatus {
    /// Everything asked for is done.
    Done,
    /// The command failed, or a check of it did.
    Failed,
    /// The whole set of objects, or the command line, is unusable: nothing was started.
    Unusable,
    /// Something that concerns one package failed and the others were distributed, or a run that was to distribute
    /// everything was interrupted before.
    PackageFailed,
}

impl ExitStatus {
    /// The number that the process ends with.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Unusable => 2,
            Self::PackageFailed => 3,
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        status.code().into()
    }
}
