//! What can go wrong in the demo.

use std::{io, time::Duration};

use crate::{
    engine::EngineError,
    spec::{NameError, ProjectName},
    supervisor::{Ended, Rejection, StateError, lock::LockError, paths::PathError},
};

use super::image::ImageError;

/// Why the demo did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// It has no image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The engine did not do something.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The engine runs on another host, so its ports are not here.
    #[error("the demo needs an engine on this host: it sends its requests to 127.0.0.1")]
    Remote,
    /// The port cannot be had.
    #[error("cannot use port {} of 127.0.0.1: {source}", port.map_or("0".to_owned(), |p| p.to_string()))]
    Port {
        /// Which one was asked for.
        port: Option<u16>,
        /// What the system said.
        source: io::Error,
    },
    /// The project has no valid name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A folder of ours cannot be used.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Somebody supervises a project of that name.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The supervisor did not begin.
    #[error(transparent)]
    State(#[from] StateError),
    /// The supervisor refused.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The supervisor is gone.
    #[error(transparent)]
    Ended(#[from] Ended),
    /// The replicas are not there in time.
    #[error(
        "the replicas did not run within {} s{}",
        limit.as_secs(),
        reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default()
    )]
    NotUp {
        /// How long was waited.
        limit: Duration,
        /// The last thing that failed.
        reason: Option<String>,
    },
    /// There is no replica to kill.
    #[error("replica {slot} of the demo does not run")]
    NoVictim {
        /// Which one it should have been.
        slot: u32,
    },
    /// The killed replica was not replaced.
    #[error("no replacement of the killed replica answered within {} s", limit.as_secs())]
    NotReplaced {
        /// How long was waited.
        limit: Duration,
    },
    /// A replica runs, and the kernel gave it nothing.
    #[error("replica {replica} answered none of {requests} requests")]
    Silent {
        /// Which one.
        replica: u32,
        /// How many requests all replicas got.
        requests: u64,
    },
    /// A replica's server cannot have its port.
    #[error("cannot serve: {0}")]
    Server(#[source] io::Error),
    /// It cannot tell what it sees.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
    /// The user has seen enough.
    #[error("interrupted")]
    Interrupted,
    /// The user did not wait for the removal.
    #[error("interrupted again: what the demo made may still be there")]
    Abandoned,
    /// Something that it made is still there.
    #[error("the demo's project {project} could not be removed: {reason}")]
    NotCleared {
        /// The project.
        project: ProjectName,
        /// What stood in the way.
        reason: String,
    },
}

impl DemoError {
    /// What the user can do about it, where there is something to say.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Image(ImageError::NotStatic) => Some(format!(
                "build one that is not: RUSTFLAGS=\"-C target-feature=+crt-static\" cargo build --release \
                 --target {}-unknown-linux-gnu; or run `./demo`, which does that",
                std::env::consts::ARCH
            )),
            Self::Engine(error) => error.help().map(str::to_owned),
            Self::Remote => Some("unset DOCKER_HOST, or run the demo on the engine's host".to_owned()),
            Self::Port { port: Some(_), .. } => {
                Some("choose another one, or leave `--port` out to get a free one".to_owned())
            }
            Self::Abandoned => {
                Some("`sameport -p PROJECT down`, with the project's name from above, removes it".to_owned())
            }
            Self::NotCleared { project, .. } => Some(format!("`sameport -p {project} down` removes it")),
            _ => None,
        }
    }
}
