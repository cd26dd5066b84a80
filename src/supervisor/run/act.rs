//! Starts planned actions, and processes their results.

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    super::{EventKind, act, hooks, observe::Dirty, traffic},
    AT_ONCE, Supervisor, Task,
};
use crate::{
    engine::{Engine, EngineError},
    plan::{Action, Answer, HookPhase, Phase, Plan, PostStart, Target, UnhealthyReplacement, plan, status},
};

impl<E: Engine> Supervisor<E> {
    /// Makes a plan and starts its actions.
    pub(super) fn act(&mut self) {
        // Without a current observation there is no basis for a plan. The old plan must not wake the loop again.
        let let_through = std::mem::take(&mut self.plan.let_through);
        self.plan = Plan { let_through: let_through.clone(), ..Plan::default() };
        if !self.reachable || !self.seen {
            return;
        }
        let now = self.clock.now();
        self.settle_doubts(now);
        // The desired state may have changed.
        self.probed();
        let found =
            self.unhealthy.examine(&self.desired_state.desired, &mut self.observed, &self.probes, now);
        found.events.into_iter().for_each(|event| self.journal.record(now, event));
        self.observed.note_listening(now);
        let wake = self.conclude(now);
        self.tell_of_orders();
        self.plan = plan(&self.desired_state.desired, &self.observed, now);
        self.plan.wake = self.plan.wake.into_iter().chain(found.wake).chain(wake).min();
        for (service, said) in &self.plan.let_through {
            if !let_through.contains_key(service) {
                let (service, said) = (service.clone(), said.clone());
                self.journal.record(now, EventKind::HealthCheckNeverPassed { service, said });
            }
        }
        traffic::note_out(&self.plan.steering_configs, &mut self.observed.out_since, now);
        self.observed.note_ready(&self.plan.ready, now);
        self.outages.note(&self.desired_state.desired, &self.observed, now);
        self.observed.note_connected(&self.plan.connected);
        self.desired_state.note_served(&self.observed);
        self.traffic.want(std::mem::take(&mut self.plan.steering_configs));
        let free = AT_ONCE.saturating_sub(self.observed.busy.len());
        let actions: Vec<_> = self.plan.actions.drain(..).take(free).collect();
        self.desired_state.note_ending(&actions, &self.observed);
        for action in actions {
            let target = action.target();
            if let Action::Stop { id, .. } = &action
                && let Some(started_at) = self.observed.containers.get(id).and_then(|c| c.started_at())
            {
                let history = self.observed.history.entry(target.clone()).or_default();
                match self.plan.replaced.get(id) {
                    Some(unhealthy) => {
                        let why = UnhealthyReplacement { why: unhealthy.why(now), at: now };
                        if let Target::Replica(service, slot) = &target {
                            let (service, slot, why) = (service.clone(), *slot, why.why.clone());
                            self.journal.record(now, EventKind::Replaced { service, slot, why });
                        }
                        history.replace(id, started_at, unhealthy.well_for, why);
                    }
                    None => history.ignore_exit(id, started_at),
                }
            }
            let hooks = hooks::of(&action, &self.observed);
            let graceful_close = self.traffic.graceful_close(&action, &self.observed);
            self.desired_state.note_started(&action, &self.observed);
            if let Action::Prepare { id, started_at } = &action {
                let progress = PostStart { started_at: *started_at, phase: HookPhase::Begun };
                self.desired_state.note_post_start(id, progress, &mut self.observed);
            }
            self.observed.busy.insert(target.clone(), action.verb());
            let kind = EventKind::Started { verb: action.verb(), target: self.named(target) };
            self.journal.record(now, kind);
            let engine = Arc::clone(&self.engine);
            let project = self.desired_state.desired.project.clone();
            self.tasks.spawn(async move {
                let result = act::act(&*engine, &project, &action, &hooks, graceful_close).await;
                Task::Acted { action, result }
            });
        }
        self.note_convergence(now);
    }

    pub(super) fn acted(&mut self, action: &Action, result: Result<Option<EventKind>, EngineError>) {
        let (now, verb, target) = (self.clock.now(), action.verb(), action.target());
        self.ended.insert(target.clone());
        match action {
            Action::EnsureNetwork { .. }
            | Action::EnsureVolume { .. }
            | Action::RemoveNetwork(_)
            | Action::RemoveVolume(_) => self.dirty.resources = true,
            Action::Start { id, .. }
            | Action::Rename { id, .. }
            | Action::SetAside { id, .. }
            | Action::RestoreName { id, .. }
            | Action::Connect { id, .. }
            | Action::Stop { id, .. }
            | Action::Update { id, .. }
            | Action::Remove { id, .. } => {
                self.dirty.containers.insert(id.clone());
            }
            Action::Prepare { id, started_at } => {
                if result.is_ok() {
                    let progress = PostStart { started_at: *started_at, phase: HookPhase::Done };
                    self.desired_state.note_post_start(id, progress, &mut self.observed);
                }
            }
            Action::LaunchSandbox(_) | Action::LaunchReplica { .. } | Action::LaunchPreDeploy { .. } => {}
        }
        let history = self.observed.history.entry(target.clone()).or_default();
        let kind = match result {
            Ok(besides) => {
                history.succeeded();
                if let Action::Update { id, changes, .. } = action {
                    history.note_limits(id, changes, Answer::Accepted);
                }
                if let Action::Connect { id, network, reconnects, .. } = action {
                    history.note_connect(id, network, *reconnects, now);
                }
                besides.into_iter().for_each(|kind| self.journal.record(now, kind));
                EventKind::Done { verb, target: self.named(target) }
            }
            Err(error) => {
                if let (Action::Update { id, changes, .. }, false) = (action, error.is_passing()) {
                    history.note_limits(id, changes, Answer::Refused);
                }
                let (message, help) = (error.to_string(), error.help().map(str::to_owned));
                history.failed(&target, error, now);
                self.dirty.all = true;
                EventKind::Failed { verb, target: self.named(target), error: message, help }
            }
        };
        self.journal.record(now, kind);
    }

    /// The target as users know it: the commands of a container belong to its replica.
    fn named(&self, target: Target) -> Target {
        let Target::Hooks(id) = &target else { return target };
        self.observed.containers.get(id).map_or(target.clone(), |container| self.observed.target(container))
    }

    fn note_convergence(&mut self, now: Timestamp) {
        let idle = self.observed.busy.is_empty() && self.dirty == Dirty::NOTHING && self.observer.is_some();
        if self.desired_state.desired.phase != Phase::Up
            || self.desired_state.desired.goals.is_empty()
            || !idle
        {
            return;
        }
        let converged = status::status(&self.desired_state.desired, &self.observed, now).converged;
        if converged && !self.converged {
            self.journal.record(now, EventKind::Converged);
        }
        self.converged = converged;
    }
}
