//! Where each replica stands, in words that a user knows.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    engine::{ContainerId, ContainerState, Exit, Health, Role, ownership::Foreign},
    spec::{DependencyCondition, Generation, Image, PodName, PortSet, Service, ServiceName, Slot},
};

use super::{
    Container, Desired, Direction, ExclusivePort, FailureReason, Goal, History, LastTermination, Observed,
    OutOfReach, Phase, Planner, PodSharing, PodTraffic, ReplicaTraffic, SharedFile, Target, UnhealthyReason,
    UnhealthyReplacement, UnhealthyReplica, Verdict, plan,
    rotation::is_in_force,
    unhealthy::check_never_passed,
    versions::{Pin, Underway, Why},
};

/// Instead of how often something was tried: however often it would be, it cannot succeed.
pub const HOPELESS: u32 = u32::MAX;

/// Where a project stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectStatus {
    /// Whether nothing is left to do and everything wanted is up.
    pub converged: bool,
    /// Whether nothing is left to do at the moment: what is not up yet takes its time, or failed.
    pub settled: bool,
    /// Whether all that is left to do is to wait for connections of replicas that are to end.
    #[serde(default)]
    pub only_draining: bool,
    /// The sandboxes.
    pub pods: Vec<PodStatus>,
    /// The replicas, wanted or there.
    pub replicas: Vec<ReplicaStatus>,
    /// Services that are on their way to another version.
    #[serde(default)]
    pub rollouts: Vec<RolloutStatus>,
    /// Containers of services that the file no longer has.
    pub orphans: Vec<String>,
    /// What else is in the way, such as a network that cannot be made.
    pub errors: Vec<StatusError>,
    /// Containers, networks and volumes that carry our labels and are not ours: they are left alone.
    #[serde(default)]
    pub foreign: Vec<Foreign>,
    /// Sockets and pid files that several replicas have together.
    #[serde(default)]
    pub shared_files: Vec<SharedFile>,
    /// When the engine answered last, if it does not now: what is told of it is from then.
    #[serde(default)]
    pub engine_silent_since: Option<Timestamp>,
}

/// How far a service is on its way to another version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutStatus {
    /// Which service.
    pub service: ServiceName,
    /// Where it leads, and what is in its way.
    #[serde(flatten)]
    pub underway: Underway,
    /// Slots that run the new version, which has proved itself there.
    pub done: u32,
    /// Slots in all.
    pub of: u32,
    /// The image of the version that it leads to.
    #[serde(default)]
    pub image: Option<Image>,
    /// The image of the version that it leads from.
    #[serde(default)]
    pub previous_image: Option<Image>,
}

impl RolloutStatus {
    /// Whether all that is to come for now is there, or nothing more comes.
    #[must_use]
    pub fn has_arrived(&self) -> bool {
        let wanted = self
            .underway
            .steps
            .as_ref()
            .map_or(self.of, |steps| if steps.whole { self.of } else { steps.share().of(self.of) });
        self.underway.paused.is_some() || self.done >= wanted
    }

    /// Whether it goes on only when somebody says so.
    #[must_use]
    pub fn rests(&self) -> bool {
        let waits = self.underway.steps.as_ref().is_some_and(|steps| steps.every.is_none());
        self.underway.paused.is_some() || waits
    }
}

/// Where a pod stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodStatus {
    /// Which one.
    pub pod: PodName,
    /// Its sandbox, once there is one.
    pub container: Option<ContainerId>,
    /// Whether replicas can join it.
    pub open: bool,
    /// Who shares its ports.
    #[serde(flatten)]
    pub sharing: PodSharing,
    /// Ports that only one of its replicas can hold at a time, where the kernel shares the others.
    #[serde(default)]
    pub exclusive_ports: PortSet,
    /// What goes on there, besides its replicas.
    pub traffic: PodTraffic,
}

