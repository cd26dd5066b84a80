//! Who supervises a project: what the lock of a supervisor says of it.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::read_access::ReadAccess;

/// The process that supervises a project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The name of its host.
    pub host: String,
    /// What tells this start of its host's kernel from all others; empty where the system does not say.
    #[serde(default)]
    pub boot: String,
    /// Its process id there.
    pub pid: u32,
    /// The user that it runs as.
    pub user: String,
    /// The id of that user.
    pub uid: u32,
    /// Since when it supervises the project.
    pub since: Timestamp,
    /// Which release it is.
    #[serde(default)]
    pub release: String,
    /// Its control socket.
    #[serde(default)]
    pub socket: PathBuf,
    /// The project's folder, if that is known.
    #[serde(default)]
    pub folder: Option<PathBuf>,
    /// How other users who may use the engine ask it; earlier releases did not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_access: Option<ReadAccess>,
}

impl Owner {
    /// This process.
    #[must_use]
    pub fn this_process(socket: &Path, folder: Option<&Path>, since: Timestamp) -> Self {
        let uid = nix::unistd::geteuid();
        let user = nix::unistd::User::from_uid(uid).ok().flatten();
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        Self {
            host: host.unwrap_or_default(),
            boot: boot(),
            pid: std::process::id(),
            user: user.map_or_else(|| uid.to_string(), |user| user.name),
            uid: uid.as_raw(),
            since,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            socket: socket.to_owned(),
            folder: folder.map(Path::to_owned),
            read_access: None,
        }
    }

    /// Whether its control socket is one that this user can use.
    #[must_use]
    pub fn is_of_this_user(&self) -> bool {
        self.uid == nix::unistd::geteuid().as_raw() && self.is_of_this_host()
    }

    /// Whether it runs on this host, since the last start of its kernel.
    #[must_use]
    pub fn is_of_this_host(&self) -> bool {
        !self.boot.is_empty() && self.boot == boot()
    }
}

/// As people read it: `process 4711 of alice on db1, since 2026-11-29 10:24:23 UTC`.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.since.strftime("%Y-%m-%d %H:%M:%S UTC");
        write!(f, "process {} of {} on {}, since {since}", self.pid, self.user, self.host)
    }
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}
