//! Who gets new connections: which replicas are in rotation, with which weight, and when one that was taken out may
//! be told to end.
//!
//! A replica is taken out by being left out: [`SteeringConfigs`] are made anew with every plan, so whatever changes its
//! mind puts it back.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Duration};

use crate::{
    engine::{ContainerState, Health, Role},
    kernel::{
        sockets::Transport,
        steering::{PodReport, ReplicaConfig, ReplicaReport, Report, Rules, SteeringConfig, SteeringConfigs},
    },
    spec::{Order, PodName, Protocol, Service, ServiceName, Slot},
};

use super::{
    Action, Container, Goal, Phase, Planner, Target, Verb, history::later, order::hold_in_rollout,
    stop_time::StopTime,
};

/// Who shares the ports of pods that leave it open, and what is seen of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// The images, by `SO_REUSEPORT`: nobody has asked for more.
    #[default]
    ByImages,
    /// The images, because the kernel cannot: why.
    NoKernel(String),
    /// The kernel, which shows this.
    ByKernel(Arc<Report>),
}

/// The weight of a replica of which nothing else was said.
pub const WEIGHT: u32 = 100;
/// How long the kernel may take to show a pod that a supervisor before us has left.
const UNSEEN: Duration = Duration::from_secs(10);
/// The highest weight.
pub const WEIGHT_MAX: u32 = 1000;

