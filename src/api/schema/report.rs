//! What the smaller commands print: `ls`, `doctor`, `version`, `logs`, `kill`, `weight`, `drain`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Time;

/// A project on this engine: `sameport ls`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProjectSummary {
    /// Its name.
    pub name: String,
    /// How many containers are in which of the engine's states, such as `running(3), exited(1)`.
    pub status: String,
    /// The same by state.
    pub containers: BTreeMap<String, usize>,
    /// The folder of its Compose file, if that is known.
    pub folder: Option<String>,
    /// Whether a supervisor runs.
    pub supervised: bool,
    /// The process that supervises it; none where it is of a release before there was this key.
    pub supervisor: Option<SupervisorProcess>,
    /// Whether systemd starts a supervisor of this user at boot: `sameport enable`.
    pub enabled: bool,
}

/// The process that supervises a project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SupervisorProcess {
    /// The name of its host.
    pub host: String,
    /// Its process id there.
    pub pid: u32,
    /// The name of the user that it runs as; the id where it has none.
    pub user_name: String,
    /// Since when it supervises the project.
    pub since: Time,
}

/// Something that carries sameport's labels and that sameport did not make. It is never touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ForeignResource {
    /// What it is.
    pub kind: ForeignKind,
    /// Its name on the engine.
    pub name: String,
    /// The id of a container.
    pub id: Option<String>,
    /// The image of a container.
    pub image: Option<String>,
    /// Why it does not count, in words.
    pub reason: String,
}

/// What a [`ForeignResource`] is.
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

/// One thing that this host can do or lacks: `sameport doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// What it is about.
    pub topic: String,
    /// How good it is.
    pub level: CheckLevel,
    /// What was found.
    pub found: String,
    /// What follows from it.
    pub consequence: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
}

/// How good a [`Check`] came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckLevel {
    /// As it should be.
    Ok,
    /// The main job works, and something does not.
    Limited,
    /// The main job does not work.
    Missing,
}

/// The resolved Compose file: `sameport config`. It has the form of the Compose Specification; values that may be secret
/// are `***` unless `--show-env` asks for them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Config {
    /// The project's name.
    pub name: String,
    /// The services by name, each as the Compose Specification has it.
    pub services: BTreeMap<String, serde_json::Map<String, Value>>,
    /// The other parts of the file: `networks`, `volumes`, `configs`, `secrets` and extensions.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// Versions: `sameport version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Version {
    /// sameport's.
    pub release: String,
    /// Operating system and architecture, such as `linux/x86_64`.
    pub platform: String,
    /// The version of this schema.
    pub schema: u32,
    /// The engine, if it answers.
    pub engine: Option<EngineVersion>,
}

/// The engine's version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EngineVersion {
    /// Its name and version.
    pub name: String,
    /// The API version that is spoken with it.
    pub api_version: String,
}

/// A line that a replica wrote: `sameport logs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogRecord {
    /// The replica, `web-1`.
    pub replica: String,
    /// Its service.
    pub service: String,
    /// Its slot, from 1.
    pub slot: u32,
    /// When the engine read the line.
    pub time: Option<Time>,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The line, without its end.
    pub message: String,
}

/// A signal that was sent: `sameport kill`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SentSignal {
    /// The replica, `web-1`.
    pub replica: String,
    /// The signal.
    pub signal: String,
}

/// A weight that was set: `sameport weight` and `drain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AppliedWeight {
    /// The replica, `web-1`.
    pub replica: String,
    /// Its weight, compared with others; 0: no new connections.
    pub weight: u32,
    /// Its open connections, where `drain` looked.
    pub connections: Option<u64>,
}
