//! How a service comes to another version: which slots are under way, and when a new replica has proved itself.
//!
//! Nothing is remembered here but what [`Rollout`] says. How far it is can be seen: a slot is done once the one whose
//! place it is runs the wanted version and was ready for as long as the file wants it to be watched.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;

use crate::{
    engine::{ContainerId, Role},
    spec::{FailureAction, Generation, Service, Share, Slot, Update},
};

use super::{Container, Goal, Planner, WEIGHT_MAX, history::later};

/// A service on its way to another version: that of [`super::Desired::project`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// Which way.
    pub direction: Direction,
    /// Whether nothing more is to be replaced for now.
    pub paused: bool,
    /// How the new ones come to the old ones.
    pub strategy: Strategy,
    /// When it began.
    pub began: Timestamp,
}

/// Which way a rollout goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To a version that has yet to prove itself.
    Forward {
        /// The version that has, if it is known.
        previous: Option<Previous>,
    },
    /// To the one that has, from one that has failed.
    Back,
}

/// A version that has proved itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Previous {
    /// What it is.
    pub service: Arc<Service>,
    /// By which its replicas are known.
    pub generation: Generation,
}

impl From<Service> for Previous {
    fn from(service: Service) -> Self {
        Self { generation: service.generation(), service: Arc::new(service) }
    }
}

/// How the new replicas come to the old ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Slot after slot, each new one in place of an old one.
    Rolling,
    /// Beside all the old ones.
    Beside {
        /// How many of them.
        replicas: u32,
        /// How much of the new connections they get, all together.
        share: Share,
    },
}

/// How many more slots may be begun.
pub(super) struct Pace {
    /// Where somebody serves, and would be taken down for it.
    serving: u32,
    /// Where nobody serves, or a successor comes first.
    free: u32,
    /// Only up to this slot.
    last: Option<u32>,
    /// Only these slots.
    only: Option<BTreeSet<Slot>>,
}

impl Pace {
    const STILL: Self = Self { serving: 0, free: 0, last: None, only: None };

    /// Begins a slot by starting a replica, if that is possible now.
    pub(super) fn start(&mut self, slot: Slot) -> bool {
        let may = self.free > 0
            && self.last.is_none_or(|last| slot.number() <= last)
            && self.only.as_ref().is_none_or(|only| only.contains(&slot));
        if may {
            self.free -= 1;
            self.serving = self.serving.saturating_sub(1);
        }
        may
    }

    /// Begins a slot by taking down a replica that serves, if that is possible now.
    pub(super) fn take_down(&mut self, slot: Slot) -> bool {
        self.serving > 0 && self.start(slot)
    }
}

impl super::Desired {
    /// The rules that a service is replaced by now.
    #[must_use]
    pub fn update_rules<'s>(&self, service: &'s Service) -> &'s Update {
        match self.rollouts.get(&service.name) {
            Some(Rollout { direction: Direction::Back, .. }) => &service.rollback,
            _ => &service.update,
        }
    }
}

