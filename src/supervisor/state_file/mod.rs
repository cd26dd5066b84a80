//! The state file: what a supervisor must know after a restart and neither Docker nor the Compose file can hold.

mod failure;
mod form;
mod removal;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
mod versions;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use crate::{
    engine::{ContainerId, EngineIdentity, ownership::Expected},
    plan::{PostStart, StoppedOutside, Weights, versions::Versions},
    spec::{Generation, ServiceName, Slot},
};

use super::{paths, private_folder};
use form::Unreadable;
pub use removal::Removal;

/// The stored state of a project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Replica counts that override those of the file.
    pub scale: BTreeMap<ServiceName, Scale>,
    /// Services that are stopped.
    pub stopped: BTreeSet<ServiceName>,
    /// The weights of single replicas.
    pub weights: Weights,
    /// The last version of each service whose pre-deploy job succeeded.
    pub done_before: BTreeMap<ServiceName, Generation>,
    /// Pre-deploy jobs that the supervisor stopped, with the start time of their process.
    pub interrupted_jobs: BTreeMap<ContainerId, Timestamp>,
    /// The progress of the `post_start` commands, by container.
    pub post_start: BTreeMap<ContainerId, PostStart>,
    /// Services to restart because a service that they depend on is restarted.
    pub restart_after: BTreeSet<ServiceName>,
    /// Replicas that the supervisor has stopped, with the start time of their process.
    pub ending: BTreeMap<ContainerId, Timestamp>,
    /// Replicas that were stopped from outside.
    pub stopped_outside: BTreeMap<ContainerId, StoppedOutside>,
    /// Slots whose next replica gets new anonymous volumes.
    pub renew_volumes: BTreeSet<(ServiceName, Slot)>,
    /// The names of the variables that the last applied file used and that the environment of its client set.
    pub variables: BTreeSet<String>,
    /// The folder of the last applied file.
    pub folder: Option<PathBuf>,
    /// The known versions of each service.
    pub versions: BTreeMap<ServiceName, Versions>,
    /// The engine of the project.
    pub engine: Option<EngineIdentity>,
}

impl State {
    /// Whether there is nothing to store except the engine.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self { engine: self.engine.clone(), ..Self::default() }
    }

    /// The names of resources of all known versions.
    #[must_use]
    pub fn expected(&self) -> Expected {
        let mut expected = Expected::default();
        let revisions = self.versions.values().flat_map(|versions| &versions.revisions);
        revisions.for_each(|revision| expected.note_service(&revision.service));
        expected
    }
}

/// A replica count that overrides that of the file, until the count in the file changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// The count in the file when this was requested.
    pub file: u32,
    /// The requested count.
    pub replicas: u32,
}

/// A state file; without a path, nothing is stored.
#[derive(Clone, Debug, Default)]
pub struct StateFile {
    path: Option<PathBuf>,
    /// The engine to which the project must belong; `None`: any.
    engine: Option<EngineIdentity>,
}

/// The content of a state file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The state; empty if the file is missing or damaged.
    pub state: State,
    /// The damage, if the file cannot be parsed.
    pub damage: Option<Damage>,
}

/// A state file that is damaged, for example truncated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The path of the file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub error: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the state file {} is damaged: {}", self.path.display(), self.error)
    }
}

/// The state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It was written by a newer release. It is not changed.
    #[error(
        "the state file {} has version {version}, and this sameport reads versions up to {}",
        path.display(),
        form::VERSION
    )]
    Newer {
        /// The path of the file.
        path: PathBuf,
        /// The version of the file.
        version: u64,
    },
    /// It belongs to a project of the same name on another engine. It is not changed.
    #[error(
        "the state file {} is of a project on another engine, {}; this command is for {}",
        path.display(),
        theirs.address,
        asked.address
    )]
    OtherEngine {
        /// The path of the file.
        path: PathBuf,
        /// The engine of that project.
        theirs: Box<EngineIdentity>,
        /// The engine in use.
        asked: Box<EngineIdentity>,
    },
}

/// A file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the state file {}: {source}", path.display())]
pub struct FileError {
    /// The path of the file.
    pub path: PathBuf,
    /// The error of the operating system.
    pub source: io::Error,
}

