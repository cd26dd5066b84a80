//! Where replicas listen, and whether that is where they should.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use crate::{
    engine::{ContainerId, ContainerState, Health},
    spec::{Service, Update},
};

use super::{Container, Observed, Planner, Sharing, history::later, rotation::transport};

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

impl Planner<'_> {
    /// The published ports on which a replica should listen and does not, where the kernel can tell: none as soon as it
    /// listens on any of them.
    pub(super) fn missing_listeners(&self, service: &Service, container: &Container) -> Vec<u16> {
        let Some(pod) = self.desired.project.pods.get(&service.pod) else { return Vec::new() };
        if self.pod_report(&service.pod).is_none_or(|report| Some(report.netns) != container.netns) {
            return Vec::new();
        }
        let published: BTreeSet<_> = pod
            .published_by(&service.name)
            .filter_map(|(port, protocol)| Some((transport(protocol)?, port)))
            .collect();
        let listens = |port| self.replica_report(container).is_some_and(|r| r.listens_on(port));
        if published.iter().any(listens) {
            return Vec::new();
        }
        published.into_iter().map(|(_, port)| port).collect()
    }

    /// Whether a replica of a new version listens, but not where it should. While its health check has not passed yet, it
    /// is still on its way.
    pub(super) fn elsewhere(
        &self,
        service: &Service,
        container: &Container,
        rules: &Update,
    ) -> Option<Elsewhere> {
        let patience = match container.process()?.health {
            Health::Starting | Health::Unhealthy => return None,
            Health::None => PATIENCE,
            Health::Healthy => PATIENCE_WHEN_HEALTHY,
        };
        self.replica_report(container)?;
        let listening = self.observed.listening.get(&container.id)?;
        let wanted = self.missing_listeners(service, container);
        if wanted.is_empty() || listening.ports.is_empty() {
            return None;
        }
        let since = listening.since.max(self.tried_since(service, container));
        Some(Elsewhere {
            wanted,
            found: listening.ports.iter().copied().collect(),
            judged_at: later(since, patience.max(rules.monitor)),
        })
    }
}
