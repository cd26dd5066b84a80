//! Where a supervisor keeps its socket, lock, state and log.

use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use crate::{spec::ProjectName, systemd};

/// The folders of this user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    runtime: PathBuf,
    state: PathBuf,
    /// Instead of `runtime` for projects that the host's systemd starts, where that is another folder.
    enabled: Option<PathBuf>,
}

/// A folder that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {}: {source}", path.display())]
pub struct PathError {
    path: PathBuf,
    source: io::Error,
}

/// The lock of the supervisor that listens on a control socket, also in the runtime folder of another one.
#[must_use]
pub fn lock_beside(socket: &Path) -> PathBuf {
    socket.with_extension("lock")
}

impl Paths {
    /// The folders as the environment says: `$XDG_RUNTIME_DIR/sameport` and `$XDG_STATE_HOME/sameport`, for root
    /// `/run/sameport` and `/var/lib/sameport`. They are made with mode 0700.
    ///
    /// For root, a project that `sameport enable` has systemd start is in `/run/sameport` also in a login that has a
    /// runtime folder of its own: systemd knows of no login.
    ///
    /// # Errors
    /// When a folder cannot be made, or belongs to somebody else.
    pub fn from_env() -> Result<Self, PathError> {
        let uid = nix::unistd::geteuid();
        let var = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let runtime = var("XDG_RUNTIME_DIR").unwrap_or_else(|| {
            let session = PathBuf::from(format!("/run/user/{uid}"));
            match uid.is_root() {
                true => PathBuf::from("/run"),
                false if session.is_dir() => session,
                false => env::temp_dir().join(format!("sameport-{uid}")),
            }
        });
        let state = var("XDG_STATE_HOME").or_else(|| match uid.is_root() {
            true => Some(PathBuf::from("/var/lib")),
            false => var("HOME").map(|home| home.join(".local/state")),
        });
        let runtime = runtime.join("sameport");
        let state = state.map_or_else(|| runtime.clone(), |dir| dir.join("sameport"));
        let is_of_login = uid.is_root() && runtime.starts_with("/run/user");
        let enabled = is_of_login.then(|| PathBuf::from("/run/sameport"));
        let paths = Self { runtime, state, enabled };
        own_folder(&paths.runtime)?;
        own_folder(&paths.state)?;
        paths.enabled.as_deref().map_or(Ok(()), own_folder)?;
        Ok(paths)
    }

    /// The folder that all supervisors of this user on this host have in common.
    #[must_use]
    pub fn of_host(&self) -> &Path {
        self.enabled.as_deref().unwrap_or(&self.runtime)
    }

    /// The control socket of a project's supervisor.
    #[must_use]
    pub fn socket(&self, project: &ProjectName) -> PathBuf {
        self.runtime_of(project).join(format!("{project}.sock"))
    }

    /// The lock that a project's supervisor holds.
    #[must_use]
    pub fn lock(&self, project: &ProjectName) -> PathBuf {
        lock_beside(&self.socket(project))
    }

    /// What must outlive a project's supervisor.
    #[must_use]
    pub fn state(&self, project: &ProjectName) -> PathBuf {
        self.state.join(format!("{project}.json"))
    }

    /// The variables that systemd gives a project's supervisor.
    #[must_use]
    pub fn variables(&self, project: &ProjectName) -> PathBuf {
        self.state.join(format!("{project}.env"))
    }

    /// What is left when the project is removed, as far as it is there: what its supervisors have printed, and what was or is
    /// in the place of the state file.
    #[must_use]
    pub fn kept(&self, project: &ProjectName) -> Vec<PathBuf> {
        let (log, state) = (self.log(project), self.state(project));
        vec![former_log(&log), log, damaged_state(&state), state_beside(&state), state]
    }

    fn runtime_of(&self, project: &ProjectName) -> &Path {
        let unit = Path::new(systemd::UNITS).join(systemd::unit_name(project));
        self.enabled.as_deref().filter(|_| unit.is_file()).unwrap_or(&self.runtime)
    }

    /// What a project's supervisor in the background prints.
    #[must_use]
    pub fn log(&self, project: &ProjectName) -> PathBuf {
        self.state.join(format!("{project}.log"))
    }
}

/// Where a log goes when another one begins.
#[must_use]
pub fn former_log(log: &Path) -> PathBuf {
    log.with_extension("log.1")
}

/// Where a damaged state file goes.
#[must_use]
pub fn damaged_state(state: &Path) -> PathBuf {
    state.with_extension("json.bad")
}

/// Where a state file is written before it takes its place.
#[must_use]
pub fn state_beside(state: &Path) -> PathBuf {
    state.with_extension("json.new")
}

fn own_folder(path: &Path) -> Result<(), PathError> {
    let fail = |source| PathError { path: path.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(fail)?;
    let owner = fs::metadata(path).map_err(fail)?.uid();
    if owner == nix::unistd::geteuid().as_raw() {
        Ok(())
    } else {
        Err(fail(io::Error::new(io::ErrorKind::PermissionDenied, format!("it belongs to user {owner}"))))
    }
}
