//! What neither Docker nor the Compose file can hold, and a supervisor must know after a crash.

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

/// What the user said since the file was applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Replica counts that override the file's.
    pub scale: BTreeMap<ServiceName, Scale>,
    /// Services that are stopped.
    pub stopped: BTreeSet<ServiceName>,
    /// How much single replicas get of the new connections.
    pub weights: Weights,
    /// The last version of each service whose job before it succeeded.
    pub done_before: BTreeMap<ServiceName, Generation>,
    /// Jobs before a version that were told to end, and when the process began that was.
    pub interrupted_jobs: BTreeMap<ContainerId, Timestamp>,
    /// How far the commands after the start of each replica are.
    pub post_start: BTreeMap<ContainerId, PostStart>,
    /// Services that are to be restarted, because one that they depend on is.
    pub restart_after: BTreeSet<ServiceName>,
    /// Processes of replicas that we have told to end: when they had started.
    pub ending: BTreeMap<ContainerId, Timestamp>,
    /// Replicas that somebody has stopped without us.
    pub stopped_outside: BTreeMap<ContainerId, StoppedOutside>,
    /// Slots whose next replica begins with new anonymous volumes.
    pub renew_volumes: BTreeSet<(ServiceName, Slot)>,
    /// The variables that the file used and that whoever applied it last had in the environment.
    pub variables: BTreeSet<String>,
    /// The folder of the file that was applied last.
    pub folder: Option<PathBuf>,
    /// The versions that services had and have.
    pub versions: BTreeMap<ServiceName, Versions>,
    /// Which engine the project is on.
    pub engine: Option<EngineIdentity>,
}

impl State {
    /// Whether nothing was said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self { engine: self.engine.clone(), ..Self::default() }
    }

    /// What the versions that services had say of names.
    #[must_use]
    pub fn expected(&self) -> Expected {
        let mut expected = Expected::default();
        let revisions = self.versions.values().flat_map(|versions| &versions.revisions);
        revisions.for_each(|revision| expected.note_service(&revision.service));
        expected
    }
}

/// A replica count that overrides the file's, until the file says something new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// What the file said at that time.
    pub file: u32,
    /// What was asked for.
    pub replicas: u32,
}

/// The file it is kept in; without a path it is kept in memory only.
#[derive(Clone, Debug, Default)]
pub struct StateFile {
    path: Option<PathBuf>,
    /// The engine of the project that it has to be of.
    engine: Option<EngineIdentity>,
}

/// What a state file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The state; nothing where there is no file, or a damaged one.
    pub state: State,
    /// What is wrong with the file, if it cannot be understood.
    pub damage: Option<Damage>,
}

/// A state file that nobody can have written so: half of one, or something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
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
    /// A newer sameport wrote it. It is left as it is.
    #[error(
        "the state file {} has version {version}, and this sameport reads versions up to {}",
        path.display(),
        form::VERSION
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u64,
    },
    /// It is of a project of the same name on another engine. It is left as it is.
    #[error(
        "the state file {} is of a project on another engine, {}; this command is for {}",
        path.display(),
        theirs.address,
        asked.address
    )]
    OtherEngine {
        /// The file.
        path: PathBuf,
        /// The engine of that project.
        theirs: Box<EngineIdentity>,
        /// The engine that is used now.
        asked: Box<EngineIdentity>,
    },
}

/// A file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the state file {}: {source}", path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
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
    /// Kept in the file at `path`.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path: Some(path), engine: None }
    }

    /// The same, for the project on that engine alone.
    #[must_use]
    pub fn on(self, engine: EngineIdentity) -> Self {
        Self { engine: Some(engine), ..self }
    }

    /// The engine of the project that it has to be of, if that is known.
    #[must_use]
    pub fn engine(&self) -> Option<&EngineIdentity> {
        self.engine.as_ref()
    }

    /// What it holds; nothing was said when there is none. Nothing is changed, whatever it holds.
    ///
    /// # Errors
    /// When it cannot be read, a newer sameport wrote it, or it is of a project on another engine.
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

    /// Puts a damaged file aside as `….json.bad`, in place of an older one, and tells where it is now; nowhere where
    /// nothing is kept in a file. Only whoever supervises may do so.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn put_aside(&self) -> Result<Option<PathBuf>, FileError> {
        let Some(path) = &self.path else { return Ok(None) };
        let aside = paths::damaged_state(path);
        fs::rename(path, &aside).map_err(|source| FileError { path: path.clone(), source })?;
        Ok(Some(aside))
    }

    /// Writes it whole beside the old one, then takes its place: a crash leaves the one or the other.
    ///
    /// # Errors
    /// When it cannot be written; the old one is still there.
    pub fn save(&self, state: &State) -> Result<(), FileError> {
        let Some(path) = &self.path else { return Ok(()) };
        replace(path, state).map_err(|source| FileError { path: path.clone(), source })
    }

    /// Whether there is certainly no such file, where it is kept in one.
    fn is_absent(&self) -> bool {
        let found = self.path.as_ref().map(fs::symlink_metadata);
        matches!(found, Some(Err(error)) if error.kind() == io::ErrorKind::NotFound)
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// When the file is there and cannot be removed.
    pub fn clear(&self) -> Result<(), FileError> {
        let Some(path) = &self.path else { return Ok(()) };
        // One that could not be written whole may be beside it.
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
    // Environments may hold secrets.
    let open = || OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside);
    let mut file = match (open(), path.parent()) {
        // Somebody has removed the folder.
        (Err(error), Some(folder)) if error.kind() == io::ErrorKind::NotFound => {
            private_folder::make(folder)?;
            open()?
        }
        (opened, _) => opened?,
    };
    // In one piece: the serializer writes word by word.
    file.write_all(&form::write(state)?)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}
