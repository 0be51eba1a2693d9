//! How a command ends when it does not end well, and with which exit code.

use std::io;
use std::process::ExitCode;

/// Why a command ended without doing what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What was typed makes no sense: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The thing asked for failed: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// Of two runs, the second is worse: exit code 3.
    #[error("{0}")]
    Worse(String),
    /// Of two runs, nobody can tell: exit code 4.
    #[error("{0}")]
    Unclear(String),
    /// No valid measurement: exit code 5.
    #[error("{0}")]
    Unmeasured(String),
    /// What was looked at is not as it should be, as the output says: exit code 1, and nothing more is said.
    #[error("a rule of Watch fires")]
    Unhealthy,
    /// Whoever read our output has gone. Nothing is wrong: exit code 0, and nothing is said.
    #[error("standard output was closed")]
    BrokenPipe,
}

impl Failure {
    /// A failure of the thing asked for.
    pub fn failed(what: impl std::fmt::Display) -> Failure {
        Failure::Failed(what.to_string())
    }

    /// A failure of `doing`, for a reason.
    pub fn doing(doing: impl std::fmt::Display, reason: impl std::error::Error) -> Failure {
        Failure::Failed(format!("{doing}: {}", chain(&reason)))
    }

    /// Says it on stderr, and gives the exit code.
    pub fn report(&self) -> ExitCode {
        if !matches!(self, Failure::BrokenPipe | Failure::Unhealthy) {
            note!("highwater: {self}");
        }
        ExitCode::from(match self {
            Failure::BrokenPipe => 0,
            Failure::Failed(_) | Failure::Unhealthy => 1,
            Failure::Usage(_) => 2,
            Failure::Worse(_) => 3,
            Failure::Unclear(_) => 4,
            Failure::Unmeasured(_) => 5,
        })
    }
}

/// From writing results to stdout; errors of other files are given words with [`Failure::doing`].
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::BrokenPipe,
            _ => Failure::Failed(format!("standard output: {error}")),
        }
    }
}

impl From<crate::config::ConfigError> for Failure {
    fn from(error: crate::config::ConfigError) -> Failure {
        Failure::Usage(error.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Failure {
        match error.io_error_kind() {
            Some(kind) => Failure::from(io::Error::from(kind)),
            None => Failure::Failed(format!("JSON output: {error}")),
        }
    }
}

/// An error with its causes, none said twice.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
