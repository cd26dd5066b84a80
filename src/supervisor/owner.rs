//! The owner of a lock: the process that supervises a project.

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
    /// The host name.
    pub host: String,
    /// The boot ID of the host's kernel; empty if unknown.
    #[serde(default)]
    pub boot: String,
    /// The process ID on that host.
    pub pid: u32,
    /// The name of the user that it runs as.
    pub user: String,
    /// The ID of that user.
    pub uid: u32,
    /// When it started to supervise the project.
    pub since: Timestamp,
    /// The release of sameport.
    #[serde(default)]
    pub release: String,
    /// The path of the control socket.
    #[serde(default)]
    pub socket: PathBuf,
    /// The folder of the project, if known.
    #[serde(default)]
    pub folder: Option<PathBuf>,
    /// How other users of the engine send read-only requests; `None` for releases that do not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_access: Option<ReadAccess>,
}

impl Owner {
    /// Describes this process.
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

    /// Whether the current user can use its control socket.
    #[must_use]
    pub fn is_of_this_user(&self) -> bool {
        self.uid == nix::unistd::geteuid().as_raw() && self.is_of_this_host()
    }

    /// Whether it runs on this host, in the current boot.
    #[must_use]
    pub fn is_of_this_host(&self) -> bool {
        !self.boot.is_empty() && self.boot == boot()
    }
}

/// For people: `process 4711 of alice on db1, since 2026-11-29 10:24:23 UTC`.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.since.strftime("%Y-%m-%d %H:%M:%S UTC");
        write!(f, "process {} of {} on {}, since {since}", self.pid, self.user, self.host)
    }
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}
