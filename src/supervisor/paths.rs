//! The paths of a supervisor's socket, lock, state and log.

use std::{
    env,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::unistd::{Uid, User};

use super::private_folder::{self, FolderError};
use crate::{spec::ProjectName, systemd};

/// The folders of the current user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    runtime: PathBuf,
    state: PathBuf,
    /// Replaces `runtime` for projects that the host's systemd starts, if that is another folder.
    enabled: Option<PathBuf>,
}

/// A folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// The folder cannot be created, or another user can write to it.
    #[error("cannot use {}: {source}", path.display())]
    Folder {
        /// The path of the folder.
        path: PathBuf,
        /// The reason.
        source: FolderError,
    },
    /// The user has no folder.
    #[error("user {uid} has no home directory for sockets and state")]
    NoHome {
        /// The user ID.
        uid: u32,
    },
}

/// The lock of the supervisor that listens on a control socket; works for any runtime folder.
#[must_use]
pub fn lock_beside(socket: &Path) -> PathBuf {
    socket.with_extension("lock")
}

impl Paths {
    /// Determines the folders from the environment: `$XDG_RUNTIME_DIR/sameport` and `$XDG_STATE_HOME/sameport`, for
    /// root by default `/run/sameport` and `/var/lib/sameport`. Creates them with mode 0700.
    ///
    /// Variables that name a folder of another user, as left by `sudo -E` and `su`, are ignored. A user without a login
    /// session has no runtime folder; the state folder is used instead, and never a folder that others can write to,
    /// such as `/tmp`.
    ///
    /// A project of root that systemd starts (`sameport enable`) is always in `/run/sameport`, even if the login
    /// session has a runtime folder of its own, because systemd does not run in that session.
    ///
    /// # Errors
    /// If a folder cannot be created, or another user can change its content.
    pub fn from_env() -> Result<Self, PathError> {
        let paths = Self::chosen(|variable| env::var_os(variable), nix::unistd::geteuid())?;
        own_folder(&paths.runtime)?;
        own_folder(&paths.state)?;
        paths.enabled.as_deref().map_or(Ok(()), own_folder)?;
        Ok(paths)
    }

    /// The folders of a user with this environment. Creates nothing.
    fn chosen(environment: impl Fn(&str) -> Option<OsString>, uid: Uid) -> Result<Self, PathError> {
        let given = |variable| not_of_others(environment(variable)?, uid);
        let state = given("XDG_STATE_HOME").or_else(|| match uid.is_root() {
            true => Some(PathBuf::from("/var/lib")),
            false => given("HOME").or_else(|| home(uid)).map(|home| home.join(".local/state")),
        });
        let session = || Some(PathBuf::from(format!("/run/user/{uid}"))).filter(|path| is_of(path, uid));
        let runtime = given("XDG_RUNTIME_DIR").or_else(|| match uid.is_root() {
            true => Some(PathBuf::from("/run")),
            false => session(),
        });
        let (runtime, state) = match (runtime, state) {
            (Some(runtime), Some(state)) => (runtime, state),
            (Some(one), None) | (None, Some(one)) => (one.clone(), one),
            (None, None) => return Err(PathError::NoHome { uid: uid.as_raw() }),
        };
        let (runtime, state) = (runtime.join("sameport"), state.join("sameport"));
        let is_of_login = uid.is_root() && runtime.starts_with("/run/user");
        let enabled = is_of_login.then(|| PathBuf::from("/run/sameport"));
        Ok(Self { runtime, state, enabled })
    }

    /// The folder that all supervisors of this user on this host share.
    #[must_use]
    pub fn of_host(&self) -> &Path {
        self.enabled.as_deref().unwrap_or(&self.runtime)
    }

    /// The control socket of a project's supervisor.
    #[must_use]
    pub fn socket(&self, project: &ProjectName) -> PathBuf {
        self.runtime_of(project).join(format!("{project}.sock"))
    }

    /// The lock file of a project's supervisor.
    #[must_use]
    pub fn lock(&self, project: &ProjectName) -> PathBuf {
        lock_beside(&self.socket(project))
    }

    /// The state file of a project.
    #[must_use]
    pub fn state(&self, project: &ProjectName) -> PathBuf {
        self.state.join(format!("{project}.json"))
    }

    /// The file with the environment variables that systemd sets for a project's supervisor.
    #[must_use]
    pub fn variables(&self, project: &ProjectName) -> PathBuf {
        self.state.join(format!("{project}.env"))
    }

