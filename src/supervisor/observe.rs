//! Observes the engine. Each observation lists the containers and inspects only those that may have changed, sometimes
//! also a few others in turn: inspecting a container costs much more than its row in the list.

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

/// The number of concurrent inspections.
const AT_ONCE: usize = 8;
/// The number of containers that an observation inspects in turn; the cost does not grow with the number of containers.
const IN_TURN: usize = 8;

/// Returns the inode of a process's network namespace, if this host can see the process.
pub type NetnsOf = Arc<dyn Fn(u32) -> Option<u64> + Send + Sync>;

/// What may have changed since the last observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirty {
    /// Any container may have changed.
    pub all: bool,
    /// No change is known, but an event may have been lost: inspect the containers with the oldest inspection.
    pub in_turn: bool,
    /// These containers may have changed.
    pub containers: BTreeSet<ContainerId>,
    /// Networks or volumes may have changed.
    pub resources: bool,
}

impl Dirty {
    /// No change.
    pub const NOTHING: Self =
        Self { all: false, in_turn: false, containers: BTreeSet::new(), resources: false };
    /// Everything may have changed.
    pub const EVERYTHING: Self =
        Self { all: true, in_turn: false, containers: BTreeSet::new(), resources: true };
}

/// The result of an observation.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The containers of the project.
    pub containers: BTreeMap<ContainerId, Container>,
    /// Networks by their name on the engine.
    pub networks: BTreeMap<String, Owner>,
    /// Volumes by their name on the engine.
    pub volumes: BTreeMap<String, Owner>,
    /// Resources that have sameport's labels but were not made by sameport.
    pub foreign: BTreeSet<Foreign>,
    /// Containers whose process is gone although the engine reports it as running; their state is `Dead`.
    pub lost: BTreeSet<ContainerId>,
    /// Running containers that the engine's list lacks.
    pub unlisted: BTreeSet<ContainerId>,
    /// Containers to observe again, and when.
    pub again: Option<(Timestamp, BTreeSet<ContainerId>)>,
}

/// Observes the engine and keeps the previous observation.
pub struct Observer<E> {
    engine: Arc<E>,
    netns_of: NetnsOf,
    clock: Clock,
    /// The number of observations. A container that first appears after the first one has just started.
    looks: u64,
    ownership: OwnershipChecker,
    processes: Processes,
    seen: BTreeMap<ContainerId, Seen>,
    resources: Resources,
}

/// The last observation of a container.
struct Seen {
    row: Summary,
    container: Container,
    /// The number of the observation that inspected it.
    inspected: u64,
}

impl<E: Engine> Observer<E> {
    /// An observer without a previous observation.
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

    /// Observes the engine. `expected`: the known names of the project's resources.
    ///
    /// # Errors
    /// If the engine cannot be reached; the previous observation is kept.
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

    /// Inspects each known container that the list lacks: a list can be incomplete or empty although no container
    /// ended. Returns those that run.
    async fn look_at_unlisted(
        &self,
        seen: &mut BTreeMap<ContainerId, Seen>,
        foreign: &[Foreign],
        goes_down: bool,
    ) -> Result<BTreeSet<ContainerId>, EngineError> {
        // Containers that no longer count as sameport's are in the list.
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
                // The engine does not know the container, but its process runs. There is nothing that the engine could
                // do for it.
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

    /// Compares the states that the engine reports with the processes on this host. Returns the containers whose
    /// process is lost, and when to observe those again that may be.
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
                // A report from before the process disappeared does not confirm it.
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

    /// Inspects the project's containers that may have changed.
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

    /// Converts an inspection; `known_as` is the container's ID in the list.
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

    /// The containers with the oldest inspections.
    fn turns(&self, ours: &[Owned]) -> BTreeSet<ContainerId> {
        let mut known: Vec<_> = ours
            .iter()
            .filter_map(|owned| Some((self.seen.get(&owned.row.id)?.inspected, &owned.row.id)))
            .collect();
        known.sort_unstable();
        known.into_iter().take(IN_TURN).map(|(_, id)| id.clone()).collect()
    }

    /// When a state began, by the supervisor's clock: now, if it is new. For containers that existed before the first
    /// observation, the engine's time counts, unless it is in the future.
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

/// The last observation of networks and volumes.
#[derive(Clone, Debug, Default)]
struct Resources {
    networks: BTreeMap<String, Owner>,
    volumes: BTreeMap<String, Owner>,
    foreign: Vec<Foreign>,
}

impl Seen {
    /// Whether it seems unchanged: the list shows the same, and its process is in the same network namespace. In the
    /// list alone, a container that ended and runs again can look the same.
    fn is_still(&self, row: &Summary, netns_of: &dyn Fn(u32) -> Option<u64>) -> bool {
        same(&self.row, row)
            && self.container.process().is_none_or(|process| netns_of(process.pid) == self.container.netns)
    }
}

/// The names of the volumes that the desired replicas mount.
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

/// The engine's time of a state, which tells it apart from the same state at another time.
fn began_at(state: &ContainerState) -> Option<Timestamp> {
    match state {
        ContainerState::Running(process) | ContainerState::Paused(process) => Some(process.started_at),
        ContainerState::Exited(exit) => Some(exit.finished_at),
        ContainerState::Created | ContainerState::Removing | ContainerState::Dead => None,
    }
}

/// Whether two rows of the list are equal in name, connections, state and health. The health is part of the status,
/// which also contains the constantly changing age.
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
