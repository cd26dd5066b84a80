//! Simulates the steps that a request would cause, without carrying them out.
//!
//! Plans repeatedly like a supervisor, and treats each action as immediately successful: every container starts,
//! becomes ready and stays up, and every job succeeds. The order of the steps is therefore the real one. Times are the
//! earliest possible: delays that the file sets are included, the run time of programs is not.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    engine::{ContainerId, ContainerState, Exit, Health, Labels, Process, Role},
    plan::{
        Action, Container, Goal, HookPhase, Observed, Owner, Phase, Plan, PostStart, ReplacementOrder,
        Sharing, Strategy, Target, Verb, assess, hold_in_rollout, plan, replacement_order,
        status::{StatusError, status},
    },
    spec::{Generation, Pod, PodName, Protocol, Service, ServiceName},
};

use super::{DesiredState, Rejection, Request, bind_sources, traffic};

/// The maximum number of steps; the preview ends there.
const MOST: usize = 10_000;
/// The time after which the preview ends.
const HORIZON: Duration = Duration::from_secs(7 * 24 * 3600);

/// The steps that a request would cause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// The steps, in the order in which they would be taken.
    pub steps: Vec<Step>,
    /// For each service that gets another version, the order in which its replicas are replaced.
    pub orders: Vec<(ServiceName, ReplacementOrder)>,
    /// Services that would have no ready replica for a while.
    pub gaps: Vec<Gap>,
    /// Errors that exist now or would occur.
    pub errors: Vec<StatusError>,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The earliest time of the step, after the start.
    pub after: Duration,
    /// The action.
    pub verb: Verb,
    /// The target of the action.
    pub target: Target,
    /// The name of the container or resource, if it has one.
    pub name: Option<String>,
    /// The image of a container that is created.
    pub image: Option<String>,
    /// The stop timeout of a container.
    pub grace: Option<Duration>,
}

/// A service that was ready and has no ready replica for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The service.
    pub service: ServiceName,
    /// Whether its pod is recreated: then new connections are refused. Otherwise they are held.
    pub new_pod: bool,
    /// How long new connections are held, at most.
    pub hold: Duration,
    /// Whether it declares a UDP port: datagrams cannot be held.
    pub serves_udp: bool,
}

/// Returns the steps that a request would cause.
///
/// # Errors
/// If the request would be rejected.
pub fn preview(
    mut desired_state: DesiredState,
    mut observed: Observed,
    request: Request,
    now: Timestamp,
) -> Result<Preview, Rejection> {
    desired_state.take(request, &observed, now)?;
    observed.busy.clear();
    observed.history.values_mut().for_each(crate::plan::History::succeeded);
    let mut errors = status(&desired_state.desired, &observed, now).errors;
    // From here on, no connection has to be drained, and every listener counts as in place.
    observed.sharing = Sharing::ByImages;
    observed.unhealthy.clear();
    observed.metrics.clear();
    observed.bind_sources = bind_sources::now(&desired_state.desired, &observed.containers);
    // The engine's clock may be ahead: a new process must be younger than the running ones.
    let newest = observed.containers.values().filter_map(Container::started_at).max();
    let mut simulation = Simulation {
        begin: now,
        ahead: newest
            .map_or(Duration::ZERO, |at| Duration::try_from(at.duration_since(now)).unwrap_or_default()),
        now,
        made: 0,
        preview: Preview::default(),
        served: BTreeSet::new(),
        desired_state,
        observed,
    };
    simulation.run();
    let after = status(&simulation.desired_state.desired, &simulation.observed, simulation.now).errors;
    errors.retain(|error| error.tries == crate::plan::status::HOPELESS);
    errors.extend(after.into_iter().filter(|error| !errors.contains(error)).collect::<Vec<_>>());
    Ok(Preview { errors, ..simulation.preview })
}

/// A simulation of the supervisor.
struct Simulation {
    begin: Timestamp,
    now: Timestamp,
    /// How far the engine's clock is ahead of the supervisor's.
    ahead: Duration,
    desired_state: DesiredState,
    observed: Observed,
    /// The number of containers created so far.
    made: u32,
    preview: Preview,
    /// Services that have had a ready replica.
    served: BTreeSet<ServiceName>,
}

impl Simulation {
    fn run(&mut self) {
        while self.preview.steps.len() < MOST {
            self.desired_state.catch_up(&mut self.observed);
            let outcomes = assess(&self.desired_state.desired, &self.observed, self.now);
            let (told, step) = self.desired_state.conclude(outcomes, &self.observed, self.now);
            let Plan { actions, wake, ready, steering_configs, .. } =
                plan(&self.desired_state.desired, &self.observed, self.now);
            traffic::note_out(&steering_configs, &mut self.observed.out_since, self.now);
            self.observed.note_ready(&ready, self.now);
            self.note_gaps(&ready);
            self.note_orders();
            if actions.is_empty() && told.is_empty() {
                let Some(next) = wake.into_iter().chain(step).min().filter(|next| *next > self.now) else {
                    return;
                };
                if self.after(next) > HORIZON {
                    return;
                }
                self.now = next;
            }
            for action in actions {
                self.note(&action);
                self.desired_state.note_started(&action, &self.observed);
                self.simulate(action);
            }
            // Distinguishes one process from the next by its start time.
            self.now = self.now.checked_add(Duration::from_millis(1)).unwrap_or(self.now);
        }
    }

