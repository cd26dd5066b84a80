//! Files that a program means to have for itself, in a folder that several replicas of a service write to.

use serde::{Deserialize, Serialize};

use crate::spec::ServiceName;

/// A file that several replicas of a service use at once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SharedFile {
    /// The service.
    pub service: ServiceName,
    /// The file's path in its containers.
    pub path: String,
    /// What it is.
    pub kind: SharedFileKind,
}

/// What a [`SharedFile`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SharedFileKind {
    /// A Unix socket. Each server that binds the path replaces the file of the one before, and removes it when it ends,
    /// whosever it is by then.
    Socket,
    /// A file with the number of a process. A program that finds another's refuses to start, or signals that process.
    PidFile,
}
