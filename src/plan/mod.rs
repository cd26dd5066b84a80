//! Decides what to do next. Nothing here does I/O, reads a clock, or waits.
//!
//! In: what is wanted ([`Desired`]), what there is ([`Observed`]), and the time. Out: [`Action`]s that can all
//! run now, in any order; whatever must wait is left to a later plan, and [`Plan::wake`] says when time alone
//! makes one worth while.
//!
//! Invariants: once every action has taken effect, the plan is empty. No two actions have the same target. A
//! container that is not ours is never among [`Observed::containers`], so none is ever touched.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::{engine::ContainerId, kernel::steering::SteeringConfigs, spec::ServiceName};

mod action;
mod arrivals;
mod assess;
pub mod backoff;
mod connections;
mod containers;
mod dependency;
pub mod dependents;
mod desired;
mod down;
mod history;
mod hooks;
mod limits;
mod listening;
mod observed;
mod order;
mod outage;
pub mod pre_deploy;
mod reach;
mod regression;
mod replica;
mod resource;
mod rollout;
mod rollout_summary;
mod rotation;
mod sandbox;
mod shared_file;
mod slot_members;
pub mod status;
mod stop_time;
mod stopped_outside;
mod stuck;
#[cfg(test)]
mod tests;
mod traffic;
mod unhealthy;
mod versioned;
pub mod versions;

pub use action::{Action, SlotMember, Target, Verb};
pub use assess::{Failure, FailureReason, Outcome, assess};
pub use connections::{Connects, attachments};
pub use containers::Containers;
pub use desired::{Desired, Goal, Orphans, Phase};
pub use history::{
    Answer, Errors, ExclusivePort, History, LastTermination, PortNotShared, Verdict, WINDOW, uptime,
};
pub use hooks::{HookPhase, PostStart};
pub use listening::Listening;
pub use observed::{Container, Observed, Owner};
pub use order::{BindSource, OrderReason, ReplacementOrder, hold_in_rollout, replacement_order};
pub use outage::Outages;
pub use reach::{OutOfReach, weight_in_force};
pub use regression::{ConnectionStats, Regression, RolloutMetrics, Signals};
pub use rollout::{Direction, Previous, Rollout, Strategy};
pub use rollout_summary::{Counted, RolloutSummary};
pub use rotation::{Sharing, WEIGHT, WEIGHT_MAX, Weights};
pub use shared_file::{SharedFile, SharedFileKind};
pub use stopped_outside::{Doubt, StoppedOutside};
pub use stuck::{Doing, Queues, SILENCE, Stuck};
pub use traffic::{
    PodSharing, PodTraffic, PortTraffic, ReplicaTraffic, UnservedPort, WaitingAt, too_few_files,
};
pub use unhealthy::{UnhealthyReason, UnhealthyReplacement, UnhealthyReplica, check_never_passed};
pub use versioned::Versioned;

/// What to do now, and when to think again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// All can run now, in any order.
    pub actions: Vec<Action>,
    /// When the passing of time alone may change the plan.
    pub wake: Option<Timestamp>,
    /// Replicas that shall end and have connections to finish first.
    pub draining: BTreeSet<ContainerId>,
    /// Who gets new connections, where the kernel shares ports.
    pub steering_configs: SteeringConfigs,
    /// Whose stop, if one is planned, is because it does not work.
    pub replaced: BTreeMap<ContainerId, UnhealthyReplica>,
    /// Replicas that are ready.
    pub ready: BTreeSet<ContainerId>,
    /// Sandboxes that are connected as they should be.
    pub connected: BTreeSet<ContainerId>,
    /// Services all of whose replicas fail a health check that no replica of their version has ever passed, and what it says:
    /// they get connections all the same.
    pub let_through: BTreeMap<ServiceName, String>,
}

/// Decides what to do next.
#[must_use]
pub fn plan(desired: &Desired, observed: &Observed, now: Timestamp) -> Plan {
    let mut planner = Planner::new(desired, observed, now);
    match desired.phase {
        Phase::Up => {
            planner.resources();
            planner.sandboxes();
            planner.pre_deploy_jobs();
            planner.replicas();
            planner.orphans();
            planner.watch_rollouts();
        }
        Phase::Down { volumes } => planner.down(volumes),
    }
    planner.plan.steering_configs = planner.steering_configs();
    planner.plan.ready = planner.ready();
    planner.plan
}

/// A plan in the making.
struct Planner<'a> {
    desired: &'a Desired,
    observed: &'a Observed,
    now: Timestamp,
    plan: Plan,
    /// Replicas that shall end: they get no new connections.
    retiring: BTreeSet<ContainerId>,
    /// Replicas that do not work, and whose turn it is to be replaced.
    to_replace: BTreeSet<ContainerId>,
}

impl<'a> Planner<'a> {
    fn new(desired: &'a Desired, observed: &'a Observed, now: Timestamp) -> Self {
        let plan = Plan::default();
        let (retiring, to_replace) = Default::default();
        let mut planner = Self { desired, observed, now, plan, retiring, to_replace };
        planner.plan.let_through = planner.let_through();
        planner
    }

    /// Adds an action, unless its target is busy or waits after a failure.
    fn act(&mut self, action: Action) {
        let target = action.target();
        if self.observed.busy.contains_key(&target) {
            return;
        }
        if let Some(retry_at) = self.observed.history.get(&target).and_then(History::retry_at)
            && !self.due(retry_at)
        {
            return;
        }
        self.plan.actions.push(action);
    }

    /// Whether a time has come; if not, the plan wakes then.
    fn due(&mut self, time: Timestamp) -> bool {
        if time <= self.now {
            return true;
        }
        self.plan.wake = Some(self.plan.wake.map_or(time, |wake| wake.min(time)));
        false
    }
}
