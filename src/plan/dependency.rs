//! What must be true of other services before a replica is first started.

use crate::{
    engine::{ContainerState, Health},
    spec::{DependencyCondition, Service, ServiceName, Slot},
};

use super::{Container, Goal, Planner};

impl Planner<'_> {
    /// The first dependency that does not hold yet.
    pub(super) fn unmet_dependency<'s>(
        &self,
        service: &'s Service,
    ) -> Option<(&'s ServiceName, DependencyCondition)> {
        service.depends_on.iter().find_map(|(name, dependency)| {
            let holds = match self.desired.goals.get(name) {
                Some(Goal::Run { replicas }) => self.holds(name, *replicas, dependency.condition),
                // Left alone or stopped by the user's own word: not ours to wait for.
                Some(Goal::Stop) | None => true,
            };
            (!holds).then_some((name, dependency.condition))
        })
    }

    /// Whether a container that was stopped by the user's word, and is wanted again, has to wait for another service.
    pub(super) fn waits_in_order(&self, service: &Service, container: &Container) -> bool {
        self.is_next_in_order(container) && self.unmet_dependency(service).is_some()
    }

    fn is_next_in_order(&self, container: &Container) -> bool {
        let in_order = &self.desired.in_order;
        !in_order.is_empty()
            && container.started_at().is_some_and(|at| in_order.contains(&(container.id.clone(), at)))
    }

    fn holds(&self, name: &ServiceName, replicas: u32, condition: DependencyCondition) -> bool {
        Slot::first(replicas).all(|slot| {
            let Some(container) = self.observed.replicas(name, slot).into_iter().next() else { return false };
            if container.process().is_some() && !self.is_prepared_by_hooks(container) {
                return false;
            }
            match (&container.state, condition) {
                (ContainerState::Running(p), DependencyCondition::Healthy) => {
                    matches!(p.health, Health::Healthy | Health::None)
                }
                (ContainerState::Running(_) | ContainerState::Paused(_), DependencyCondition::Started) => {
                    true
                }
                (ContainerState::Exited(exit), condition) => {
                    // One that starts again is not done.
                    !self.is_next_in_order(container)
                        && exit.code == 0
                        && condition != DependencyCondition::Healthy
                }
                _ => false,
            }
        })
    }

    /// Whether a replica runs whose service depends on this one.
    pub(super) fn has_running_dependents(&self, name: &ServiceName) -> bool {
        let project = &self.desired.project;
        project.services.values().filter(|s| s.depends_on.contains_key(name)).any(|dependent| {
            self.observed.service(&dependent.name).any(|(_, c)| matches!(c.state, ContainerState::Running(_)))
        })
    }
}