/// Where a replica stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// Of which service.
    pub service: ServiceName,
    /// Its number there.
    pub slot: Slot,
    /// Whether it is to take the place of the one in its slot.
    #[serde(default)]
    pub replacement: bool,
    /// Whether it has given up its slot, and finishes its connections.
    #[serde(default)]
    pub set_aside: bool,
    /// In which pod.
    pub pod: PodName,
    /// Its container, once there is one.
    pub container: Option<ContainerId>,
    /// The container's name.
    pub name: String,
    /// Which version of its service it runs.
    pub generation: Option<Generation>,
    /// The image of that version, where it is known.
    pub image: Option<Image>,
    /// Whether that is the version that is wanted.
    pub current: bool,
    /// How often it ended in a row, each time soon after its start.
    pub exits: u32,
    /// When its process started.
    pub started_at: Option<Timestamp>,
    /// What was found out about its last end, until it has stayed up since.
    pub last_termination: Option<LastTermination>,
    /// That its last end was because it did not work, until it has stayed up since.
    #[serde(default)]
    pub replaced: Option<UnhealthyReplacement>,
    /// What is wrong with it, in words.
    #[serde(default)]
    pub unhealthy: Option<String>,
    /// Why it is not ready yet, in the words of its health check or probe.
    #[serde(default)]
    pub not_ready: Option<String>,
    /// Why its health check cannot be run, if so.
    #[serde(default)]
    pub check_error: Option<String>,
    /// Since when it gets no new connections, if it gets none.
    #[serde(default)]
    pub out_since: Option<Timestamp>,
    /// What goes on at its ports, where the kernel shares them and it runs.
    pub traffic: Option<ReplicaTraffic>,
    /// Where it is in its life.
    pub state: ReplicaState,
}

/// Where a replica is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ReplicaState {
    /// It has not been made yet.
    Pending,
    /// It has to wait for another service.
    Waiting {
        /// For which one.
        service: ServiceName,
        /// What must be true of it.
        condition: DependencyCondition,
    },
    /// The job before its version has to succeed first.
    AwaitsJob,
    /// It runs, and so do the commands after its start.
    Preparing,
    /// It runs, and its health check has not passed yet.
    Starting,
    /// It runs, and does not listen on its published ports yet.
    NotListening {
        /// On which of them it should.
        ports: Vec<u16>,
        /// Where it does, if nobody outside of its container reaches it there.
        #[serde(default)]
        out_of_reach: Option<OutOfReach>,
    },
    /// It runs; it has no health check.
    Running,
    /// It runs, and its health check passes.
    Healthy,
    /// It runs, and its health check fails.
    Unhealthy,
    /// It runs, and takes no connections while others do.
    Stuck,
    /// Somebody froze it.
    Paused,
    /// It ended, and starts again.
    Restarting {
        /// How it ended.
        exit: ExitStatus,
        /// When it starts again.
        at: Timestamp,
    },
    /// It has done its work, and is not started again.
    Completed,
    /// It failed, and its restart rule allows no further try.
    Failed {
        /// How it ended.
        exit: ExitStatus,
    },
    /// Stopped on request.
    Stopped,
    /// Somebody has stopped it without sameport: it stays down until somebody starts it.
    StoppedOutside {
        /// Since when.
        since: Timestamp,
    },
    /// It is being removed.
    Removing,
    /// The engine will not do what is planned for it.
    Blocked {
        /// What the engine said.
        error: String,
        /// What the user can do about it.
        help: Option<String>,
        /// How often it was tried.
        tries: u32,
    },
}

impl ReplicaState {
    /// Whether it does what it is there for.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Running | Self::Healthy | Self::Completed)
    }

    /// Whether somebody has stopped it, by sameport or without it.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        matches!(self, Self::Stopped | Self::StoppedOutside { .. })
    }
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// The exit code; 128 + n after signal n.
    pub code: i64,
    /// Whether the kernel killed it for want of memory.
    pub out_of_memory: bool,
    /// Why it could not start, in the engine's words.
    pub error: Option<String>,
    /// When.
    pub at: Timestamp,
}

impl From<&Exit> for ExitStatus {
    fn from(exit: &Exit) -> Self {
        Self {
            code: exit.code,
            out_of_memory: exit.out_of_memory,
            error: exit.error.clone(),
            at: exit.finished_at,
        }
    }
}

