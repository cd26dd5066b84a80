//! Replicas that run and do not work: who is replaced, and when.
//!
//! One at a time for each service, whoever is ill for the longest first; the next one only once the last one works
//! again, or has had its time to come up. A replica that works is never touched by this.

use std::{collections::BTreeMap, fmt, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    engine::{ContainerId, ContainerState},
    spec::{RestartCondition, Service, ServiceName, Slot, Unhealthy},
};

use super::{Container, Goal, Planner, Target, Verdict, history::later, stop_time::StopTime, stuck::Doing};

/// How long a replica may finish its connections that is replaced because it is ill, if it does not have less anyway.
const LAST_WORK: Duration = Duration::from_secs(5);
/// How long others wait for one that was replaced to come up.
const COMING_UP: Duration = Duration::from_secs(30);

/// What is wrong with a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnhealthyReason {
    /// The engine's health check fails.
    Unhealthy,
    /// It has not come up in time.
    NotUp,
    /// It does not give the answers by which it is known to live.
    NotAlive,
    /// It takes no connections while others do.
    Stuck(Doing),
}

/// A process that runs and does not work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnhealthyReplica {
    /// What is wrong.
    pub reason: UnhealthyReason,
    /// By which the process is known, by the engine's clock.
    pub started_at: Timestamp,
    /// Since when, by our clock.
    pub since: Timestamp,
    /// When it is to be replaced; none: it is only out of rotation.
    pub replace_at: Option<Timestamp>,
    /// How long it had worked before.
    pub well_for: Duration,
    /// What its check or probe said last, or how many connections wait.
    pub said: String,
}

/// That a process was ended because it did not work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnhealthyReplacement {
    /// Why, in words: `unhealthy for 10s: no database`.
    pub why: String,
    /// When.
    pub at: Timestamp,
}

/// That all replicas of a service fail a health check that none of their version has ever passed.
#[must_use]
pub fn check_never_passed(service: &str, said: &str) -> String {
    let said = if said.is_empty() { String::new() } else { format!(" ({said})") };
    format!(
        "all replicas of {service} fail their health check{said}, which no replica of this version has ever passed: they get \
         connections all the same, and none is replaced for it"
    )
}

impl UnhealthyReplica {
    /// Why it is replaced now.
    #[must_use]
    pub fn why(&self, now: Timestamp) -> String {
        let seconds = now.duration_since(self.since).as_secs().max(0);
        let lasted = if seconds > 0 { format!(" for {seconds} s") } else { String::new() };
        let said = if self.said.is_empty() { String::new() } else { format!(": {}", self.said) };
        format!("{}{lasted}{said}", self.reason)
    }
}

impl fmt::Display for UnhealthyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unhealthy => "unhealthy",
            Self::NotUp => "not up",
            Self::NotAlive => "no sign of life",
            Self::Stuck(Doing::Stopped) => "stopped by a signal",
            Self::Stuck(Doing::Nothing | Doing::Work) => "takes no connections",
        })
    }
}