impl StateError {
    /// What the user can do about it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::File(FileError { path, .. }) => format!(
                "it has to be a file that you can read and write; or move it away: `mv {0} {0}.old`. Then the replica \
                 counts, weights and versions in it are not known any more. `sameport down` works without it",
                path.display()
            ),
            Self::Newer { path, version } => format!(
                "use the newer release of sameport that wrote it, or move the file away: `mv {0} {0}.v{version}`. Then the \
                 replica counts, weights and versions in it are not known any more",
                path.display()
            ),
            Self::OtherEngine { path, theirs, .. } => format!(
                "give this project another name (`-p NAME`), or the command with DOCKER_HOST={}; if that engine is gone for \
                 good, move the file away: `mv {1} {1}.old`",
                theirs.address,
                path.display()
            ),
        }
    }
}

impl StateFile {
    /// Stores the state in the file at `path`.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path: Some(path), engine: None }
    }

    /// Restricts the file to the project on this engine.
    #[must_use]
    pub fn on(self, engine: EngineIdentity) -> Self {
        Self { engine: Some(engine), ..self }
    }

    /// The engine to which the project must belong, if known.
    #[must_use]
    pub fn engine(&self) -> Option<&EngineIdentity> {
        self.engine.as_ref()
    }

    /// Reads the file; an empty state if there is none. Does not change the file, even if it is damaged.
    ///
    /// # Errors
    /// If it cannot be read, was written by a newer release, or belongs to a project on another engine.
    pub fn load(&self) -> Result<Loaded, StateError> {
        let loaded = self.read()?;
        let engine = match (&self.engine, loaded.state.engine) {
            (Some(asked), Some(theirs)) if asked.is_other_than(&theirs) => {
                let path = self.path.clone().unwrap_or_default();
                let (theirs, asked) = (Box::new(theirs), Box::new(asked.clone()));
                return Err(StateError::OtherEngine { path, theirs, asked });
            }
            (Some(asked), _) => Some(asked.clone()),
            (None, theirs) => theirs,
        };
        Ok(Loaded { state: State { engine, ..loaded.state }, ..loaded })
    }

    fn read(&self) -> Result<Loaded, StateError> {
        let Some(path) = &self.path else { return Ok(Loaded::default()) };
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::default()),
            Err(source) => return Err(FileError { path: path.clone(), source }.into()),
        };
        match form::read(&bytes) {
            Ok(state) => Ok(Loaded { state, damage: None }),
            Err(Unreadable::Newer(version)) => Err(StateError::Newer { path: path.clone(), version }),
            Err(Unreadable::Damaged(error)) => {
                let damage = Some(Damage { path: path.clone(), error });
                Ok(Loaded { state: State::default(), damage })
            }
        }
    }

    /// Renames a damaged file to `….json.bad`, replacing an older one. Returns the new path; `None` if nothing is
    /// stored. Only a supervisor may call this.
    ///
    /// # Errors
    /// If the file cannot be renamed.
    pub fn put_aside(&self) -> Result<Option<PathBuf>, FileError> {
        let Some(path) = &self.path else { return Ok(None) };
        let aside = paths::damaged_state(path);
        fs::rename(path, &aside).map_err(|source| FileError { path: path.clone(), source })?;
        Ok(Some(aside))
    }

    /// Writes the state to a new file and renames it, so that a crash leaves either the old or the new one.
    ///
    /// # Errors
    /// If it cannot be written; then the old file is unchanged.
    pub fn save(&self, state: &State) -> Result<(), FileError> {
        let Some(path) = &self.path else { return Ok(()) };
        replace(path, state).map_err(|source| FileError { path: path.clone(), source })
    }

    /// Whether a path is set and certainly no file exists there.
    fn is_absent(&self) -> bool {
        let found = self.path.as_ref().map(fs::symlink_metadata);
        matches!(found, Some(Err(error)) if error.kind() == io::ErrorKind::NotFound)
    }

    /// Removes the file.
    ///
    /// # Errors
    /// If the file exists and cannot be removed.
    pub fn clear(&self) -> Result<(), FileError> {
        let Some(path) = &self.path else { return Ok(()) };
        // A failed write may have left the new file behind.
        for path in [paths::state_beside(path), path.clone()] {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(FileError { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn replace(path: &Path, state: &State) -> io::Result<()> {
    let beside = paths::state_beside(path);
    // Environment variables may contain secrets.
    let open = || OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside);
    let mut file = match (open(), path.parent()) {
        // The folder was removed.
        (Err(error), Some(folder)) if error.kind() == io::ErrorKind::NotFound => {
            private_folder::make(folder)?;
            open()?
        }
        (opened, _) => opened?,
    };
    // Use a single call: the serializer itself writes in small pieces.
    file.write_all(&form::write(state)?)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}