impl Planner<'_> {
    /// The rules that a service is replaced by now.
    pub(super) fn rules_of<'s>(&self, service: &'s Service) -> &'s Update {
        self.desired.update_rules(service)
    }

    /// The version that has proved itself, where another one is on its way. One of which nothing is there was never
    /// begun, or is of no use any more.
    pub(super) fn previous(&self, service: &Service) -> Option<&Previous> {
        let Some(Rollout { direction: Direction::Forward { previous }, .. }) =
            self.desired.rollouts.get(&service.name)
        else {
            return None;
        };
        let previous = previous.as_ref()?;
        let mut replicas = self.observed.service(&service.name);
        replicas.any(|(_, replica)| replica.labels.generation == previous.generation).then_some(previous)
    }

    /// Whether old and new replicas of a service are there for longer, and how many new ones.
    pub(super) fn beside(&self, service: &Service) -> Option<(u32, Share)> {
        match self.desired.rollouts.get(&service.name)?.strategy {
            Strategy::Beside { replicas, share } => Some((replicas, share)),
            Strategy::Rolling => None,
        }
    }

    /// Whether nothing of a service is to be replaced for now.
    pub(super) fn is_paused(&self, service: &Service) -> bool {
        self.desired.rollouts.get(&service.name).is_some_and(|rollout| rollout.paused)
    }

    /// How many slots may be begun now.
    pub(super) fn pace(&mut self, service: &Service, replicas: u32) -> Pace {
        if self.is_paused(service) || !self.can_be_launched(service) || self.awaits_before(service) {
            return Pace::STILL;
        }
        if let Some((count, _)) = self.beside(service) {
            return Pace { serving: 0, free: count, last: Some(count), only: None };
        }
        let rules = *self.rules_of(service);
        let (mut begun, mut without) = (BTreeSet::new(), BTreeSet::new());
        let mut last_done = None::<Timestamp>;
        for slot in Slot::first(replicas) {
            let slot_members = self.slot_members(service, slot);
            let there: Vec<_> = slot_members.current.into_iter().chain(slot_members.replacement).collect();
            for container in there.iter().filter(|container| self.is_wanted(service, container)) {
                match self.proved_at(service, container) {
                    Some(at) if at <= self.now => last_done = last_done.max(Some(at)),
                    // The others go on without it.
                    _ if rules.failure_action == FailureAction::Continue
                        && self.failure_in(service, slot).is_some() => {}
                    _ => {
                        begun.insert(slot);
                    }
                }
            }
            if !there.iter().any(|container| self.is_available(service, container)) {
                without.insert(slot);
            }
        }
        let most = if rules.parallelism == 0 { u32::MAX } else { rules.parallelism };
        let left = |slots: usize| most.saturating_sub(u32::try_from(slots).unwrap_or(u32::MAX));
        let (serving, free) = (left(begun.union(&without).count()), left(begun.len()));
        if let Some(at) = last_done
            && !rules.delay.is_zero()
            && !self.due(later(at, rules.delay))
        {
            // Whose replica is gone already has been begun: to start the old one again would be in vain.
            return Pace { serving: 0, free, last: None, only: Some(without) };
        }
        Pace { serving, free, last: None, only: None }
    }

    /// Whether a container runs the version that is wanted.
    pub(super) fn is_wanted(&self, service: &Service, container: &Container) -> bool {
        self.desired.project.is_service(&service.name, &container.labels.generation)
    }

    /// The weight of a replica where old and new ones share the traffic as the file or a user says. Nobody gets more
    /// than twice of what it would get among all.
    pub(super) fn in_proportion(&self, service: &Service, container: &Container, weight: u32) -> u32 {
        let Some((new, share)) = self.beside(service) else { return weight };
        let Some(Goal::Run { replicas: old }) = self.desired.goals.get(&service.name) else { return weight };
        let (old, new) = (u64::from(*old).max(1), u64::from(new).max(1));
        let (share, rest) = (u64::from(share.thousandths()), u64::from(1000 - share.thousandths()));
        // So that the new ones have share : rest of the old ones' weight. Who has the larger part has the full weight.
        let (of, in_all) = match (self.is_wanted(service, container), share <= rest) {
            (true, true) => (old * share, new * rest.max(1)),
            (false, false) => (new * rest, old * share.max(1)),
            (true, false) | (false, true) => (1, 1),
        };
        let weight = u64::from(weight) * of;
        // A little is more than nothing.
        let least = u64::from(weight > 0);
        u32::try_from((weight / in_all).max(least)).unwrap_or(WEIGHT_MAX).min(WEIGHT_MAX)
    }

    /// When a replica has proved itself, or will have if it stays as it is. None: it is not ready.
    pub(super) fn proved_at(&self, service: &Service, container: &Container) -> Option<Timestamp> {
        if self.has_completed(service, container) {
            // There is nothing to watch.
            return Some(container.since);
        }
        if !self.is_available(service, container) {
            return None;
        }
        let since = self.observed.ready_since.get(&container.id).copied().unwrap_or(self.now);
        // Another process of it has to prove itself anew.
        let since = since.max(container.since);
        Some(later(since, self.rules_of(service).monitor))
    }

    /// Wakes when a new replica has proved itself, or has failed to.
    pub(super) fn watch_rollouts(&mut self) {
        let (desired, observed) = (self.desired, self.observed);
        for (name, service) in &desired.project.services {
            let (new, old): (Vec<_>, Vec<_>) = observed
                .service(name)
                .map(|(_, container)| container)
                .partition(|container| self.is_wanted(service, container));
            if old.is_empty() && !desired.rollouts.contains_key(name) {
                continue;
            }
            for container in new {
                let at = self.proved_at(service, container);
                let at = at.unwrap_or_else(|| self.fails_at(service, container));
                self.due(at);
            }
        }
    }

    /// The replicas that are ready.
    pub(super) fn ready(&self) -> BTreeSet<ContainerId> {
        let containers = self.observed.containers.values();
        let is_ready = |container: &&Container| {
            let Role::Replica { service, .. } = &container.labels.role else { return false };
            let service = self.desired.project.services.get(service);
            service.is_some_and(|service| self.is_available(service, container))
        };
        containers.filter(is_ready).map(|container| container.id.clone()).collect()
    }

    /// Whether a replica has proved itself; if that is only a question of time, the plan wakes then.
    pub(super) fn has_proved_itself(&mut self, service: &Service, container: &Container) -> bool {
        self.proved_at(service, container).is_some_and(|at| self.due(at))
    }
}
