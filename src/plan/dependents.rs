//! Services that are restarted after one that they depend on (`depends_on` with `restart: true`).

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::{
    engine::{ContainerId, ContainerState, Role},
    spec::{Service, ServiceName, Slot},
};

use super::{Action, Container, Desired, Goal, Observed, Phase, Planner, Target};

/// The services that are to be restarted because an action restarts or replaces, on purpose, a replica of one that they
/// depend on. Its own end is none, nor is the loss of its network.
#[must_use]
pub fn of(action: &Action, desired: &Desired, observed: &Observed) -> BTreeSet<ServiceName> {
    let (Action::Stop { id, .. } | Action::Remove { id, .. } | Action::SetAside { id, .. }) = action else {
        return BTreeSet::new();
    };
    let Some(container) = observed.containers.get(id) else { return BTreeSet::new() };
    // It has been replaced before.
    if container.is_set_aside() {
        return BTreeSet::new();
    }
    let Role::Replica { service, slot } = &container.labels.role else { return BTreeSet::new() };
    let stays = desired.phase == Phase::Up
        && matches!(desired.goals.get(service), Some(Goal::Run { replicas }) if slot.number() <= *replicas);
    if !stays || !is_on_purpose(desired, observed, service, container) {
        return BTreeSet::new();
    }
    let dependents = desired
        .project
        .services
        .values()
        .filter(|other| other.depends_on.get(service).is_some_and(|dependency| dependency.restart));
    dependents.map(|dependent| dependent.name.clone()).collect()
}

fn is_on_purpose(
    desired: &Desired,
    observed: &Observed,
    service: &ServiceName,
    container: &Container,
) -> bool {
    let asked = container.started_at().is_some_and(|at| desired.is_superseded(&container.id, at));
    let new_version = !desired.project.is_service(service, &container.labels.generation);
    let joined = container.joined.as_ref().and_then(|id| observed.containers.get(id));
    let new_pod = joined
        .is_some_and(|sandbox| !desired.project.is_pod(&sandbox.labels.pod, &sandbox.labels.generation));
    asked || new_version || new_pod
}

/// Whether everything on which a service depends in that way is up again.
#[must_use]
pub fn are_due(name: &ServiceName, desired: &Desired, observed: &Observed) -> bool {
    let Some(service) = desired.project.services.get(name) else { return false };
    // Nothing here depends on the time.
    let planner = Planner::new(desired, observed, Timestamp::UNIX_EPOCH);
    restarting(service).all(|dependency| match desired.goals.get(dependency) {
        Some(Goal::Run { replicas }) => planner.is_replaced(dependency, *replicas),
        Some(Goal::Stop) | None => true,
    }) && planner.unmet_dependency(service).is_none()
}

/// The processes of a service that are older than those on which it depends in that way.
#[must_use]
pub fn stale(
    name: &ServiceName,
    desired: &Desired,
    observed: &Observed,
) -> BTreeSet<(ContainerId, Timestamp)> {
    let Some(service) = desired.project.services.get(name) else { return BTreeSet::new() };
    let newest = restarting(service)
        .flat_map(|dependency| observed.service(dependency))
        .filter_map(|(_, container)| container.started_at())
        .max();
    let replicas = observed.service(name).filter(|(_, container)| container.process().is_some());
    replicas
        .filter_map(|(_, container)| Some((container.id.clone(), container.started_at()?)))
        .filter(|(_, started_at)| newest.is_some_and(|newest| *started_at < newest))
        .collect()
}

/// What a service depends on, and is restarted after.
fn restarting(service: &Service) -> impl Iterator<Item = &ServiceName> {
    service.depends_on.iter().filter(|(_, dependency)| dependency.restart).map(|(name, _)| name)
}

impl Planner<'_> {
    /// Whether no replica of a service is to be replaced any more, or is being.
    fn is_replaced(&self, name: &ServiceName, replicas: u32) -> bool {
        Slot::first(replicas).all(|slot| {
            let busy = self.observed.busy.contains_key(&Target::Replica(name.clone(), slot));
            self.observed.replicas(name, slot).first().is_some_and(|container| {
                !busy
                    && !is_on_purpose(self.desired, self.observed, name, container)
                    && matches!(container.state, ContainerState::Running(_) | ContainerState::Exited(_))
            })
        })
    }
}
