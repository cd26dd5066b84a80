//! Where replicas listen, and whether that is where they should.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use crate::{
    engine::{ContainerId, ContainerState, Health},
    kernel::{
        sockets::Transport,
        steering::{Port, ReplicaReport},
    },
    spec::{PodName, Protocol, Service, Update},
};

use super::{
    Container, Observed, Planner, Rollout, Sharing, UnservedPort,
    history::later,
    reach::{OutOfReach, Reach},
    rollout::Direction,
    rotation::transport,
    versions::Versions,
};

/// How long a replica may listen on other ports only. Many servers open a port for their cluster, for a debugger or for
/// metrics long before the one that they are for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The same once its health check passes: as a rule it serves by then. Some checks only ask whether the process runs.
const PATIENCE_WHEN_HEALTHY: Duration = Duration::from_secs(15);

/// On which ports a replica listens, and what its health check says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    ports: BTreeSet<u16>,
    health: Health,
    /// Since when neither has changed, by our clock.
    since: Timestamp,
}

/// A replica that listens, but on none of the ports where it should.
pub(super) struct Elsewhere {
    /// Where it should.
    pub(super) wanted: Vec<u16>,
    /// Where it does.
    pub(super) found: Vec<u16>,
    /// Where it does on a port where it should, if nobody outside of the container reaches it there.
    pub(super) out_of_reach: Option<OutOfReach>,
    /// When it has had its time to listen there as well.
    pub(super) judged_at: Timestamp,
}

impl Observed {
    /// Takes note of where replicas listen.
    pub fn note_listening(&mut self, now: Timestamp) {
        let Sharing::ByKernel(report) = &self.sharing else {
            self.listening.clear();
            return;
        };
        let mut listening = BTreeMap::<ContainerId, Listening>::new();
        for (id, replica) in report.pods.values().flat_map(|pod| &pod.replicas) {
            let Some(ContainerState::Running(process)) = self.containers.get(id).map(|c| &c.state) else {
                continue;
            };
            let open = replica.ports.iter().filter(|(_, traffic)| traffic.listens);
            let now = Listening {
                ports: open.map(|((_, port), _)| *port).collect(),
                health: process.health,
                since: now,
            };
            let before = self.listening.remove(id);
            let unchanged = before.filter(|b| (&b.ports, b.health) == (&now.ports, now.health));
            listening.insert(id.clone(), unchanged.unwrap_or(now));
        }
        self.listening = listening;
    }
}

/// How long what a replica does not listen on is waited for, since it changed last.
fn patience(health: Health) -> Duration {
    match health {
        Health::Healthy => PATIENCE_WHEN_HEALTHY,
        Health::None | Health::Starting | Health::Unhealthy => PATIENCE,
    }
}

fn known(ports: impl Iterator<Item = (u16, Protocol)>) -> BTreeSet<Port> {
    ports.filter_map(|(port, protocol)| Some((transport(protocol)?, port))).collect()
}

