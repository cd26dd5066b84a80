//! Limits that the file moves: the engine changes them in place, and the process goes on.

use crate::{
    engine::ContainerState,
    spec::{Limits, Service},
};

use super::{Action, Container, Planner, Target};

impl Planner<'_> {
    /// Whether a replica can have the limits that are wanted only as a new container: one is taken away, or the engine
    /// has refused to change it.
    pub(super) fn needs_other_limits(&self, service: &Service, container: &Container) -> bool {
        match container.limits.changes_to(&service.container.resources.limits()) {
            None => true,
            Some(changes) => {
                let history = self.observed.history.get(&self.observed.target(container));
                history.is_some_and(|history| history.refused_limits(&container.id, &changes))
            }
        }
    }

    /// Whether a replica runs with other limits than are wanted, and something is going to be done about it.
    pub(super) fn is_to_be_limited(&self, service: &Service, container: &Container) -> bool {
        if !matches!(container.state, ContainerState::Running(_)) {
            return false;
        }
        let wanted = service.container.resources.limits();
        let Some(changes) = container.limits.changes_to(&wanted) else { return true };
        let history = self.observed.history.get(&self.observed.target(container));
        let ignored = history.is_some_and(|history| {
            history.asked_limits(&container.id, &changes) && !history.refused_limits(&container.id, &changes)
        });
        changes != Limits::default() && !ignored
    }

    /// Whether a container that does not run has other limits than are wanted.
    pub(super) fn has_other_limits(&self, service: &Service, container: &Container) -> bool {
        container.limits.changes_to(&service.container.resources.limits()) != Some(Limits::default())
    }

    /// Has the engine change what is to be changed of a replica that stays.
    pub(super) fn adjust(&mut self, service: &Service, target: Target, container: &Container) {
        let Some(changes) = container.limits.changes_to(&service.container.resources.limits()) else {
            return;
        };
        let history = self.observed.history.get(&target);
        // An engine whose kernel lacks a limit accepts it, and changes nothing: asked again it would be for ever.
        let asked = history.is_some_and(|history| history.asked_limits(&container.id, &changes));
        if matches!(container.state, ContainerState::Running(_)) && changes != Limits::default() && !asked {
            self.act(Action::Update { target, id: container.id.clone(), changes });
        }
    }
}
