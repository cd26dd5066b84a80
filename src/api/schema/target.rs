//! The target of an action, an error or a step.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The name of a replica in all output, such as `web-1`.
#[must_use]
pub fn replica_name(service: impl fmt::Display, slot: impl fmt::Display) -> String {
    format!("{service}-{slot}")
}

/// The target of an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Target {
    /// The kind of target.
    pub kind: TargetKind,
    /// The name. Network and volume: the name on the engine. Sandbox: the pod. Replica, replacement and draining
    /// replica: the replica, such as `web-1`. Pre-deploy job: the service. Container: the short ID.
    pub name: String,
    /// The service, for a replica, a replacement, a draining replica and a pre-deploy job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The slot, from 1, for a replica, a replacement and a draining replica.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
}

/// The kind of a [`Target`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TargetKind {
    /// A network.
    Network,
    /// A volume.
    Volume,
    /// The container that holds the namespaces of a pod.
    Sandbox,
    /// The container in a slot of a service.
    Replica,
    /// The container that takes over a slot once it is ready.
    Replacement,
    /// A container whose slot a replacement has taken over, and that finishes its connections.
    DrainingReplica,
    /// The job that runs before a new version of a service.
    PreDeployJob,
    /// A container that no service needs.
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

/// The action on a [`Target`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Create a network or volume.
    Create,
    /// Create and start a container.
    Launch,
    /// Start an existing container.
    Start,
    /// Run the `post_start` commands of a replica.
    Run,
    /// Change the resource limits of a container in place.
    Update,
    /// Let a replacement take over its slot.
    Promote,
    /// Release the slot and the name of a replica while it finishes its connections.
    SetAside,
    /// Restore the name of a container.
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