impl Planner<'_> {
    /// What is wrong with the process that runs in a container.
    pub(super) fn unhealthy(&self, container: &Container) -> Option<&UnhealthyReplica> {
        let ContainerState::Running(process) = &container.state else { return None };
        self.observed
            .unhealthy
            .get(&container.id)
            .filter(|unhealthy| unhealthy.started_at == process.started_at)
    }

    /// Chooses which replica of a service is replaced now because it does not work, if any is.
    pub(super) fn choose_unhealthy(&mut self, service: &Service, replicas: u32) {
        if service.unhealthy == Unhealthy::Keep
            || self.plan.let_through.contains_key(&service.name)
            || service.restart.condition == RestartCondition::Never
            || self.is_one_being_replaced(service, replicas)
        {
            return;
        }
        let ill = Slot::first(replicas).filter_map(|slot| {
            let container = self.observed.replicas(&service.name, slot).into_iter().next()?;
            let unhealthy = self.unhealthy(container)?;
            Some((unhealthy.since, slot, unhealthy.replace_at?, container.id.clone()))
        });
        let mut ill: Vec<_> = ill.collect();
        ill.sort();
        for (_, _, replace_at, id) in ill {
            if self.due(replace_at) && self.may_be_spared(service, replicas, &id) {
                self.to_replace.insert(id);
                return;
            }
        }
    }

    /// What the health check of a service says, if it fails in all of its replicas, and no replica of this version has ever passed
    /// it: then it is the check that is wrong, as far as can be told. To replace replicas one after the other would never end, and
    /// nobody would ever be served.
    fn never_passed(&self, service: &Service) -> Option<&str> {
        let Some(Goal::Run { replicas }) = self.desired.goals.get(&service.name) else { return None };
        if self.observed.unhealthy.is_empty() || self.desired.rollouts.contains_key(&service.name) {
            return None;
        }
        let mut said = None;
        for slot in Slot::first(*replicas) {
            let mut there = self.observed.replicas(&service.name, slot).into_iter();
            let (container, None) = (there.next()?, there.next()) else { return None };
            let unhealthy = self.unhealthy(container)?;
            if unhealthy.reason != UnhealthyReason::Unhealthy || !unhealthy.well_for.is_zero() {
                return None;
            }
            said.get_or_insert(unhealthy.said.as_str());
        }
        said.filter(|_| !self.has_served(service))
    }

    /// Those of which [`Self::never_passed`] holds.
    pub(super) fn let_through(&self) -> BTreeMap<ServiceName, String> {
        let services = self.desired.project.services.values();
        services
            .filter_map(|service| Some((service.name.clone(), self.never_passed(service)?.to_owned())))
            .collect()
    }

    /// Whether a replica may be ended that does not work. What is only known by its queue may be slow, or have slow clients,
    /// and these come to the next one: so it may only if somebody else of its service accepts.
    fn may_be_spared(&self, service: &Service, replicas: u32, id: &ContainerId) -> bool {
        let is_slow = self.observed.containers.get(id).and_then(|container| self.unhealthy(container));
        let is_slow =
            is_slow.is_some_and(|i| matches!(i.reason, UnhealthyReason::Stuck(Doing::Nothing | Doing::Work)));
        !is_slow
            || Slot::first(replicas).any(|slot| {
                let slot_members = self.slot_members(service, slot);
                let mut there = slot_members.current.into_iter().chain(slot_members.replacement);
                there.any(|other| other.id != *id && self.is_available(service, other))
            })
    }

    /// Replaces a replica if it was chosen: takes it out of rotation, gives it a short time to finish what it can, and
    /// ends it. The history then says when it starts again. Returns whether it was.
    pub(super) fn replace_unhealthy(
        &mut self,
        service: &Service,
        target: &Target,
        container: &Container,
    ) -> bool {
        if !self.to_replace.contains(&container.id) {
            return false;
        }
        let Some(unhealthy) = self.unhealthy(container).cloned() else { return false };
        let time = match unhealthy.reason {
            // It can finish nothing, and heeds no signal; who waits for it moves to others when it is gone.
            UnhealthyReason::Stuck(_) => StopTime { drain: Duration::ZERO, grace: Duration::ZERO },
            _ => StopTime { drain: service.drain.min(LAST_WORK), grace: service.stop_grace },
        };
        self.plan.replaced.insert(container.id.clone(), unhealthy);
        self.retire(target.clone(), container, time);
        true
    }

    /// Whether a replica was ended because it did not work, and has not come up again.
    fn is_one_being_replaced(&mut self, service: &Service, replicas: u32) -> bool {
        let mut is_one = false;
        for slot in Slot::first(replicas) {
            let target = Target::Replica(service.name.clone(), slot);
            let (Some(history), Some(container)) =
                (self.observed.history.get(&target), self.slot_members(service, slot).current)
            else {
                continue;
            };
            is_one |= match &container.state {
                ContainerState::Exited(exit) => {
                    history.is_replaced(&container.id, exit.started_at)
                        && matches!(
                            history.verdict(container, exit, &target, &service.restart),
                            Verdict::Again(_)
                        )
                }
                ContainerState::Running(process)
                    if history.is_replaced(&container.id, process.started_at) =>
                {
                    self.observed.busy.contains_key(&target)
                }
                ContainerState::Running(_) => {
                    history.replacement.is_some()
                        && !self.is_available(service, container)
                        && self.unhealthy(container).is_none()
                        && !self.due(later(container.since, COMING_UP))
                }
                _ => false,
            };
        }
        is_one
    }
}
