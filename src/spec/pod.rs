//! A pod: the namespaces that replicas share, and everything that belongs to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use super::{Generation, NetworkAttachment, NetworkKey, ServiceName, form::PodForm};

/// The namespaces of one or more services, held open by a sandbox container.
///
/// Docker refuses these settings on a container that joins another's network, so they can only be here:
/// published ports, networks, hostname, DNS, extra hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Which network the replicas see.
    pub network: PodNetwork,
    /// Ports of the host that lead into the pod.
    pub ports: Vec<PortBinding>,
    /// Ports that other containers may use, beside the published ones.
    pub expose: BTreeSet<(u16, Protocol)>,
    /// What the sandbox's host name is, and so the replicas' view of it.
    pub hostname: Option<String>,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// DNS servers.
    pub dns: Vec<String>,
    /// Resolver options.
    pub dns_opt: Vec<String>,
    /// Search domains.
    pub dns_search: Vec<String>,
    /// `host:address` lines for `/etc/hosts`.
    pub extra_hosts: Vec<String>,
    /// Kernel settings of the network and IPC namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Size of `/dev/shm` in bytes, that of each replica or the one that they share; `None` is the engine's 64 MiB.
    pub shm_size: Option<u64>,
}

impl Pod {
    /// Which version of the pod this is; another one needs a new sandbox.
    #[must_use]
    pub fn generation(&self) -> Generation {
        Generation::of(&PodForm::from(self))
    }

    /// Ports of the pod that are published because a service asked for it.
    pub fn published_by<'a>(
        &'a self,
        service: &'a ServiceName,
    ) -> impl Iterator<Item = (u16, Protocol)> + 'a {
        let own = self.ports.iter().filter(move |binding| &binding.service == service);
        own.map(|binding| (binding.container_port, binding.protocol))
    }

    /// Every port that others are told of: published or exposed.
    pub fn declared(&self) -> impl Iterator<Item = (u16, Protocol)> + '_ {
        let published = self.ports.iter().map(|binding| (binding.container_port, binding.protocol));
        published.chain(self.expose.iter().copied())
    }

    /// Kernel settings of IPC namespaces (namespaces(7)).
    pub fn ipc_sysctls(&self) -> impl Iterator<Item = (&String, &String)> {
        self.sysctls.iter().filter(|(name, _)| {
            let of_kernel = ["kernel.msg", "kernel.sem", "kernel.shm"];
            name.starts_with("fs.mqueue.") || of_kernel.iter().any(|prefix| name.starts_with(prefix))
        })
    }

    /// Whether the pod has namespaces of its own, and so a sandbox that holds them.
    #[must_use]
    pub fn has_sandbox(&self) -> bool {
        !matches!(self.network, PodNetwork::Host)
    }
}

/// The network namespace of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PodNetwork {
    /// The host's own: nothing to hold, and no sandbox.
    Host,
    /// Loopback only.
    None,
    /// The engine's default bridge, which has no DNS of its own.
    Bridge,
    /// Networks of the project, each with the pod's place in it.
    Networks(BTreeMap<NetworkKey, NetworkAttachment>),
}

impl Default for PodNetwork {
    fn default() -> Self {
        Self::Networks(BTreeMap::from([("default".to_owned(), NetworkAttachment::default())]))
    }
}

/// Transport protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A port of the host that leads to a port of the pod. Ranges are spelled out, one binding a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortBinding {
    /// The service that asked for it, for messages.
    pub service: ServiceName,
    /// The host's address; `None` is all of them.
    pub host_ip: Option<IpAddr>,
    /// The host's port; `None` lets the engine choose a free one.
    pub host_port: Option<u16>,
    /// The port in the pod.
    pub container_port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}
