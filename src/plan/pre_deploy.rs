//! The job before a new version of a service (`x-sameport.before`): it has to succeed before the first replica of that
//! version is launched.
//!
//! It is a container as any other, so a supervisor that was killed finds it again. One that failed stays, for its
//! version, until it is asked for anew: nothing else has to remember the failure. That it succeeded is remembered in
//! [`Desired::done_before`](super::Desired), and shown by each replica of the version: there would be none without.

use crate::{
    engine::{ContainerState, Exit, RemoveVolumes, tells_of_host_fault},
    spec::{Generation, PreDeploy, Service, ServiceName, Slot},
};

use super::{
    Action, Container, Desired, Goal, Observed, Planner, Target,
    history::{later, uptime},
    status::{HOPELESS, StatusError},
    stop_time::StopTime,
};

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Succeeded,
    Failed,
    /// Nobody wanted it any more, and it was told to end, or the host had no room to start it: how it ended says nothing.
    Interrupted,
}

impl Planner<'_> {
    /// Brings each service's job into the state that is wanted of it.
    pub(super) fn pre_deploy_jobs(&mut self) {
        let desired = self.desired;
        for (name, goal) in &desired.goals {
            let Some(service) = desired.project.services.get(name) else { continue };
            let launches = matches!(goal, Goal::Run { replicas } if *replicas > 0);
            let before = service.pre_deploy.as_ref().filter(|_| launches && self.awaits_before(service));
            let mut kept = None;
            let timeout = self.desired.stop_timeouts.get(name).filter(|_| *goal == Goal::Stop).copied();
            let time = StopTime::of(service).without_drain().or(timeout);
            for job in self.observed.jobs(name) {
                let target = self.observed.target(job);
                if before.is_some() && kept.is_none() && self.is_current_job(service, job) {
                    kept = Some(job);
                } else {
                    self.discard(target, job, time);
                }
            }
            match (before, kept) {
                (Some(before), Some(job)) => self.keep_job(service, before, job),
                // One that is on its way out has the name.
                (Some(_), None) if self.observed.jobs(name).is_empty() => self.launch_job(service),
                _ => {}
            }
        }
    }

    /// Whether no replica of the version that is wanted may be launched yet.
    pub(super) fn awaits_before(&self, service: &Service) -> bool {
        let project = &self.desired.project;
        service.pre_deploy.is_some()
            && self.desired.done_before.get(&service.name) != project.service_generation(&service.name)
            && !self
                .observed
                .service(&service.name)
                .any(|(_, replica)| project.is_service(&service.name, &replica.labels.generation))
    }

    fn is_current_job(&self, service: &Service, job: &Container) -> bool {
        self.desired.project.is_service(&service.name, &job.labels.generation)
            && !self.is_unbound(service, job)
    }

    fn launch_job(&mut self, service: &Service) {
        if self.can_start(service)
            && self.unmet_dependency(service).is_none()
            && self.missing_volumes(service, Slot::FIRST).is_empty()
        {
            let sandbox = self.open_sandbox(&service.pod).map(|c| c.id.clone());
            self.act(Action::LaunchPreDeploy { service: service.name.clone(), sandbox });
        }
    }

    fn keep_job(&mut self, service: &Service, before: &PreDeploy, job: &Container) {
        let (target, id) = (self.observed.target(job), job.id.clone());
        match &job.state {
            ContainerState::Created => {
                if self.can_start(service) {
                    self.act(Action::Start { target, id });
                }
            }
            ContainerState::Running(_) => {
                if self.due(later(job.since, before.timeout)) {
                    self.act(Action::Stop { target, id, grace: service.stop_grace });
                }
            }
            ContainerState::Exited(exit) => {
                if self.desired.is_superseded(&id, exit.started_at)
                    || outcome(self.desired, before, job) == Some(Outcome::Interrupted)
                {
                    self.act(Action::Remove { target, id, volumes: RemoveVolumes::Remove });
                }
            }
            ContainerState::Dead => self.act(Action::Remove { target, id, volumes: RemoveVolumes::Remove }),
            ContainerState::Paused(_) | ContainerState::Removing => {}
        }
    }

    /// Why a service cannot have the version that is wanted: its job failed.
    pub(super) fn pre_deploy_error(&self, name: &ServiceName) -> Option<StatusError> {
        let service = self.desired.project.services.get(name)?;
        let before = service.pre_deploy.as_ref().filter(|_| self.awaits_before(service))?;
        let job = self.observed.jobs(name).into_iter().find(|job| {
            self.is_current_job(service, job) && outcome(self.desired, before, job) == Some(Outcome::Failed)
        })?;
        let ContainerState::Exited(exit) = &job.state else { return None };
        if self.desired.is_superseded(&job.id, exit.started_at) {
            return None;
        }
        let target = self.observed.target(job);
        let history = self.observed.history.get(&target);
        // It is reported once, with its last log lines.
        if history.is_some_and(|history| history.awaits_last_termination(&job.id, exit.finished_at)) {
            return None;
        }
        let last_termination = history.and_then(|history| history.last_termination.as_ref());
        let last_termination =
            last_termination.filter(|last_termination| last_termination.exit.at == exit.finished_at);
        let log =
            last_termination.map(|last_termination| last_termination.log.as_slice()).unwrap_or_default();
        let words: String = log.iter().map(|line| format!("\n    {line}")).collect();
        let error = format!(
            "{}; no replica of the new version is started, and those of an older one go on{words}",
            how(exit, before)
        );
        let help = "`sameport up` runs it again, with what the file says then".to_owned();
        Some(StatusError { target, error, help: Some(help), tries: HOPELESS })
    }
}

