//! Why a command ends, as a message and an exit code.

use std::io;

use anstyle::{AnsiColor, Style};
use sameport::{
    api::{
        ClientError,
        schema::{ErrorReport, Rejection, RejectionCode},
    },
    compose::LoadError,
    control_chars::visible,
    demo::DemoError,
    engine::EngineError,
    files::WatchError,
    kernel::KernelError,
    supervisor::{
        self, Ended, LookError, StateError, engine_lock::EngineLockError, lock::LockError, paths::PathError,
    },
};

use super::{other_engine::OtherEngine, takeover::OtherRelease};

/// The error of a command.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The Compose file is invalid.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The Compose file cannot be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// The engine returned an error.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Another process on this host supervises the project.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Another process supervises the project, possibly on another host.
    #[error(transparent)]
    EngineLock(#[from] EngineLockError),
    /// The supervisor rejected the request.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The supervisor does not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The running supervisor is of another release.
    #[error(transparent)]
    OtherRelease(#[from] OtherRelease),
    /// The running supervisor manages a project of the same name on another engine.
    #[error(transparent)]
    OtherEngine(#[from] OtherEngine),
    /// The state of the project in the kernel cannot be taken over.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The supervisor in this process has ended.
    #[error(transparent)]
    Ended(#[from] Ended),
    /// The stored state of the project cannot be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// A folder for sockets, locks or state cannot be used.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The demo failed.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// The arguments are wrong.
    #[error("{message}")]
    Usage {
        /// What is wrong with them.
        message: String,
        /// What to write instead.
        help: String,
    },
    /// The command failed.
    #[error("{message}")]
    Failed {
        /// What failed, and why.
        message: String,
        /// What to do about it.
        help: Option<String>,
    },
    /// An operation on a file, a process or a terminal failed.
    #[error("{what}: {source}")]
    Io {
        /// The operation and its object.
        what: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The user interrupted the command; nothing remains in progress.
    #[error("interrupted")]
    Interrupted,
    /// The user interrupted the command, and what it requested continues or is half done.
    #[error("interrupted: {message}")]
    InterruptedMidway {
        /// What continues or remains.
        message: String,
        /// How to stop it or to continue it.
        help: String,
    },
    /// The exit code of a command that ran in a replica.
    #[error("exit code {0}")]
    Exit(u8),
    /// The reader of standard output has closed the pipe.
    #[error("nobody reads the output")]
    ClosedPipe,
}

impl CliError {
    /// Builds `Failed`.
    pub fn failed(message: impl Into<String>, help: Option<&str>) -> Self {
        Self::Failed { message: message.into(), help: help.map(str::to_owned) }
    }

    /// Builds `InterruptedMidway`.
    pub fn midway(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::InterruptedMidway { message: message.into(), help: help.into() }
    }

    /// Builds `Io`, for `map_err`.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// The exit code: 1 failed, 2 wrong usage or invalid file, 3 no access to the engine, 130 interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Load(_) | Self::Usage { .. } => 2,
            Self::Rejected(Rejection { code, .. }) if is_usage(*code) => 2,
            Self::Engine(error)
            | Self::EngineLock(EngineLockError::Engine(error))
            | Self::Demo(DemoError::Engine(error)) => engine_code(error),
            Self::Interrupted
            | Self::InterruptedMidway { .. }
            | Self::Demo(DemoError::Interrupted | DemoError::Abandoned) => 130,
            Self::Exit(code) => *code,
            Self::ClosedPipe => 0,
            _ => 1,
        }
    }

    /// The message for a terminal; `None` if there is nothing to report.
    pub fn render(&self) -> Option<String> {
        match self {
            Self::Exit(_) | Self::ClosedPipe => return None,
            Self::Load(error) => return Some(error.render(true)),
            _ => {}
        }
        let (red, cyan) = (AnsiColor::Red.on_default().bold(), AnsiColor::Cyan.on_default().bold());
        let mut text = match self {
            // An interruption is no error of the command.
            Self::InterruptedMidway { .. } => self.to_string(),
            _ => format!("{}: {}", styled("error", red), visible(&self.to_string())),
        };
        if let Some(help) = self.help() {
            text.push_str(&format!("\n{}: {}", styled("help", cyan), visible(&help)));
        }
        Some(text)
    }

    /// The error as JSON; `None` if there is nothing to report.
    pub fn report(&self) -> Option<ErrorReport> {
        let error = match self {
            Self::Exit(_) | Self::ClosedPipe => return None,
            Self::Load(error) => error.render(false),
            other => other.to_string(),
        };
        Some(ErrorReport { error, help: self.help(), exit_code: self.exit_code().into() })
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Engine(error) => error.help().map(str::to_owned),
            Self::Demo(error) => error.help().map(|help| help.to_string()),
            Self::Usage { help, .. } | Self::InterruptedMidway { help, .. } => Some(help.clone()),
            Self::Failed { help, .. } => help.clone(),
            Self::Path(_) => {
                Some("set HOME, or XDG_RUNTIME_DIR and XDG_STATE_HOME, to folders that are yours".to_owned())
            }
            Self::Lock(LockError::Held { .. }) => Some(
                "it carries out commands such as `sameport scale` and `sameport up -d`; `sameport down` ends it"
                    .to_owned(),
            ),
            Self::EngineLock(error) => error.help(),
            Self::OtherRelease(error) => Some(error.help()),
            Self::OtherEngine(error) => Some(error.help()),
            Self::Kernel(error) => error.help().map(str::to_owned),
            Self::State(error) => Some(error.help()),
            Self::Watch(error) => Some(error.help().to_owned()),
            Self::Rejected(rejection) => rejection.help.clone(),
            _ => None,
        }
    }
}

impl From<LookError> for CliError {
    fn from(error: LookError) -> Self {
        match error {
            LookError::Engine(error) => Self::Engine(error),
            LookError::State(error) => Self::State(error),
        }
    }
}

impl From<supervisor::Rejection> for CliError {
    fn from(refusal: supervisor::Rejection) -> Self {
        Self::Rejected(sameport::api::convert::rejection(&refusal))
    }
}

/// Whether the cause of a rejection is the command line rather than the state of the project.
fn is_usage(code: RejectionCode) -> bool {
    matches!(
        code,
        RejectionCode::UnknownService
            | RejectionCode::UnknownReplica
            | RejectionCode::FixedName
            | RejectionCode::TooManyReplicas
    )
}

fn engine_code(error: &EngineError) -> u8 {
    match error {
        EngineError::Unreachable { .. } | EngineError::Denied { .. } => 3,
        _ => 1,
    }
}

/// Styles a text. The style is stripped where colors are off.
pub fn styled(text: &str, style: Style) -> String {
    format!("{style}{text}{style:#}")
}
