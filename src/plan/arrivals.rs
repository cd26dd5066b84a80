//! Whether clients come to a new version: how many connections came to it by published ports, beside how many should have, by the
//! weights of its replicas.

use std::collections::BTreeMap;

use crate::{
    engine::ContainerId,
    kernel::{
        sockets::Transport,
        steering::{Port, ReplicaReport},
    },
    spec::{Pod, Project, Service, ServiceName},
};

use super::{reach::Reach, rotation::transport};

/// So many connections that should have come to the new version tell whether any do.
pub(super) const ENOUGH: u64 = 20;

/// A replica's process.
type Life = (ContainerId, u32);

/// What is seen at the published ports of a service.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrivals {
    counts: BTreeMap<(Life, Port), Count>,
    /// Which part of what comes to a port is due to new replicas, in thousandths.
    shares: BTreeMap<Port, u64>,
    /// What was due to them so far, in thousandths.
    due: u64,
}

/// The connections of a replica at a port.
#[derive(Clone, Copy, Debug)]
struct Count {
    is_new: bool,
    /// While it got none yet, others than clients may have come: who asks whether it is ready.
    before: u64,
    last: u64,
}

impl Count {
    fn came(&self) -> u64 {
        self.last.saturating_sub(self.before)
    }
}

impl Arrivals {
    /// Takes in what one report shows of the replicas of a service, each with whether it is of the new version.
    pub(super) fn note(
        &mut self,
        project: &Project,
        service: &ServiceName,
        replicas: &[(bool, &ContainerId, &ReplicaReport)],
    ) {
        let Some((service, pod)) = alone(project, service) else { return };
        let reach = Reach::of(pod);
        let published = pod.published_by(&service.name);
        for port in published.filter_map(|(port, protocol)| Some((transport(protocol)?, port))) {
            let came_before = self.came(|(_, at), _| *at == port);
            let (mut new_weight, mut weight) = (0, 0);
            for &(is_new, id, replica) in replicas {
                let Some(traffic) = replica.ports.get(&port) else { continue };
                let is_in = replica.weight > 0 && reach.is_served(&port, traffic);
                let fresh = Count { is_new, before: traffic.total, last: traffic.total };
                let count = self.counts.entry(((id.clone(), replica.pid), port)).or_insert(fresh);
                count.last = traffic.total;
                if replica.weight == 0 && count.came() == 0 {
                    count.before = traffic.total;
                }
                if is_in {
                    weight += u64::from(replica.weight);
                    new_weight += if is_new { u64::from(replica.weight) } else { 0 };
                }
            }
            // What came since the last report was due to those that were in rotation then, and are now.
            let share = new_weight * 1000 / weight.max(1);
            let then = self.shares.insert(port, share).unwrap_or(0);
            let came = self.came(|(_, at), _| *at == port).saturating_sub(came_before);
            self.due += came * share.min(then);
        }
    }

    /// How many came to the new version.
    pub(super) fn came_to_new(&self) -> u64 {
        self.came(|_, count| count.is_new)
    }

    /// How many should have.
    pub(super) fn due(&self) -> u64 {
        self.due / 1000
    }

    /// A published port at which too little comes by itself to tell: none has come to the new version, and none had to.
    pub(super) fn silent_port(&self) -> Option<u16> {
        if self.came_to_new() > 0 || self.due() >= ENOUGH {
            return None;
        }
        let is_meant = |(transport, _): &Port, share: u64| *transport == Transport::Tcp && share > 0;
        let mut ports = self.shares.iter().filter(|(port, share)| is_meant(port, **share));
        ports.next().map(|((_, port), _)| *port)
    }

    fn came(&self, is_meant: impl Fn(&(Life, Port), &Count) -> bool) -> u64 {
        let meant = self.counts.iter().filter(|(key, count)| is_meant(key, count));
        meant.map(|(_, count)| count.came()).sum()
    }
}

/// A service that is alone in its pod: a neighbour goes on with the replica of its own slot, be it old or new.
fn alone<'a>(project: &'a Project, name: &ServiceName) -> Option<(&'a Service, &'a Pod)> {
    let service = project.services.get(name)?;
    let pod = project.pods.get(&service.pod)?;
    (project.services_of(&service.pod).count() == 1).then_some((service, pod))
}
