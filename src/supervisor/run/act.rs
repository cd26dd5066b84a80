//! What is planned is begun, and what has come of it is taken in.

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    super::{EventKind, act, hooks, observe::Dirty, traffic},
    AT_ONCE, Supervisor, Task,
};
use crate::{
    engine::{Engine, EngineError},
    plan::{Action, Answer, Phase, Plan, PostStart, Replacement, Stage, Target, plan, status},
};

impl<E: Engine> Supervisor<E> {
    /// Begins all that is planned.
    pub(super) fn act(&mut self) {
        // What is not known cannot be acted on; and a plan from before must not wake us again and again.
        let let_through = std::mem::take(&mut self.plan.let_through);
        self.plan = Plan { let_through: let_through.clone(), ..Plan::default() };
        if !self.reachable || !self.seen {
            return;
        }
        let now = self.clock.now();
        self.settle_doubts(now);
        // The file may have said something new.
        self.probed();
        let found = self.illnesses.examine(&self.wish.desired, &mut self.observed, &self.probes, now);
        found.events.into_iter().for_each(|event| self.journal.record(now, event));
        self.observed.note_listening(now);
        let wake = self.conclude(now);
        self.tell_of_orders();
        self.plan = plan(&self.wish.desired, &self.observed, now);
        self.plan.wake = self.plan.wake.into_iter().chain(found.wake).chain(wake).min();
        for (service, said) in &self.plan.let_through {
            if !let_through.contains_key(service) {
                let (service, said) = (service.clone(), said.clone());
                self.journal.record(now, EventKind::CheckNeverPassed { service, said });
            }
        }
        traffic::note_out(&self.plan.wishes, &mut self.observed.out_since, now);
        self.observed.note_ready(&self.plan.ready, now);
        self.outages.note(&self.wish.desired, &self.observed, now);
        self.observed.note_connected(&self.plan.connected);
        self.wish.note_served(&self.observed);
        self.traffic.want(std::mem::take(&mut self.plan.wishes));
        let free = AT_ONCE.saturating_sub(self.observed.busy.len());
        let actions: Vec<_> = self.plan.actions.drain(..).take(free).collect();
        self.wish.note_ending(&actions, &self.observed);
        for action in actions {
            let target = action.target();
            if let Action::Stop { id, .. } = &action
                && let Some(started_at) = self.observed.containers.get(id).and_then(|c| c.started_at())
            {
                let history = self.observed.history.entry(target.clone()).or_default();
                match self.plan.replaced.get(id) {
                    Some(illness) => {
                        let why = Replacement { why: illness.why(now), at: now };
                        if let Target::Replica(service, slot) = &target {
                            let (service, slot, why) = (service.clone(), *slot, why.why.clone());
                            self.journal.record(now, EventKind::Replaced { service, slot, why });
                        }
                        history.replace(id, started_at, illness.well_for, why);
                    }
                    None => history.forgive(id, started_at),
                }
            }
            let hooks = hooks::of(&action, &self.observed);
            let last_words = self.traffic.last_words(&action, &self.observed);
            self.wish.note_begun(&action, &self.observed);
            if let Action::Prepare { id, started_at } = &action {
                let progress = PostStart { started_at: *started_at, stage: Stage::Begun };
                self.wish.note_post_start(id, progress, &mut self.observed);
            }
            self.observed.busy.insert(target.clone(), action.verb());
            let kind = EventKind::Begun { verb: action.verb(), target: self.named(target) };
            self.journal.record(now, kind);
            let engine = Arc::clone(&self.engine);
            let project = self.wish.desired.project.clone();
            self.tasks.spawn(async move {
                let result = act::act(&*engine, &project, &action, &hooks, last_words).await;
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
                    let progress = PostStart { started_at: *started_at, stage: Stage::Done };
                    self.wish.note_post_start(id, progress, &mut self.observed);
                }
            }
            Action::LaunchSandbox(_) | Action::LaunchReplica { .. } | Action::LaunchBefore { .. } => {}
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

    /// A target as users know it: commands in a container are the replica's own.
    fn named(&self, target: Target) -> Target {
        let Target::Hooks(id) = &target else { return target };
        self.observed.containers.get(id).map_or(target.clone(), |container| self.observed.target(container))
    }

    fn note_convergence(&mut self, now: Timestamp) {
        let idle = self.observed.busy.is_empty() && self.dirty == Dirty::NOTHING && self.observer.is_some();
        if self.wish.desired.phase != Phase::Up || self.wish.desired.goals.is_empty() || !idle {
            return;
        }
        let converged = status::status(&self.wish.desired, &self.observed, now).converged;
        if converged && !self.converged {
            self.journal.record(now, EventKind::Converged);
        }
        self.converged = converged;
    }
}
