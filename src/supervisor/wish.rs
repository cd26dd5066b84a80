//! What users asked for, turned into what is [`Desired`]. No I/O but the state file's.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    engine::{ContainerState, RemoveVolumes},
    plan::{self, Desired, Goal, Observed, Phase, Sharing, Target},
    spec::{Project, ProjectName, ServiceName},
};

use super::{
    Apply, Rejection, Request, Selector, Weight,
    state_file::{Scale, State, StateError, StateFile},
};

mod progress;

/// Everything that users asked for so far.
#[derive(Debug)]
pub struct Wish {
    /// What follows from it.
    pub desired: Desired,
    file: StateFile,
    state: State,
    /// Services whose ended replicas start again, whatever their restart rule says.
    revive: BTreeMap<ServiceName, Revive>,
    /// Services whose job is run again if it failed.
    retry: BTreeSet<ServiceName>,
}

/// Which ended replicas start again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Revive {
    /// Those that failed.
    Failed,
    /// All.
    All,
}

impl Wish {
    /// Nothing is asked of this project yet, besides what the state file remembers.
    ///
    /// # Errors
    /// When the state file cannot be read.
    pub fn new(project: ProjectName, file: StateFile) -> Result<Self, StateError> {
        let state = file.load()?;
        let desired =
            Desired { done_before: state.done_before.clone(), ..Desired::all(Project::empty(project)) };
        Ok(Self { desired, file, state, revive: BTreeMap::new(), retry: BTreeSet::new() })
    }

    /// Takes in a request that wishes for something.
    ///
    /// # Errors
    /// When it cannot be wished for; then nothing has changed.
    pub fn take(&mut self, request: Request, observed: &Observed) -> Result<(), Rejection> {
        if matches!(self.desired.phase, Phase::Down { .. }) && !matches!(request, Request::Down { .. }) {
            return Err(Rejection::GoingDown);
        }
        match request {
            Request::Load(project) => {
                self.pursue(*project);
                Ok(())
            }
            Request::Apply(apply) => {
                self.apply(*apply)?;
                self.retry_jobs(observed);
                Ok(())
            }
            Request::Scale(counts) => self.scale(&counts),
            Request::Stop { services, grace } => {
                let services = self.named(services)?;
                let mut state = self.state.clone();
                state.stopped.extend(services.iter().cloned());
                self.remember(state)?;
                for service in services {
                    self.desired.goals.insert(service, Goal::Stop);
                }
                self.desired.stop_grace = grace;
                Ok(())
            }
            Request::Start { services } => {
                let services = self.named(services)?;
                let mut state = self.state.clone();
                state.stopped.retain(|stopped| !services.contains(stopped));
                self.remember(state)?;
                for name in services {
                    let replicas = self.replicas(&name);
                    self.desired.goals.insert(name.clone(), Goal::Run { replicas });
                    self.revive.insert(name, Revive::All);
                }
                Ok(())
            }
            Request::Restart { replicas, grace } => {
                self.restart(replicas, observed)?;
                self.desired.stop_grace = grace;
                Ok(())
            }
            Request::Weight(weights) => self.weigh(weights, observed),
            Request::Down { volumes, grace } => {
                let volumes = if volumes { RemoveVolumes::Remove } else { RemoveVolumes::Keep };
                self.desired.phase = Phase::Down { volumes };
                self.desired.stop_grace = grace;
                Ok(())
            }
            Request::Status | Request::Detach => Ok(()),
        }
    }

    fn apply(&mut self, apply: Apply) -> Result<(), Rejection> {
        let Apply { project, services, scale, orphans } = apply;
        for (name, replicas) in &scale {
            check_scale(&project, name, *replicas)?;
        }
        let selected = if services.is_empty() {
            project.services.keys().cloned().collect()
        } else {
            with_dependencies(&project, services)?
        };
        let mut state = self.state.clone();
        state.scale.retain(|name, kept| {
            project.services.get(name).is_some_and(|service| service.replicas == kept.file)
        });
        for (name, replicas) in scale {
            let file = project.services.get(&name).map_or(0, |service| service.replicas);
            state.scale.insert(name, Scale { file, replicas });
        }
        let was_stopped: BTreeSet<_> = state.stopped.intersection(&selected).cloned().collect();
        state.stopped.retain(|name| project.services.contains_key(name) && !selected.contains(name));
        self.remember(state)?;

        self.pursue(project);
        self.desired.orphans = orphans;
        for name in selected {
            let replicas = self.replicas(&name);
            self.desired.goals.insert(name.clone(), Goal::Run { replicas });
            let revive = if was_stopped.contains(&name) { Revive::All } else { Revive::Failed };
            self.revive.insert(name.clone(), revive);
            self.retry.insert(name);
        }
        Ok(())
    }

