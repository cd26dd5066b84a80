//! Replicas that somebody has stopped without sameport: `docker stop`, a backup tool, Portainer. As with Docker they stay
//! down, whatever their restart rule says, until somebody starts them.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    engine::{ContainerState, Exit},
    spec::Service,
};

use super::{Container, Desired, Goal, Observed, Planner, history::later};

/// A process that was stopped from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoppedOutside {
    /// When it had started, by the engine's clock.
    pub started_at: Timestamp,
    /// When it was stopped, by the same clock.
    pub at: Timestamp,
}

/// A process that somebody has signalled or asked the engine to stop: whether its end was meant turns out in a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// When it had started, by the engine's clock.
    pub started_at: Timestamp,
    /// How long after its end that is known at the latest.
    pub patience: Duration,
}

impl Desired {
    /// Since when a container is stopped from outside; none if it is not.
    #[must_use]
    pub fn stopped_outside_since(&self, container: &Container) -> Option<Timestamp> {
        let ContainerState::Exited(exit) = &container.state else { return None };
        let stopped = self.stopped_outside.get(&container.id)?;
        (stopped.started_at == exit.started_at && !self.is_superseded(&container.id, exit.started_at))
            .then_some(stopped.at)
    }
}

impl Observed {
    /// Until when it is not known whether the end of a container's process was meant.
    #[must_use]
    pub fn in_doubt_until(&self, container: &Container) -> Option<Timestamp> {
        let ContainerState::Exited(Exit { started_at, .. }) = &container.state else { return None };
        let doubt = self.doubts.get(&container.id).filter(|doubt| doubt.started_at == *started_at)?;
        Some(later(container.since, doubt.patience))
    }

    /// Forgets doubts of processes that have ended so long ago, or have given way to others.
    pub fn settle_doubts(&mut self, now: Timestamp) {
        let mut doubts = std::mem::take(&mut self.doubts);
        doubts.retain(|id, doubt| {
            self.containers.get(id).is_some_and(|container| match &container.state {
                ContainerState::Exited(exit) => {
                    exit.started_at == doubt.started_at && later(container.since, doubt.patience) > now
                }
                _ => container.started_at() == Some(doubt.started_at),
            })
        });
        self.doubts = doubts;
    }
}

impl Planner<'_> {
    /// Whether a service has replicas, and somebody has stopped all of them: nobody is going to answer, so nobody has to wait.
    pub(super) fn is_stopped_outside(&self, service: &Service) -> bool {
        let mut replicas = self.observed.service(&service.name).peekable();
        matches!(self.desired.goals.get(&service.name), Some(Goal::Run { .. }))
            && replicas.peek().is_some()
            && replicas.all(|(_, replica)| self.desired.stopped_outside_since(replica).is_some())
    }
}
