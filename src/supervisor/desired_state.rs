//! Turns the requests of users into [`Desired`]. Does no I/O except for the state file.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use jiff::Timestamp;

use crate::{
    engine::{ContainerState, RemoveVolumes, ownership::Expected},
    plan::{
        self, Desired, Goal, Observed, Outcome, Phase,
        versions::{ChangeCause, Impossible, Step},
    },
    spec::{Project, ProjectName, Service, ServiceName},
};

use super::{
    Apply, Change, Milestone, Rejection, Request, RolloutRequest,
    state_file::{Damage, FileError, Loaded, Scale, State, StateError, StateFile},
};

mod checks;
mod commands;
mod progress;
mod recover;
mod stopped_outside;
mod volumes;

use checks::{check_beside, check_counts, check_scale, known, with_dependencies};

pub use recover::StateReset;

/// The desired state of a project.
#[derive(Clone, Debug)]
pub struct DesiredState {
    /// The planner's input.
    pub desired: Desired,
    /// The file as it was last read. `desired` may have another version of a service.
    read: Project,
    file: StateFile,
    state: State,
    /// The damage of the state file until its content is recovered, and the new path of the damaged file.
    damage: Option<(Damage, Option<PathBuf>)>,
    /// Whether all services are being stopped because the supervisor ends.
    closing: bool,
    /// Services whose ended replicas are started again regardless of their restart policy.
    revive: BTreeMap<ServiceName, RestartEnded>,
    /// Services whose pre-deploy job runs again if it failed.
    retry: BTreeSet<ServiceName>,
    /// Set while the state file is older than the state.
    unsaved: Option<SaveError>,
}

/// The state could not be written. The supervisor keeps it in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaveError {
    /// The path of the state file.
    pub path: PathBuf,
    /// The error of the operating system.
    pub reason: String,
}

/// Which ended replicas are started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RestartEnded {
    /// Only those that failed.
    Failed,
    /// Also those that completed.
    All,
}

impl DesiredState {
    /// The state of a project before any request: what the state file holds.
    ///
    /// If the file is damaged, its content is recovered after the first observation of the engine; see
    /// [`DesiredState::recover`].
    ///
    /// # Errors
    /// If the state file cannot be read, or was written by a newer release.
    pub fn new(project: ProjectName, file: StateFile) -> Result<Self, StateError> {
        let Loaded { mut state, damage } = file.load()?;
        state.scale.retain(|service, scale| {
            let (asked, most) = (scale.replicas, Service::MOST_REPLICAS);
            let is_possible = asked <= most;
            if !is_possible {
                // Do not use the maximum instead, which no user requested: the count of the Compose file applies.
                tracing::warn!(%service, asked, most, "the state file has more replicas than a service can have: ignored");
            }
            is_possible
        });
        let read = Project::empty(project);
        let desired = Desired {
            done_before: state.done_before.clone(),
            interrupted_jobs: state.interrupted_jobs.clone(),
            stopped_outside: state.stopped_outside.clone(),
            renew_volumes: state.renew_volumes.clone(),
            ..Desired::all(read.clone())
        };
        let damage = damage.map(|damage| (damage, None));
        let closing = false;
        Ok(Self {
            desired,
            read,
            file,
            state,
            damage,
            closing,
            revive: BTreeMap::new(),
            retry: BTreeSet::new(),
            unsaved: None,
        })
    }

    /// A copy for a preview, which is not saved.
    #[must_use]
    pub fn simulated(&self) -> Self {
        Self { file: StateFile::default(), ..self.clone() }
    }

    /// The known names of resources of this project, from the file and from previous versions of services.
    #[must_use]
    pub fn expected(&self) -> Expected {
        let mut expected = self.state.expected();
        expected.note(&self.read);
        expected
    }

    /// Whether the names of the project's resources are known, or no file is going to be loaded.
    #[must_use]
    pub fn knows_names(&self) -> bool {
        !self.read.services.is_empty() || matches!(self.desired.phase, Phase::Down { .. })
    }

