//! Containers as the engine shows them, and as it is asked to make them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::spec::{Container, Hooks, Limits, NetworkAttachment, Pod, Protocol};

use super::{HealthCheck, Labels, sandbox};

/// The engine's id of a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContainerId(pub String);

impl ContainerId {
    /// The first twelve digits, as `docker ps` shows them.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }

    /// The name of this container once it has given up its slot to another one, as that of a replica of this name. It holds
    /// the id, so that nothing else is called so by accident.
    #[must_use]
    pub fn set_aside_name(&self, replica: &str) -> String {
        format!("{replica}-draining-{}", self.short())
    }

    /// The replica's name in a [`Self::set_aside_name`]; none of another name.
    #[must_use]
    pub fn without_set_aside<'a>(&self, name: &'a str) -> Option<&'a str> {
        name.strip_suffix(self.short())?.strip_suffix("-draining-")
    }

    /// Whether that is the name of this container after it has given up its slot.
    #[must_use]
    pub fn is_set_aside_name(&self, name: &str) -> bool {
        self.without_set_aside(name).is_some()
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// One row of the engine's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its id.
    pub id: ContainerId,
    /// Its name, without the slash.
    pub name: String,
    /// Its labels, all of them; some may be its image's.
    pub labels: BTreeMap<String, String>,
    /// Its image, as the engine names it now.
    pub image: String,
    /// The image's content id.
    pub image_id: String,
    /// When it was made, by the engine's clock; whole seconds.
    pub created: Timestamp,
    /// The engine's word for its state: `running`, `exited`, … A change of it means: inspect again.
    pub state: String,
    /// The engine's sentence about it, such as `Up 3 minutes (healthy)`.
    pub status: String,
    /// The networks that it is connected to, and how many of its ports are published. A change means: inspect again.
    pub connected: (Vec<String>, usize),
}

/// All that matters about one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Its id.
    pub id: ContainerId,
    /// Its name, without the slash.
    pub name: String,
    /// What only whoever makes a container tells of it.
    pub host: HostSettings,
    /// The limits that are in force, of those that can be changed in place.
    pub limits: Limits,
    /// The image's content id.
    pub image_id: String,
    /// Where volumes are mounted in it that it may write to.
    pub volumes: BTreeSet<String>,
    /// Its health check, if it has one.
    pub check: Option<HealthCheck>,
    /// Where it is in its life.
    pub state: ContainerState,
    /// Addresses that the engine gave it, by network.
    pub addresses: BTreeMap<String, String>,
    /// Its place in each network that it is connected to, by the engine's names; none where the engine does not tell.
    pub endpoints: Option<BTreeMap<String, Endpoint>>,
    /// Host ports that lead into it: `(host address, host port, container port and protocol)`.
    pub published: Vec<(String, u16, String)>,
}

impl Inspection {
    /// How it is connected, where the engine tells.
    #[must_use]
    pub fn connections(&self) -> Option<Connections> {
        let networks = self.endpoints.clone()?;
        let published = self.published.iter().filter_map(|(_, host, inside)| {
            let (port, protocol) = inside.split_once('/')?;
            let protocol = match protocol {
                "tcp" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                "sctp" => Protocol::Sctp,
                _ => return None,
            };
            Some((*host, port.parse().ok()?, protocol))
        });
        Some(Connections { published: published.collect(), networks })
    }
}

/// A container's place in a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Names by which others in the network find it.
    pub aliases: BTreeSet<String>,
    /// Its IPv4 address.
    pub ipv4: Option<String>,
    /// Its IPv6 address.
    pub ipv6: Option<String>,
}

/// How a container is connected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// Its place in each network, by the engine's names.
    pub networks: BTreeMap<String, Endpoint>,
    /// Ports of the host that lead into it: the host's port, its own, the protocol.
    pub published: BTreeSet<(u16, u16, Protocol)>,
}