impl Planner<'_> {
    /// The ports on which a replica should listen and does not, where the kernel can tell; on a published one it has to be
    /// reached from outside. One of its published ports is enough; but a version that has never served takes over from one
    /// that does only with all ports that are declared and that this one serves.
    pub(super) fn missing_listeners(&self, service: &Service, container: &Container) -> Vec<u16> {
        let Some(pod) = self.desired.project.pods.get(&service.pod) else { return Vec::new() };
        if self.pod_report(&service.pod).is_none_or(|report| Some(report.netns) != container.netns) {
            return Vec::new();
        }
        let report = self.replica_report(container);
        let reach = Reach::of(pod);
        let traffic = |port: &Port| report.and_then(|report| report.ports.get(port));
        let listens = |port: &Port| traffic(port).is_some_and(|traffic| reach.is_served(port, traffic));
        let published = known(pod.published_by(&service.name));
        let served = self.served_before(service, container);
        let mut missing: BTreeSet<_> = known(pod.declared()).intersection(&served).copied().collect();
        missing.retain(|port| !listens(port));
        if !published.iter().any(listens) && !published.is_empty() {
            missing.extend(published);
        } else if !missing.is_empty()
            && self.has_served(service)
            && report.is_some_and(ReplicaReport::listens)
        {
            missing.clear();
        } else if missing.is_empty() && published.is_empty() && self.is_late_for(service, container, &served)
        {
            missing = served;
        }
        missing.into_iter().map(|(_, port)| port).collect()
    }

    /// Whether a replica is to be waited for that listens on none of the ports that others serve. What nobody has declared may
    /// be another port in each process, so it is not waited for without end.
    fn is_late_for(&self, service: &Service, container: &Container, served: &BTreeSet<Port>) -> bool {
        let is_there = |report: &ReplicaReport| match self.has_served(service) {
            true => report.listens(),
            false => served.iter().any(|port| report.listens_on(port)),
        };
        !served.is_empty()
            && !self.replica_report(container).is_some_and(is_there)
            && self.waits_until(service, container).is_none_or(|until| until > self.now)
    }

    /// Until when a replica may be waited for that does not listen where others do, unless it opens another port.
    pub(super) fn waits_until(&self, service: &Service, container: &Container) -> Option<Timestamp> {
        let listening = self.observed.listening.get(&container.id)?;
        // It must not fail for that.
        let patience = patience(listening.health).min(self.rules_of(service).deadline / 2);
        Some(later(listening.since, patience))
    }

    /// The ports that replicas of other versions serve, if this one is to take over from them. Datagrams without a declared
    /// port do not count: a client's socket looks like a server's.
    fn served_before(&self, service: &Service, container: &Container) -> BTreeSet<Port> {
        if !self.is_wanted(service, container) {
            return BTreeSet::new();
        }
        let replicas = self.observed.service(&service.name).map(|(_, replica)| replica);
        let others = replicas.filter(|replica| !self.is_wanted(service, replica));
        let ports =
            others.filter_map(|replica| self.replica_report(replica)).flat_map(|report| &report.ports);
        let Some(pod) = self.desired.project.pods.get(&service.pod) else { return BTreeSet::new() };
        let (reach, declared) = (Reach::of(pod), known(pod.declared()));
        let served = ports.filter(|(port, traffic)| reach.is_served(port, traffic)).map(|(port, _)| *port);
        served.filter(|port| port.0 == Transport::Tcp || declared.contains(port)).collect()
    }

    /// Whether the wanted version has served before: who goes back to it goes back to the ports that it has.
    pub(super) fn has_served(&self, service: &Service) -> bool {
        let goes_back = |rollout: &Rollout| rollout.direction == Direction::Back;
        let versions = self.desired.versions.get(&service.name);
        let wanted = self.desired.project.service_generation(&service.name);
        self.desired.rollouts.get(&service.name).is_some_and(goes_back)
            || versions.zip(wanted).is_some_and(|(versions, wanted)| versions.has_served(wanted))
    }

    /// Where a replica listens on a port where it should, if nobody outside of the container reaches it there.
    pub(super) fn out_of_reach(&self, service: &Service, container: &Container) -> Option<OutOfReach> {
        let reach = Reach::of(self.desired.project.pods.get(&service.pod)?);
        let missing = self.missing_listeners(service, container);
        reach.find_out_of_reach(self.replica_report(container)?, &missing)
    }

    /// Published ports of a pod on which no replica of their service is reached, though some serve. Exclusive ones are opened
    /// when they are asked for.
    pub(super) fn unserved_ports(&self, name: &PodName) -> Vec<UnservedPort> {
        let Some(pod) = self.desired.project.pods.get(name) else { return Vec::new() };
        let (reach, exclusive) = (Reach::of(pod), self.exclusive_ports(name));
        let unserved = |service: &Service| {
            let replicas = self.observed.service(&service.name).map(|(_, replica)| replica);
            let serving = replicas.filter(|replica| self.is_available(service, replica));
            let reports: Vec<_> = serving.filter_map(|replica| self.replica_report(replica)).collect();
            let is_served = |port: &Port| {
                let mut traffic = reports.iter().filter_map(|report| report.ports.get(port));
                reports.is_empty() || traffic.any(|traffic| reach.is_served(port, traffic))
            };
            let published = known(pod.published_by(&service.name)).into_iter();
            let unserved =
                published.filter(|port| !is_served(port) && !exclusive.contains(port.1, port.0.into()));
            unserved
                .map(|port| UnservedPort {
                    service: service.name.clone(),
                    port: port.1,
                    protocol: port.0.to_string(),
                    out_of_reach: reports
                        .iter()
                        .find_map(|report| reach.find_out_of_reach(report, &[port.1])),
                })
                .collect::<Vec<_>>()
        };
        let services = self.desired.project.services.values().filter(|service| service.pod == *name);
        services.flat_map(unserved).collect()
    }

    /// Whether a replica of any version of a service is, or has been, ready.
    pub(super) fn has_ever_been_ready(&self, service: &Service) -> bool {
        let versions = self.desired.versions.get(&service.name);
        let is_ready =
            |(_, container): (_, &Container)| self.observed.ready_since.contains_key(&container.id);
        versions.is_none_or(Versions::have_ever_served) || self.observed.service(&service.name).any(is_ready)
    }

    /// Whether a replica of a new version listens, but not where it should. While its health check has not passed yet, it
    /// is still on its way.
    pub(super) fn elsewhere(
        &self,
        service: &Service,
        container: &Container,
        rules: &Update,
    ) -> Option<Elsewhere> {
        let health = container.process()?.health;
        if matches!(health, Health::Starting | Health::Unhealthy) {
            return None;
        }
        let out_of_reach = self.out_of_reach(service, container);
        let listening = self.observed.listening.get(&container.id)?;
        let wanted = self.missing_listeners(service, container);
        if wanted.is_empty() || listening.ports.is_empty() {
            return None;
        }
        let since = listening.since.max(self.tried_since(service, container));
        Some(Elsewhere {
            wanted,
            found: listening.ports.iter().copied().collect(),
            out_of_reach,
            judged_at: later(since, patience(health).max(rules.monitor)),
        })
    }
}
