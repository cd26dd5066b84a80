//! Who has stopped a replica: we, or somebody without us, which holds until somebody starts it.

use jiff::Timestamp;

use super::Wish;
use crate::{
    engine::{ContainerId, ContainerState, Role},
    plan::{Action, Container, Observed, Phase, StoppedOutside, Target},
    spec::ServiceName,
};

impl Wish {
    /// Whether we have told a process to end, in this life or in an earlier one.
    #[must_use]
    pub fn is_ended_by_us(&self, id: &ContainerId, started_at: Timestamp) -> bool {
        self.state.ending.get(id) == Some(&started_at)
    }

    /// Actions begin of which some tell a process to end: an engine says of that the same as of a stop by somebody else.
    pub fn note_ending(&mut self, actions: &[Action], observed: &Observed) {
        // What goes down is not started again, whoever stops it.
        if self.desired.phase != Phase::Up {
            return;
        }
        let ending = actions.iter().filter_map(|action| match action {
            Action::Stop { target: Target::Before(_), .. } => None,
            Action::Stop { id, .. } => {
                Some((id.clone(), observed.containers.get(id).and_then(Container::started_at)?))
            }
            _ => None,
        });
        let mut state = self.state.clone();
        state.ending.retain(|other, _| observed.containers.contains_key(other));
        state.ending.extend(ending);
        self.keep(state);
    }

    /// Somebody has asked the engine to stop a container, at that time of its clock. Returns whether a replica is stopped by
    /// that which shall run; none as long as that is not known.
    pub fn note_stopped(&mut self, container: &Container, at: Timestamp) -> Option<bool> {
        let exit = match &container.state {
            ContainerState::Exited(exit) => exit,
            // Its end was not looked at yet.
            ContainerState::Running(process) | ContainerState::Paused(process) if process.started_at < at => {
                return None;
            }
            _ => return Some(false),
        };
        let is_replica = matches!(container.labels.role, Role::Replica { .. });
        let known = self.state.stopped_outside.get(&container.id);
        if !is_replica
            || exit.started_at >= at
            || exit.finished_at > at
            || self.is_ended_by_us(&container.id, exit.started_at)
            || self.desired.is_superseded(&container.id, exit.started_at)
            || known.is_some_and(|known| known.started_at == exit.started_at)
        {
            return Some(false);
        }
        let mut state = self.state.clone();
        let stopped = StoppedOutside { started_at: exit.started_at, at };
        state.stopped_outside.insert(container.id.clone(), stopped);
        self.keep(state);
        self.desired.stopped_outside.clone_from(&self.state.stopped_outside);
        Some(true)
    }

    /// Forgets stops of containers that are gone or have another process by now.
    pub(super) fn forget_started(&mut self, observed: &Observed) {
        let is_there = |id: &ContainerId, started_at| {
            observed.containers.get(id).is_some_and(|container| container.started_at() == Some(started_at))
        };
        let mut state = self.state.clone();
        state.stopped_outside.retain(|id, stopped| is_there(id, stopped.started_at));
        state.ending.retain(|id, started_at| is_there(id, *started_at));
        self.keep(state);
        self.desired.stopped_outside.clone_from(&self.state.stopped_outside);
    }

    /// Somebody asks for services to run: what was stopped without us starts again.
    pub(super) fn start_stopped(&mut self, is_meant: impl Fn(&ServiceName) -> bool, observed: &Observed) {
        let mut state = self.state.clone();
        let mut started = Vec::new();
        state.stopped_outside.retain(|id, stopped| {
            let role = observed.containers.get(id).map(|container| &container.labels.role);
            let starts = matches!(role, Some(Role::Replica { service, .. }) if is_meant(service));
            if starts {
                started.push((id.clone(), stopped.started_at));
            }
            !starts
        });
        self.keep(state);
        self.desired.superseded.extend(started.into_iter().map(|process| (process, None)));
        self.desired.stopped_outside.clone_from(&self.state.stopped_outside);
    }
}
