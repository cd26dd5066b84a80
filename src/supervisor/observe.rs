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
    engine::{ContainerId, ContainerState, Engine, EngineError, Labels, Summary},
    plan::{Container, Desired, Goal, Owner},
    spec::{MountSource, Slot},
};

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
}

/// Looks at the engine, and remembers what it saw.
pub struct Observer<E> {
    engine: Arc<E>,
    netns_of: NetnsOf,
    clock: Clock,
    /// How often it has looked; what is new after the first look has just begun.
    looks: u64,
    seen: BTreeMap<ContainerId, Seen>,
    last: Snapshot,
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
    pub fn new(engine: Arc<E>, netns_of: NetnsOf, clock: Clock) -> Self {
        Self { engine, netns_of, clock, looks: 0, seen: BTreeMap::new(), last: Snapshot::default() }
    }

    /// Looks again.
    ///
    /// # Errors
    /// When the engine does not answer; what was seen before stays remembered.
    pub async fn look(&mut self, desired: &Desired, dirty: &Dirty) -> Result<Snapshot, EngineError> {
        let project = &desired.project;
        let mut listed = self.engine.list(&project.name).await?;
        listed
            .retain(|row| Labels::from_map(&row.labels).is_some_and(|labels| labels.project == project.name));
        let turns = if dirty.in_turn { self.turns(&listed) } else { BTreeSet::new() };
        let mut seen = BTreeMap::new();
        let mut unknown = Vec::new();
        for row in listed {
            let suspect = dirty.all || dirty.containers.contains(&row.id) || turns.contains(&row.id);
            match self.seen.get(&row.id) {
                Some(before) if !suspect && before.is_still(&row, &*self.netns_of) => {
                    let (container, inspected) = (before.container.clone(), before.inspected);
                    seen.insert(row.id.clone(), Seen { row, container, inspected });
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
                image_id: Some(inspection.image_id).filter(|id| !id.is_empty()),
                hooks: inspection.hooks,
                limits: inspection.limits,
                state: inspection.state,
                netns,
            };
            seen.insert(row.id.clone(), Seen { row, container, inspected: self.looks });
        }
        let mut snapshot = Snapshot {
            containers: seen.iter().map(|(id, seen)| (id.clone(), seen.container.clone())).collect(),
            ..Snapshot::default()
        };
        if dirty.resources {
            (snapshot.networks, snapshot.volumes) = self.resources(desired).await?;
        } else {
            snapshot.networks.clone_from(&self.last.networks);
            snapshot.volumes.clone_from(&self.last.volumes);
        }
        self.seen = seen;
        self.looks += 1;
        self.last.clone_from(&snapshot);
        Ok(snapshot)
    }

    /// Those of a list that were inspected longest ago.
    fn turns(&self, listed: &[Summary]) -> BTreeSet<ContainerId> {
        let mut known: Vec<_> =
            listed.iter().filter_map(|row| Some((self.seen.get(&row.id)?.inspected, &row.id))).collect();
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

impl Seen {
    /// Whether it seems to be as it was: the list shows the same, and its process is where it was. A container that has
    /// ended and runs again looks the same in the list.
    fn is_still(&self, row: &Summary, netns_of: &dyn Fn(u32) -> Option<u64>) -> bool {
        same(&self.row, row)
            && self.container.process().is_none_or(|process| netns_of(process.pid) == self.container.netns)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::{Role, memory::Memory},
        spec::{Generation, Limits, Project},
    };

    /// An engine with so many replicas of a project, and an observer that has seen them.
    async fn watched(replicas: u32) -> (Memory, Desired, Observer<Memory>) {
        let engine = Memory::new(Clock::starting_at(Timestamp::UNIX_EPOCH), 1);
        for slot in Slot::first(replicas) {
            let labels = Labels {
                project: "shop".parse().unwrap(),
                pod: "web".parse().unwrap(),
                generation: Generation::from_label("0123456789ab"),
                role: Role::Replica { service: "web".parse().unwrap(), slot },
            };
            engine.world().add_foreign(&format!("shop-web-{slot}"), labels.to_map());
        }
        let desired = Desired::all(Project {
            name: "shop".parse().unwrap(),
            services: BTreeMap::new(),
            pods: BTreeMap::new(),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
        });
        let eyes = engine.clone();
        let netns_of: NetnsOf = Arc::new(move |pid| eyes.world().netns_of(pid));
        let clock = Clock::starting_at(Timestamp::UNIX_EPOCH);
        let mut observer = Observer::new(Arc::new(engine.clone()), netns_of, clock);
        observer.look(&desired, &Dirty::EVERYTHING).await.unwrap();
        (engine, desired, observer)
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_in_turn_inspects_a_few_and_comes_round_to_everyone() {
        let (engine, desired, mut observer) = watched(20).await;
        let changed = Limits { memory: Some(1 << 20), ..Limits::default() };
        let ids: Vec<_> = engine.world().containers().map(|(id, ..)| id.clone()).collect();
        for id in &ids {
            engine.update(id, &changed).await.unwrap();
        }
        for known in [0, 8, 16, 20] {
            let before = engine.world().calls;
            let dirty = Dirty { in_turn: known > 0, ..Dirty::NOTHING };
            let snapshot = observer.look(&desired, &dirty).await.unwrap();
            let news = snapshot.containers.values().filter(|container| container.limits == changed).count();
            assert_eq!(news, known);
            // One of them lists.
            assert_eq!(engine.world().calls - before, if known > 0 { 1 + 8 } else { 1 });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_ended_and_runs_again_is_seen_though_the_list_shows_the_same() {
        let (engine, desired, mut observer) = watched(20).await;
        let id = engine.world().containers().map(|(id, ..)| id.clone()).last().unwrap();
        engine.world().exit(&id, 137);
        engine.start(&id).await.unwrap();
        let pid = engine.world().containers().find_map(|(other, _, _, state, _)| match state {
            ContainerState::Running(process) if *other == id => Some(process.pid),
            _ => None,
        });
        let snapshot = observer.look(&desired, &Dirty::NOTHING).await.unwrap();
        assert_eq!(snapshot.containers[&id].process().map(|process| process.pid), pid);
    }
}