    fn after(&self, time: Timestamp) -> Duration {
        Duration::try_from(time.duration_since(self.begin)).unwrap_or_default()
    }

    fn note(&mut self, action: &Action) {
        let project = &self.desired_state.desired.project;
        let named = |id: &ContainerId| self.observed.containers.get(id).map(|c| c.name.clone());
        let (name, image, grace) = match action {
            Action::EnsureNetwork { name, .. }
            | Action::EnsureVolume { name, .. }
            | Action::RemoveNetwork(name)
            | Action::RemoveVolume(name) => (Some(name.clone()), None, None),
            Action::LaunchSandbox(pod) => (Some(project.sandbox_name(pod)), None, None),
            Action::LaunchReplica { service, slot, slot_members, .. } => {
                let name = slot_members.container_name(project, service, *slot);
                (Some(name), Some(service.container.image.to_string()), None)
            }
            Action::LaunchPreDeploy { service, .. } => (Some(project.pre_deploy_name(service)), None, None),
            Action::Stop { id, grace, .. } => (named(id), None, Some(*grace)),
            Action::Rename { name, .. }
            | Action::SetAside { name, .. }
            | Action::RestoreName { name, .. } => (Some(name.clone()), None, None),
            Action::Prepare { id, .. }
            | Action::Update { id, .. }
            | Action::Start { id, .. }
            | Action::Connect { id, .. }
            | Action::Remove { id, .. } => (named(id), None, None),
        };
        let target = match action.target() {
            Target::Hooks(id) => self
                .observed
                .containers
                .get(&id)
                .map_or(Target::Hooks(id), |container| self.desired_state.desired.target_of(container)),
            target => target,
        };
        // Milliseconds only serve to distinguish processes.
        let after = Duration::from_secs(self.after(self.now).as_secs());
        self.preview.steps.push(Step { after, verb: action.verb(), target, name, image, grace });
    }

    fn note_orders(&mut self) {
        let desired = &self.desired_state.desired;
        for (name, rollout) in &desired.rollouts {
            let is_known = self.preview.orders.iter().any(|(known, _)| known == name);
            let Some(service) = desired.project.services.get(name) else { continue };
            if is_known || rollout.strategy != Strategy::Rolling {
                continue;
            }
            let rules = desired.update_rules(service);
            let order = replacement_order(desired, &self.observed, service, rules);
            self.preview.orders.extend(order.map(|order| (name.clone(), order)));
        }
    }

    /// Records services that had a ready replica, should have one, and have none.
    fn note_gaps(&mut self, ready: &BTreeSet<ContainerId>) {
        let serving: BTreeSet<_> = self
            .observed
            .containers
            .values()
            .filter(|container| ready.contains(&container.id))
            .filter_map(|container| match &container.labels.role {
                Role::Replica { service, .. } => Some(service.clone()),
                Role::Sandbox | Role::PreDeploy { .. } => None,
            })
            .collect();
        let desired = &self.desired_state.desired;
        let is_wanted = |name: &ServiceName| {
            desired.phase == Phase::Up
                && matches!(desired.goals.get(name), Some(Goal::Run { replicas }) if *replicas > 0)
        };
        for name in self.served.difference(&serving).filter(|name| is_wanted(name)) {
            let Some(service) = desired.project.services.get(name) else { continue };
            if self.preview.gaps.iter().all(|gap| gap.service != *name) {
                let sandbox = self.observed.sandboxes(&service.pod).into_iter().next();
                let wanted = desired.project.pods.get(&service.pod).map(Pod::generation);
                let new_pod =
                    sandbox.is_none_or(|sandbox| wanted.as_ref() != Some(&sandbox.labels.generation));
                let serves_udp = desired.project.serves(service, Protocol::Udp);
                self.preview.gaps.push(Gap {
                    service: name.clone(),
                    new_pod,
                    hold: match desired.rollouts.contains_key(name) {
                        true => hold_in_rollout(service, desired.update_rules(service)),
                        false => service.hold,
                    },
                    serves_udp,
                });
            }
        }
        self.served.extend(serving);
    }

