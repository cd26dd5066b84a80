//! The life of a replica, and the order in which those of a service are replaced.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    engine::{ContainerState, Exit, Health, RemoveVolumes},
    spec::{Service, Slot},
};

use super::{Action, Container, Goal, Orphans, Planner, Target, history::Verdict, resource};

/// How long a replica without a health check must have run before the next one is taken down on purpose.
pub const SETTLE: Duration = Duration::from_secs(2);

/// Why a running replica has to make way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    /// None: it stays.
    None,
    /// Its network is dead: nobody can reach it, so there is nothing to spare.
    CutOff,
    /// It serves, but runs another version, or was asked to restart: one at a time.
    Replaceable,
}

impl Planner<'_> {
    /// Brings each slot of each service into the state that is wanted of it.
    pub(super) fn replicas(&mut self) {
        let desired = self.desired;
        for (service, replicas) in resource::running(desired) {
            self.run(service, replicas);
        }
        for (name, goal) in &desired.goals {
            if *goal == Goal::Stop
                && let Some(service) = desired.project.services.get(name)
            {
                self.stop_service(service);
            }
        }
    }

    fn run(&mut self, service: &Service, replicas: u32) {
        let mut may_take_down = self.spare_replica(service, replicas);
        self.choose_patient(service, replicas);
        for slot in Slot::first(replicas) {
            let mut found = self.observed.replicas(&service.name, slot).into_iter();
            let kept = found.next();
            for second in found {
                self.discard(Target::Surplus(second.id.clone()), second, self.grace(service), service.drain);
            }
            let target = Target::Replica(service.name.clone(), slot);
            match kept {
                None => self.launch(service, slot),
                Some(container) => self.keep(service, slot, target, container, &mut may_take_down),
            }
        }
        for (slot, container) in self.observed.service(&service.name) {
            if slot.number() > replicas {
                let target = Target::Replica(service.name.clone(), slot);
                self.discard(target, container, self.grace(service), service.drain);
            }
        }
    }

    fn launch(&mut self, service: &Service, slot: Slot) {
        let sandbox = self.open_sandbox(&service.pod).map(|c| c.id.clone());
        let pod_is_ready = match self.desired.project.pods.get(&service.pod) {
            Some(pod) if pod.has_sandbox() => sandbox.is_some(),
            Some(_) => true,
            None => false,
        };
        if pod_is_ready
            && self.unmet_dependency(service).is_none()
            && !self.awaits_before(service)
            && self.user_conflict(service, None).is_none()
            && self.missing_volumes(service, slot).is_empty()
        {
            self.act(Action::LaunchReplica { service: service.name.clone(), slot, sandbox });
        }
    }

    fn keep(
        &mut self,
        service: &Service,
        slot: Slot,
        target: Target,
        container: &Container,
        may_take_down: &mut bool,
    ) {
        let id = container.id.clone();
        let outdated = self.is_outdated(service, container);
        // Its successor may not be launched yet: it goes on meanwhile.
        let outdated = outdated && (self.is_unbound(service, container) || !self.awaits_before(service));
        match &container.state {
            ContainerState::Running(_) => {
                let stop = match self.flaw(service, container) {
                    Flaw::None => self.is_spoilt_by_hooks(container),
                    Flaw::CutOff => true,
                    // Its successor could not have the port.
                    Flaw::Replaceable
                        if outdated && self.user_conflict(service, Some(container)).is_some() =>
                    {
                        false
                    }
                    Flaw::Replaceable if !self.is_available(service, container) => true,
                    Flaw::Replaceable => std::mem::take(may_take_down),
                };
                if stop {
                    self.retire(target, container, self.grace(service), service.drain);
                } else if !self.treat(service, &target, container) {
                    self.prepare(container);
                    if !outdated {
                        self.adjust(service, target, container);
                    }
                }
            }
            ContainerState::Created | ContainerState::Exited(_) if outdated => {
                self.act(Action::Remove { target, id, volumes: RemoveVolumes::Keep });
            }
            // It does not run: nothing is lost with it.
            ContainerState::Created if self.has_other_limits(service, container) => {
                self.act(Action::Remove { target, id, volumes: RemoveVolumes::Keep });
            }
            ContainerState::Created => {
                if self.can_start(service) && self.unmet_dependency(service).is_none() {
                    self.act(Action::Start { target, id });
                }
            }
            ContainerState::Exited(exit) => self.revive(service, slot, target, container, exit),
            ContainerState::Dead => {
                self.act(Action::Remove { target, id, volumes: RemoveVolumes::Keep });
            }
            // Frozen by somebody's hand, or on its way out: not ours to interfere.
            ContainerState::Paused(_) | ContainerState::Removing => {}
        }
    }

    fn revive(&mut self, service: &Service, slot: Slot, target: Target, container: &Container, exit: &Exit) {
        if !self.can_start(service) || !self.missing_volumes(service, slot).is_empty() {
            return;
        }
        if self.waits_in_order(service, container) {
            return;
        }
        let verdict = if self.desired.is_superseded(&container.id, exit.started_at) {
            Verdict::Again(container.since)
        } else {
            let history = self.observed.history.get(&target).cloned().unwrap_or_default();
            history.verdict(container, exit, &target, &service.restart)
        };
        if let Verdict::Again(at) = verdict
            && self.due(at)
            && self.may_be_prepared(container)
        {
            let id = container.id.clone();
            // An old version that goes on for now keeps what it has.
            let is_current = !self.is_outdated(service, container);
            self.act(match is_current && self.has_other_limits(service, container) {
                true => Action::Remove { target, id, volumes: RemoveVolumes::Keep },
                false => Action::Start { target, id },
            });
        }
    }

    /// Whether the pod is ready to be joined by a container that is there.
    pub(super) fn can_start(&self, service: &Service) -> bool {
        self.desired
            .project
            .pods
            .get(&service.pod)
            .is_some_and(|pod| !pod.has_sandbox() || self.open_sandbox(&service.pod).is_some())
    }

    /// Whether only a new container can be what is wanted: another version, or bound to a sandbox that is no
    /// more (the engine fixes that when a container is made).
    fn is_outdated(&self, service: &Service, container: &Container) -> bool {
        !self.desired.project.is_service(&service.name, &container.labels.generation)
            || self.is_unbound(service, container)
    }

    pub(super) fn is_unbound(&self, service: &Service, container: &Container) -> bool {
        match self.desired.project.pods.get(&service.pod) {
            Some(pod) if pod.has_sandbox() => {
                self.current_sandbox(&service.pod).map(|s| &s.id) != container.joined.as_ref()
            }
            _ => container.joined.is_some(),
        }
    }

    fn flaw(&self, service: &Service, container: &Container) -> Flaw {
        let has_sandbox =
            self.desired.project.pods.get(&service.pod).is_some_and(crate::spec::Pod::has_sandbox);
        if has_sandbox {
            if self.is_unbound(service, container) {
                return Flaw::CutOff;
            }
            match self.open_sandbox(&service.pod) {
                Some(sandbox) if !container.shares_network_of(sandbox) => return Flaw::CutOff,
                _ => {}
            }
        }
        let superseded =
            container.started_at().is_some_and(|at| self.desired.is_superseded(&container.id, at));
        // Its successor may not be launched yet.
        let outdated = self.is_outdated(service, container) && !self.awaits_before(service);
        let limited = !self.is_outdated(service, container) && self.needs_other_limits(service, container);
        if superseded || outdated || limited { Flaw::Replaceable } else { Flaw::None }
    }

    /// Whether one replica can be taken down on purpose: every other one that is wanted serves.
    fn spare_replica(&mut self, service: &Service, replicas: u32) -> bool {
        let containers: Vec<_> = Slot::first(replicas)
            .map(|slot| self.observed.replicas(&service.name, slot).into_iter().next())
            .collect();
        let mut spare = true;
        for container in containers {
            match container {
                Some(c) if self.is_available(service, c) && !self.is_busy(c) => {
                    // One that came up a moment ago may fall over the next: wait, then go on.
                    let fresh = self.flaw(service, c) == Flaw::None && self.settles_at(c).is_some();
                    if fresh && !self.settles_at(c).is_none_or(|at| self.due(at)) {
                        spare = false;
                    }
                }
                _ => spare = false,
            }
        }
        spare
    }

    fn settles_at(&self, container: &Container) -> Option<Timestamp> {
        let process = container.process()?;
        (process.health == Health::None).then(|| super::history::later(container.since, SETTLE))
    }

    pub(super) fn is_available(&self, service: &Service, container: &Container) -> bool {
        matches!(&container.state, ContainerState::Running(p)
            if matches!(p.health, Health::None | Health::Healthy))
            && self.illness(container).is_none()
            && self.is_prepared_by_hooks(container)
            && self.missing_listeners(service, container).is_empty()
    }

    /// How long a replica of the service may take to end.
    pub(super) fn grace(&self, service: &Service) -> Duration {
        self.desired.stop_grace.unwrap_or(service.stop_grace)
    }

    fn stop_service(&mut self, service: &Service) {
        if self.has_running_dependents_to_stop(service) {
            return;
        }
        for (slot, container) in self.observed.service(&service.name) {
            if container.process().is_some() {
                let target = Target::Replica(service.name.clone(), slot);
                self.retire(target, container, self.grace(service), service.drain);
            }
        }
    }

    fn has_running_dependents_to_stop(&self, service: &Service) -> bool {
        let project = &self.desired.project;
        project
            .services
            .values()
            .filter(|s| s.depends_on.contains_key(&service.name))
            .filter(|s| self.desired.goals.get(&s.name) == Some(&Goal::Stop))
            .any(|s| self.observed.service(&s.name).any(|(_, c)| c.process().is_some()))
    }

    /// Containers of services and pods that the file no longer has.
    pub(super) fn orphans(&mut self) {
        if self.desired.orphans == Orphans::Keep {
            return;
        }
        for container in self.observed.containers.values() {
            if super::status::is_orphan(self.desired, container) {
                // A sandbox goes after what joined it.
                let in_use =
                    self.observed.containers.values().any(|c| c.joined.as_ref() == Some(&container.id));
                if !in_use {
                    let target = Target::Surplus(container.id.clone());
                    self.discard(target, container, Service::STOP_GRACE, Service::DRAIN);
                }
            }
        }
    }

    /// Stops and removes a container that nothing wants.
    pub(super) fn discard(
        &mut self,
        target: Target,
        container: &Container,
        grace: Duration,
        drain: Duration,
    ) {
        let id = container.id.clone();
        match container.state {
            ContainerState::Running(_) | ContainerState::Paused(_) => {
                self.retire(target, container, self.desired.stop_grace.unwrap_or(grace), drain);
            }
            ContainerState::Created | ContainerState::Exited(_) | ContainerState::Dead => {
                self.act(Action::Remove { target, id, volumes: RemoveVolumes::Remove });
            }
            ContainerState::Removing => {}
        }
    }
}