    fn pursue(&mut self, project: Project) {
        self.desired.project = project.into();
        self.desired.weights = self.state.weights.clone();
        self.desired.stop_grace = None;
        self.desired.goals.retain(|name, _| self.desired.project.services.contains_key(name));
    }

    /// Wishes for what was wished for last, as far as it is remembered; for a look at a project that nobody
    /// supervises.
    pub fn recall(&mut self, project: Project) {
        self.pursue(project);
        let names: Vec<_> = self.desired.project.services.keys().cloned().collect();
        for name in names {
            let goal = match self.state.stopped.contains(&name) {
                true => Goal::Stop,
                false => Goal::Run { replicas: self.replicas(&name) },
            };
            self.desired.goals.insert(name, goal);
        }
    }

    fn scale(&mut self, counts: &BTreeMap<ServiceName, u32>) -> Result<(), Rejection> {
        let project = &self.desired.project;
        let mut state = self.state.clone();
        for (name, replicas) in counts {
            check_scale(project, name, *replicas)?;
            let file = project.services.get(name).map_or(0, |service| service.replicas);
            state.scale.insert(name.clone(), Scale { file, replicas: *replicas });
            state.stopped.remove(name);
        }
        self.remember(state)?;
        for (name, replicas) in counts {
            self.desired.goals.insert(name.clone(), Goal::Run { replicas: *replicas });
        }
        Ok(())
    }

    fn weigh(&mut self, weights: Vec<Weight>, observed: &Observed) -> Result<(), Rejection> {
        let mut state = self.state.clone();
        for Weight { service, slot, weight } in weights {
            self.known(&service)?;
            self.steered(&service, observed)?;
            let is_wanted = matches!(self.desired.goals.get(&service),
                Some(Goal::Run { replicas }) if slot.number() <= *replicas);
            if !is_wanted && observed.replicas(&service, slot).is_empty() {
                return Err(Rejection::UnknownReplica { service, slot });
            }
            let slots = state.weights.entry(service).or_default();
            if weight == plan::WEIGHT {
                slots.remove(&slot);
            } else {
                slots.insert(slot, weight.min(plan::WEIGHT_MAX));
            }
        }
        state.weights.retain(|_, slots| !slots.is_empty());
        self.remember(state)?;
        self.desired.weights = self.state.weights.clone();
        Ok(())
    }

    /// Whether the kernel chooses among the replicas of a service.
    fn steered(&self, name: &ServiceName, observed: &Observed) -> Result<(), Rejection> {
        let pod = self.desired.project.services.get(name).map(|service| &service.pod);
        let reason = match &observed.sharing {
            _ if !pod.is_some_and(|pod| self.desired.project.wants_kernel(pod)) => {
                "its file says `sharing: application`, or it is on the network of the host".to_owned()
            }
            Sharing::ByKernel(_) => return Ok(()),
            Sharing::NoKernel(reason) => reason.clone(),
            Sharing::ByImages => "nothing of it runs yet".to_owned(),
        };
        Err(Rejection::NotSteered { service: name.clone(), reason })
    }

    fn restart(&mut self, replicas: Vec<Selector>, observed: &Observed) -> Result<(), Rejection> {
        let replicas = if replicas.is_empty() {
            self.desired
                .goals
                .keys()
                .map(|service| Selector { service: service.clone(), slot: None })
                .collect()
        } else {
            replicas
        };
        let (mut services, mut superseded) = (BTreeSet::new(), BTreeSet::new());
        for Selector { service, slot } in replicas {
            self.known(&service)?;
            let found: Vec<_> = observed
                .service(&service)
                .filter(|(n, _)| slot.is_none_or(|slot| slot == *n))
                .filter_map(|(_, c)| Some((c.id.clone(), c.started_at()?)))
                .collect();
            if let (Some(slot), true) = (slot, found.is_empty()) {
                return Err(Rejection::UnknownReplica { service, slot });
            }
            superseded.extend(found);
            services.insert(service);
        }
        let mut state = self.state.clone();
        state.stopped.retain(|name| !services.contains(name));
        self.remember(state)?;
        for name in services {
            let replicas = self.replicas(&name);
            self.desired.goals.insert(name, Goal::Run { replicas });
        }
        self.desired.superseded.extend(superseded);
        Ok(())
    }