    /// Applies the effect of an action as if it had succeeded.
    fn simulate(&mut self, action: Action) {
        let observed = &mut self.observed;
        match action {
            Action::EnsureNetwork { name, .. } => {
                observed.networks.insert(name, Owner::Us);
            }
            Action::EnsureVolume { name, .. } => {
                observed.volumes.insert(name, Owner::Us);
            }
            Action::RemoveNetwork(name) => {
                observed.networks.remove(&name);
            }
            Action::RemoveVolume(name) => {
                observed.volumes.remove(&name);
            }
            Action::LaunchSandbox(pod) => {
                let project = &self.desired_state.desired.project;
                let Some(generation) = project.pods.get(&pod).map(Pod::generation) else { return };
                let (name, state) = (project.sandbox_name(&pod), self.running(None));
                self.make(name, (pod, generation, Role::Sandbox), state, None, None);
            }
            Action::LaunchReplica { service, slot, slot_members, sandbox } => {
                let name = slot_members.container_name(&self.desired_state.desired.project, &service, slot);
                let role = Role::Replica { service: service.name.clone(), slot };
                let state = self.running(Some(&service));
                let what = (service.pod.clone(), service.generation(), role);
                self.make(name, what, state, sandbox, Some(&service));
            }
            Action::LaunchPreDeploy { service, sandbox } => {
                let project = &self.desired_state.desired.project;
                let Some(spec) = project.services.get(&service) else { return };
                let name = project.pre_deploy_name(&service);
                let what = (spec.pod.clone(), spec.generation(), Role::PreDeploy { service });
                self.make(name, what, ContainerState::Exited(self.ended(self.engine_time())), sandbox, None);
            }
            Action::Prepare { id, started_at } => {
                observed.post_start.insert(id, PostStart { started_at, phase: HookPhase::Done });
            }
            Action::Update { id, changes, .. } => {
                if let Some(container) = observed.containers.get_mut(&id) {
                    container.limits = container.limits.with(&changes);
                }
            }
            Action::Start { id, .. } => self.start(&id),
            Action::Connect { id, .. } => {
                // As if the container had been created just now.
                if let Some(container) = observed.containers.get_mut(&id) {
                    container.connections = None;
                }
            }
            Action::Rename { id, name, .. }
            | Action::SetAside { id, name, .. }
            | Action::RestoreName { id, name, .. } => {
                if let Some(container) = observed.containers.get_mut(&id) {
                    container.name = name;
                }
            }
            Action::Stop { target, id, .. } => self.stop(target, &id),
            Action::Remove { id, .. } => {
                observed.containers.remove(&id);
            }
        }
    }

    fn start(&mut self, id: &ContainerId) {
        let service = self.observed.containers.get(id).and_then(|container| match &container.labels.role {
            Role::Replica { service, .. } => {
                self.desired_state.desired.project.services.get(service).cloned()
            }
            Role::Sandbox | Role::PreDeploy { .. } => None,
        });
        let state = self.running(service.as_ref());
        if let Some(container) = self.observed.containers.get_mut(id) {
            container.state = state;
            container.since = self.now;
        }
        self.share_network(id);
    }

    fn stop(&mut self, target: Target, id: &ContainerId) {
        let Some(started_at) = self.observed.containers.get(id).and_then(Container::started_at) else {
            return;
        };
        self.observed.history.entry(target).or_default().ignore_exit(id, started_at);
        let state = ContainerState::Exited(self.ended(started_at));
        if let Some(container) = self.observed.containers.get_mut(id) {
            container.state = state;
            container.since = self.now;
        }
    }

    fn ended(&self, started_at: Timestamp) -> Exit {
        Exit { code: 0, out_of_memory: false, error: None, started_at, finished_at: self.engine_time() }
    }

    fn engine_time(&self) -> Timestamp {
        let soon = self.ahead.saturating_add(Duration::from_millis(1));
        self.now.checked_add(soon).unwrap_or(self.now)
    }

    fn running(&self, service: Option<&Service>) -> ContainerState {
        let is_checked =
            service.is_some_and(|service| service.container.healthcheck.is_some() || service.probe.is_some());
        ContainerState::Running(Process {
            pid: 0,
            started_at: self.engine_time(),
            health: if is_checked { Health::Healthy } else { Health::None },
            complaint: None,
            check_error: None,
        })
    }

    fn make(
        &mut self,
        name: String,
        (pod, generation, role): (PodName, Generation, Role),
        state: ContainerState,
        joined: Option<ContainerId>,
        service: Option<&Service>,
    ) {
        self.made += 1;
        let id = ContainerId(format!("new-{}", self.made));
        let labels =
            Labels { project: self.desired_state.desired.project.name.clone(), pod, generation, role };
        let slot = match &labels.role {
            Role::Replica { slot, .. } => Some(*slot),
            Role::Sandbox | Role::PreDeploy { .. } => None,
        };
        let hooks = service.zip(slot).map(|(service, slot)| service.hooks.for_slot(slot));
        let limits = service.map(|service| service.container.resources.limits());
        let container = Container {
            id: id.clone(),
            name,
            labels,
            joined,
            image_id: service.and_then(|service| service.container.image_id.clone()),
            hooks: hooks.unwrap_or_default(),
            limits: limits.unwrap_or_default(),
            volumes: BTreeSet::new(),
            recreated: false,
            check: None,
            connections: None,
            state,
            since: self.now,
            netns: None,
        };
        self.observed.containers.insert(id.clone(), container);
        self.share_network(&id);
    }

    /// A container that joins a sandbox shares its network namespace.
    fn share_network(&mut self, id: &ContainerId) {
        let joined = self.observed.containers.get(id).and_then(|container| container.joined.clone());
        let netns = joined.and_then(|sandbox| self.observed.containers.get(&sandbox)?.netns);
        if let Some(container) = self.observed.containers.get_mut(id) {
            container.netns = netns;
        }
    }
}
