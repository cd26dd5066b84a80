//! What has become of a rollout: whether it is done, and whether the new version is worth having.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    engine::{ContainerState, Health, Role, tells_of_host_fault},
    kernel::steering::OtherUser,
    spec::{FailureAction, Service, ServiceName, Slot, Update},
};

use super::{
    Container, Desired, Goal, LastTermination, Observed, OutOfReach, Phase, Planner, Regression, Rollout,
    RolloutMetrics, Sharing, Strategy, Target, Verb, Verdict, history::later, listening::Elsewhere,
    regression as comparison,
};

/// How many starts in a row have to fail before a version is blamed for it: what one says may be the end of the engine
/// that was asked, or of the pod.
const STARTS: u32 = 2;

/// What has become of a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every slot runs the version that was wanted, and that has proved itself.
    Done,
    /// All that was to come beside the old ones has proved itself, since then.
    Reached(Timestamp),
    /// More slots failed than may.
    Failed(Failure),
}

/// Why a version is not worth having.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Where it was seen first.
    pub slot: Slot,
    /// What it was.
    #[serde(flatten)]
    pub reason: FailureReason,
}

/// What a replica of a new version did wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum FailureReason {
    /// It ended.
    Ended {
        /// How, with the last log lines.
        last_termination: Box<LastTermination>,
    },
    /// The engine will not run it.
    Refused {
        /// What the engine said.
        error: String,
    },
    /// The job before it failed.
    Job {
        /// How.
        error: String,
    },
    /// Its health check fails.
    Unhealthy,
    /// It does not listen where it should, but elsewhere.
    ListensElsewhere {
        /// Where it should.
        wanted: Vec<u16>,
        /// Where it does.
        found: Vec<u16>,
        /// Where it does on a port where it should, if nobody outside of its container reaches it there.
        out_of_reach: Option<OutOfReach>,
    },
    /// It did not get ready in time.
    TooSlow {
        /// So many seconds.
        seconds: u64,
    },
    /// It runs, and does not work.
    Ill {
        /// What is wrong, and for how long.
        why: String,
    },
    /// More of its connections are reset than of the previous version.
    Resets {
        /// How many.
        reset: u64,
        /// Of how many.
        connections: u64,
        /// How many of the version before.
        old_reset: u64,
        /// Of how many.
        old_connections: u64,
    },
    /// Its queues have no room for all who come.
    Overflows {
        /// How many handshakes found none.
        overflowed: u64,
        /// Beside so many connections.
        connections: u64,
    },
    /// Far more connections wait for it than for the version before.
    Queues {
        /// At one of its replicas.
        waiting: u64,
        /// At one of the version before.
        old_waiting: u64,
    },
    /// It runs as another user than those who have the port. Only older releases find that out before they start it.
    OtherUser {
        /// Who wants it, and who has it.
        other: OtherUser,
    },
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |ports: &[u16]| ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        match self {
            Self::Ended { last_termination } => {
                match (
                    &last_termination.exclusive_port,
                    &last_termination.other_user,
                    &last_termination.port_not_shared,
                ) {
                    (Some(port), ..) => {
                        write!(f, "it asked for port {port}, which is exclusive and held by another replica")
                    }
                    (None, Some(other), _) => Self::OtherUser { other: *other }.fmt(f),
                    (None, None, Some(_)) => {
                        f.write_str("it opens its port for itself alone, and others have it")
                    }
                    (None, None, None) => {
                        write!(f, "it ended: {}", last_termination.exit)?;
                        last_termination
                            .log
                            .iter()
                            .rev()
                            .take(3)
                            .rev()
                            .try_for_each(|line| write!(f, "\n    {line}"))
                    }
                }
            }
            Self::Refused { error } => write!(f, "the engine does not run it: {error}"),
            Self::Job { error } => write!(f, "the job before it failed: {error}"),
            Self::Unhealthy => f.write_str("its health check fails"),
            Self::ListensElsewhere { out_of_reach: Some(address), .. } => write!(f, "it {address}"),
            Self::ListensElsewhere { wanted, found, out_of_reach: None } => {
                write!(f, "it listens on port {}, and not on {}", list(found), list(wanted))
            }
            Self::Ill { why } => f.write_str(why),
            Self::Resets { reset, connections, old_reset, old_connections } => write!(
                f,
                "{reset} of {connections} connections were reset, and {old_reset} of {old_connections} of the previous version"
            ),
            Self::Overflows { overflowed, connections } => write!(
                f,
                "its queue had no room for {overflowed} handshakes; it accepted {connections} connections"
            ),
            Self::Queues { waiting, old_waiting } => write!(
                f,
                "{waiting} connections wait for it to accept them, and {old_waiting} for one of the version before"
            ),
            Self::TooSlow { seconds } => write!(f, "it was not ready within {seconds} s"),
            Self::OtherUser { other: OtherUser { port, user, owner } } => write!(
                f,
                "it runs as user {user}, and could not get port {port} from the replicas of user {owner}"
            ),
        }
    }
}

