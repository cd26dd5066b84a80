//! Looks at the engine: lists always, inspects what may have changed, and now and then a few of the others in turn:
//! to inspect a container costs the engine and us much more than its row in the list.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use crate::{
    clock::Clock,
    engine::{
        ContainerId, ContainerState, Engine, EngineError, Inspection, Labels, Role, Summary,
        ownership::{Checked, CheckedResources, Expected, Foreign, Owned, OwnershipChecker, resources},
    },
    plan::{Container, Desired, Goal, Owner, Phase},
    spec::{Hooks, MountSource, Slot},
};

use super::vanished::{Fate, ProcessView, Processes};

/// How many containers are inspected at the same time.
const AT_ONCE: usize = 8;
/// How many containers a look in turn inspects: what that costs does not grow with their number.
const IN_TURN: usize = 8;

/// Tells the inode of a process's network namespace, where this host can see it.
pub type NetnsOf = Arc<dyn Fn(u32) -> Option<u64> + Send + Sync>;

/// What may have changed since the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirty {
    /// Every container may have.
    pub all: bool,
    /// Nothing tells that one has, and an event may have been lost: whoever was inspected longest ago is inspected.
    pub in_turn: bool,
    /// These containers have.
    pub containers: BTreeSet<ContainerId>,
    /// Networks or volumes have.
    pub resources: bool,
}

impl Dirty {
    /// Nothing has.
    pub const NOTHING: Self =
        Self { all: false, in_turn: false, containers: BTreeSet::new(), resources: false };
    /// Anything may have.
    pub const EVERYTHING: Self =
        Self { all: true, in_turn: false, containers: BTreeSet::new(), resources: true };
}

/// What the engine showed at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Our containers.
    pub containers: BTreeMap<ContainerId, Container>,
    /// Networks, by the engine's names.
    pub networks: BTreeMap<String, Owner>,
    /// Volumes, by the engine's names.
    pub volumes: BTreeMap<String, Owner>,
    /// What carries our labels and is not ours.
    pub foreign: BTreeSet<Foreign>,
    /// Containers whose process is not there, though the engine says that it runs: they are shown as dead.
    pub lost: BTreeSet<ContainerId>,
    /// Containers that the engine's list lacks, and that run.
    pub unlisted: BTreeSet<ContainerId>,
    /// When to look at some of them again.
    pub again: Option<(Timestamp, BTreeSet<ContainerId>)>,
}

/// Looks at the engine, and remembers what it saw.
pub struct Observer<E> {
    engine: Arc<E>,
    netns_of: NetnsOf,
    clock: Clock,
    /// How often it has looked; what is new after the first look has just begun.
    looks: u64,
    ownership: OwnershipChecker,
    processes: Processes,
    seen: BTreeMap<ContainerId, Seen>,
    resources: Resources,
}

/// A container, as it was seen last.
struct Seen {
    row: Summary,
    container: Container,
    /// The look at which it was inspected.
    inspected: u64,
}

impl<E: Engine> Observer<E> {
    /// An observer that has seen nothing yet.
    pub fn new(engine: Arc<E>, netns_of: NetnsOf, processes: Arc<dyn ProcessView>, clock: Clock) -> Self {
        Self {
            processes: Processes::new(processes),
            engine,
            netns_of,
            clock,
            looks: 0,
            ownership: OwnershipChecker::default(),
            seen: BTreeMap::new(),
            resources: Resources::default(),
        }
    }

    /// Looks again. `expected`: what is known of the names of what is ours.
    ///
    /// # Errors
    /// When the engine does not answer; what was seen before stays remembered.
    pub async fn look(
        &mut self,
        desired: &Desired,
        expected: &Expected,
        dirty: &Dirty,
    ) -> Result<Snapshot, EngineError> {
        let Checked { ours, foreign } =
            self.ownership.list(&*self.engine, &desired.project.name, expected).await?;
        let mut seen = self.look_at(ours, dirty).await?;
        let goes_down = matches!(desired.phase, Phase::Down { .. });
        let unlisted = self.look_at_unlisted(&mut seen, &foreign, goes_down).await?;
        let (lost, again) = self.look_at_processes(&mut seen);
        if dirty.resources {
            self.resources = self.look_at_resources(desired, expected).await?;
        }
        let Resources { networks, volumes, foreign: others } = self.resources.clone();
        self.seen = seen;
        self.looks += 1;
        Ok(Snapshot {
            containers: self.seen.iter().map(|(id, seen)| (id.clone(), seen.container.clone())).collect(),
            networks,
            volumes,
            foreign: others.into_iter().chain(foreign).collect(),
            lost,
            unlisted,
            again,
        })
    }