/// Something that is in the way of what is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusError {
    /// What it is about.
    pub target: Target,
    /// What the engine said.
    pub error: String,
    /// What the user can do about it.
    pub help: Option<String>,
    /// How often it was tried.
    pub tries: u32,
}

/// Whether a container belongs to a service or pod that the file no longer has.
#[must_use]
pub fn is_orphan(desired: &Desired, container: &Container) -> bool {
    match &container.labels.role {
        Role::Replica { service, .. } | Role::PreDeploy { service } => {
            !desired.project.services.contains_key(service)
        }
        Role::Sandbox => desired.project.pods.get(&container.labels.pod).is_none_or(|pod| !pod.has_sandbox()),
    }
}

/// Tells where a project stands.
#[must_use]
pub fn status(desired: &Desired, observed: &Observed, now: Timestamp) -> ProjectStatus {
    let planner = Planner::new(desired, observed, now);
    let replicas: Vec<_> = match desired.phase {
        Phase::Up => {
            desired.goals.iter().flat_map(|(name, goal)| planner.service_status(name, *goal)).collect()
        }
        Phase::Down { .. } => Vec::new(),
    };
    let pods = desired
        .project
        .pods
        .iter()
        .filter(|(_, pod)| pod.has_sandbox())
        .map(|(name, _)| PodStatus {
            pod: name.clone(),
            container: planner.current_sandbox(name).map(|c| c.id.clone()),
            open: planner.open_sandbox(name).is_some(),
            sharing: planner.pod_sharing(name),
            exclusive_ports: planner.exclusive_ports(name),
            traffic: planner.pod_traffic(name),
        })
        .collect();
    let orphans =
        observed.containers.values().filter(|c| is_orphan(desired, c)).map(|c| c.name.clone()).collect();
    let failures = observed
        .history
        .iter()
        .filter_map(|(target, history)| {
            let errors = history.errors.as_ref()?;
            let target = planner.named(target)?;
            Some(StatusError {
                target,
                error: errors.last.to_string(),
                help: errors.last.help().map(str::to_owned),
                tries: errors.count,
            })
        })
        .collect::<Vec<_>>();
    let jobs = desired.goals.keys().filter_map(|name| planner.pre_deploy_error(name));
    let rollouts: Vec<_> = desired.versions.keys().filter_map(|name| planner.rollout_status(name)).collect();
    let rejected: Vec<_> = desired.versions.keys().filter_map(|name| planner.version_error(name)).collect();
    let spared: Vec<_> = desired.project.pods.keys().filter_map(|name| planner.pod_error(name)).collect();
    let drifted: Vec<_> = match desired.phase {
        Phase::Up => desired.project.pods.keys().filter_map(|name| planner.connection_error(name)).collect(),
        Phase::Down { .. } => Vec::new(),
    };
    let unchecked: Vec<_> = desired.goals.keys().filter_map(|name| planner.check_error(name)).collect();
    let is_in_order = spared.is_empty() && rejected.is_empty() && drifted.is_empty();
    let is_as_wanted = rollouts.is_empty() && is_in_order;
    let errors = failures
        .into_iter()
        .chain(jobs)
        .chain(spared)
        .chain(drifted)
        .chain(rejected)
        .chain(unchecked)
        .collect();
    let next = plan(desired, observed, now);
    // A supervisor that has just begun sees all replicas up before the kernel knows of any.
    let in_force = is_in_force(&next.steering_configs, &observed.sharing);
    let idle = observed.busy.is_empty() && next.actions.is_empty() && next.draining.is_empty() && in_force;
    let up = replicas.iter().all(|r| (r.state.is_up() && r.current) || r.state.is_stopped());
    // A replica that waits for its turn to be replaced is no action yet.
    let settled = idle && desired.superseded.is_empty() && rollouts.iter().all(RolloutStatus::rests);
    let converged = settled && up && is_as_wanted;
    let is_draining =
        |replica: &ReplicaStatus| replica.container.as_ref().is_some_and(|id| next.draining.contains(id));
    let only_draining = !next.draining.is_empty()
        && observed.busy.is_empty()
        && next.actions.is_empty()
        && in_force
        && desired.superseded.is_empty()
        && is_in_order
        && replicas.iter().all(|r| is_draining(r) || (r.state.is_up() && r.current) || r.state.is_stopped())
        && rollouts.iter().all(|rollout| rollout.rests() || planner.has_replaced_all(&rollout.service));
    let foreign = observed.foreign.iter().cloned().collect();
    let engine_silent_since = None;
    ProjectStatus {
        converged,
        settled,
        only_draining,
        pods,
        replicas,
        rollouts,
        orphans,
        errors,
        foreign,
        shared_files: observed.shared_files.iter().cloned().collect(),
        engine_silent_since,
    }
}