/// Settings of a container that no image carries: they tell who made it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSettings {
    /// The image by the name under which it was asked for.
    pub image: String,
    /// Such as `bridge`, `host`, `container:<id>`.
    pub network_mode: String,
    /// Such as `private`, `shareable`.
    pub ipc_mode: String,
    /// Whether its root file system cannot be written to.
    pub read_only: bool,
    /// Capabilities that are taken from it.
    pub cap_drop: Vec<String>,
}

impl HostSettings {
    /// The container whose network it joined.
    #[must_use]
    pub fn joined(&self) -> Option<ContainerId> {
        self.network_mode.strip_prefix("container:").map(|id| ContainerId(id.to_owned()))
    }

    /// Whether it is made as we make sandboxes, and as nobody else has a reason to.
    pub(super) fn is_of_sandbox(&self) -> bool {
        self.image.starts_with(sandbox::IMAGE)
            && self.ipc_mode == "shareable"
            && self.read_only
            && self.cap_drop.iter().any(|capability| capability == "ALL")
    }
}

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, and never started.
    Created,
    /// It runs.
    Running(Process),
    /// It is frozen, by somebody's hand.
    Paused(Process),
    /// Its process has ended.
    Exited(Exit),
    /// It is on its way out.
    Removing,
    /// The engine failed to remove it, or was ended while it started it; it can only be removed.
    Dead,
}

/// A container's running process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// In the engine host's process namespace.
    pub pid: u32,
    /// When it started, by the engine's clock.
    pub started_at: Timestamp,
    /// What the health check says.
    pub health: Health,
    /// What the health check wrote last, if it fails.
    pub complaint: Option<String>,
    /// Why the health check cannot be run, if so: it says nothing then, and is as none.
    pub check_error: Option<String>,
}

/// What a health check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// There is no check.
    None,
    /// It has not passed yet.
    Starting,
    /// It passes.
    Healthy,
    /// It fails.
    Unhealthy,
}

/// How a container's process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit code; 128 + n after signal n.
    pub code: i64,
    /// Whether the kernel killed it for want of memory.
    pub out_of_memory: bool,
    /// Why it could not even start, in the engine's words.
    pub error: Option<String>,
    /// When it was started, by the engine's clock.
    pub started_at: Timestamp,
    /// When it ended, by the engine's clock.
    pub finished_at: Timestamp,
}

/// A container to be made. Its restart policy is always `no`: the supervisor decides.
#[derive(Clone, Debug)]
pub struct CreateContainer {
    /// Its name.
    pub name: String,
    /// What it is.
    pub labels: Labels,
    /// What is run in it around its life.
    pub hooks: Hooks,
    /// What runs in it, with its slot's templates filled in.
    pub container: Container,
    /// Whose namespaces it is in.
    pub namespaces: Namespaces,
}

/// The IPC namespace of a container that joins the network of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IpcNamespace {
    /// Its own.
    Own {
        /// Size of its `/dev/shm` in bytes; `None` is the engine's 64 MiB.
        shm_size: Option<u64>,
        /// Kernel settings of it.
        sysctls: BTreeMap<String, String>,
    },
    /// That of the sandbox.
    Sandbox,
    /// The host's.
    Host,
}

/// The namespaces of a container to be made.
#[derive(Clone, Debug)]
pub enum Namespaces {
    /// Its own, shareable ones, with everything that belongs to them: it is a sandbox.
    Own {
        /// Ports, DNS, host name, kernel settings.
        pod: Box<Pod>,
        /// The networks by their names on the engine, the first one giving the default route; empty when the
        /// pod is on the default bridge or has no network.
        networks: Vec<(String, NetworkAttachment)>,
    },
    /// The network of a sandbox.
    Join {
        /// Which one.
        sandbox: ContainerId,
        /// Its IPC namespace.
        ipc: IpcNamespace,
    },
    /// The host's network, with settings of the pod that still apply.
    Host(Box<Pod>),
}
