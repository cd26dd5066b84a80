//! What an action, an error or a step is about.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a replica is called, in everything that is printed.
#[must_use]
pub fn replica_name(service: impl fmt::Display, slot: impl fmt::Display) -> String {
    format!("{service}-{slot}")
}

/// Something that an action changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Target {
    /// What kind of thing it is.
    pub kind: TargetKind,
    /// Network and volume: the name on the engine. Sandbox: the pod. Replica, replacement and
    /// draining replica: the replica, `web-1`.
    /// Pre-deploy job: the service. Container: the short id.
    pub name: String,
    /// The service, of a replica, a replacement, a draining replica and a pre-deploy job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The slot, of a replica, a replacement and a draining replica; from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
}

/// What kind of thing a [`Target`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TargetKind {
    /// A network.
    Network,
    /// A volume.
    Volume,
    /// The container that holds a pod's namespaces.
    Sandbox,
    /// The container in a slot of a service.
    Replica,
    /// The container that is to take over a slot.
    Replacement,
    /// A container that another one has followed in its slot, and that finishes its connections.
    DrainingReplica,
    /// The job that runs before a new version of a service.
    PreDeployJob,
    /// A container that no service wants.
    Container,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match self.kind {
            TargetKind::Network => write!(f, "network {name}"),
            TargetKind::Volume => write!(f, "volume {name}"),
            TargetKind::Sandbox => write!(f, "{name} sandbox"),
            TargetKind::Replica => f.write_str(name),
            TargetKind::Replacement => write!(f, "{name} replacement"),
            TargetKind::DrainingReplica => write!(f, "{name} (draining)"),
            TargetKind::PreDeployJob => write!(f, "{name} pre-deploy job"),
            TargetKind::Container => write!(f, "container {name}"),
        }
    }
}

/// What is done to a [`Target`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Create a network or volume.
    Create,
    /// Create and start a container.
    Launch,
    /// Start a container that exists.
    Start,
    /// Run the `post_start` commands of a replica.
    Run,
    /// Change the limits of a container in place.
    Update,
    /// Let a replacement take over its slot.
    Promote,
    /// Let a replica give up its slot and its name while it finishes its connections.
    SetAside,
    /// Give a container its name back.
    Rename,
    /// Connect a container to a network.
    Connect,
    /// Stop a container.
    Stop,
    /// Remove a container, network or volume.
    Remove,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Create => "create",
            Self::Launch => "launch",
            Self::Start => "start",
            Self::Run => "run",
            Self::Update => "update",
            Self::Promote => "promote",
            Self::SetAside => "set aside",
            Self::Rename => "rename",
            Self::Connect => "connect",
            Self::Stop => "stop",
            Self::Remove => "remove",
        })
    }
}
