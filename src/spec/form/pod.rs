//! The form of a [`Pod`]. It is hashed and never read back: no state keeps a pod.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Hashed;
use crate::spec::{NetworkAttachment, Pod, PodNetwork, PortBinding, Protocol};

/// The form of a [`Pod`], and what its generation is the hash of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PodForm {
    network: PodNetworkForm,
    ports: Vec<PortBindingForm>,
    expose: Vec<(u16, ProtocolForm)>,
    hostname: Option<String>,
    domainname: Option<String>,
    dns: Vec<String>,
    dns_opt: Vec<String>,
    dns_search: Vec<String>,
    extra_hosts: Vec<String>,
    sysctls: BTreeMap<String, String>,
    shm_size: Option<u64>,
}

impl Hashed for PodForm {}

impl From<&Pod> for PodForm {
    fn from(pod: &Pod) -> Self {
        let Pod {
            network,
            ports,
            expose,
            hostname,
            domainname,
            dns,
            dns_opt,
            dns_search,
            extra_hosts,
            sysctls,
            shm_size,
        } = pod.clone();
        Self {
            network: network.into(),
            ports: ports.into_iter().map(PortBindingForm::from).collect(),
            // In the order of numbers, and of protocols as `ProtocolForm` lists them.
            expose: expose.into_iter().map(|(port, protocol)| (port, protocol.into())).collect(),
            hostname,
            domainname,
            dns,
            dns_opt,
            dns_search,
            extra_hosts,
            sysctls,
            shm_size,
        }
    }
}

/// The form of a [`PodNetwork`]: `"host"`, `"none"`, `"bridge"` or `{"networks":{KEY:…}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
enum PodNetworkForm {
    #[serde(rename = "host")]
    Host,
    #[serde(rename = "none")]
    None,
    #[serde(rename = "bridge")]
    Bridge,
    #[serde(rename = "networks")]
    Networks(BTreeMap<String, AttachmentForm>),
}

impl From<PodNetwork> for PodNetworkForm {
    fn from(network: PodNetwork) -> Self {
        match network {
            PodNetwork::Host => Self::Host,
            PodNetwork::None => Self::None,
            PodNetwork::Bridge => Self::Bridge,
            PodNetwork::Networks(networks) => {
                Self::Networks(networks.into_iter().map(|(key, at)| (key, at.into())).collect())
            }
        }
    }
}

/// The form of a [`NetworkAttachment`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct AttachmentForm {
    aliases: Vec<String>,
    ipv4_address: Option<String>,
    ipv6_address: Option<String>,
    priority: i64,
}

impl From<NetworkAttachment> for AttachmentForm {
    fn from(attachment: NetworkAttachment) -> Self {
        let NetworkAttachment { aliases, ipv4_address, ipv6_address, priority } = attachment;
        Self { aliases, ipv4_address, ipv6_address, priority }
    }
}

/// The form of a [`PortBinding`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct PortBindingForm {
    service: String,
    /// In the usual text form: IPv6 as RFC 5952 has it.
    host_ip: Option<String>,
    host_port: Option<u16>,
    container_port: u16,
    protocol: ProtocolForm,
}

impl From<PortBinding> for PortBindingForm {
    fn from(binding: PortBinding) -> Self {
        let PortBinding { service, host_ip, host_port, container_port, protocol } = binding;
        Self {
            service: service.into(),
            host_ip: host_ip.map(|address| address.to_string()),
            host_port,
            container_port,
            protocol: protocol.into(),
        }
    }
}

/// The form of a [`Protocol`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProtocolForm {
    /// TCP.
    #[serde(rename = "tcp")]
    Tcp,
    /// UDP.
    #[serde(rename = "udp")]
    Udp,
    /// SCTP.
    #[serde(rename = "sctp")]
    Sctp,
}

impl From<Protocol> for ProtocolForm {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
            Protocol::Sctp => Self::Sctp,
        }
    }
}

impl From<ProtocolForm> for Protocol {
    fn from(form: ProtocolForm) -> Self {
        match form {
            ProtocolForm::Tcp => Self::Tcp,
            ProtocolForm::Udp => Self::Udp,
            ProtocolForm::Sctp => Self::Sctp,
        }
    }
}