    /// Applies a request to the desired state.
    ///
    /// # Errors
    /// If the request is rejected; then nothing has changed.
    pub fn take(&mut self, request: Request, observed: &Observed, now: Timestamp) -> Result<(), Rejection> {
        let is_about_down = matches!(request, Request::Down { .. } | Request::CancelDown);
        if matches!(self.desired.phase, Phase::Down { .. }) && !is_about_down {
            return Err(Rejection::GoingDown);
        }
        // A client would not learn that its service is stopped a moment later, or would undo a stop that another user
        // requested.
        if self.closing
            && !matches!(request, Request::Close { .. } | Request::Down { .. } | Request::CancelDown)
        {
            return Err(Rejection::Closing);
        }
        match request {
            Request::Load(project) => {
                check_counts(&project)?;
                self.pursue(*project);
                Ok(())
            }
            Request::Resume(project) => {
                check_counts(&project)?;
                self.resume(*project);
                Ok(())
            }
            Request::Apply(apply) => {
                self.apply(*apply, observed, now)?;
                self.retry_jobs(observed);
                Ok(())
            }
            Request::Rollout(request) => {
                self.roll_out(*request, observed, now)?;
                self.retry_jobs(observed);
                Ok(())
            }
            Request::Scale(counts) => {
                self.scale(&counts)?;
                self.start_stopped(|service| counts.contains_key(service), observed);
                Ok(())
            }
            Request::Stop { services, grace } => self.stop(services, grace),
            Request::Close { grace } => {
                self.stop(Vec::new(), grace)?;
                self.closing = true;
                Ok(())
            }
            Request::Start { services } => {
                let services = self.named(services)?;
                let mut state = self.state.clone();
                state.stopped.retain(|stopped| !services.contains(stopped));
                self.remember(state)?;
                self.start_stopped(|service| services.contains(service), observed);
                for name in services {
                    let replicas = self.replicas(&name);
                    self.desired.goals.insert(name.clone(), Goal::Run { replicas });
                    self.revive.insert(name, RestartEnded::All);
                }
                Ok(())
            }
            Request::Restart { replicas, grace } => self.restart(replicas, grace, observed),
            Request::Weight(weights) => self.weigh(weights, observed),
            Request::EndDrain(replicas) => self.end_drain(replicas, observed, now),
            Request::Down { volumes, grace } => {
                let volumes = if volumes { RemoveVolumes::Remove } else { RemoveVolumes::Keep };
                self.desired.phase = Phase::Down { volumes };
                self.desired.down_timeout = grace;
                Ok(())
            }
            Request::CancelDown => {
                if let Phase::Down { .. } = self.desired.phase {
                    self.desired.phase = Phase::Up;
                    // Without goals, replicas that were taken out of rotation return to it, and replicas that are gone
                    // stay away.
                    self.desired.goals.clear();
                }
                Ok(())
            }
            Request::Status | Request::Preview(_) | Request::Detach | Request::Watch(_) => Ok(()),
        }
    }

    fn apply(&mut self, apply: Apply, observed: &Observed, now: Timestamp) -> Result<(), Rejection> {
        let Apply {
            mut project,
            services,
            scale,
            orphans,
            by,
            again,
            images,
            renew,
            recreate_pod,
            renew_volumes,
            variables,
            folder,
        } = apply;
        check_counts(&project)?;
        for (name, replicas) in &scale {
            check_scale(&project, name, *replicas)?;
        }
        let wanted = Desired::all(project.clone());
        for service in project.services.values().filter(|service| service.canary.is_some()) {
            check_beside(&wanted, observed, service)?;
        }
        let selected = if services.is_empty() {
            project.services.keys().cloned().collect()
        } else {
            with_dependencies(&project, services)?
        };
        let mut state = self.state.clone();
        state.scale.retain(|name, kept| {
            project.services.get(name).is_some_and(|service| service.replicas == kept.file)
        });
        for (name, replicas) in scale {
            let file = project.services.get(&name).map_or(0, |service| service.replicas);
            state.scale.insert(name, Scale { file, replicas });
        }
        let was_stopped: BTreeSet<_> = state.stopped.intersection(&selected).cloned().collect();
        state.stopped.retain(|name| project.services.contains_key(name) && !selected.contains(name));
        state.versions.retain(|name, _| project.services.contains_key(name));
        let asked = ChangeCause { now, by: &by, cause: "up" };
        for service in project.services.values_mut() {
            let versions = state.versions.entry(service.name.clone()).or_default();
            let image = &service.container.image;
            let known = versions.known_image(image).filter(|_| !renew.contains(image));
            service.container.image_id = known.or_else(|| images.get(image)).cloned();
            if let Some(canary) = &mut service.canary {
                let known = versions.known_image(&canary.image).filter(|_| !renew.contains(&canary.image));
                canary.image_id = known.or_else(|| images.get(&canary.image)).cloned();
            }
            if selected.contains(&service.name) {
                versions.apply(service, again, &asked);
            }
        }
        state.versions.retain(|_, versions| !versions.revisions.is_empty());
        state.variables = variables;
        state.folder = folder;
        // Do not fail on a full disk: this content can be read from the file again.
        self.keep(state);

        self.pursue(project);
        self.desired.orphans = orphans;
        self.desired.recreate_pods = recreate_pod;
        self.start_stopped(|service| selected.contains(service), observed);
        if renew_volumes {
            self.renew_volumes(&selected, observed);
        }
        for name in selected {
            let replicas = self.replicas(&name);
            self.desired.goals.insert(name.clone(), Goal::Run { replicas });
            let revive = if was_stopped.contains(&name) { RestartEnded::All } else { RestartEnded::Failed };
            self.revive.insert(name.clone(), revive);
            self.retry.insert(name);
        }
        self.reflect();
        Ok(())
    }