/// Tells of each rollout what has become of it, if something has.
#[must_use]
pub fn assess(desired: &Desired, observed: &Observed, now: Timestamp) -> BTreeMap<ServiceName, Outcome> {
    if desired.phase != Phase::Up {
        return BTreeMap::new();
    }
    let mut planner = Planner::new(desired, observed, now);
    let outcome = |(name, rollout): (&ServiceName, &Rollout)| {
        let service = desired.project.services.get(name)?;
        let Some(Goal::Run { replicas }) = desired.goals.get(name) else { return None };
        Some((name.clone(), planner.outcome(service, rollout, *replicas)?))
    };
    desired.rollouts.iter().filter_map(outcome).collect()
}

impl Planner<'_> {
    fn outcome(&mut self, service: &Service, rollout: &Rollout, replicas: u32) -> Option<Outcome> {
        if rollout.paused {
            return None;
        }
        match rollout.strategy {
            Strategy::Rolling if self.is_done(service, replicas) => return Some(Outcome::Done),
            Strategy::Beside { replicas: new, .. } => {
                if let Some(since) = self.have_joined(service, new.min(replicas)) {
                    return Some(Outcome::Reached(since));
                }
            }
            Strategy::Rolling => {}
        }
        if let Some(error) = self.pre_deploy_error(&service.name) {
            let reason = FailureReason::Job { error: error.error };
            return Some(Outcome::Failed(Failure { slot: Slot::FIRST, reason }));
        }
        let rules = self.rules_of(service);
        if rules.failure_action == FailureAction::Continue {
            return None;
        }
        if let Some(failure) = self.failure_in_kernel(service, rules) {
            return Some(Outcome::Failed(failure));
        }
        let most = u64::from(rules.max_failure_ratio.thousandths()) * u64::from(replicas);
        let mut failures = Slot::first(replicas).filter_map(|slot| {
            let reason = self.failure_in(service, slot)?;
            Some(Failure { slot, reason })
        });
        let first = failures.next()?;
        let count = 1 + u64::try_from(failures.count()).unwrap_or(u64::MAX - 1);
        (count * 1000 > most).then_some(Outcome::Failed(first))
    }

    fn is_done(&mut self, service: &Service, replicas: u32) -> bool {
        Slot::first(replicas).all(|slot| {
            let slot_members = self.slot_members(service, slot);
            let proved = slot_members.current.is_some_and(|current| {
                self.is_wanted(service, current) && self.has_proved_itself(service, current)
            });
            proved && slot_members.replacement.is_none() && slot_members.surplus.is_empty()
        })
    }

    /// What the kernel shows of a new version that does worse than the old one.
    fn failure_in_kernel(&self, service: &Service, rules: &Update) -> Option<Failure> {
        let Sharing::ByKernel(report) = &self.observed.sharing else { return None };
        let metrics = self.observed.metrics.get(&service.name)?;
        let regression = metrics.regression(rules, self.now)?;
        let RolloutMetrics { new, old, queues, came, due, .. } = *metrics;
        let reason = match regression {
            Regression::Resets => FailureReason::Resets {
                reset: new.reset,
                connections: new.connections,
                old_reset: old.reset,
                old_connections: old.connections,
            },
            Regression::Overflows => {
                FailureReason::Overflows { overflowed: new.overflowed, connections: new.connections }
            }
            Regression::Queues => FailureReason::Queues { waiting: queues.0, old_waiting: queues.1 },
            Regression::NoConnections => {
                FailureReason::Ill { why: format!("it got {came} of about {due} expected connections") }
            }
        };
        let replicas = self.observed.service(&service.name).map(|(_, container)| container);
        let new = replicas.filter(|container| self.is_wanted(service, container));
        let slot = match comparison::worst(report, new, regression).map(|container| &container.labels.role) {
            Some(Role::Replica { slot, .. }) => *slot,
            _ => Slot::FIRST,
        };
        Some(Failure { slot, reason })
    }

    /// Whether each slot of a service has a replica of the wanted version that has proved itself.
    pub(super) fn has_replaced_all(&self, name: &ServiceName) -> bool {
        let Some(service) = self.desired.project.services.get(name) else { return true };
        match self.desired.goals.get(name) {
            Some(Goal::Run { replicas }) => self.have_joined(service, *replicas).is_some(),
            Some(Goal::Stop) | None => true,
        }
    }

    /// Since when all of the first slots have a successor that has proved itself.
    fn have_joined(&self, service: &Service, replicas: u32) -> Option<Timestamp> {
        let mut since = Timestamp::MIN;
        for slot in Slot::first(replicas) {
            let slot_members = self.slot_members(service, slot);
            let mut there = slot_members.replacement.into_iter().chain(slot_members.current);
            let new = there.find(|container| self.is_wanted(service, container))?;
            since = since.max(self.proved_at(service, new).filter(|at| *at <= self.now)?);
        }
        Some(since)
    }

    /// What a replica of the new version does wrong in a slot.
    pub(super) fn failure_in(&self, service: &Service, slot: Slot) -> Option<FailureReason> {
        let slot_members = self.slot_members(service, slot);
        let there: Vec<_> = slot_members.replacement.into_iter().chain(slot_members.current).collect();
        if let Some(new) = there.iter().find(|container| self.is_wanted(service, container)) {
            return self.failure_of(service, new);
        }
        // What could not even be made.
        self.refusal(&match slot_members.current {
            Some(_) => Target::Replacement(service.name.clone(), slot),
            None => Target::Replica(service.name.clone(), slot),
        })
    }

    /// Whether a container that has ended is started again by the rule for that.
    fn starts_again(&self, service: &Service, container: &Container) -> bool {
        let ContainerState::Exited(exit) = &container.state else { return true };
        let target = self.desired.target_of(container);
        matches!(self.verdict(service, &target, container, exit), Verdict::Again(_))
    }

    fn refusal(&self, target: &Target) -> Option<FailureReason> {
        /// What is refused so often will be again.
        const OFTEN: u32 = 3;
        let errors = self.observed.history.get(target)?.errors.as_ref()?;
        let is_final = !errors.last.is_passing() && errors.count >= OFTEN;
        is_final.then(|| FailureReason::Refused { error: errors.last.to_string() })
    }

    fn failure_of(&self, service: &Service, container: &Container) -> Option<FailureReason> {
        let target = self.desired.target_of(container);
        let history = self.observed.history.get(&target);
        let rules = self.rules_of(service);
        let exits = history.map_or(0, |history| history.exits_of(container, self.now, &service.restart));
        if exits > 0 && !self.has_completed(service, container) {
            // It is found out a moment later what it died of.
            let last_termination = history.and_then(|history| history.last_termination.clone())?;
            let is_its_own = match &last_termination.exit.error {
                Some(error) if tells_of_host_fault(error) => false,
                Some(_) => exits >= STARTS || !self.starts_again(service, container),
                None => self.pod_has_outlived(container, last_termination.exit.at),
            };
            if is_its_own {
                return Some(FailureReason::Ended { last_termination: Box::new(last_termination) });
            }
        }
        if let Some(reason) = self.refusal(&target) {
            return Some(reason);
        }
        let ContainerState::Running(process) = &container.state else { return None };
        if process.health == Health::Unhealthy {
            return Some(FailureReason::Unhealthy);
        }
        if let Some(unhealthy) = self.unhealthy(container)
            && unhealthy.replace_at.is_some_and(|at| at <= self.now)
        {
            return Some(FailureReason::Ill { why: unhealthy.why(self.now) });
        }
        // What we tell to end has not failed by that.
        if self.is_available(service, container) || self.doing(container).is_some_and(Verb::ends) {
            return None;
        }
        let since = self.tried_since(service, container);
        let deadline = later(since, rules.deadline);
        match self.elsewhere(service, container, rules) {
            Some(Elsewhere { wanted, found, out_of_reach, judged_at })
                if judged_at.min(deadline) <= self.now =>
            {
                Some(FailureReason::ListensElsewhere { wanted, found, out_of_reach })
            }
            _ => {
                (deadline <= self.now).then_some(FailureReason::TooSlow { seconds: rules.deadline.as_secs() })
            }
        }
    }

    /// Whether a container's pod was open at that time, by the engine's clock, and is still: else it has ended with its pod,
    /// because the engine or the host has, and that is no fault of its version.
    fn pod_has_outlived(&self, container: &Container, end: Timestamp) -> bool {
        let Some(sandbox) = container.joined.as_ref().and_then(|id| self.observed.containers.get(id)) else {
            return container.joined.is_none();
        };
        sandbox.process().is_some_and(|process| process.started_at <= end)
    }

    /// When a replica of a new version that is not ready will have failed.
    pub(super) fn fails_at(&self, service: &Service, container: &Container) -> Timestamp {
        let rules = self.rules_of(service);
        let deadline = later(self.tried_since(service, container), rules.deadline);
        let elsewhere = self.elsewhere(service, container, rules).map(|elsewhere| elsewhere.judged_at);
        let ill = self.unhealthy(container).and_then(|unhealthy| unhealthy.replace_at);
        let waits = self.waits_until(service, container).filter(|until| *until > self.now);
        elsewhere.into_iter().chain(ill).chain(waits).fold(deadline, Timestamp::min)
    }

    /// Since when a replica has had its time to get ready. One that was there before us began at a time by the engine's
    /// clock, which may be anywhere; the rollout began by ours.
    pub(super) fn tried_since(&self, service: &Service, container: &Container) -> Timestamp {
        let began = self.desired.rollouts.get(&service.name).map(|rollout| rollout.began);
        began.map_or(container.since, |began| began.max(container.since))
    }
}

impl fmt::Display for super::status::ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(error) = &self.error {
            return write!(f, "could not start: {error}");
        }
        if self.out_of_memory {
            return f.write_str("out of memory");
        }
        let signal = i32::try_from(self.code - 128).ok().filter(|_| self.code > 128);
        match signal.and_then(|number| nix::sys::signal::Signal::try_from(number).ok()) {
            Some(signal) => write!(f, "killed by {signal}"),
            None => write!(f, "exit code {}", self.code),
        }
    }
}
