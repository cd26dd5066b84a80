//! Output of `ls`, `doctor`, `config`, `version`, `logs`, `kill`, `weight` and `drain`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Time;

/// A project on this engine: `sameport ls`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProjectSummary {
    /// The project's name.
    pub name: String,
    /// The number of containers in each state, such as `running(3), exited(1)`.
    pub status: String,
    /// The number of containers by state, as the engine names it.
    pub containers: BTreeMap<String, usize>,
    /// The folder of the Compose file, if known.
    pub folder: Option<String>,
    /// Whether a supervisor is running.
    pub supervised: bool,
    /// The supervisor's process; absent if its release does not report it.
    pub supervisor: Option<SupervisorProcess>,
    /// Whether systemd starts a supervisor of this user at boot (`sameport enable`).
    pub enabled: bool,
}

/// The process of a supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SupervisorProcess {
    /// The host name.
    pub host: String,
    /// The process ID on that host.
    pub pid: u32,
    /// The name of the user that it runs as, or the user ID if it has no name.
    pub user_name: String,
    /// When it started to supervise the project.
    pub since: Time,
}

/// A container, network or volume that has sameport's labels but was not made by sameport. It is never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ForeignResource {
    /// The kind of resource.
    pub kind: ForeignKind,
    /// Its name on the engine.
    pub name: String,
    /// The ID, for a container.
    pub id: Option<String>,
    /// The image, for a container.
    pub image: Option<String>,
    /// Why it does not count as sameport's, in words.
    pub reason: String,
}

/// The kind of a [`ForeignResource`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ForeignKind {
    /// A container.
    Container,
    /// A network.
    Network,
    /// A volume.
    Volume,
}

/// A finding about this host: `sameport doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// What was checked.
    pub topic: String,
    /// The result.
    pub level: CheckLevel,
    /// What was found.
    pub found: String,
    /// The effect on sameport.
    pub consequence: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
}

/// The result of a [`Check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckLevel {
    /// No problem.
    Ok,
    /// sameport works, with limitations.
    Limited,
    /// sameport does not work.
    Missing,
}

/// The resolved Compose file: `sameport config`. It has the form of the Compose Specification; values that can be
/// secret are `***` unless `--show-env` is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Config {
    /// The project's name.
    pub name: String,
    /// The services by name, each in the form of the Compose Specification.
    pub services: BTreeMap<String, serde_json::Map<String, Value>>,
    /// The other sections of the file: `networks`, `volumes`, `configs`, `secrets` and extensions.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// Versions: `sameport version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Version {
    /// The release of sameport.
    pub release: String,
    /// The operating system and architecture, such as `linux/x86_64`.
    pub platform: String,
    /// The commit that the program was built from, if the build names it.
    pub commit: Option<String>,
    /// The version of this JSON schema.
    pub schema: u32,
    /// The version of what sameport keeps in the kernel, which the pinned programs and maps have.
    pub kernel_layout: u32,
    /// The engine, if it answers.
    pub engine: Option<EngineVersion>,
}

/// The version of the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EngineVersion {
    /// The engine's name and version.
    pub name: String,
    /// The API version in use with the engine.
    pub api_version: String,
}

/// A log line of a replica: `sameport logs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogRecord {
    /// The name of the replica, such as `web-1`.
    pub replica: String,
    /// The service.
    pub service: String,
    /// The slot, from 1.
    pub slot: u32,
    /// When the engine read the line.
    pub time: Option<Time>,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The line, without its line terminator.
    pub message: String,
}

/// A signal that was sent: `sameport kill`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SentSignal {
    /// The name of the replica, such as `web-1`.
    pub replica: String,
    /// The signal.
    pub signal: String,
}

/// A weight that was set: `sameport weight` and `drain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AppliedWeight {
    /// The name of the replica, such as `web-1`.
    pub replica: String,
    /// The weight relative to the other replicas; 0: no new connections.
    pub weight: u32,
    /// Open connections, if `drain` counted them.
    pub connections: Option<u64>,
}
