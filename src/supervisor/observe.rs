//! Looks at the engine: lists always, inspects what may have changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use crate::{
    clock::Clock,
    engine::{ContainerId, ContainerState, Engine, EngineError, Labels, Summary},
    plan::{Container, Desired, Goal, Owner},
    spec::{MountSource, Slot},
};

/// How many containers are inspected at the same time.
const AT_ONCE: usize = 8;

/// Tells the inode of a process's network namespace, where this host can see it.
pub type NetnsOf = Arc<dyn Fn(u32) -> Option<u64> + Send + Sync>;

/// What may have changed since the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirty {
    /// Every container may have.
    pub all: bool,
    /// These containers have.
    pub containers: BTreeSet<ContainerId>,
    /// Networks or volumes have.
    pub resources: bool,
}

impl Dirty {
    /// Nothing has.
    pub const NOTHING: Self = Self { all: false, containers: BTreeSet::new(), resources: false };
    /// Anything may have.
    pub const EVERYTHING: Self = Self { all: true, containers: BTreeSet::new(), resources: true };
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
}

/// Looks at the engine, and remembers what it saw.
pub struct Observer<E> {
    engine: Arc<E>,
    netns_of: NetnsOf,
    clock: Clock,
    /// Whether it has looked before, so that what is new has just begun.
    watching: bool,
    seen: BTreeMap<ContainerId, (Summary, Container)>,
    last: Snapshot,
}

impl<E: Engine> Observer<E> {
    /// An observer that has seen nothing yet.
    pub fn new(engine: Arc<E>, netns_of: NetnsOf, clock: Clock) -> Self {
        Self { engine, netns_of, clock, watching: false, seen: BTreeMap::new(), last: Snapshot::default() }
    }

    /// Looks again.
    ///
    /// # Errors
    /// When the engine does not answer; what was seen before stays remembered.
    pub async fn look(&mut self, desired: &Desired, dirty: &Dirty) -> Result<Snapshot, EngineError> {
        let project = &desired.project;
        let listed = self.engine.list(&project.name).await?;
        let mut seen = BTreeMap::new();
        let mut unknown = Vec::new();
        for row in listed {
            if Labels::from_map(&row.labels).is_none_or(|labels| labels.project != project.name) {
                continue;
            }
            match self.seen.get(&row.id) {
                Some((before, container))
                    if !dirty.all && !dirty.containers.contains(&row.id) && same(before, &row) =>
                {
                    seen.insert(row.id.clone(), (row, container.clone()));
                }
                _ => unknown.push(row),
            }
        }
        let inspected: Vec<_> = stream::iter(unknown.into_iter().map(|row| {
            let engine = Arc::clone(&self.engine);
            async move {
                match engine.inspect(&row.id).await {
                    Ok(inspection) => Ok(Some((row, inspection))),
                    Err(EngineError::Gone { .. }) => Ok(None),
                    Err(error) => Err(error),
                }
            }
        }))
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
        for (row, inspection) in inspected.into_iter().flatten() {
            let Some(labels) = inspection.labels else { continue };
            let netns = match &inspection.state {
                ContainerState::Running(p) | ContainerState::Paused(p) => (self.netns_of)(p.pid),
                _ => None,
            };
            let since = self.since(&row.id, &inspection.state);
            let container = Container {
                since,
                id: inspection.id,
                name: inspection.name,
                labels,
                joined: inspection.joined,
                hooks: inspection.hooks,
                limits: inspection.limits,
                state: inspection.state,
                netns,
            };
            seen.insert(row.id.clone(), (row, container));
        }
        let mut snapshot = Snapshot {
            containers: seen.iter().map(|(id, (_, c))| (id.clone(), c.clone())).collect(),
            ..Snapshot::default()
        };
        if dirty.resources {
            (snapshot.networks, snapshot.volumes) = self.resources(desired).await?;
        } else {
            snapshot.networks.clone_from(&self.last.networks);
            snapshot.volumes.clone_from(&self.last.volumes);
        }
        self.seen = seen;
        self.watching = true;
        self.last.clone_from(&snapshot);
        Ok(snapshot)
    }

    /// When a state began, by our clock: now, if it is seen for the first time. Only of what was there before we
    /// looked at all the engine's word is taken, as far as it can be true.
    fn since(&self, id: &ContainerId, state: &ContainerState) -> Timestamp {
        let now = self.clock.now();
        match self.seen.get(id) {
            Some((_, before)) if began_at(&before.state) == began_at(state) => before.since,
            None if !self.watching => began_at(state).map_or(now, |time| time.min(now)),
            _ => now,
        }
    }

    async fn resources(&self, desired: &Desired) -> Result<Resources, EngineError> {
        let project = &desired.project;
        let own = |names: Vec<String>| names.into_iter().map(|name| (name, Owner::Us)).collect();
        let mut networks: BTreeMap<_, _> = own(self.engine.networks(&project.name).await?);
        let mut volumes: BTreeMap<_, _> = own(self.engine.volumes(&project.name).await?);
        for network in project.networks.values() {
            if !networks.contains_key(&network.name) && self.engine.has_network(&network.name).await? {
                networks.insert(network.name.clone(), Owner::Others);
            }
        }
        for name in needed_volumes(desired) {
            if !volumes.contains_key(&name) && self.engine.has_volume(&name).await? {
                volumes.insert(name, Owner::Others);
            }
        }
        Ok((networks, volumes))
    }
}

type Resources = (BTreeMap<String, Owner>, BTreeMap<String, Owner>);

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

/// Whether two rows of the list tell the same: name, state, and in the status what the health check says. The
/// status also tells the age, which changes all the time.
fn same(before: &Summary, now: &Summary) -> bool {
    let health = |status: &str| status.split_once('(').map(|(_, rest)| rest.to_owned());
    before.name == now.name
        && before.state == now.state
        && (now.state != "running" || health(&before.status) == health(&now.status))
}
