//! The life of a replica, and the order in which those of a service are replaced.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use crate::{
    engine::{ContainerState, Exit, Health, RemoveVolumes},
    spec::{Order, Service, Slot},
};

use super::{
    Action, Container, Goal, Orphans, Planner, SlotMember, Target, Verb, history::Verdict, resource,
    rollout::Pace, stop_time::StopTime,
};

/// How long a replica without a health check must have run before the next one is taken down on purpose.
pub const SETTLE: Duration = Duration::from_secs(2);

/// How long a replica of the version before may finish its connections in its slot. Whoever takes longer is set aside: its
/// successor has the slot then, and the rollout is done.
const LONG_DRAIN: Duration = Duration::from_secs(10);

/// How many replicas that have given up a slot may still finish their connections. Another version of a service waits until
/// there are fewer: else there would be one more for each version, with connections that never end.
const MOST_SET_ASIDE: usize = 4;

/// Why a running replica has to make way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    /// None: it stays.
    None,
    /// Its network is dead: nobody can reach it, so there is nothing to spare.
    CutOff,
    /// It serves, but was asked to restart: one at a time.
    Superseded,
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
        let is_asked = |container: &Container| self.flaw(service, container) == Flaw::Superseded;
        let is_needed =
            Slot::first(replicas).any(|slot| self.slot_members(service, slot).current.is_some_and(is_asked));
        let mut may_take_down = is_needed && self.spare_replica(service, replicas);
        self.choose_unhealthy(service, replicas);
        let mut pace = self.pace(service, replicas);
        // Where nobody serves, nobody has to wait for his turn.
        let mut slots: Vec<_> = Slot::first(replicas).collect();
        slots.sort_by_key(|slot| self.is_served(service, *slot));
        for slot in slots {
            let slot_members = self.slot_members(service, slot);
            for second in slot_members.surplus {
                self.discard(Target::Surplus(second.id.clone()), second, StopTime::of(service));
            }
            for container in &slot_members.set_aside {
                let target = self.desired.target_of(container);
                self.discard_kept(target, container, StopTime::of(service));
            }
            match (slot_members.current, slot_members.replacement) {
                (None, None) => self.fill(service, slot, &mut pace),
                (None, Some(replacement)) => self.move_up(service, slot, replacement),
                (Some(current), replacement) if self.is_wanted(service, current) => {
                    self.keep(service, slot, current, &mut may_take_down);
                    self.release(service, slot, current, replacement);
                }
                (Some(current), replacement) => {
                    self.replace(service, slot, current, replacement, &mut pace);
                }
            }
        }
        for (slot, container) in self.observed.service(&service.name) {
            if slot.number() > replicas {
                let target = self.desired.target_of(container);
                self.discard(target, container, StopTime::of(service));
            }
        }
    }

    fn is_served(&self, service: &Service, slot: Slot) -> bool {
        let slot_members = self.slot_members(service, slot);
        let mut there = slot_members.current.into_iter().chain(slot_members.replacement);
        there.any(|container| self.is_available(service, container))
    }

    /// An empty slot gets the version that is wanted; but while that one has yet to prove itself, only as fast as the
    /// rules say, and else the one that has.
    fn fill(&mut self, service: &Service, slot: Slot, pace: &mut Pace) {
        if self.removes_slot_volumes(service, slot) {
            return;
        }
        let previous = self.previous(service).map(|previous| Arc::clone(&previous.service));
        match previous {
            Some(previous) if self.beside(service).is_some() || !pace.start(slot) => {
                // A pod of its own came with the new version.
                let previous = Arc::new(Service { pod: service.pod.clone(), ..(*previous).clone() });
                self.launch(previous, slot, SlotMember::Current);
            }
            // Its job comes first.
            _ if self.awaits_before(service) => {}
            _ => self.launch(Arc::new(service.clone()), slot, SlotMember::Current),
        }
    }

    fn launch(&mut self, service: Arc<Service>, slot: Slot, slot_members: SlotMember) {
        if self.can_be_launched(&service) && self.missing_volumes(&service, slot).is_empty() {
            let sandbox = self.open_sandbox(&service.pod).map(|c| c.id.clone());
            self.act(Action::LaunchReplica { service, slot, slot_members, sandbox });
        }
    }

    /// Whether a new replica of a service could be started at all.
    pub(super) fn can_be_launched(&self, service: &Service) -> bool {
        self.can_start(service) && self.unmet_dependency(service).is_none()
    }

    /// A successor takes the place that is free. One that was given the place keeps it until a newer version is ready.
    fn move_up(&mut self, service: &Service, slot: Slot, replacement: &Container) {
        let target = Target::Replacement(service.name.clone(), slot);
        let was_given_it = self.is_available(service, replacement)
            && !self.observed.set_aside(&service.name, slot).is_empty();
        if self.is_wanted(service, replacement) || self.previous(service).is_none() || was_given_it {
            let name = self.desired.project.replica_name(service, slot);
            self.act(Action::Rename { target, id: replacement.id.clone(), name });
        } else {
            self.discard(target, replacement, StopTime::of(service));
        }
    }

    /// A successor goes that is not needed any more.
    fn release(
        &mut self,
        service: &Service,
        slot: Slot,
        current: &Container,
        replacement: Option<&Container>,
    ) {
        let Some(replacement) = replacement else { return };
        // Until the one whose place it is serves, better this one than nobody.
        if self.is_available(service, current) || !self.is_available(service, replacement) {
            let target = Target::Replacement(service.name.clone(), slot);
            self.discard(target, replacement, StopTime::of(service));
        }
    }

    /// A replica of another version makes way for one that is wanted.
    fn replace(
        &mut self,
        service: &Service,
        slot: Slot,
        current: &Container,
        replacement: Option<&Container>,
        pace: &mut Pace,
    ) {
        let target = Target::Replica(service.name.clone(), slot);
        let id = current.id.clone();
        if self.flaw(service, current) == Flaw::CutOff || self.is_unbound(service, current) {
            // Nobody reaches it, and it can only be made anew.
            self.keep(service, slot, current, &mut false);
            return;
        }
        if let Some(replacement) = replacement {
            let stale = !self.is_wanted(service, replacement)
                || self.beside(service).is_some_and(|(replicas, _)| slot.number() > replicas);
            if stale && self.has_handed_over(service, current, replacement) {
                // One version more is wanted before this one has finished: it does not come back for that.
                self.finish(service, slot, current, Duration::ZERO);
                return;
            } else if stale {
                let target = Target::Replacement(service.name.clone(), slot);
                self.discard(target, replacement, StopTime::of(service));
            } else {
                self.keep_alive(service, slot, replacement);
                let may_go = self.beside(service).is_none()
                    && !self.is_paused(service)
                    && self.flaw(service, replacement) != Flaw::CutOff;
                if may_go && self.has_proved_itself(service, replacement) {
                    self.finish(service, slot, current, LONG_DRAIN);
                    return;
                }
            }
        } else {
            let order =
                if self.beside(service).is_some() { Some(Order::StartFirst) } else { self.order(service) };
            match order {
                Some(Order::StartFirst) if pace.start(slot) => {
                    self.launch(Arc::new(service.clone()), slot, SlotMember::Replacement);
                }
                Some(Order::StopFirst) => {
                    let serves = self.is_available(service, current);
                    if if serves { pace.take_down(slot) } else { pace.start(slot) } {
                        self.discard_kept(target, current, self.time_to_make_way(service, current));
                        return;
                    }
                }
                // Its turn comes later, or it is known in a moment which goes first.
                Some(Order::StartFirst) | None => {}
            }
        }
        if matches!(current.state, ContainerState::Dead) {
            self.act(Action::Remove { target, id, volumes: RemoveVolumes::Keep });
        } else {
            self.keep_alive(service, slot, current);
        }
    }

    /// Whether a replica finishes its connections because its successor has taken over.
    fn has_handed_over(&self, service: &Service, current: &Container, replacement: &Container) -> bool {
        current.process().is_some()
            && self.observed.out_since.contains_key(&current.id)
            && self.proved_at(service, replacement).is_some_and(|at| at <= self.now)
    }

    /// A replica has been followed by another one: it goes once it has finished its connections, and after that time in its
    /// slot does so outside of it.
    fn finish(&mut self, service: &Service, slot: Slot, current: &Container, within: Duration) {
        let target = Target::Replica(service.name.clone(), slot);
        self.discard_kept(target.clone(), current, StopTime::of(service));
        if !self.plan.draining.contains(&current.id)
            || self.observed.set_aside(&service.name, slot).len() >= MOST_SET_ASIDE
        {
            return;
        }
        let since = self.observed.out_since.get(&current.id).copied().unwrap_or(self.now);
        if self.due(super::history::later(since, within)) {
            let replica = self.desired.project.replica_name(service, slot);
            let name = current.id.set_aside_name(&replica);
            self.act(Action::SetAside { target, id: current.id.clone(), name });
        }
    }

    /// A replica of the version that is wanted.
    fn keep(&mut self, service: &Service, slot: Slot, container: &Container, may_take_down: &mut bool) {
        let target = Target::Replica(service.name.clone(), slot);
        let id = container.id.clone();
        let unbound = self.is_unbound(service, container);
        match &container.state {
            ContainerState::Running(_) => {
                let stop = match self.flaw(service, container) {
                    Flaw::None => self.is_spoilt_by_hooks(container),
                    Flaw::CutOff => true,
                    Flaw::Superseded if !self.is_available(service, container) => true,
                    Flaw::Superseded => std::mem::take(may_take_down),
                };
                if stop {
                    // Of a restart that was asked for, and only of that.
                    let timeout = self.desired.restart_timeout(container);
                    self.retire(target, container, self.time_to_make_way(service, container).or(timeout));
                } else if !self.replace_unhealthy(service, &target, container) {
                    self.prepare(container);
                    let name = self.desired.project.replica_name(service, slot);
                    if container.name != name {
                        self.act(Action::RestoreName { target, id, name });
                    } else if !unbound {
                        self.adjust(service, target, container);
                    }
                }
            }
            // Only a new container can run in the pod by now, and none is to run.
            ContainerState::Exited(_) if self.desired.stopped_outside_since(container).is_some() => {}
            ContainerState::Created | ContainerState::Exited(_) if unbound || container.recreated => {
                self.act(Action::Remove { target, id, volumes: RemoveVolumes::Keep });
            }
            _ => self.keep_alive(service, slot, container),
        }
    }

    /// Starts a container that does not run and shall.
    fn keep_alive(&mut self, service: &Service, slot: Slot, container: &Container) {
        let target = self.desired.target_of(container);
        let id = container.id.clone();
        match &container.state {
            // It does not run: nothing is lost with it.
            ContainerState::Created
                if self.is_wanted(service, container) && self.has_other_limits(service, container) =>
            {
                self.act(Action::Remove { target, id, volumes: RemoveVolumes::Keep });
            }
            ContainerState::Exited(_) if self.desired.stopped_outside_since(container).is_some() => {}
            // It can only join the network of a sandbox that is no more.
            ContainerState::Created | ContainerState::Exited(_) if self.is_unbound(service, container) => {
                self.act(Action::Remove { target, id, volumes: RemoveVolumes::Keep });
            }
            ContainerState::Created => {
                if self.can_be_launched(service) {
                    self.act(Action::Start { target, id });
                }
            }
            ContainerState::Exited(exit) => self.revive(service, slot, target, container, exit),
            ContainerState::Dead => {
                self.act(Action::Remove { target, id, volumes: RemoveVolumes::Keep });
            }
            ContainerState::Running(_)
                if self.flaw(service, container) == Flaw::CutOff || self.is_spoilt_by_hooks(container) =>
            {
                self.retire(target, container, StopTime::of(service));
            }
            ContainerState::Running(_) => {
                if !self.replace_unhealthy(service, &target, container) {
                    self.prepare(container);
                }
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
        if let Verdict::Again(at) = self.verdict(service, &target, container, exit)
            && self.due(at)
            && self.may_be_prepared(container)
        {
            let id = container.id.clone();
            // An old version that goes on for now keeps what it has.
            let is_current = self.is_wanted(service, container);
            self.act(match is_current && self.has_other_limits(service, container) {
                true => Action::Remove { target, id, volumes: RemoveVolumes::Keep },
                false => Action::Start { target, id },
            });
        }
    }

    pub(super) fn verdict(
        &self,
        service: &Service,
        target: &Target,
        container: &Container,
        exit: &Exit,
    ) -> Verdict {
        if self.desired.is_superseded(&container.id, exit.started_at) {
            return Verdict::Again(container.since);
        }
        if let Some(since) = self.desired.stopped_outside_since(container) {
            return Verdict::StoppedOutside(since);
        }
        let history = self.observed.history.get(target).cloned().unwrap_or_default();
        match history.verdict(container, exit, target, &service.restart) {
            Verdict::Again(at) => {
                let known_at = self.observed.in_doubt_until(container);
                Verdict::Again(known_at.map_or(at, |known_at| at.max(known_at)))
            }
            verdict => verdict,
        }
    }

    /// Whether a replica has ended and done its work.
    pub(super) fn has_completed(&self, service: &Service, container: &Container) -> bool {
        let ContainerState::Exited(exit) = &container.state else { return false };
        let target = self.desired.target_of(container);
        self.verdict(service, &target, container, exit) == Verdict::Completed
    }

    /// Whether the pod is ready to be joined by a container that is there.
    pub(super) fn can_start(&self, service: &Service) -> bool {
        self.desired
            .project
            .pods
            .get(&service.pod)
            .is_some_and(|pod| !pod.has_sandbox() || self.open_sandbox(&service.pod).is_some())
    }

    /// Whether a container is bound to a sandbox that is no more (the engine fixes that when a container is made).
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
        let limited = self.is_wanted(service, container) && self.needs_other_limits(service, container);
        if superseded || limited || container.recreated { Flaw::Superseded } else { Flaw::None }
    }

    /// Whether one replica can be taken down on purpose: every other one that is wanted serves.
    fn spare_replica(&mut self, service: &Service, replicas: u32) -> bool {
        let containers: Vec<_> =
            Slot::first(replicas).map(|slot| self.slot_members(service, slot).current).collect();
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

    /// How long a replica may take that makes way for another one, which begins only then. While no other one serves, it is
    /// told to end at once: new connections wait until the next one is ready, and would wait for the drain as well.
    fn time_to_make_way(&self, service: &Service, container: &Container) -> StopTime {
        let mut others = self.observed.service(&service.name).filter(|(_, other)| other.id != container.id);
        let is_served =
            others.any(|(_, other)| self.is_available(service, other) && !self.retiring.contains(&other.id));
        let time = StopTime::of(service);
        if is_served { time } else { time.without_drain() }
    }

    fn settles_at(&self, container: &Container) -> Option<Timestamp> {
        let process = container.process()?;
        (process.health == Health::None).then(|| super::history::later(container.since, SETTLE))
    }

    /// Whether a replica serves, and goes on to.
    pub(super) fn is_available(&self, service: &Service, container: &Container) -> bool {
        matches!(&container.state, ContainerState::Running(p)
            if matches!(p.health, Health::None | Health::Healthy))
            && self.unhealthy(container).is_none()
            && self.is_prepared_by_hooks(container)
            && self.missing_listeners(service, container).is_empty()
            && !self.doing(container).is_some_and(Verb::ends)
    }

    fn stop_service(&mut self, service: &Service) {
        if self.has_running_dependents_to_stop(service) {
            return;
        }
        let time = StopTime::of(service).or(self.desired.stop_timeouts.get(&service.name).copied());
        for (slot, container) in self.observed.service(&service.name) {
            if container.process().is_some() {
                let target = self.desired.target_of(container);
                self.retire(target, container, time);
            } else if self.desired.is_replacement(container) {
                // It would take a place that nobody has any more.
                let target = Target::Replacement(service.name.clone(), slot);
                self.discard(target, container, time);
            } else if container.is_set_aside() {
                self.discard_kept(self.desired.target_of(container), container, time);
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
                    self.discard(target, container, StopTime::DEFAULT);
                }
            }
        }
    }

    /// Stops and removes a container that another one has followed: its volumes are the follower's.
    fn discard_kept(&mut self, target: Target, container: &Container, time: StopTime) {
        match container.state {
            ContainerState::Created | ContainerState::Exited(_) | ContainerState::Dead => {
                let id = container.id.clone();
                self.act(Action::Remove { target, id, volumes: RemoveVolumes::Keep });
            }
            _ => self.discard(target, container, time),
        }
    }

    /// Stops and removes a container that nothing wants.
    pub(super) fn discard(&mut self, target: Target, container: &Container, time: StopTime) {
        let id = container.id.clone();
        match container.state {
            ContainerState::Running(_) | ContainerState::Paused(_) => {
                self.retire(target, container, time);
            }
            ContainerState::Created | ContainerState::Exited(_) | ContainerState::Dead => {
                self.act(Action::Remove { target, id, volumes: RemoveVolumes::Remove });
            }
            ContainerState::Removing => {}
        }
    }
}
