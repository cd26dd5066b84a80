//! Recovers the content of a damaged state file from what the engine shows. Pure, except for [`DesiredState::recover`],
//! which applies it.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fmt,
    path::PathBuf,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    engine::ContainerId,
    plan::{
        Container, Goal, HookPhase, Observed, PostStart,
        versions::{ChangeCause, Versions},
    },
    spec::{Generation, Project, Service, ServiceName},
    supervisor::state_file::{Damage, FileError, Scale},
};

use super::DesiredState;

/// A damaged state file was rebuilt from what the engine shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateReset {
    /// The path of the state file.
    pub path: PathBuf,
    /// What was wrong with it.
    pub error: String,
    /// The new path of the damaged file; `None`: it could not be renamed and is overwritten.
    pub moved_to: Option<PathBuf>,
    /// Services that keep a replica count other than that of the file, because that many replicas exist.
    pub scale: BTreeMap<ServiceName, u32>,
    /// Services whose pre-deploy job does not run again for the running version.
    pub jobs: BTreeSet<ServiceName>,
    /// The number of replicas that do not run their `post_start` commands again.
    pub post_start: u32,
    /// Services that run the version of the file, which is their only known version.
    pub versions: BTreeSet<ServiceName>,
}

impl fmt::Display for StateReset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the state file {} was damaged: {}", self.path.display(), self.error)?;
        match &self.moved_to {
            Some(moved_to) => write!(f, "\n  it was moved to {}", moved_to.display())?,
            None => f.write_str("\n  it could not be moved away, and is overwritten")?,
        }
        f.write_str(", and the state was rebuilt from the containers")?;
        let names = |names: &BTreeSet<ServiceName>| {
            names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let counts = self.scale.iter().map(|(name, replicas)| format!("{name}={replicas}"));
        let counts = counts.collect::<Vec<_>>().join(", ");
        for (is_there, line) in [
            (!counts.is_empty(), format!("scale {counts}")),
            (!self.versions.is_empty(), format!("current version of {}", names(&self.versions))),
            (!self.jobs.is_empty(), format!("jobs that have succeeded: {}", names(&self.jobs))),
            (self.post_start > 0, format!("post_start has run in {} replicas", self.post_start)),
        ] {
            if is_there {
                write!(f, "\n  recovered: {line}")?;
            }
        }
        f.write_str(
            "\n  lost: weights, stopped services, earlier versions, rollouts in progress, and rollbacks: a version that \
             failed may be rolled out again",
        )
    }
}

/// The part of a lost state that the engine shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Recovered {
    scale: BTreeMap<ServiceName, Scale>,
    done_before: BTreeMap<ServiceName, Generation>,
    post_start: BTreeMap<ContainerId, PostStart>,
    versions: BTreeMap<ServiceName, Versions>,
}

fn recover(file: &Project, observed: &Observed, now: Timestamp) -> Recovered {
    let mut recovered = Recovered::default();
    for (name, service) in &file.services {
        let replicas: Vec<_> = observed.service(name).collect();
        let Some(highest) = replicas.iter().map(|(slot, _)| slot.number()).max() else { continue };
        let most = if service.container_name.is_some() { 1 } else { Service::MOST_REPLICAS };
        let highest = highest.min(most);
        if highest != service.replicas {
            let scale = Scale { file: service.replicas, replicas: highest };
            recovered.scale.insert(name.clone(), scale);
        }
        let containers: Vec<_> = replicas.into_iter().map(|(_, container)| container).collect();
        let running = containers.iter().find_map(|container| as_it_runs(service, container));
        if service.pre_deploy.is_some()
            && let Some(generation) =
                running.as_ref().map(Service::generation).or_else(|| newest(&containers))
        {
            // Without a successful job, no replica of this version would exist.
            recovered.done_before.insert(name.clone(), generation);
        }
        if let Some(running) = running {
            let mut versions = Versions::default();
            versions.apply(&running, false, &ChangeCause { now, by: "sameport", cause: "state recovered" });
            recovered.versions.insert(name.clone(), versions);
        }
    }
    for container in observed.containers.values() {
        if let Some(process) = container.process()
            && !container.hooks.post_start.is_empty()
        {
            let progress = PostStart { started_at: process.started_at, phase: HookPhase::Done };
            recovered.post_start.insert(container.id.clone(), progress);
        }
    }
    recovered
}

/// The service of the file with the image that the container runs, if the container runs that version. The file does
/// not tell which image its reference resolved to.
fn as_it_runs(service: &Service, container: &Container) -> Option<Service> {
    let known = service.container.image_id.clone();
    [known.clone(), container.image_id.clone().or(known)].into_iter().find_map(|image_id| {
        let mut service = service.clone();
        service.container.image_id = image_id;
        (service.generation() == container.labels.generation).then_some(service)
    })
}

fn newest(containers: &[&Container]) -> Option<Generation> {
    let newest = containers.iter().max_by_key(|container| container.started_at())?;
    Some(newest.labels.generation.clone())
}

impl DesiredState {
    /// Whether the state file was damaged and [`DesiredState::recover`] can be called: a Compose file has been loaded,
    /// or the project is going down and needs none.
    #[must_use]
    pub fn awaits_recovery(&self) -> bool {
        let is_down = matches!(self.desired.phase, crate::plan::Phase::Down { .. });
        self.damage.is_some() && (is_down || !self.read.services.is_empty())
    }

    /// The damage of the state file, until its content is recovered.
    #[must_use]
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref().map(|(damage, _)| damage)
    }

    /// Moves a damaged state file aside. Only a supervisor may do this.
    ///
    /// # Errors
    /// If the file cannot be renamed.
    pub fn put_damage_aside(&mut self) -> Result<(), FileError> {
        if let Some((_, moved_to)) = &mut self.damage {
            *moved_to = self.file.put_aside()?;
        }
        Ok(())
    }

    /// Applies what the engine shows of the lost state, once. Call this after the first observation and before the
    /// first plan. Requests that arrived meanwhile take precedence.
    pub fn recover(&mut self, observed: &mut Observed, now: Timestamp) -> Option<StateReset> {
        let (Damage { path, error }, moved_to) = self.damage.take()?;
        let found = recover(&self.read, observed, now);
        let mut state = self.state.clone();
        let mut reset = StateReset {
            path,
            error,
            moved_to,
            scale: BTreeMap::new(),
            jobs: BTreeSet::new(),
            post_start: 0,
            versions: BTreeSet::new(),
        };
        for (name, scale) in found.scale {
            let Entry::Vacant(vacant) = state.scale.entry(name.clone()) else { continue };
            vacant.insert(scale);
            if let Some(Goal::Run { replicas }) = self.desired.goals.get_mut(&name) {
                *replicas = scale.replicas;
            }
            reset.scale.insert(name, scale.replicas);
        }
        for (name, generation) in found.done_before {
            reset.jobs.insert(name.clone());
            state.done_before.entry(name).or_insert(generation);
        }
        for (id, progress) in found.post_start {
            reset.post_start += 1;
            state.post_start.entry(id).or_insert(progress);
        }
        for (name, versions) in found.versions {
            reset.versions.insert(name.clone());
            state.versions.entry(name).or_insert(versions);
        }
        self.keep(state);
        self.desired.done_before = self.state.done_before.clone();
        observed.post_start = self.state.post_start.clone();
        self.reflect();
        Some(reset)
    }
}

#[cfg(test)]
mod tests;
