//! The life of a sandbox: it is there before its replicas, outlives them, and its loss takes the pod down.

use std::time::Duration;

use crate::{
    engine::{ContainerState, RemoveVolumes},
    spec::{Pod, PodName},
};

use super::{Action, Container, Goal, Planner, Target, Verb};

/// How long a sandbox may take to end; it does so at once.
const GRACE: Duration = Duration::from_secs(2);

impl Planner<'_> {
    /// Brings the sandbox of each pod into the state that its services want.
    pub(super) fn sandboxes(&mut self) {
        for (name, pod) in &self.desired.project.pods {
            if !pod.has_sandbox() {
                continue;
            }
            let goals: Vec<_> = self
                .desired
                .project
                .services_of(name)
                .filter_map(|service| self.desired.goals.get(&service.name))
                .collect();
            if goals.iter().any(|goal| matches!(goal, Goal::Run { .. })) {
                self.hold_open(name, pod);
            } else if !goals.is_empty() && self.pod_is_idle(name) {
                self.close(name);
            }
        }
    }

    fn hold_open(&mut self, name: &PodName, pod: &Pod) {
        let target = Target::Sandbox(name.clone());
        let (current, outdated): (Vec<_>, Vec<_>) =
            self.observed.sandboxes(name).into_iter().partition(|c| self.is_current(c));

        // The old one has the ports and the name: it goes first, once nothing runs in it.
        if let Some(old) = outdated.first().or(current.get(1)) {
            if !self.holds_replicas(old) {
                self.act(Action::Remove { target, id: old.id.clone(), volumes: RemoveVolumes::Remove });
            }
            return;
        }
        let Some(sandbox) = current.first() else {
            if self.missing_networks(pod).is_empty() {
                self.act(Action::LaunchSandbox(name.clone()));
            }
            return;
        };
        match &sandbox.state {
            ContainerState::Running(_) => {
                let wanted = self.desired.project.sandbox_name(name);
                if sandbox.name == wanted {
                    self.connect(name, sandbox);
                } else {
                    self.act(Action::RestoreName { target, id: sandbox.id.clone(), name: wanted });
                }
            }
            ContainerState::Paused(_) | ContainerState::Removing => {}
            ContainerState::Created => self.act(Action::Start { target, id: sandbox.id.clone() }),
            ContainerState::Exited(_) => self.act(Action::Start { target, id: sandbox.id.clone() }),
            ContainerState::Dead => {
                self.act(Action::Remove { target, id: sandbox.id.clone(), volumes: RemoveVolumes::Remove });
            }
        }
    }

    /// Stops the sandbox of a pod in which nothing shall run, so that its ports are free.
    fn close(&mut self, name: &PodName) {
        for sandbox in self.observed.sandboxes(name) {
            if sandbox.process().is_some() {
                self.act(Action::Stop {
                    target: Target::Sandbox(name.clone()),
                    id: sandbox.id.clone(),
                    grace: GRACE,
                });
                return;
            }
        }
    }

    /// The sandbox that replicas of the pod can join now. One that somebody has paused does as well as any: its process has
    /// nothing to do.
    pub(super) fn open_sandbox(&self, name: &PodName) -> Option<&Container> {
        self.observed
            .sandboxes(name)
            .into_iter()
            .find(|c| self.is_current(c) && c.process().is_some() && self.is_prepared(c))
    }

    /// The sandbox that replicas of the pod shall belong to, whether it runs or not.
    pub(super) fn current_sandbox(&self, name: &PodName) -> Option<&Container> {
        self.observed.sandboxes(name).into_iter().find(|c| self.is_current(c))
    }

    /// Whether a sandbox has the version of its pod that is wanted; or another one, for which nobody may be taken down.
    fn is_current(&self, sandbox: &Container) -> bool {
        self.desired.project.is_pod(&sandbox.labels.pod, &sandbox.labels.generation)
            || self.is_spared(sandbox)
    }

    /// Whether a sandbox has an old version of its pod, and stays because of those who run in it.
    pub(super) fn is_spared(&self, sandbox: &Container) -> bool {
        !self.desired.recreate_pods
            && !self.desired.project.is_pod(&sandbox.labels.pod, &sandbox.labels.generation)
            && self.desired.project.pods.get(&sandbox.labels.pod).is_some_and(Pod::has_sandbox)
            && sandbox.process().is_some()
            && self.holds_replicas(sandbox)
    }

    fn pod_is_idle(&self, name: &PodName) -> bool {
        !self.observed.containers.values().any(|c| {
            &c.labels.pod == name
                && c.labels.role != crate::engine::Role::Sandbox
                && (c.process().is_some() || self.is_busy(c))
        })
    }

    fn holds_replicas(&self, sandbox: &Container) -> bool {
        self.observed
            .containers
            .values()
            .any(|c| c.joined.as_ref() == Some(&sandbox.id) && c.process().is_some())
    }

    /// Whether an action is under way for a container.
    pub(super) fn is_busy(&self, container: &Container) -> bool {
        self.doing(container).is_some()
    }

    /// What is being done to a container.
    pub(super) fn doing(&self, container: &Container) -> Option<Verb> {
        let busy = &self.observed.busy;
        let surplus = Target::Surplus(container.id.clone());
        busy.get(&self.desired.target_of(container)).or_else(|| busy.get(&surplus)).copied()
    }
}