/// What mends a version.
fn remedy(reason: &FailureReason) -> String {
    match reason {
        FailureReason::OtherUser { other } => {
            format!("write `user: \"{}\"` in the Compose file", other.owner)
        }
        FailureReason::Ended { last_termination } => match &last_termination.exclusive_port {
            Some(ExclusivePort { port, .. }) => {
                format!("to let replicas share it, write {}", ExclusivePort::how_to_share(*port))
            }
            None => "mend it".to_owned(),
        },
        _ => "mend it".to_owned(),
    }
}

impl Planner<'_> {
    /// A target as users know it: commands in a container are the replica's own; none of one that is gone.
    fn named(&self, target: &Target) -> Option<Target> {
        let Target::Hooks(id) = target else { return Some(target.clone()) };
        self.observed.containers.get(id).map(|container| self.observed.target(container))
    }

    fn rollout_status(&self, name: &ServiceName) -> Option<RolloutStatus> {
        let versions = self.desired.versions.get(name)?;
        let underway = versions.underway.clone()?;
        let image = |number| Some(versions.revision(number)?.service.container.image.clone());
        let (image, previous_image) = (image(underway.to), image(underway.from));
        let service = self.desired.project.services.get(name)?;
        let of = match self.desired.goals.get(name) {
            Some(Goal::Run { replicas }) => *replicas,
            Some(Goal::Stop) | None => 0,
        };
        let is_done = |slot: &Slot| {
            let slot_members = self.slot_members(service, *slot);
            let mut there = slot_members.replacement.into_iter().chain(slot_members.current);
            let new = there.find(|container| self.is_wanted(service, container));
            new.is_some_and(|new| self.proved_at(service, new).is_some_and(|at| at <= self.now))
        };
        let done = u32::try_from(Slot::first(of).filter(is_done).count()).unwrap_or(of);
        Some(RolloutStatus { service: name.clone(), underway, done, of, image, previous_image })
    }

    /// Why a service does not run the version of the file, or is not on its way there any more.
    fn version_error(&self, name: &ServiceName) -> Option<StatusError> {
        let versions = self.desired.versions.get(name)?;
        let (failure, help) = match (&versions.underway, &versions.pin) {
            (Some(Underway { paused: Some(Why::Failed(failure)), .. }), _) => (
                failure,
                format!(
                    "`sameport rollout resume {name}` continues, `sameport rollout undo {name}` goes back"
                ),
            ),
            (None, Some(Pin { why: Why::Failed(failure), .. })) => {
                let remedy = remedy(&failure.reason);
                let help = match versions.rejected() {
                    Some(rejected) if !rejected.is_of_file => {
                        format!("`{}` retries it unchanged", rejected.retry())
                    }
                    _ => format!(
                        "{remedy}, then `sameport up`; `sameport rollout {name}` retries it unchanged"
                    ),
                };
                (failure, help)
            }
            _ => return None,
        };
        Some(StatusError {
            target: Target::Replica(name.clone(), failure.slot),
            error: format!(
                "the new version failed: {}; version {} keeps serving",
                failure.reason, versions.stable
            ),
            help: Some(help),
            tries: HOPELESS,
        })
    }

    /// That all replicas of a service fail a health check that none has ever passed.
    fn check_error(&self, name: &ServiceName) -> Option<StatusError> {
        let said = self.plan.let_through.get(name)?;
        Some(StatusError {
            target: Target::Replica(name.clone(), Slot::FIRST),
            error: check_never_passed(name.as_str(), said),
            help: Some("correct `healthcheck` or the program, then `sameport up`".to_owned()),
            tries: HOPELESS,
        })
    }

    /// Why a pod is not the one that is wanted.
    fn pod_error(&self, name: &PodName) -> Option<StatusError> {
        self.observed.sandboxes(name).into_iter().find(|sandbox| self.is_spared(sandbox))?;
        Some(StatusError {
            target: Target::Sandbox(name.clone()),
            error: "its ports, networks, host name or other settings of its namespaces have changed, which takes a new \
                    pod: all of its replicas would have to end first, and its ports would be closed until the new ones \
                    are open; the old pod goes on serving"
                .to_owned(),
            help: Some("`sameport up --recreate-pod` does it".to_owned()),
            tries: HOPELESS,
        })
    }

    fn service_status(&self, name: &ServiceName, goal: Goal) -> Vec<ReplicaStatus> {
        let Some(service) = self.desired.project.services.get(name) else { return Vec::new() };
        let wanted = match goal {
            Goal::Run { replicas } => replicas,
            Goal::Stop => self.observed.service(name).map(|(slot, _)| slot.number()).max().unwrap_or(0),
        };
        // Whoever is wanted no more is shown as long as it finishes its connections.
        let finishing = self.observed.service(name).filter(|(slot, container)| {
            slot.number() > wanted
                && container.process().is_some()
                && self.observed.out_since.contains_key(&container.id)
        });
        let finishing = finishing.map(|(slot, _)| slot).collect::<BTreeSet<_>>();
        let mut rows = Vec::new();
        for slot in Slot::first(wanted).chain(finishing) {
            let slot_members = self.slot_members(service, slot);
            if slot_members.current.is_some() || slot_members.replacement.is_none() {
                rows.extend(self.replica_status(service, slot, goal, slot_members.current));
            }
            for other in slot_members.replacement.into_iter().chain(slot_members.set_aside) {
                rows.extend(self.replica_status(service, slot, goal, Some(other)));
            }
        }
        rows
    }

    fn replica_status(
        &self,
        service: &Service,
        slot: Slot,
        goal: Goal,
        container: Option<&Container>,
    ) -> Option<ReplicaStatus> {
        let name = &service.name;
        if container.is_none() && goal == Goal::Stop {
            return None;
        }
        let replacement = container.is_some_and(|container| self.desired.is_replacement(container));
        let target =
            container.map_or_else(|| Target::Replica(name.clone(), slot), |c| self.desired.target_of(c));
        let history = self.observed.history.get(&target).cloned().unwrap_or_default();
        let state = self.replica_state(name, goal, &target, container, &history);
        let exits = container.map_or(0, |c| history.exits_of(c, self.now, &service.restart));
        Some(ReplicaStatus {
            service: name.clone(),
            slot,
            replacement,
            set_aside: container.is_some_and(Container::is_set_aside),
            pod: service.pod.clone(),
            container: container.map(|c| c.id.clone()),
            name: container
                .map_or_else(|| self.desired.project.replica_name(service, slot), |c| c.name.clone()),
            generation: container.map(|c| c.labels.generation.clone()),
            image: self.image_of(service, container),
            current: container
                .is_some_and(|c| self.is_wanted(service, c) && !self.is_to_be_limited(service, c)),
            exits,
            started_at: container.and_then(Container::started_at),
            traffic: container.and_then(|c| self.replica_traffic(service, slot, c)),
            replaced: history.replacement.clone().filter(|_| exits > 0 && !state.is_stopped()),
            unhealthy: container.and_then(|c| self.unhealthy(c)).map(|unhealthy| unhealthy.why(self.now)),
            not_ready: container.and_then(|c| self.observed.not_ready.get(&c.id)).cloned(),
            check_error: container
                .and_then(Container::process)
                .and_then(|process| process.check_error.clone()),
            out_since: container.and_then(|c| self.observed.out_since.get(&c.id)).copied(),
            last_termination: history.last_termination.filter(|_| exits > 0 && !state.is_stopped()),
            state,
        })
    }

    /// The image of the version that a container runs, or of the wanted one where there is no container; none of a
    /// version that is neither the wanted one nor the one before.
    fn image_of(&self, service: &Service, container: Option<&Container>) -> Option<Image> {
        let Some(container) = container else { return Some(service.container.image.clone()) };
        let generation = &container.labels.generation;
        if self.desired.project.is_service(&service.name, generation) {
            return Some(service.container.image.clone());
        }
        let previous = match &self.desired.rollouts.get(&service.name)?.direction {
            Direction::Forward { previous } => previous.as_ref()?,
            Direction::Back => return None,
        };
        (&previous.generation == generation).then(|| previous.service.container.image.clone())
    }

    fn replica_state(
        &self,
        name: &ServiceName,
        goal: Goal,
        target: &Target,
        container: Option<&Container>,
        history: &History,
    ) -> ReplicaState {
        let running = container.is_some_and(|c| matches!(c.state, ContainerState::Running(_)));
        if let Some(errors) = &history.errors
            && !running
        {
            return ReplicaState::Blocked {
                error: errors.last.to_string(),
                help: errors.last.help().map(str::to_owned),
                tries: errors.count,
            };
        }
        let Some(service) = self.desired.project.services.get(name) else { return ReplicaState::Pending };
        if let Some(error) = self.sharing_error(&service.pod)
            && !running
        {
            let help = Some("see `sameport doctor`; or write `sharing: auto`".to_owned());
            return ReplicaState::Blocked { error, help, tries: HOPELESS };
        }
        let Some(container) = container else {
            return match self.unmet_dependency(service) {
                Some((name, condition)) => ReplicaState::Waiting { service: name.clone(), condition },
                None if self.awaits_before(service) => ReplicaState::AwaitsJob,
                None => ReplicaState::Pending,
            };
        };
        let failed = self.observed.history.get(&Target::Hooks(container.id.clone()));
        if let Some(errors) = failed.and_then(|history| history.errors.as_ref())
            && !running
            && goal != Goal::Stop
            && container.started_at().is_some_and(|at| history.is_ignored(&container.id, at))
        {
            return ReplicaState::Blocked {
                error: errors.last.to_string(),
                help: errors.last.help().map(str::to_owned),
                tries: errors.count,
            };
        }
        match &container.state {
            ContainerState::Running(_) if !self.is_prepared_by_hooks(container) => ReplicaState::Preparing,
            ContainerState::Created => ReplicaState::Pending,
            ContainerState::Running(process)
                if process.health != Health::Unhealthy
                    && matches!(
                        self.unhealthy(container),
                        Some(UnhealthyReplica { reason: UnhealthyReason::Stuck(_), .. })
                    ) =>
            {
                ReplicaState::Stuck
            }
            ContainerState::Running(process) => match process.health {
                Health::Starting => ReplicaState::Starting,
                Health::Unhealthy => ReplicaState::Unhealthy,
                Health::None | Health::Healthy => match self.missing_listeners(service, container) {
                    ports if !ports.is_empty() => ReplicaState::NotListening {
                        ports,
                        out_of_reach: self.out_of_reach(service, container),
                    },
                    _ if process.health == Health::None => ReplicaState::Running,
                    _ => ReplicaState::Healthy,
                },
            },
            ContainerState::Paused(_) => ReplicaState::Paused,
            ContainerState::Exited(_) if goal == Goal::Stop => ReplicaState::Stopped,
            ContainerState::Exited(exit) => {
                if let (true, Some((name, condition))) =
                    (self.waits_in_order(service, container), self.unmet_dependency(service))
                {
                    return ReplicaState::Waiting { service: name.clone(), condition };
                }
                let status = ExitStatus::from(exit);
                match self.verdict(service, target, container, exit) {
                    Verdict::Again(at) => ReplicaState::Restarting { exit: status, at },
                    Verdict::Completed => ReplicaState::Completed,
                    Verdict::GivenUp => ReplicaState::Failed { exit: status },
                    Verdict::StoppedOutside(since) => ReplicaState::StoppedOutside { since },
                }
            }
            ContainerState::Removing | ContainerState::Dead => ReplicaState::Removing,
        }
    }
}
