//! Progress that has to survive the supervisor: pre-deploy jobs that succeeded, commands that ran, and dependents that
//! are to be restarted.

use crate::{
    engine::{ContainerId, ContainerState, Role},
    plan::{Action, Container, Goal, Observed, PostStart, Target, dependents, versions::Versions},
    spec::{Generation, ServiceName},
    supervisor::state_file::State,
};

use super::{DesiredState, SaveError};

impl DesiredState {
    /// Records that the pre-deploy job of a version succeeded.
    pub fn note_pre_deploy_done(&mut self, service: ServiceName, generation: Generation) {
        let mut state = self.state.clone();
        state.done_before.insert(service, generation);
        self.keep(state);
        self.desired.done_before = self.state.done_before.clone();
    }

    /// Records the progress of the `post_start` commands of a replica.
    pub fn note_post_start(&mut self, id: &ContainerId, progress: PostStart, observed: &mut Observed) {
        let mut state = self.state.clone();
        state.post_start.retain(|other, _| observed.containers.contains_key(other));
        state.post_start.insert(id.clone(), progress);
        self.keep(state);
        observed.post_start = self.state.post_start.clone();
    }

    /// The progress of the `post_start` commands, by container.
    #[must_use]
    pub fn post_start(&self) -> &std::collections::BTreeMap<ContainerId, PostStart> {
        &self.state.post_start
    }

    /// Records that an action is about to start. Services that depend on what it restarts or replaces, with `restart:
    /// true`, are restarted after it. The exit of a job that it stops does not count as the job's result.
    pub fn note_started(&mut self, action: &Action, observed: &Observed) {
        if let Action::Stop { target: Target::PreDeploy(_), id, .. } = action
            && let Some(started_at) = observed.containers.get(id).and_then(Container::started_at)
        {
            let mut state = self.state.clone();
            state.interrupted_jobs.retain(|other, _| observed.containers.contains_key(other));
            state.interrupted_jobs.insert(id.clone(), started_at);
            self.keep(state);
            self.desired.interrupted_jobs = self.state.interrupted_jobs.clone();
        }
        if let Action::LaunchReplica { service, slot, .. } = action {
            self.note_volumes_renewed(&service.name, *slot);
        }
        let affected = dependents::of(action, &self.desired, observed);
        if !affected.is_subset(&self.state.restart_after) {
            let mut state = self.state.clone();
            state.restart_after.extend(affected);
            self.keep(state);
        }
    }

    /// Records which stable versions have served: a replica of them is or was ready.
    pub fn note_served(&mut self, observed: &Observed) {
        let is_unknown = |versions: &Versions| {
            versions.revision(versions.stable).is_some_and(|stable| stable.served == Some(false))
        };
        if !self.state.versions.values().any(is_unknown) {
            return;
        }
        let mut state = self.state.clone();
        let mut news = false;
        for (name, versions) in &mut state.versions {
            let is_ready = |generation: &Generation| {
                observed.service(name).any(|(_, replica)| {
                    replica.labels.generation == *generation && observed.ready_since.contains_key(&replica.id)
                })
            };
            news |= versions.note_served(is_ready);
        }
        if news {
            self.keep(state);
            self.desired.versions.clone_from(&self.state.versions);
        }
    }

    /// Records the connection counters at the start of a rollout.
    pub fn note_counted(&mut self, observed: &Observed) {
        let is_unknown =
            |versions: &Versions| versions.underway.as_ref().is_some_and(|u| u.counted.is_none());
        if !self.state.versions.values().any(is_unknown) {
            return;
        }
        let mut state = self.state.clone();
        for (name, versions) in &mut state.versions {
            if let (Some(underway), Some(service)) = (&mut versions.underway, self.read.services.get(name)) {
                underway.counted = underway.counted.or_else(|| observed.counted(&service.pod));
            }
        }
        self.keep(state);
        self.desired.versions.clone_from(&self.state.versions);
    }

    /// Restarts dependents once the services that they depend on are up again.
    pub(super) fn restart_dependents(&mut self, observed: &Observed) {
        if self.state.restart_after.is_empty() {
            return;
        }
        let mut waiting = self.state.restart_after.clone();
        waiting.retain(|name| {
            match self.desired.goals.get(name) {
                Some(Goal::Run { .. }) => {}
                // None of its replicas run, so there is nothing to restart.
                Some(Goal::Stop) => return false,
                // Nothing was requested yet: a supervisor observes the engine before `up` sends its request.
                None => return true,
            }
            if !dependents::are_due(name, &self.desired, observed) {
                return true;
            }
            let stale = dependents::stale(name, &self.desired, observed);
            let done = stale.is_empty();
            for process in stale {
                // A restart that a user requested with its own timeout takes precedence.
                self.desired.superseded.entry(process).or_insert(None);
            }
            // Drop the entry only after the restart, so that the next supervisor continues it.
            !done
        });
        if waiting != self.state.restart_after {
            let state = State { restart_after: waiting, ..self.state.clone() };
            self.keep(state);
        }
    }

    /// Runs failed jobs again.
    pub(super) fn retry_jobs(&mut self, observed: &Observed) {
        for container in observed.containers.values() {
            if let (Role::PreDeploy { service }, ContainerState::Exited(exit)) =
                (&container.labels.role, &container.state)
                && self.retry.contains(service)
            {
                self.desired.superseded.insert((container.id.clone(), exit.started_at), None);
            }
        }
    }

    /// Updates the state for an event that cannot be rejected. If it cannot be written, it stays in memory.
    pub(super) fn keep(&mut self, state: State) {
        if state != self.state {
            self.state = state;
            self.save_again();
        }
    }

    /// Writes the state file again; on failure, `unsaved` has the error.
    pub fn save_again(&mut self) {
        self.unsaved = self.file.save(&self.state).err().map(|error| {
            tracing::debug!(%error, "the state is not remembered");
            SaveError { path: error.path, reason: error.source.to_string() }
        });
    }

    /// Whether the current state was written to the file, which may have been removed since.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.unsaved.is_none() && !self.state.is_empty()
    }

    /// The error of the last write; `None` if it succeeded.
    #[must_use]
    pub fn unsaved(&self) -> Option<&SaveError> {
        self.unsaved.as_ref()
    }
}