    /// Forgets wishes that have come true, and lets ended replicas start that were asked to. To be called after
    /// each look at the engine.
    pub fn catch_up(&mut self, observed: &mut Observed) {
        for (service, generation) in plan::before::succeeded(&self.desired, observed) {
            self.note_before(service, generation);
        }
        let containers = &observed.containers;
        let is_there = |(id, at): &(_, _)| containers.get(id).is_some_and(|c| c.started_at() == Some(*at));
        self.desired.superseded.retain(is_there);
        self.desired.in_order.retain(is_there);
        self.retry_jobs(observed);
        self.retry.clear();
        self.restart_dependents(observed);
        for (service, revive) in std::mem::take(&mut self.revive) {
            let ended: Vec<_> = observed
                .service(&service)
                .filter_map(|(slot, c)| match &c.state {
                    ContainerState::Exited(exit)
                        if revive == Revive::All || exit.code != 0 || exit.out_of_memory =>
                    {
                        Some((Target::Replica(service.clone(), slot), c.id.clone(), exit.started_at))
                    }
                    _ => None,
                })
                .collect();
            for (target, id, started_at) in ended {
                if revive == Revive::All {
                    self.desired.in_order.insert((id.clone(), started_at));
                }
                let history = observed.history.entry(target).or_default();
                history.forgive(&id, started_at);
            }
        }
    }

    /// Forgets everything, since the project is gone.
    ///
    /// # Errors
    /// When the state file cannot be removed.
    pub fn forget(&mut self) -> Result<(), StateError> {
        self.state = State::default();
        self.file.clear()
    }

    fn replicas(&self, name: &ServiceName) -> u32 {
        match (self.state.scale.get(name), self.desired.project.services.get(name)) {
            (Some(scale), _) => scale.replicas,
            (None, Some(service)) => service.replicas,
            (None, None) => 0,
        }
    }

    fn named(&self, services: Vec<ServiceName>) -> Result<BTreeSet<ServiceName>, Rejection> {
        for name in &services {
            self.known(name)?;
        }
        Ok(if services.is_empty() {
            self.desired.project.services.keys().cloned().collect()
        } else {
            services.into_iter().collect()
        })
    }

    fn known(&self, name: &ServiceName) -> Result<(), Rejection> {
        known(&self.desired.project, name)
    }

    fn remember(&mut self, state: State) -> Result<(), Rejection> {
        if state != self.state {
            self.file.save(&state).map_err(|error| Rejection::NotSaved {
                path: error.path.display().to_string(),
                reason: error.source.to_string(),
            })?;
            self.state = state;
        }
        Ok(())
    }
}

fn known(project: &Project, name: &ServiceName) -> Result<(), Rejection> {
    if project.services.contains_key(name) {
        return Ok(());
    }
    let known = project.services.keys().map(ToString::to_string).collect();
    Err(Rejection::UnknownService { name: name.clone(), known })
}

fn check_scale(project: &Project, name: &ServiceName, replicas: u32) -> Result<(), Rejection> {
    known(project, name)?;
    let fixed = project.services.get(name).is_some_and(|service| service.container_name.is_some());
    if fixed && replicas > 1 {
        return Err(Rejection::FixedName { service: name.clone() });
    }
    Ok(())
}

fn with_dependencies(
    project: &Project,
    services: Vec<ServiceName>,
) -> Result<BTreeSet<ServiceName>, Rejection> {
    let mut selected = BTreeSet::new();
    let mut open = services;
    while let Some(name) = open.pop() {
        known(project, &name)?;
        if let Some(service) = project.services.get(&name)
            && selected.insert(name)
        {
            open.extend(service.depends_on.keys().filter(|d| project.services.contains_key(*d)).cloned());
        }
    }
    Ok(selected)
}

#[cfg(test)]
mod tests;
