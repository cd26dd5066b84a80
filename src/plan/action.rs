//! What can be done to get closer to what is wanted.

use std::{fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    engine::{ContainerId, RemoveVolumes},
    spec::{Limits, NetworkAttachment, NetworkKey, PodName, Project, Service, ServiceName, Slot},
};

/// What an action is about. Actions on different targets may run at the same time, on one never.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A network, by the engine's name.
    Network(String),
    /// A volume, by the engine's name.
    Volume(String),
    /// The container that holds a pod's namespaces.
    Sandbox(PodName),
    /// The container in a slot of a service.
    Replica(ServiceName, Slot),
    /// The job before a new version of a service.
    PreDeploy(ServiceName),
    /// The commands after the start of a replica, whose container this is.
    Hooks(ContainerId),
    /// The container that is to take its place.
    Replacement(ServiceName, Slot),
    /// A container that has left its slot and is finishing its connections.
    SetAside(ServiceName, Slot, ContainerId),
    /// A container that nothing wants: an orphan, or a second one in a slot.
    Surplus(ContainerId),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(name) => write!(f, "network {name}"),
            Self::Volume(name) => write!(f, "volume {name}"),
            Self::Sandbox(pod) => write!(f, "{pod} sandbox"),
            Self::Replica(service, slot) => write!(f, "{service}-{slot}"),
            Self::PreDeploy(service) => write!(f, "{service} pre-deploy job"),
            Self::Hooks(id) => write!(f, "post_start of {}", id.short()),
            Self::Replacement(service, slot) => write!(f, "{service}-{slot} replacement"),
            Self::SetAside(service, slot, _) => write!(f, "{service}-{slot} (draining)"),
            Self::Surplus(id) => write!(f, "container {}", id.short()),
        }
    }
}

impl Target {
    /// The container, of what is about that one and no other.
    #[must_use]
    pub fn container(&self) -> Option<&ContainerId> {
        match self {
            Self::Hooks(id) | Self::SetAside(_, _, id) | Self::Surplus(id) => Some(id),
            Self::Network(_)
            | Self::Volume(_)
            | Self::Sandbox(_)
            | Self::Replica(..)
            | Self::PreDeploy(_)
            | Self::Replacement(..) => None,
        }
    }
}

/// Which place in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotMember {
    /// That of the replica itself.
    Current,
    /// Beside it, to take its place.
    Replacement,
}

impl SlotMember {
    /// What an action on this place is about.
    #[must_use]
    pub fn target(self, service: ServiceName, slot: Slot) -> Target {
        match self {
            Self::Current => Target::Replica(service, slot),
            Self::Replacement => Target::Replacement(service, slot),
        }
    }

    /// The name of the container on this place.
    #[must_use]
    pub fn container_name(self, project: &Project, service: &Service, slot: Slot) -> String {
        match self {
            Self::Current => project.replica_name(service, slot),
            Self::Replacement => project.replacement_name(service, slot),
        }
    }
}