    /// Loads a file. Its versions take effect only when it is applied.
    fn pursue(&mut self, mut project: Project) {
        for service in project.services.values_mut() {
            let known = self.state.versions.get(&service.name);
            let known = known.and_then(|versions| versions.known_image(&service.container.image)).cloned();
            service.container.image_id = service.container.image_id.take().or(known);
            if let (Some(canary), Some(versions)) =
                (&mut service.canary, self.state.versions.get(&service.name))
            {
                let known = versions.known_image(&canary.image).cloned();
                canary.image_id = canary.image_id.take().or(known);
            }
        }
        self.read = project;
        self.reflect();
        self.desired.weights = self.state.weights.clone();
        self.desired.goals.retain(|name, _| self.desired.project.services.contains_key(name));
    }

    /// Derives `desired` from the file and from the desired versions.
    fn reflect(&mut self) {
        let mut project = self.read.clone();
        self.desired.rollouts.clear();
        for (name, versions) in &self.state.versions {
            let Some(service) = project.services.get_mut(name) else { continue };
            let replicas = match self.desired.goals.get(name) {
                Some(Goal::Run { replicas }) => *replicas,
                Some(Goal::Stop) | None => 0,
            };
            if let Some(rollout) = versions.rollout(service, replicas) {
                self.desired.rollouts.insert(name.clone(), rollout);
            }
            *service = versions.service(service);
        }
        self.desired.versions.clone_from(&self.state.versions);
        self.desired.project = project.into();
    }

    fn roll_out(
        &mut self,
        request: RolloutRequest,
        observed: &Observed,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        let RolloutRequest { service: name, by, change } = request;
        self.known(&name)?;
        let Some(file) = self.read.services.get(&name) else { return Ok(()) };
        let mut state = self.state.clone();
        let versions = state.versions.entry(name.clone()).or_default();
        let asked = |cause| ChangeCause { now, by: &by, cause };
        let reject = |reason| Rejection::Rollout { service: name.clone(), reason };
        match change {
            Change::Start { image, image_id, steps } => {
                if steps.is_some() {
                    self.steered(&name, observed).map_err(|_| reject(Impossible::NotSteered))?;
                    check_beside(&self.desired, observed, file)?;
                }
                versions.start(file, image, image_id, steps, &asked("rollout"));
                state.stopped.remove(&name);
            }
            Change::Pause => versions.pause().map_err(reject)?,
            Change::Resume => versions.resume().map_err(reject)?,
            Change::Promote => versions.promote().map_err(reject)?,
            Change::Abort => versions.abort(file, &asked("abort")).map_err(reject)?,
            Change::Undo { to } => {
                let cause = to.map_or_else(|| "undo".to_owned(), |number| format!("undo to {number}"));
                versions.undo(file, to, &asked(&cause)).map_err(reject)?;
            }
        }
        self.remember(state)?;
        self.start_stopped(|service| *service == name, observed);
        let replicas = self.replicas(&name);
        self.desired.goals.entry(name).or_insert(Goal::Run { replicas });
        self.reflect();
        Ok(())
    }