impl Planner<'_> {
    /// What the kernel shows, where it shares the ports of a pod.
    pub(super) fn pod_report(&self, pod: &PodName) -> Option<&PodReport> {
        match &self.observed.sharing {
            Sharing::ByKernel(report) => report.pods.get(pod),
            Sharing::ByImages | Sharing::NoKernel(_) => None,
        }
    }

    /// Whether replicas can join a sandbox: where the kernel shares its ports, it has to have begun.
    pub(super) fn is_prepared(&self, sandbox: &Container) -> bool {
        let pod = &sandbox.labels.pod;
        if !self.desired.project.wants_kernel(pod) {
            return true;
        }
        let optional = !self.desired.project.needs_kernel(pod);
        match &self.observed.sharing {
            Sharing::ByImages => true,
            Sharing::NoKernel(_) => optional,
            Sharing::ByKernel(_) if sandbox.netns.is_none() => optional,
            Sharing::ByKernel(report) => report.pods.get(pod).is_some_and(|report| {
                Some(report.netns) == sandbox.netns || (optional && report.error.is_some())
            }),
        }
    }

    /// Why the ports of a pod cannot be shared as the file demands.
    pub(super) fn sharing_error(&self, pod: &PodName) -> Option<String> {
        if !self.desired.project.needs_kernel(pod) {
            return None;
        }
        match &self.observed.sharing {
            Sharing::NoKernel(reason) => Some(reason.clone()),
            _ => self.pod_report(pod).and_then(|report| report.error.clone()),
        }
    }

    /// What the kernel shows of a replica's process, where it shares its ports.
    pub(super) fn replica_report(&self, container: &Container) -> Option<&ReplicaReport> {
        let process = container.process()?;
        let pod = self.pod_report(&container.labels.pod)?;
        if Some(pod.netns) != container.netns {
            return None;
        }
        pod.replicas.get(&container.id).filter(|replica| replica.pid == process.pid)
    }

    /// Takes a replica out of rotation, and tells it to end once it has finished its connections or has had the time
    /// for it.
    pub(super) fn retire(&mut self, target: Target, container: &Container, time: StopTime) {
        self.retiring.insert(container.id.clone());
        let is_hurried = container
            .started_at()
            .is_some_and(|at| self.desired.hurried.contains(&(container.id.clone(), at)));
        let drain = if is_hurried { Duration::ZERO } else { time.drain };
        if self.has_drained(container, drain) {
            self.act(Action::Stop { target, id: container.id.clone(), grace: time.grace });
        } else {
            self.plan.draining.insert(container.id.clone());
        }
    }

    fn has_drained(&mut self, container: &Container, drain: Duration) -> bool {
        let has_finished = |report: &ReplicaReport| {
            report.ports.values().all(|traffic| {
                // A flow of datagrams has no end that could be seen.
                traffic.live == 0 && traffic.queue == 0 && !traffic.has_flows()
            })
        };
        let drain = match self.replica_report(container) {
            Some(report) if report.weight == 0 && has_finished(report) => return true,
            Some(_) => drain,
            None if self.is_unseen(container) => drain.max(UNSEEN),
            None => return true,
        };
        // One that goes out by this very plan begins now.
        let since = self.observed.out_since.get(&container.id).copied().unwrap_or(self.now);
        self.due(later(since, drain))
    }

    /// Whether a replica may be in rotation without our knowledge: a supervisor before us has put it there, and the kernel
    /// has not shown its pod since.
    fn is_unseen(&self, container: &Container) -> bool {
        let Sharing::ByKernel(report) = &self.observed.sharing else { return false };
        let pod = &container.labels.pod;
        let is_ours = |sandbox: &&Container| {
            container.shares_network_of(sandbox) && self.desired_state(sandbox).is_some()
        };
        !report.pods.contains_key(pod) && self.observed.sandboxes(pod).iter().any(is_ours)
    }

    /// What the kernel shall do, for every pod that has a network of its own.
    pub(super) fn steering_configs(&self) -> SteeringConfigs {
        if !matches!(self.observed.sharing, Sharing::ByKernel(_)) {
            return SteeringConfigs::new();
        }
        let sandboxes = self
            .observed
            .containers
            .values()
            .filter(|container| container.labels.role == Role::Sandbox && container.process().is_some());
        sandboxes
            .filter_map(|sandbox| Some((sandbox.labels.pod.clone(), self.desired_state(sandbox)?)))
            .collect()
    }

    fn desired_state(&self, sandbox: &Container) -> Option<SteeringConfig> {
        let name = &sandbox.labels.pod;
        let project = &self.desired.project;
        // One that the file no longer has goes on as it was.
        if project.pods.contains_key(name) && !project.wants_kernel(name) {
            return None;
        }
        let declared = project.pods.get(name).into_iter().flat_map(crate::spec::Pod::declared);
        let inside = self
            .observed
            .containers
            .values()
            .filter(|container| &container.labels.pod == name && container.shares_network_of(sandbox));
        Some(SteeringConfig {
            pid: sandbox.process()?.pid,
            netns: sandbox.netns?,
            declared: declared.filter_map(|(port, protocol)| Some((transport(protocol)?, port))).collect(),
            exclusive: project.exclusive_ports(name),
            rules: project
                .services_of(name)
                .map(|service| (service.name.clone(), self.rules(service)))
                .collect(),
            replicas: inside.filter_map(|container| self.replica_config(container)).collect(),
            coming: self.coming(name),
        })
    }

    /// The users as whom replicas of a pod are about to begin. Only what is certain counts: a process that begins as root may
    /// become anybody, and one with a name is known to the image only. Those are found out when they ask for a port.
    fn coming(&self, pod: &PodName) -> BTreeMap<ServiceName, u32> {
        let planned = self.plan.actions.iter().filter_map(|action| match action {
            Action::LaunchReplica { service, .. } => Some(&**service),
            _ => None,
        });
        let begun = self.observed.busy.iter().filter(|(_, verb)| **verb == Verb::Launch);
        let begun = begun.filter_map(|(target, _)| match target {
            Target::Replica(service, _) | Target::Replacement(service, _) => {
                self.desired.project.services.get(service)
            }
            _ => None,
        });
        let user = |service: &Service| {
            let user = service.container.user.as_ref()?.split(':').next()?.parse().ok()?;
            (user != 0).then(|| (service.name.clone(), user))
        };
        planned.chain(begun).filter(|service| service.pod == *pod).filter_map(user).collect()
    }

    fn rules(&self, service: &Service) -> Rules {
        // Who comes to a service that is being taken away waits for nothing.
        let is_wanted = self.desired.phase == Phase::Up
            && !matches!(self.desired.goals.get(&service.name), Some(Goal::Stop))
            && !self.is_stopped_outside(service);
        Rules {
            balance: service.balance,
            hold: if is_wanted { self.hold(service) } else { Duration::ZERO },
            gates_undeclared: self.has_ever_been_ready(service),
        }
    }

    /// How long new connections wait while nobody is ready.
    fn hold(&self, service: &Service) -> Duration {
        let is_replaced = self.desired.rollouts.contains_key(&service.name)
            && !self.is_paused(service)
            && self.order(service) == Some(Order::StopFirst)
            && !self.observed.service(&service.name).any(|(_, replica)| self.is_available(service, replica));
        if is_replaced { hold_in_rollout(service, self.rules_of(service)) } else { service.hold }
    }

    fn replica_config(&self, container: &Container) -> Option<ReplicaConfig> {
        let Role::Replica { service, slot } = &container.labels.role else { return None };
        let spec = self.desired.project.services.get(service);
        let address = spec.and_then(|spec| self.desired.own_address(spec, *slot, container));
        Some(ReplicaConfig {
            id: container.id.clone(),
            pid: container.process()?.pid,
            service: service.clone(),
            slot: slot.number(),
            address: address.unwrap_or(Ipv4Addr::UNSPECIFIED),
            weight: self.weight(service, *slot, container),
        })
    }

    fn weight(&self, service: &ServiceName, slot: Slot, container: &Container) -> u32 {
        let spec = self.desired.project.services.get(service);
        let is_let_through = self.plan.let_through.contains_key(service);
        let is_ready = matches!(&container.state, ContainerState::Running(process)
            if is_let_through || matches!(process.health, Health::None | Health::Healthy))
            && self.is_prepared_by_hooks(container);
        // What is being done to one that runs is to end it: wanted again or not, it is on its way out.
        let ends = self.doing(container).is_some_and(Verb::ends);
        let is_ill = self.unhealthy(container).is_some() && !is_let_through;
        if !is_ready || is_ill || self.retiring.contains(&container.id) || ends {
            return 0;
        }
        let weight = self.desired.weight(service, slot);
        match spec {
            Some(service) => self.in_proportion(service, container, weight),
            None => weight,
        }
    }
}

