//! What there is: the engine's containers, networks and volumes of one project, and what is being done.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::{
    engine::{
        Connections, ContainerId, ContainerState, HealthCheck, Labels, Process, Role, ownership::Foreign,
    },
    spec::{Hooks, Limits, PodName, ServiceName, Slot},
};

use super::{
    BindSource, Containers, Counted, Doubt, History, Listening, PostStart, RolloutMetrics, SharedFile,
    Sharing, Target, UnhealthyReplica, Verb,
};

/// Everything that a plan depends on besides the desired state and the time.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Our containers.
    pub containers: Containers,
    /// Networks that the project needs or owns, by the engine's names.
    pub networks: BTreeMap<String, Owner>,
    /// Volumes that the project needs or owns, by the engine's names.
    pub volumes: BTreeMap<String, Owner>,
    /// What carries our labels and is not ours. Nothing is ever planned for it.
    pub foreign: BTreeSet<Foreign>,
    /// What an action is under way for, and which; nothing else is planned there.
    pub busy: BTreeMap<Target, Verb>,
    /// What was tried before, and how it went.
    pub history: BTreeMap<Target, History>,
    /// Who shares the ports of pods, and what is seen of it.
    pub sharing: Sharing,
    /// How far the commands after the start are, of the replicas that have any.
    pub post_start: BTreeMap<ContainerId, PostStart>,
    /// Since when each replica that gets no new connections gets none.
    pub out_since: BTreeMap<ContainerId, Timestamp>,
    /// Processes that run and do not work.
    pub unhealthy: BTreeMap<ContainerId, UnhealthyReplica>,
    /// What was said last of those that are not ready yet, by their health checks and probes.
    pub not_ready: BTreeMap<ContainerId, String>,
    /// Since when each replica that is ready has been.
    pub ready_since: BTreeMap<ContainerId, Timestamp>,
    /// Where each replica that the kernel shows listens.
    pub listening: BTreeMap<ContainerId, Listening>,
    /// What the kernel shows of services that are on their way to another version.
    pub metrics: BTreeMap<ServiceName, RolloutMetrics>,
    /// Processes of which it is not known yet whether their end is meant.
    pub doubts: BTreeMap<ContainerId, Doubt>,
    /// What is at the host's end of bind mounts that replicas may write to, by path, as far as it is known.
    pub bind_sources: BTreeMap<String, BindSource>,
    /// Sockets and pid files that several replicas have together.
    pub shared_files: BTreeSet<SharedFile>,
}

/// Who made a network or volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// We did.
    Us,
    /// Somebody else did.
    Others,
}

/// One of our containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub labels: Labels,
    /// The sandbox whose namespaces it joined.
    pub joined: Option<ContainerId>,
    /// The content id of the image that it was made of, where the engine tells it.
    pub image_id: Option<String>,
    /// What is run in it around its life: the hooks of its own version.
    pub hooks: Hooks,
    /// The limits that are in force, of those that can be changed in place.
    pub limits: Limits,
    /// Whether another program has made it anew, in the place of one that we made: of another image, as a rule.
    pub recreated: bool,
    /// Where volumes are mounted in it that it may write to.
    pub volumes: BTreeSet<String>,
    /// Its health check, if it has one.
    pub check: Option<HealthCheck>,
    /// How a sandbox is connected; none of others, and where the engine does not tell.
    pub connections: Option<Connections>,
    /// Where it is in its life. The times in it are the engine's, whose clock may be anywhere: they tell one
    /// process from another, and are never compared with ours.
    pub state: ContainerState,
    /// When that state began, by our clock.
    pub since: Timestamp,
    /// Inode of its network namespace, where this host can see it.
    pub netns: Option<u64>,
}

impl Container {
    /// Its process, if it has one.
    #[must_use]
    pub fn process(&self) -> Option<&Process> {
        match &self.state {
            ContainerState::Running(process) | ContainerState::Paused(process) => Some(process),
            _ => None,
        }
    }

    /// When its latest process started.
    #[must_use]
    pub fn started_at(&self) -> Option<Timestamp> {
        match &self.state {
            ContainerState::Running(process) | ContainerState::Paused(process) => Some(process.started_at),
            ContainerState::Exited(exit) => Some(exit.started_at),
            _ => None,
        }
    }