    /// Processes the outcomes of rollouts. Returns the milestones to report, and when to call this again.
    pub fn conclude(
        &mut self,
        outcomes: BTreeMap<ServiceName, Outcome>,
        observed: &Observed,
        now: Timestamp,
    ) -> (Vec<(ServiceName, Milestone)>, Option<Timestamp>) {
        let (mut told, mut wake) = (Vec::new(), None::<Timestamp>);
        if outcomes.is_empty() {
            return (told, wake);
        }
        let mut state = self.state.clone();
        for (name, outcome) in outcomes {
            let (Some(versions), Some(file)) = (state.versions.get_mut(&name), self.read.services.get(&name))
            else {
                continue;
            };
            let Some(underway) = versions.underway.clone() else { continue };
            match outcome {
                Outcome::Done => {
                    let rollout_summary = versions.finish(observed.counted(&file.pod), now);
                    told.push((name, Milestone::Done { underway, rollout_summary, outage: None }));
                    // A canary in the file waited for this rollout to end.
                    if file.canary.is_some() {
                        versions.apply(file, false, &ChangeCause { now, by: "sameport", cause: "canary" });
                    }
                }
                Outcome::Reached(since) => match versions.reached(since, now) {
                    Step::Stays => {}
                    Step::At(time) => wake = Some(wake.map_or(time, |wake| wake.min(time))),
                    Step::Next(share) => told.push((name, Milestone::Step { share })),
                    Step::Promoted => told.push((name, Milestone::Promoted)),
                },
                Outcome::Failed(failure) => {
                    let action = versions.fail(file, failure.clone(), now);
                    told.push((name, Milestone::Failed { version: underway.to, failure, action }));
                }
            }
        }
        if told.is_empty() {
            return (told, wake);
        }
        self.keep(state);
        self.reflect();
        (told, wake)
    }

    /// Restores the last desired state from the state file, for the status of a project without a supervisor.
    pub fn restore(&mut self, project: Project) {
        self.pursue(project);
        let names: Vec<_> = self.desired.project.services.keys().cloned().collect();
        for name in names {
            let goal = match self.state.stopped.contains(&name) {
                true => Goal::Stop,
                false => Goal::Run { replicas: self.replicas(&name) },
            };
            self.desired.goals.insert(name, goal);
        }
        self.reflect();
    }

    /// Resumes the last desired state. Leaves services alone that were never applied, and replicas that ended and are
    /// not started again by their restart policy.
    fn resume(&mut self, project: Project) {
        self.restore(project);
        self.desired.goals.retain(|name, _| self.state.versions.contains_key(name));
        self.reflect();
    }

    /// Drops requests that are fulfilled, and starts ended replicas again for which that was requested. Call this after
    /// each observation of the engine.
    pub fn catch_up(&mut self, observed: &mut Observed) {
        for (service, generation) in plan::pre_deploy::succeeded(&self.desired, observed) {
            self.note_pre_deploy_done(service, generation);
        }
        let containers = &observed.containers;
        let is_there = |(id, at): &(_, _)| containers.get(id).is_some_and(|c| c.started_at() == Some(*at));
        self.desired.superseded.retain(|process, _| is_there(process));
        self.desired.in_order.retain(is_there);
        self.desired.hurried.retain(is_there);
        self.forget_started(observed);
        self.retry_jobs(observed);
        self.retry.clear();
        self.restart_dependents(observed);
        for (service, revive) in std::mem::take(&mut self.revive) {
            let ended: Vec<_> = observed
                .service(&service)
                .filter_map(|(_, c)| match &c.state {
                    ContainerState::Exited(exit)
                        if revive == RestartEnded::All || exit.code != 0 || exit.out_of_memory =>
                    {
                        Some((self.desired.target_of(c), c.id.clone(), exit.started_at))
                    }
                    _ => None,
                })
                .collect();
            for (target, id, started_at) in ended {
                if revive == RestartEnded::All {
                    self.desired.in_order.insert((id.clone(), started_at));
                }
                let history = observed.history.entry(target).or_default();
                history.ignore_exit(&id, started_at);
            }
        }
    }

    /// Clears the state after the project was removed.
    ///
    /// # Errors
    /// If the state file cannot be removed.
    pub fn forget(&mut self) -> Result<(), FileError> {
        self.state = State { engine: self.state.engine.take(), ..State::default() };
        self.file.clear()
    }

    fn replicas(&self, name: &ServiceName) -> u32 {
        match (self.state.scale.get(name), self.desired.project.services.get(name)) {
            (Some(scale), _) => scale.replicas,
            (None, Some(service)) => service.replicas,
            (None, None) => 0,
        }
    }

    fn named(&self, services: Vec<ServiceName>) -> Result<BTreeSet<ServiceName>, Rejection> {
        for name in &services {
            self.known(name)?;
        }
        Ok(if services.is_empty() {
            self.desired.project.services.keys().cloned().collect()
        } else {
            services.into_iter().collect()
        })
    }

    fn known(&self, name: &ServiceName) -> Result<(), Rejection> {
        known(&self.desired.project, name)
    }

    fn remember(&mut self, state: State) -> Result<(), Rejection> {
        if state != self.state {
            self.file.save(&state).map_err(|error| Rejection::NotSaved {
                path: error.path.display().to_string(),
                reason: error.source.to_string(),
            })?;
            self.state = state;
            self.unsaved = None;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests;
