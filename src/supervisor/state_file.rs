//! What neither Docker nor the Compose file can hold, and a supervisor must know after a crash.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    engine::{ContainerId, ownership::Expected},
    plan::{PostStart, Weights, versions::Versions},
    spec::{Generation, ServiceName},
};

/// What the user said since the file was applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Replica counts that override the file's.
    pub scale: BTreeMap<ServiceName, Scale>,
    /// Services that are stopped.
    pub stopped: BTreeSet<ServiceName>,
    /// How much single replicas get of the new connections.
    #[serde(default)]
    pub weights: Weights,
    /// The last version of each service whose job before it succeeded.
    #[serde(default)]
    pub done_before: BTreeMap<ServiceName, Generation>,
    /// Jobs before a version that were told to end, and when the process began that was.
    #[serde(default)]
    pub interrupted_jobs: BTreeMap<ContainerId, Timestamp>,
    /// How far the commands after the start of each replica are.
    #[serde(default)]
    pub post_start: BTreeMap<ContainerId, PostStart>,
    /// Services that are to be restarted, because one that they depend on is.
    #[serde(default)]
    pub restart_after: BTreeSet<ServiceName>,
    /// The versions that services had and have.
    #[serde(default)]
    pub versions: BTreeMap<ServiceName, Versions>,
}

impl State {
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// The state cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the state file {}: {source}", path.display())]
pub struct StateError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl StateFile {
    /// Kept in the file at `path`.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path: Some(path) }
    }

    /// What it holds; nothing was said when there is none.
    ///
    /// # Errors
    /// When it cannot be read, or is not ours.
    pub fn load(&self) -> Result<State, StateError> {
        let Some(path) = &self.path else { return Ok(State::default()) };
        let fail = |source| StateError { path: path.clone(), source };
        match fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| fail(e.into())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(State::default()),
            Err(e) => Err(fail(e)),
        }
    }

    /// Writes it whole beside the old one, then takes its place: a crash leaves the one or the other.
    ///
    /// # Errors
    /// When it cannot be written; the old one is still there.
    pub fn save(&self, state: &State) -> Result<(), StateError> {
        let Some(path) = &self.path else { return Ok(()) };
        replace(path, state).map_err(|source| StateError { path: path.clone(), source })
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// When the file is there and cannot be removed.
    pub fn clear(&self) -> Result<(), StateError> {
        let Some(path) = &self.path else { return Ok(()) };
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(StateError { path: path.clone(), source: e })
            }
            _ => Ok(()),
        }
    }
}

fn replace(path: &Path, state: &State) -> io::Result<()> {
    let beside = path.with_extension("json.new");
    // Environments may hold secrets.
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    // In one piece: the serializer writes word by word.
    file.write_all(&serde_json::to_vec_pretty(state)?)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Slot;

    #[test]
    fn what_was_said_is_remembered_until_it_is_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::at(folder.path().join("shop.json"));
        assert_eq!(file.load().unwrap(), State::default());
        let state = State {
            scale: BTreeMap::from([("web".parse().unwrap(), Scale { file: 2, replicas: 5 })]),
            stopped: BTreeSet::from(["db".parse().unwrap()]),
            weights: BTreeMap::from([(
                "web".parse().unwrap(),
                BTreeMap::from([(Slot::new(1).unwrap(), 10)]),
            )]),
            done_before: BTreeMap::from([("web".parse().unwrap(), Generation::from_label("0123456789ab"))]),
            interrupted_jobs: BTreeMap::from([(ContainerId("job".to_owned()), Timestamp::UNIX_EPOCH)]),
            post_start: BTreeMap::from([(
                ContainerId("1f".to_owned()),
                PostStart { started_at: jiff::Timestamp::UNIX_EPOCH, stage: crate::plan::Stage::Begun },
            )]),
            restart_after: BTreeSet::from(["web".parse().unwrap()]),
            versions: BTreeMap::from([("web".parse().unwrap(), Versions::default())]),
        };
        file.save(&state).unwrap();
        assert_eq!(file.load().unwrap(), state);
        file.clear().unwrap();
        file.clear().unwrap();
        assert_eq!(file.load().unwrap(), State::default());
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.json");
        fs::write(&path, "{").unwrap();
        let message = StateFile::at(path).load().unwrap_err().to_string();
        assert!(message.contains("shop.json"), "{message}");
    }
}