    /// Asks after each container that was there and that the list lacks: a list can be short, or empty, without anything
    /// having ended. Returns those that run.
    async fn look_at_unlisted(
        &self,
        seen: &mut BTreeMap<ContainerId, Seen>,
        foreign: &[Foreign],
        goes_down: bool,
    ) -> Result<BTreeSet<ContainerId>, EngineError> {
        // One that is not taken for ours any more is listed.
        let foreign: BTreeSet<_> = foreign.iter().filter_map(|foreign| foreign.container.as_ref()).collect();
        let missing = self.seen.keys().filter(|id| !seen.contains_key(*id) && !foreign.contains(id)).cloned();
        let missing: Vec<_> = missing.collect();
        let inspected: Vec<_> = stream::iter(missing.into_iter().map(|id| {
            let engine = Arc::clone(&self.engine);
            async move {
                match engine.inspect(&id).await {
                    Ok(inspection) => Ok((id, Some(inspection))),
                    Err(EngineError::Gone { .. }) => Ok((id, None)),
                    Err(error) => Err(error),
                }
            }
        }))
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
        let mut unlisted = BTreeSet::new();
        for (id, inspection) in inspected {
            let Some(before) = self.seen.get(&id) else { continue };
            let container = match inspection {
                Some(inspection) => {
                    let known = &before.container;
                    let container =
                        self.container(known.labels.clone(), known.hooks.clone(), &id, inspection);
                    Container { recreated: known.recreated, ..container }
                }
                // An engine that knows nothing of a process that runs can do nothing for it, either.
                None if !goes_down && self.runs_still(&before.container) => before.container.clone(),
                None => continue,
            };
            if container.process().is_some() {
                unlisted.insert(id.clone());
            }
            seen.insert(id, Seen { row: before.row.clone(), container, inspected: self.looks });
        }
        Ok(unlisted)
    }

    fn runs_still(&self, container: &Container) -> bool {
        container.process().is_some_and(|process| self.processes.is_there(&container.id, process.pid))
    }

    /// Holds what the engine says of processes against what this host shows. Returns those that are lost, and when to look
    /// again at those that may be.
    fn look_at_processes(
        &mut self,
        seen: &mut BTreeMap<ContainerId, Seen>,
    ) -> (BTreeSet<ContainerId>, Option<(Timestamp, BTreeSet<ContainerId>)>) {
        let now = self.clock.now();
        let (mut lost, mut doubted, mut when) = (BTreeSet::new(), BTreeSet::new(), None::<Timestamp>);
        self.processes.retain(|id| seen.contains_key(id));
        for (id, seen) in seen {
            let ContainerState::Running(process) = &seen.container.state else { continue };
            match self.processes.look(id, process.pid, now) {
                Fate::Runs => {}
                Fate::Doubted(until) => {
                    doubted.insert(id.clone());
                    when = Some(when.map_or(until, |when| when.min(until)));
                }
                // What the engine said before the process went is no second word.
                Fate::Lost if seen.inspected == self.looks => {
                    lost.insert(id.clone());
                    seen.container.state = ContainerState::Dead;
                    seen.container.netns = None;
                }
                Fate::Lost => {
                    doubted.insert(id.clone());
                    when = Some(now);
                }
            }
        }
        (lost, when.map(|when| (when, doubted)))
    }

    /// Inspects those of our containers that may have changed.
    async fn look_at(
        &self,
        ours: Vec<Owned>,
        dirty: &Dirty,
    ) -> Result<BTreeMap<ContainerId, Seen>, EngineError> {
        let turns = if dirty.in_turn { self.turns(&ours) } else { BTreeSet::new() };
        let mut seen = BTreeMap::new();
        let mut unknown = Vec::new();
        for owned in ours {
            let id = &owned.row.id;
            let suspect = dirty.all || dirty.containers.contains(id) || turns.contains(id);
            match self.seen.get(id) {
                Some(before) if !suspect && before.is_still(&owned.row, &*self.netns_of) => {
                    let (container, inspected) = (before.container.clone(), before.inspected);
                    seen.insert(id.clone(), Seen { row: owned.row, container, inspected });
                }
                _ => unknown.push(owned),
            }
        }
        let inspected: Vec<_> = stream::iter(unknown.into_iter().map(|owned| {
            let engine = Arc::clone(&self.engine);
            async move {
                match engine.inspect(&owned.row.id).await {
                    Ok(inspection) => Ok(Some((owned, inspection))),
                    Err(EngineError::Gone { .. }) => Ok(None),
                    Err(error) => Err(error),
                }
            }
        }))
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
        for (owned, inspection) in inspected.into_iter().flatten() {
            let (hooks, recreated) = (owned.hooks(), owned.recreated);
            let container = self.container(owned.labels, hooks, &owned.row.id, inspection);
            let container = Container { recreated, ..container };
            seen.insert(owned.row.id.clone(), Seen { row: owned.row, container, inspected: self.looks });
        }
        Ok(seen)
    }

