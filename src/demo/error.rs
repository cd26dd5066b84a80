//! Errors of the demo.

use std::{io, time::Duration};

use crate::{
    engine::EngineError,
    spec::{NameError, ProjectName},
    supervisor::{Ended, Rejection, StateError, lock::LockError, paths::PathError},
};

use super::image::ImageError;

/// Why the demo failed.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The image cannot be created.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The engine returned an error.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The engine is on another host, so its ports are not reachable on 127.0.0.1.
    #[error("the demo needs an engine on this host: it sends its requests to 127.0.0.1")]
    Remote,
    /// The port is in use or not allowed.
    #[error("cannot use port {} of 127.0.0.1: {source}", port.map_or("0".to_owned(), |p| p.to_string()))]
    Port {
        /// The requested port; `None` if any port was acceptable.
        port: Option<u16>,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The name of the project is invalid.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A folder for sockets, locks or state cannot be used.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A project of that name is supervised already.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The supervisor did not start.
    #[error(transparent)]
    State(#[from] StateError),
    /// The supervisor rejected a request.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The supervisor has ended.
    #[error(transparent)]
    Ended(#[from] Ended),
    /// The replicas did not start in time.
    #[error(
        "the replicas did not run within {} s{}",
        limit.as_secs(),
        reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default()
    )]
    NotStarted {
        /// How long the demo waited.
        limit: Duration,
        /// The last failure.
        reason: Option<String>,
    },
    /// There is no replica to kill.
    #[error("replica {slot} of the demo does not run")]
    NoReplica {
        /// The slot of the missing replica.
        slot: u32,
    },
    /// The killed replica was not replaced in time.
    #[error("no replacement of the killed replica answered within {} s", limit.as_secs())]
    NotReplaced {
        /// How long the demo waited.
        limit: Duration,
    },
    /// A replica runs but got no connections.
    #[error("replica {replica} answered none of {requests} requests")]
    Silent {
        /// The slot of the replica.
        replica: u32,
        /// The number of requests to all replicas.
        requests: u64,
    },
    /// The server of a replica cannot bind its port.
    #[error("cannot serve: {0}")]
    Server(#[source] io::Error),
    /// Standard output cannot be written to.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
    /// The user interrupted the demo.
    #[error("interrupted")]
    Interrupted,
    /// The user interrupted the removal.
    #[error("interrupted again: what the demo made may still be there")]
    Abandoned,
    /// The project could not be removed completely.
    #[error("the demo's project {project} could not be removed: {reason}")]
    NotRemoved {
        /// The name of the project.
        project: ProjectName,
        /// Why it could not be removed.
        reason: String,
    },
}

impl DemoError {
    /// What the user can do about it; `None` if there is no advice.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Image(ImageError::NotElf | ImageError::Libraries(_)) => {
                Some("run `./demo` in the source, which builds a static program".to_owned())
            }
            Self::Engine(error) => error.help().map(str::to_owned),
            Self::Remote => Some("unset DOCKER_HOST, or run the demo on the engine's host".to_owned()),
            Self::Port { port: Some(_), .. } => {
                Some("choose another one, or leave `--port` out to get a free one".to_owned())
            }
            Self::Abandoned => {
                Some("`sameport -p PROJECT down`, with the project's name from above, removes it".to_owned())
            }
            Self::NotRemoved { project, .. } => Some(format!("`sameport -p {project} down` removes it")),
            _ => None,
        }
    }
}
