//! Commands after the start of a replica (`post_start`): when they are run, and what follows if they do not succeed.
//!
//! They are run once for each process. That they have begun is written down before, and that they have succeeded after,
//! so a supervisor that comes after one that was killed knows which of these it is:
//!
//! - not begun: they are run;
//! - succeeded: the replica is as ready as it says;
//! - begun, and by nobody any more: they failed, or were interrupted and may still run. The replica is stopped, which
//!   ends them for certain, and started again. It had no traffic, so nobody misses it.
//!
//! What they do outside of their container can therefore happen more than once.

use jiff::Timestamp;

use crate::engine::ContainerState;

use super::{Action, Container, History, Planner, Target};

/// How far the commands after the start of one process are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostStart {
    /// Which process: when it started, by the engine's clock.
    pub started_at: Timestamp,
    /// How far they are.
    pub phase: HookPhase,
}

/// How far commands are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookPhase {
    /// The first one may have begun.
    Begun,
    /// All have succeeded.
    Done,
}

impl Planner<'_> {
    /// Whether nothing has to be run in a replica any more before it is ready.
    pub(super) fn is_prepared_by_hooks(&self, container: &Container) -> bool {
        container.hooks.post_start.is_empty() || self.phase(container) == Some(HookPhase::Done)
    }

    /// Whether a replica can only be ready after another start.
    pub(super) fn is_spoilt_by_hooks(&self, container: &Container) -> bool {
        matches!(container.state, ContainerState::Running(_))
            && !container.hooks.post_start.is_empty()
            && self.phase(container) == Some(HookPhase::Begun)
            && !self.observed.busy.contains_key(&Target::Hooks(container.id.clone()))
    }

    /// Runs what is to be run in a replica after its start.
    pub(super) fn prepare(&mut self, container: &Container) {
        if let ContainerState::Running(process) = &container.state
            && !container.hooks.post_start.is_empty()
            && self.phase(container).is_none()
        {
            let started_at = process.started_at;
            self.act(Action::Prepare { id: container.id.clone(), started_at });
        }
    }

    /// Whether the pause is over that has to be made after commands that failed.
    pub(super) fn may_be_prepared(&mut self, container: &Container) -> bool {
        let history = self.observed.history.get(&Target::Hooks(container.id.clone()));
        history.and_then(History::retry_at).is_none_or(|at| self.due(at))
    }

    fn phase(&self, container: &Container) -> Option<HookPhase> {
        let known = self.observed.post_start.get(&container.id)?;
        (Some(known.started_at) == container.started_at()).then_some(known.phase)
    }
}