    /// Whether its process sees the network namespace that `sandbox` holds now. A sandbox that ended and was
    /// started again holds another one, and what had joined it keeps the dead one.
    #[must_use]
    pub fn shares_network_of(&self, sandbox: &Self) -> bool {
        match (self.netns, sandbox.netns) {
            (Some(own), Some(held)) => own == held,
            _ => self.started_at() >= sandbox.started_at(),
        }
    }
}

impl Observed {
    /// Takes note of who is ready now.
    pub fn note_ready(&mut self, ready: &BTreeSet<ContainerId>, now: Timestamp) {
        self.ready_since.retain(|id, _| ready.contains(id));
        for id in ready {
            self.ready_since.entry(id.clone()).or_insert(now);
        }
    }

    /// Takes note of sandboxes that are connected as they should be.
    pub fn note_connected(&mut self, connected: &BTreeSet<ContainerId>) {
        self.history.values_mut().for_each(|history| history.note_connected(connected));
    }

    /// What has been counted of connections in a pod, where somebody counts.
    #[must_use]
    pub fn counted(&self, pod: &PodName) -> Option<Counted> {
        let Sharing::ByKernel(report) = &self.sharing else { return None };
        report.pods.get(pod).and_then(Counted::of)
    }

    /// The containers of a slot, the one to keep first: the one that runs, else the newest. Not those that have given it up.
    #[must_use]
    pub fn replicas(&self, service: &ServiceName, slot: Slot) -> Vec<&Container> {
        let mut found = self.in_slot(service, slot);
        found.retain(|container| !container.is_set_aside());
        found
    }

    /// The containers that have given up a slot.
    #[must_use]
    pub fn set_aside(&self, service: &ServiceName, slot: Slot) -> Vec<&Container> {
        let mut found = self.in_slot(service, slot);
        found.retain(|container| container.is_set_aside());
        found
    }

    fn in_slot(&self, service: &ServiceName, slot: Slot) -> Vec<&Container> {
        let of_slot = self.containers.replicas(service).filter(|(of, _)| *of == slot);
        best_first(of_slot.map(|(_, container)| container))
    }

    /// The sandboxes of a pod, the one to keep first.
    #[must_use]
    pub fn sandboxes(&self, pod: &PodName) -> Vec<&Container> {
        best_first(self.containers.sandboxes(pod))
    }

    /// The jobs before a new version of a service, the one to keep first.
    #[must_use]
    pub fn jobs(&self, service: &ServiceName) -> Vec<&Container> {
        best_first(self.containers.jobs(service))
    }

    /// What an action on one of our containers is about: its slot or pod, or, where another container is kept
    /// there, itself.
    #[must_use]
    pub fn target(&self, container: &Container) -> Target {
        let (kept, target) = match &container.labels.role {
            Role::Sandbox => (
                self.sandboxes(&container.labels.pod).first().map(|c| &c.id),
                Target::Sandbox(container.labels.pod.clone()),
            ),
            Role::PreDeploy { service } => {
                (self.jobs(service).first().map(|c| &c.id), Target::PreDeploy(service.clone()))
            }
            Role::Replica { service, slot } if container.is_set_aside() => {
                return Target::SetAside(service.clone(), *slot, container.id.clone());
            }
            Role::Replica { service, slot } => (
                self.replicas(service, *slot).first().map(|c| &c.id),
                Target::Replica(service.clone(), *slot),
            ),
        };
        if kept == Some(&container.id) { target } else { Target::Surplus(container.id.clone()) }
    }

    /// Every container of a service, in order of slots.
    pub fn service<'a>(
        &'a self,
        service: &ServiceName,
    ) -> impl Iterator<Item = (Slot, &'a Container)> + Clone + use<'a> {
        self.containers.replicas(service)
    }
}

/// The one to keep first: the one that runs, else the newest.
fn best_first<'a>(containers: impl Iterator<Item = &'a Container>) -> Vec<&'a Container> {
    let mut found: Vec<_> = containers.collect();
    found.sort_by_key(|c| {
        (std::cmp::Reverse(c.process().is_some()), std::cmp::Reverse(c.started_at()), &c.id)
    });
    found
}