    /// The files that are left after the project was removed, whether or not they exist: the logs of its supervisors,
    /// the state file, and its damaged and temporary versions.
    #[must_use]
    pub fn kept(&self, project: &ProjectName) -> Vec<PathBuf> {
        let (log, state) = (self.log(project), self.state(project));
        vec![rotated_log(&log), log, damaged_state(&state), state_beside(&state), state]
    }

    fn runtime_of(&self, project: &ProjectName) -> &Path {
        let unit = Path::new(systemd::UNITS).join(systemd::unit_name(project));
        self.enabled.as_deref().filter(|_| unit.is_file()).unwrap_or(&self.runtime)
    }

    /// The log of a project's supervisor in the background.
    #[must_use]
    pub fn log(&self, project: &ProjectName) -> PathBuf {
        self.state.join(format!("{project}.log"))
    }
}

/// Opens a log for appending. With `SAMEPORT_LOG=trace`, logs contain the configuration of containers, so only this
/// user may read them.
///
/// # Errors
/// If the log cannot be opened or created.
pub fn open_log(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.create(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)?;
    // Logs of earlier releases were readable by everyone.
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    Ok(file)
}

/// The path of a log after its rotation.
#[must_use]
pub fn rotated_log(log: &Path) -> PathBuf {
    log.with_extension("log.1")
}

/// The path of a damaged state file.
#[must_use]
pub fn damaged_state(state: &Path) -> PathBuf {
    state.with_extension("json.bad")
}

/// The temporary path to which a state file is written before it is renamed.
#[must_use]
pub fn state_beside(state: &Path) -> PathBuf {
    state.with_extension("json.new")
}

fn own_folder(path: &Path) -> Result<(), PathError> {
    private_folder::make(path).map_err(|source| PathError::Folder { path: path.to_owned(), source })
}

/// The folder that a variable names, unless it belongs to another user.
fn not_of_others(path: OsString, uid: Uid) -> Option<PathBuf> {
    let path = std::path::absolute(Some(path).filter(|path| !path.is_empty())?).ok()?;
    // A missing folder is created later.
    let is_foreign = fs::metadata(&path).is_ok_and(|found| found.uid() != uid.as_raw());
    (!is_foreign).then_some(path)
}

fn is_of(path: &Path, uid: Uid) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_dir() && found.uid() == uid.as_raw())
}

/// The home directory of a user, from the user database.
fn home(uid: Uid) -> Option<PathBuf> {
    Some(User::from_uid(uid).ok()??.dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The runtime and the state folder of a user.
    fn chosen(uid: u32, environment: &[(&str, &Path)]) -> (PathBuf, PathBuf) {
        let value = |name: &str| {
            let mut found = environment.iter().filter(|(variable, _)| *variable == name);
            found.next().map(|(_, path)| path.as_os_str().to_owned())
        };
        let paths = Paths::chosen(value, Uid::from_raw(uid)).unwrap();
        (paths.runtime, paths.state)
    }

    #[test]
    fn folders_of_another_user_and_tmpdir_are_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let [theirs, ours] = ["theirs", "ours"].map(|name| folder.path().join(name));
        for path in [&theirs, &ours] {
            fs::create_dir(path).unwrap();
        }
        // No other user has this ID, so none of these folders belongs to it.
        let me = nix::unistd::geteuid().as_raw();
        fn all(path: &Path) -> [(&'static str, &Path); 3] {
            [("XDG_RUNTIME_DIR", path), ("XDG_STATE_HOME", path), ("HOME", path)]
        }
        assert_eq!(chosen(me, &all(&ours)), (ours.join("sameport"), ours.join("sameport")));
        if me != 0 {
            return;
        }
        std::os::unix::fs::chown(&theirs, Some(4242), Some(4242)).unwrap();
        assert_eq!(chosen(0, &all(&theirs)), ("/run/sameport".into(), "/var/lib/sameport".into()));
        let (runtime, state) =
            chosen(4242, &[("XDG_RUNTIME_DIR", &ours), ("HOME", &theirs), ("TMPDIR", &ours)]);
        let in_home = theirs.join(".local/state/sameport");
        assert_eq!((runtime, state), (in_home.clone(), in_home));
        // No variable is set.
        let none = Paths::chosen(|_| None, Uid::from_raw(4242));
        assert!(matches!(none, Err(PathError::NoHome { uid: 4242 })), "{none:?}");
        // A missing folder is used.
        let new = folder.path().join("new");
        assert_eq!(chosen(4242, &all(&new)), (new.join("sameport"), new.join("sameport")));
    }
}