    /// A container as the engine shows it; `known_as`: its id in the list.
    fn container(
        &self,
        labels: Labels,
        hooks: Hooks,
        known_as: &ContainerId,
        inspection: Inspection,
    ) -> Container {
        let netns = match &inspection.state {
            ContainerState::Running(p) | ContainerState::Paused(p) => (self.netns_of)(p.pid),
            _ => None,
        };
        let connections = match labels.role {
            Role::Sandbox => inspection.connections(),
            Role::Replica { .. } | Role::PreDeploy { .. } => None,
        };
        Container {
            since: self.since(known_as, &inspection.state),
            id: inspection.id,
            name: inspection.name,
            hooks,
            labels,
            joined: inspection.host.joined(),
            image_id: Some(inspection.image_id).filter(|id| !id.is_empty()),
            limits: inspection.limits,
            volumes: inspection.volumes,
            recreated: false,
            check: inspection.check,
            connections,
            state: inspection.state,
            netns,
        }
    }

    /// Those of ours that were inspected longest ago.
    fn turns(&self, ours: &[Owned]) -> BTreeSet<ContainerId> {
        let mut known: Vec<_> = ours
            .iter()
            .filter_map(|owned| Some((self.seen.get(&owned.row.id)?.inspected, &owned.row.id)))
            .collect();
        known.sort_unstable();
        known.into_iter().take(IN_TURN).map(|(_, id)| id.clone()).collect()
    }

    /// When a state began, by our clock: now, if it is seen for the first time. Only of what was there before we
    /// looked at all the engine's word is taken, as far as it can be true.
    fn since(&self, id: &ContainerId, state: &ContainerState) -> Timestamp {
        let now = self.clock.now();
        match self.seen.get(id) {
            Some(before) if began_at(&before.container.state) == began_at(state) => before.container.since,
            None if self.looks == 0 => began_at(state).map_or(now, |time| time.min(now)),
            _ => now,
        }
    }

    async fn look_at_resources(
        &self,
        desired: &Desired,
        expected: &Expected,
    ) -> Result<Resources, EngineError> {
        let project = &desired.project;
        let CheckedResources { networks, volumes, foreign } =
            resources(&*self.engine, &project.name, expected).await?;
        let own = |names: Vec<String>| names.into_iter().map(|name| (name, Owner::Us)).collect();
        let mut found = Resources { networks: own(networks), volumes: own(volumes), foreign };
        for network in project.networks.values() {
            if !found.networks.contains_key(&network.name) && self.engine.has_network(&network.name).await? {
                found.networks.insert(network.name.clone(), Owner::Others);
            }
        }
        for name in needed_volumes(desired) {
            if !found.volumes.contains_key(&name) && self.engine.has_volume(&name).await? {
                found.volumes.insert(name, Owner::Others);
            }
        }
        Ok(found)
    }
}

/// Networks and volumes, as they were seen last.
#[derive(Clone, Debug, Default)]
struct Resources {
    networks: BTreeMap<String, Owner>,
    volumes: BTreeMap<String, Owner>,
    foreign: Vec<Foreign>,
}

impl Seen {
    /// Whether it seems to be as it was: the list shows the same, and its process is where it was. A container that has
    /// ended and runs again looks the same in the list.
    fn is_still(&self, row: &Summary, netns_of: &dyn Fn(u32) -> Option<u64>) -> bool {
        same(&self.row, row)
            && self.container.process().is_none_or(|process| netns_of(process.pid) == self.container.netns)
    }
}

/// Names of the volumes that replicas mount which shall run.
fn needed_volumes(desired: &Desired) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (service, goal) in &desired.goals {
        let (Some(service), Goal::Run { replicas }) = (desired.project.services.get(service), goal) else {
            continue;
        };
        for mount in &service.container.mounts {
            if let MountSource::Volume { name, .. } = &mount.source {
                names.extend(Slot::first(*replicas).map(|slot| crate::spec::expand(name, slot)));
            }
        }
    }
    names
}

/// What tells a state from the same state at another time, by the engine's clock.
fn began_at(state: &ContainerState) -> Option<Timestamp> {
    match state {
        ContainerState::Running(process) | ContainerState::Paused(process) => Some(process.started_at),
        ContainerState::Exited(exit) => Some(exit.finished_at),
        ContainerState::Created | ContainerState::Removing | ContainerState::Dead => None,
    }
}

/// Whether two rows of the list tell the same: name, connections, state, and in the status what the health check says. The
/// status also tells the age, which changes all the time.
fn same(before: &Summary, now: &Summary) -> bool {
    let health = |status: &str| status.split_once('(').map(|(_, rest)| rest.to_owned());
    before.name == now.name
        && before.connected == now.connected
        && before.state == now.state
        && (now.state != "running" || health(&before.status) == health(&now.status))
}

#[cfg(test)]
#[path = "observe_tests.rs"]
mod tests;
