//! Whether what comes to a port from outside of the container gets to who listens there.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

use super::rotation::transport;
use crate::{
    kernel::steering::{Family, Port, ReplicaReport, Traffic},
    spec::{Pod, PortBinding, Project, ServiceName},
};

/// A replica listens on a published port, but not where what is sent to that port arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OutOfReach {
    /// Where it listens.
    pub address: SocketAddr,
}

/// As the end of a sentence about the replica.
impl fmt::Display for OutOfReach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address } = self;
        match address.ip().is_loopback() {
            true => write!(
                f,
                "listens on {address} only, which cannot be reached from outside the container; make it listen on 0.0.0.0"
            ),
            false => write!(
                f,
                "listens on {address} for IPv6 only, but Docker forwards its port to IPv4; make it listen on 0.0.0.0 as well"
            ),
        }
    }
}

/// The published ports of a pod, and of which family what comes to them may be: what is published on addresses of IPv6 alone
/// may be forwarded as IPv6.
pub(super) struct Reach(BTreeMap<Port, Family>);

/// The weight by which a replica gets connections: 0 as long as it does not listen, or nobody reaches it.
#[must_use]
pub fn weight_in_force(project: &Project, service: &ServiceName, report: &ReplicaReport) -> u32 {
    let pod = project.services.get(service).and_then(|service| project.pods.get(&service.pod));
    let is_served = match pod {
        Some(pod) => Reach::of(pod).is_any_served(pod, service, report),
        None => report.listens(),
    };
    if is_served { report.weight } else { 0 }
}

impl Reach {
    /// Of a pod.
    pub(super) fn of(pod: &Pod) -> Self {
        let mut ports = BTreeMap::new();
        for PortBinding { host_ip, container_port, protocol, .. } in &pod.ports {
            let Some(transport) = transport(*protocol) else { continue };
            let family = if host_ip.is_some_and(|ip| ip.is_ipv6()) { Family::Any } else { Family::V4 };
            let entry = ports.entry((transport, *container_port)).or_insert(family);
            if family == Family::V4 {
                *entry = family;
            }
        }
        Self(ports)
    }

    /// Whether a replica serves a port: if it is published, from outside.
    pub(super) fn is_served(&self, port: &Port, traffic: &Traffic) -> bool {
        match self.0.get(port) {
            Some(family) => traffic.is_reached_by(*family),
            None => traffic.listens,
        }
    }

    /// Whether a replica of a service serves anything: if the service publishes ports, one of these.
    fn is_any_served(&self, pod: &Pod, service: &ServiceName, report: &ReplicaReport) -> bool {
        let mut published =
            pod.published_by(service).filter_map(|(port, protocol)| Some((transport(protocol)?, port)));
        match published.next() {
            None => report.listens(),
            Some(first) => std::iter::once(first)
                .chain(published)
                .any(|port| report.ports.get(&port).is_some_and(|traffic| self.is_served(&port, traffic))),
        }
    }

    /// The first of these ports on which a replica listens, but out of reach.
    pub(super) fn find_out_of_reach(&self, report: &ReplicaReport, ports: &[u16]) -> Option<OutOfReach> {
        report.ports.iter().find_map(|(port, traffic)| {
            let at: IpAddr = traffic.only_at?;
            let is_meant = ports.contains(&port.1) && traffic.listens && !self.is_served(port, traffic);
            is_meant.then_some(OutOfReach { address: (at, port.1).into() })
        })
    }
}
