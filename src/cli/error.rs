//! What ends a command, as a message and an exit code.

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

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The file is wrong.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The file cannot be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// The engine did not do something.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The project is supervised by another process.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The project is supervised by another process, perhaps on another host.
    #[error(transparent)]
    EngineLock(#[from] EngineLockError),
    /// The supervisor refuses.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The supervisor does not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The supervisor that runs is of another release.
    #[error(transparent)]
    OtherRelease(#[from] OtherRelease),
    /// The supervisor that runs is of a project on another engine.
    #[error(transparent)]
    OtherEngine(#[from] OtherEngine),
    /// What is in the kernel cannot be taken over.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The supervisor of this process is gone.
    #[error(transparent)]
    Ended(#[from] Ended),
    /// What is remembered of the project cannot be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// A folder of ours cannot be used.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The demo failed.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// The command is used wrongly.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to write.
        help: String,
    },
    /// It was tried, and failed.
    #[error("{message}")]
    Failed {
        /// What failed, and why.
        message: String,
        /// What to do.
        help: Option<String>,
    },
    /// A file, a process or a terminal cannot be used.
    #[error("{what}: {source}")]
    Io {
        /// What was done with what.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The user wants no more.
    #[error("interrupted")]
    Interrupted,
    /// The user wants no more of a command, and what it has asked for goes on or is left half done.
    #[error("interrupted: {message}")]
    InterruptedMidway {
        /// What goes on.
        message: String,
        /// How to end it, or to go on with it.
        help: String,
    },
    /// A command that was run in a replica ended with this code.
    #[error("exit code {0}")]
    Exit(u8),
    /// Whoever reads our output has left.
    #[error("nobody reads the output")]
    ClosedPipe,
}

impl CliError {
    /// It was tried, and failed.
    pub fn failed(message: impl Into<String>, help: Option<&str>) -> Self {
        Self::Failed { message: message.into(), help: help.map(str::to_owned) }
    }

    /// The user wants no more of a command, and something goes on.
    pub fn midway(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::InterruptedMidway { message: message.into(), help: help.into() }
    }

    /// A file, a process or a terminal cannot be used.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// 1: it failed. 2: used wrongly, or the file is invalid. 3: the engine cannot be reached. 130: interrupted.
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

    /// The message for a user; none where there is nothing to say.
    pub fn render(&self) -> Option<String> {
        match self {
            Self::Exit(_) | Self::ClosedPipe => return None,
            Self::Load(error) => return Some(error.render(true)),
            _ => {}
        }
        let (red, cyan) = (AnsiColor::Red.on_default().bold(), AnsiColor::Cyan.on_default().bold());
        let mut text = match self {
            // It is what the user wanted.
            Self::InterruptedMidway { .. } => self.to_string(),
            _ => format!("{}: {}", styled("error", red), visible(&self.to_string())),
        };
        if let Some(help) = self.help() {
            text.push_str(&format!("\n{}: {}", styled("help", cyan), visible(&help)));
        }
        Some(text)
    }

    /// The same for programs; none where there is nothing to say.
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

/// Whether a refusal is about what was written, and not about how things are.
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

/// A word in a style, which is taken off again where there are no colours.
pub fn styled(text: &str, style: Style) -> String {
    format!("{style}{text}{style:#}")
}