/// How a job failed, in words.
fn how(exit: &Exit, before: &PreDeploy) -> String {
    match &exit.error {
        Some(error) => format!("it could not start: {error}"),
        None if uptime(exit) >= before.timeout => format!("it took longer than {:?}", before.timeout),
        None if exit.out_of_memory => "it ran out of memory".to_owned(),
        None => format!("it ended with exit code {}", exit.code),
    }
}

fn outcome(desired: &Desired, before: &PreDeploy, job: &Container) -> Option<Outcome> {
    let ContainerState::Exited(exit) = &job.state else { return None };
    // One that we had to stop did not finish, whatever it says.
    let took_too_long = uptime(exit) >= before.timeout;
    let failed = took_too_long || exit.code != 0 || exit.out_of_memory || exit.error.is_some();
    let could_not_start = exit.error.as_deref().is_some_and(tells_of_host_fault);
    let was_told_to_end = desired.interrupted_jobs.get(&job.id) == Some(&exit.started_at);
    Some(match could_not_start || was_told_to_end {
        true if !took_too_long => Outcome::Interrupted,
        _ if failed => Outcome::Failed,
        _ => Outcome::Succeeded,
    })
}

/// The jobs that have succeeded for the versions that are wanted, and are not known to have.
#[must_use]
pub fn succeeded(desired: &Desired, observed: &Observed) -> Vec<(ServiceName, Generation)> {
    jobs_that(desired, observed, Outcome::Succeeded)
        .filter(|(name, job)| desired.done_before.get(name) != Some(&job.labels.generation))
        .map(|(name, job)| (name, job.labels.generation.clone()))
        .collect()
}

/// The jobs that have failed for the versions that are wanted.
pub fn failed<'a>(
    desired: &'a Desired,
    observed: &'a Observed,
) -> impl Iterator<Item = (Target, &'a Container)> {
    jobs_that(desired, observed, Outcome::Failed).map(|(_, job)| (observed.target(job), job))
}

fn jobs_that<'a>(
    desired: &'a Desired,
    observed: &'a Observed,
    ended: Outcome,
) -> impl Iterator<Item = (ServiceName, &'a Container)> {
    let pre_deploy_jobs = desired.goals.keys().filter_map(|name| {
        let before = desired.project.services.get(name)?.pre_deploy.as_ref()?;
        Some((name, before))
    });
    pre_deploy_jobs.flat_map(move |(name, before)| {
        let jobs = observed.jobs(name).into_iter();
        jobs.filter(move |job| {
            desired.project.is_service(name, &job.labels.generation)
                && outcome(desired, before, job) == Some(ended)
        })
        .map(|job| (name.clone(), job))
    })
}