/// Whether the kernel shows that it does what is configured. Where it cannot, it does nothing that could be waited for.
pub(super) fn is_in_force(steering_configs: &SteeringConfigs, sharing: &Sharing) -> bool {
    let Sharing::ByKernel(report) = sharing else { return true };
    steering_configs.iter().all(|(name, desired_state)| {
        report.pods.get(name).is_some_and(|pod| {
            let is_shown = |config: &ReplicaConfig| {
                let shown = pod.replicas.get(&config.id);
                shown.is_some_and(|shown| (shown.pid, shown.weight) == (config.pid, config.weight))
            };
            pod.error.is_some()
                || pod.netns == desired_state.netns && desired_state.replicas.iter().all(is_shown)
        })
    })
}

/// As the kernel part calls it; it knows nothing of SCTP.
pub(super) fn transport(protocol: Protocol) -> Option<Transport> {
    match protocol {
        Protocol::Tcp => Some(Transport::Tcp),
        Protocol::Udp => Some(Transport::Udp),
        Protocol::Sctp => None,
    }
}

/// Weights that users gave to single replicas.
pub type Weights = BTreeMap<ServiceName, BTreeMap<Slot, u32>>;

impl super::Desired {
    /// The weight that a user gave to a replica, or the usual one.
    #[must_use]
    pub fn weight(&self, service: &ServiceName, slot: Slot) -> u32 {
        self.weights.get(service).and_then(|slots| slots.get(&slot)).copied().unwrap_or(WEIGHT)
    }
}
