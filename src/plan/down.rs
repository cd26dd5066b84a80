//! Taking a whole project away: dependents before what they depend on, replicas before their sandbox, networks
//! and volumes last.

use crate::engine::{RemoveVolumes, Role};

use super::{Action, Owner, Planner, stop_time::StopTime};

impl Planner<'_> {
    /// Removes all that carries the project's label.
    pub(super) fn down(&mut self, volumes: RemoveVolumes) {
        let timeout = self.desired.down_timeout;
        for container in self.observed.containers.values() {
            match &container.labels.role {
                Role::Replica { service, .. } => {
                    if self.has_running_dependents(service) {
                        continue;
                    }
                    let service = self.desired.project.services.get(service);
                    let time = service.map_or(StopTime::DEFAULT, StopTime::of).or(timeout);
                    let target = self.observed.target(container);
                    if container.process().is_some() {
                        self.retire(target, container, time);
                    } else {
                        self.act(Action::Remove { target, id: container.id.clone(), volumes });
                    }
                }
                Role::PreDeploy { .. } => {
                    let target = self.observed.target(container);
                    self.discard(target, container, StopTime::DEFAULT.without_drain().or(timeout));
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
