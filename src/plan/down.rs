//! Taking a whole project away: dependents before what they depend on, replicas before their sandbox, networks
//! and volumes last.

use crate::{
    engine::{RemoveVolumes, Role},
    spec::Service,
};

use super::{Action, Owner, Planner};

impl Planner<'_> {
    /// Removes all that carries the project's label.
    pub(super) fn down(&mut self, volumes: RemoveVolumes) {
        for container in self.observed.containers.values() {
            match &container.labels.role {
                Role::Replica { service, .. } => {
                    if self.has_running_dependents(service) {
                        continue;
                    }
                    let (grace, drain) = match self.desired.project.services.get(service) {
                        Some(service) => (self.grace(service), service.drain),
                        None => (self.desired.stop_grace.unwrap_or(Service::STOP_GRACE), Service::DRAIN),
                    };
                    let target = self.observed.target(container);
                    if container.process().is_some() {
                        self.retire(target, container, grace, drain);
                    } else {
                        self.act(Action::Remove { target, id: container.id.clone(), volumes });
                    }
                }
                Role::Before { .. } => {
                    let target = self.observed.target(container);
                    self.discard(target, container, Service::STOP_GRACE, std::time::Duration::ZERO);
                }
                Role::Sandbox => {
                    let in_use = self
                        .observed
                        .containers
                        .values()
                        .any(|c| c.labels.pod == container.labels.pod && c.labels.role != Role::Sandbox);
                    if !in_use {
                        self.act(Action::Remove {
                            target: self.observed.target(container),
                            id: container.id.clone(),
                            volumes: RemoveVolumes::Remove,
                        });
                    }
                }
            }
        }
        if !self.observed.containers.is_empty() {
            return;
        }
        for (name, owner) in &self.observed.networks {
            if *owner == Owner::Us {
                self.act(Action::RemoveNetwork(name.clone()));
            }
        }
        if volumes == RemoveVolumes::Remove {
            for (name, owner) in &self.observed.volumes {
                if *owner == Owner::Us {
                    self.act(Action::RemoveVolume(name.clone()));
                }
            }
        }
    }
}