/// One thing to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a network, or find out that an external one is missing.
    EnsureNetwork {
        /// Its key in the file.
        key: NetworkKey,
        /// Its name on the engine.
        name: String,
    },
    /// Make a volume, or find out that an external one is missing.
    EnsureVolume {
        /// Its name on the engine, the slot's template filled in.
        name: String,
        /// The slot that it is for.
        slot: Slot,
    },
    /// Make and start the container that holds a pod's namespaces.
    LaunchSandbox(PodName),
    /// Make and start a replica.
    LaunchReplica {
        /// Of which version of which service.
        service: Arc<Service>,
        /// Its number there.
        slot: Slot,
        /// Whether the slot is its own already.
        slot_members: SlotMember,
        /// The sandbox whose namespaces it joins; none on the host's network.
        sandbox: Option<ContainerId>,
    },
    /// Make and start the job before a new version of a service.
    LaunchPreDeploy {
        /// Of which service.
        service: ServiceName,
        /// The sandbox whose namespaces it joins; none on the host's network.
        sandbox: Option<ContainerId>,
    },
    /// Run the commands that come after the start of a replica.
    Prepare {
        /// Which one.
        id: ContainerId,
        /// Which process of it.
        started_at: Timestamp,
    },
    /// Change limits of a container that runs.
    Update {
        /// What it is.
        target: Target,
        /// Which one.
        id: ContainerId,
        /// The limits that become others.
        changes: Limits,
    },
    /// Start a container that is there.
    Start {
        /// What it is.
        target: Target,
        /// Which one.
        id: ContainerId,
    },
    /// Give a successor the name of the one whose place it takes.
    Rename {
        /// What it is.
        target: Target,
        /// Which one.
        id: ContainerId,
        /// The name.
        name: String,
    },
    /// Have a replica give up its slot, and its name, while it finishes its connections.
    SetAside {
        /// What it is.
        target: Target,
        /// Which one.
        id: ContainerId,
        /// The name that it gets.
        name: String,
    },
    /// Give a container its name back.
    RestoreName {
        /// What it is.
        target: Target,
        /// Which one.
        id: ContainerId,
        /// The name.
        name: String,
    },
    /// Connect a container to a network.
    Connect {
        /// What it is.
        target: Target,
        /// Which one.
        id: ContainerId,
        /// The network, by the engine's name.
        network: String,
        /// Its names and its address there.
        attachment: NetworkAttachment,
        /// Whether it is taken off the network first, because it is connected otherwise than is wanted.
        reconnects: bool,
    },
    /// Ask it to end, then make it.
    Stop {
        /// What it is.
        target: Target,
        /// Which one.
        id: ContainerId,
        /// How long it may take.
        grace: Duration,
    },
    /// Remove a container.
    Remove {
        /// What it is.
        target: Target,
        /// Which one.
        id: ContainerId,
        /// What becomes of its anonymous volumes.
        volumes: RemoveVolumes,
    },
    /// Remove a network of ours, by the engine's name.
    RemoveNetwork(String),
    /// Remove a volume of ours, by the engine's name.
    RemoveVolume(String),
}

impl Action {
    /// What it is about.
    #[must_use]
    pub fn target(&self) -> Target {
        match self {
            Self::EnsureNetwork { name, .. } | Self::RemoveNetwork(name) => Target::Network(name.clone()),
            Self::EnsureVolume { name, .. } | Self::RemoveVolume(name) => Target::Volume(name.clone()),
            Self::LaunchSandbox(pod) => Target::Sandbox(pod.clone()),
            Self::LaunchPreDeploy { service, .. } => Target::PreDeploy(service.clone()),
            Self::Prepare { id, .. } => Target::Hooks(id.clone()),
            Self::LaunchReplica { service, slot, slot_members, .. } => {
                slot_members.target(service.name.clone(), *slot)
            }
            Self::Start { target, .. }
            | Self::Rename { target, .. }
            | Self::SetAside { target, .. }
            | Self::RestoreName { target, .. }
            | Self::Connect { target, .. }
            | Self::Update { target, .. }
            | Self::Stop { target, .. }
            | Self::Remove { target, .. } => target.clone(),
        }
    }

    /// What it does, as one word for a progress line or a journal.
    #[must_use]
    pub fn verb(&self) -> Verb {
        match self {
            Self::EnsureNetwork { .. } | Self::EnsureVolume { .. } => Verb::Create,
            Self::LaunchSandbox(_) | Self::LaunchReplica { .. } | Self::LaunchPreDeploy { .. } => {
                Verb::Launch
            }
            Self::Prepare { .. } => Verb::Run,
            Self::Update { .. } => Verb::Update,
            Self::Start { .. } => Verb::Start,
            Self::Rename { .. } => Verb::Promote,
            Self::SetAside { .. } => Verb::SetAside,
            Self::RestoreName { .. } => Verb::Rename,
            Self::Connect { .. } => Verb::Connect,
            Self::Stop { .. } => Verb::Stop,
            Self::Remove { .. } | Self::RemoveNetwork(_) | Self::RemoveVolume(_) => Verb::Remove,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb(), self.target())
    }
}

/// What an action does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Make a network or volume.
    Create,
    /// Make and start a container.
    Launch,
    /// Start a container that is there.
    Start,
    /// Run commands in a container.
    Run,
    /// Change limits of a container.
    Update,
    /// Let a container take the place of another one.
    Promote,
    /// Let a container finish its connections outside of its slot.
    SetAside,
    /// Give a container its name back.
    Rename,
    /// Connect a container to a network.
    Connect,
    /// Stop a container.
    Stop,
    /// Remove a thing.
    Remove,
}

impl Verb {
    /// Whether it ends what runs.
    #[must_use]
    pub fn ends(self) -> bool {
        matches!(self, Self::Stop | Self::Remove)
    }
}

impl fmt::Display for Verb {
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
