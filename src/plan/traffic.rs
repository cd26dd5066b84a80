//! What goes on at the ports of pods and replicas, as the kernel shows it, in words that a user knows.

use std::{net::Ipv4Addr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    kernel::{
        Counters,
        steering::{ForeignListener, OtherUser},
    },
    spec::{PodName, PortSet, Service, ServiceName, Slot},
};

use super::{Container, OutOfReach, Planner, Sharing, weight_in_force};

/// Who shares the ports of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "sharing", rename_all = "snake_case")]
pub enum PodSharing {
    /// The kernel, for any image; it chooses who gets what.
    Kernel,
    /// The images have to.
    Application {
        /// Why, where the kernel was to do it.
        reason: Option<String>,
    },
}

/// What goes on at a pod's ports, besides its replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodTraffic {
    /// Connections that wait until a replica is ready.
    pub waiting: Vec<WaitingAt>,
    /// Sockets among those of the replicas that are nobody's: they get nothing.
    pub foreign_listeners: Vec<ForeignListener>,
    /// Users who could not be given a port that another user shares.
    pub other_users: Vec<OtherUser>,
    /// Published ports on which no replica of their service is reached, though it has replicas that serve.
    #[serde(default)]
    pub unserved: Vec<UnservedPort>,
    /// What the kernel itself has counted in the pod's network; none where it does not steer it.
    pub counters: Option<Counters>,
    /// What the kernel cannot do.
    pub error: Option<String>,
}

/// A published port on which no replica is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnservedPort {
    /// The service that publishes it.
    pub service: ServiceName,
    /// The port in the pod.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Where a replica listens on it, out of reach.
    pub out_of_reach: Option<OutOfReach>,
}

/// Connections that wait until a replica is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingAt {
    /// On which port of the pod.
    pub port: u16,
    /// How many.
    pub connections: u64,
    /// How many can; more are refused.
    pub most: u64,
}

/// What goes on at a replica's ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaTraffic {
    /// By which it is reached alone, inside its pod.
    pub address: Option<Ipv4Addr>,
    /// How much it gets of the new connections, compared with others; 0 while it is not ready, or drains.
    pub weight: u32,
    /// What it is to get once it is ready.
    pub wanted_weight: u32,
    /// Its open connections.
    pub live: u64,
    /// Its connections so far, and of UDP its flows.
    pub total: u64,
    /// Connections that it has not accepted yet.
    pub queue: u64,
    /// While it gets no new flows of datagrams: for how long none has come, [`Service::UDP_IDLE`] at most.
    #[serde(default)]
    pub udp_idle: Option<Duration>,
    /// Its listeners that there is no room for: the kernel chooses without us among those.
    pub unsteered: u64,
    /// The same for each port.
    pub ports: Vec<PortTraffic>,
}

/// What goes on at one port of a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortTraffic {
    /// The port in the pod.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Its open connections.
    pub live: u64,
    /// Its connections or flows so far.
    pub total: u64,
    /// Connections that it has not accepted yet.
    pub queue: u64,
    /// Whether it listens; if not, it may still have connections to finish.
    pub listens: bool,
    /// Whether it is one of those that are chosen among; else the replica has the port for itself alone.
    pub shared: bool,
}

/// That connections cannot wait because the supervisor may open no more files than so many.
#[must_use]
pub fn too_few_files(most: u64) -> String {
    format!(
        "connections to some ports cannot wait until a replica is ready (`hold`): the supervisor may have only {most} open files; `ulimit -n 4096` before `sameport up`, or LimitNOFILE= in its systemd unit"
    )
}

impl Planner<'_> {
    pub(super) fn pod_sharing(&self, pod: &PodName) -> PodSharing {
        match &self.observed.sharing {
            Sharing::ByKernel(report) if self.desired.project.wants_kernel(pod) => {
                // Where it could not even begin, the images do.
                match report.pods.get(pod) {
                    Some(report) if report.netns == 0 && report.error.is_some() => {
                        PodSharing::Application { reason: report.error.clone() }
                    }
                    _ => PodSharing::Kernel,
                }
            }
            Sharing::NoKernel(reason) if self.desired.project.wants_kernel(pod) => {
                PodSharing::Application { reason: Some(reason.clone()) }
            }
            _ => PodSharing::Application { reason: None },
        }
    }

    /// Ports that only one replica of a pod can hold at a time: none where the kernel does not share its ports, since it is
    /// up to the images then.
    pub(super) fn exclusive_ports(&self, pod: &PodName) -> PortSet {
        match self.pod_sharing(pod) {
            PodSharing::Kernel => self.desired.project.exclusive_ports(pod),
            PodSharing::Application { .. } => PortSet::default(),
        }
    }

    pub(super) fn pod_traffic(&self, pod: &PodName) -> PodTraffic {
        let Some(report) = self.pod_report(pod) else { return PodTraffic::default() };
        let waiting = report.waiting.iter().map(|(port, waiting)| WaitingAt {
            port: *port,
            connections: waiting.connections,
            most: waiting.most,
        });
        PodTraffic {
            waiting: waiting.collect(),
            foreign_listeners: report.foreign_listeners.iter().cloned().collect(),
            other_users: report.refused_users.values().copied().collect(),
            unserved: self.unserved_ports(pod),
            counters: report.counters,
            error: report.error.clone().or_else(|| report.too_few_files.map(too_few_files)),
        }
    }

    pub(super) fn replica_traffic(
        &self,
        service: &Service,
        slot: Slot,
        container: &Container,
    ) -> Option<ReplicaTraffic> {
        let report = self.replica_report(container)?;
        let pod = self.pod_report(&container.labels.pod);
        let unsteered = pod.and_then(|pod| pod.unsteered.get(&container.id)).copied();
        let ports: Vec<_> = report
            .ports
            .iter()
            .map(|((transport, port), traffic)| PortTraffic {
                port: *port,
                protocol: transport.to_string(),
                live: traffic.live,
                total: traffic.total,
                queue: traffic.queue,
                listens: traffic.listens,
                shared: traffic.shared,
            })
            .collect();
        Some(ReplicaTraffic {
            address: self.desired.own_address(service, slot, container),
            weight: weight_in_force(&self.desired.project, &service.name, report),
            wanted_weight: self.desired.weight(&service.name, slot),
            live: ports.iter().map(|port| port.live).sum(),
            total: ports.iter().map(|port| port.total).sum(),
            queue: ports.iter().map(|port| port.queue).sum(),
            udp_idle: report.ports.values().filter_map(|traffic| traffic.udp_idle).min(),
            unsteered: unsteered.unwrap_or(0),
            ports,
        })
    }
}
