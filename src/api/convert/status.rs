//! Converts the status of a project.

use jiff::Timestamp;

use crate::{
    api::schema::{
        Counters, ErrorCondition, ExclusivePort, Exit, ForeignKind, ForeignListener, ForeignResource, Pod,
        PortConflict, PortTraffic, Replaced, Replica, ReplicaState, SharedFile, SharedFileKind, Sharing,
        Status, Termination, Traffic, UnservedPort, UserConflict, WaitingConnections, WaitingFor,
        replica_name,
    },
    engine::ownership::{self, Foreign},
    kernel::{
        self,
        steering::{self, OtherUser},
    },
    plan::{
        self, LastTermination, PodSharing, ReplicaTraffic,
        status::{ExitStatus, HOPELESS, PodStatus, ProjectStatus, ReplicaStatus, StatusError},
    },
    spec::{DependencyCondition, PortSet, ProjectName},
};

use super::{rollout, state};

/// The facts about a project that are not part of its internal status.
#[derive(Debug)]
pub struct ProjectContext<'a> {
    /// The project's name.
    pub name: &'a ProjectName,
    /// Whether a supervisor is running.
    pub supervised: bool,
    /// The current time, to compute durations.
    pub now: Timestamp,
}

/// Converts the status of a project to the public schema.
#[must_use]
pub fn status(project: &ProjectContext<'_>, status: &ProjectStatus) -> Status {
    let replicas = status.replicas.iter().map(|replica| {
        let pod = status.pods.iter().find(|pod| pod.pod == replica.pod);
        self::replica(project, replica, pod)
    });
    Status {
        project: project.name.to_string(),
        supervised: project.supervised,
        converged: status.converged,
        idle: status.settled,
        only_draining: status.only_draining,
        pods: status.pods.iter().map(pod).collect(),
        replicas: replicas.collect(),
        rollouts: status.rollouts.iter().map(rollout::rollout).collect(),
        orphans: status.orphans.clone(),
        foreign_resources: status.foreign.iter().map(foreign_resource).collect(),
        errors: status.errors.iter().map(error_condition).collect(),
        shared_files: status.shared_files.iter().map(shared_file).collect(),
        engine_unreachable_since: status.engine_silent_since.map(Into::into),
    }
}

pub(super) fn shared_file(file: &plan::SharedFile) -> SharedFile {
    SharedFile {
        service: file.service.to_string(),
        path: file.path.clone(),
        kind: match file.kind {
            plan::SharedFileKind::Socket => SharedFileKind::Socket,
            plan::SharedFileKind::PidFile => SharedFileKind::PidFile,
        },
    }
}

fn pod(pod: &PodStatus) -> Pod {
    let (sharing, sharing_error) = self::sharing(&pod.sharing);
    let waiting = |waiting: &plan::WaitingAt| WaitingConnections {
        port: waiting.port,
        connections: waiting.connections,
        capacity: waiting.most,
    };
    Pod {
        name: pod.pod.to_string(),
        sandbox_id: pod.container.as_ref().map(|id| id.0.clone()),
        ready: pod.open,
        sharing,
        sharing_error,
        ports: Vec::new(),
        exclusive_ports: ranges(&pod.exclusive_ports),
        waiting: pod.traffic.waiting.iter().map(waiting).collect(),
        foreign_listeners: pod.traffic.foreign_listeners.iter().map(foreign_listener).collect(),
        user_conflicts: pod.traffic.other_users.iter().copied().map(Into::into).collect(),
        unserved_ports: pod.traffic.unserved.iter().map(unserved_port).collect(),
        counters: pod.traffic.counters.map(Into::into),
        error: pod.traffic.error.clone(),
    }
}

fn unserved_port(port: &plan::UnservedPort) -> UnservedPort {
    let plan::UnservedPort { service, port, protocol, out_of_reach } = port;
    UnservedPort {
        service: service.to_string(),
        port: *port,
        protocol: protocol.clone(),
        unreachable_address: out_of_reach.map(|at| at.address.to_string()),
    }
}

fn ranges(ports: &PortSet) -> Vec<String> {
    ports.ranges().map(|range| range.to_string()).collect()
}

fn sharing(sharing: &PodSharing) -> (Sharing, Option<String>) {
    match sharing {
        PodSharing::Kernel => (Sharing::Kernel, None),
        PodSharing::Application { reason } => (Sharing::Application, reason.clone()),
    }
}

/// Converts a foreign listener.
#[must_use]
pub fn foreign_listener(listener: &steering::ForeignListener) -> ForeignListener {
    ForeignListener {
        port: listener.port,
        address: listener.takes.map(|address| address.ip().to_string()),
        pid: listener.pid,
        command: listener.command.clone(),
    }
}

/// Converts a resource that has sameport's labels but was not made by sameport.
pub(super) fn foreign_resource(foreign: &Foreign) -> ForeignResource {
    ForeignResource {
        kind: match foreign.kind {
            ownership::ForeignKind::Container => ForeignKind::Container,
            ownership::ForeignKind::Network => ForeignKind::Network,
            ownership::ForeignKind::Volume => ForeignKind::Volume,
        },
        name: foreign.name.clone(),
        id: foreign.container.as_ref().map(|id| id.0.clone()),
        image: foreign.image.clone(),
        reason: foreign.message.clone(),
    }
}

fn replica(project: &ProjectContext<'_>, replica: &ReplicaStatus, pod: Option<&PodStatus>) -> Replica {
    Replica {
        project: project.name.to_string(),
        replica: replica_name(&replica.service, replica.slot),
        service: replica.service.to_string(),
        slot: replica.slot.number(),
        replacement: replica.replacement,
        set_aside: replica.set_aside,
        orphan: false,
        name: replica.name.clone(),
        id: replica.container.as_ref().map(|id| id.0.clone()),
        image: replica.image.as_ref().map(ToString::to_string),
        pod: replica.pod.to_string(),
        generation: replica.generation.as_ref().map(ToString::to_string),
        up_to_date: replica.current,
        state: replica_state(&replica.state),
        status: state::describe(replica, project.now),
        started_at: replica.started_at.map(Into::into),
        exits: replica.exits,
        last_termination: replica.last_termination.as_ref().map(termination),
        replaced: replica
            .replaced
            .as_ref()
            .map(|replaced| Replaced { reason: replaced.why.clone(), at: replaced.at.into() }),
        unhealthy_reason: replica.unhealthy.clone().or_else(|| replica.not_ready.clone()),
        health_check_error: replica.check_error.clone(),
        out_of_rotation_since: replica.out_since.map(Into::into),
        stopped_externally_at: match &replica.state {
            plan::status::ReplicaState::StoppedOutside { since } => Some((*since).into()),
            _ => None,
        },
        sharing: pod.map_or(Sharing::Application, |pod| sharing(&pod.sharing).0),
        ports: Vec::new(),
        exclusive_ports: pod.map(|pod| ranges(&pod.exclusive_ports)).unwrap_or_default(),
        traffic: replica.traffic.as_ref().map(traffic),
    }
}

fn replica_state(state: &plan::status::ReplicaState) -> ReplicaState {
    use plan::status::ReplicaState as S;
    match state {
        S::Pending => ReplicaState::Pending,
        S::Waiting { service, condition } => ReplicaState::Waiting {
            waiting_for: WaitingFor {
                service: service.to_string(),
                condition: self::condition(*condition).to_owned(),
            },
        },
        S::AwaitsJob => ReplicaState::WaitingForJob,
        S::Preparing => ReplicaState::Preparing,
        S::Starting => ReplicaState::Starting,
        S::NotListening { ports, out_of_reach } => ReplicaState::NotListening {
            missing_ports: ports.clone(),
            unreachable_address: out_of_reach.map(|at| at.address.to_string()),
        },
        S::Running => ReplicaState::Running,
        S::Healthy => ReplicaState::Healthy,
        S::Unhealthy => ReplicaState::Unhealthy,
        S::Stuck => ReplicaState::Stuck,
        S::Paused => ReplicaState::Paused,
        S::Restarting { exit, at } => ReplicaState::Restarting { exit: exit.into(), retry_at: (*at).into() },
        S::Completed => ReplicaState::Completed,
        S::Failed { exit } => ReplicaState::Failed { exit: exit.into() },
        S::Stopped | S::StoppedOutside { .. } => ReplicaState::Stopped,
        S::Removing => ReplicaState::Removing,
        S::Blocked { error, help, tries } => {
            ReplicaState::Blocked { error: error.clone(), help: help.clone(), attempts: attempts(*tries) }
        }
    }
}

fn condition(condition: DependencyCondition) -> &'static str {
    match condition {
        DependencyCondition::Started => "started",
        DependencyCondition::Healthy => "healthy",
        DependencyCondition::CompletedSuccessfully => "completed_successfully",
    }
}

fn attempts(tries: u32) -> Option<u32> {
    (tries != HOPELESS).then_some(tries)
}

pub(super) fn error_condition(error: &StatusError) -> ErrorCondition {
    ErrorCondition {
        target: (&error.target).into(),
        error: error.error.clone(),
        help: error.help.clone(),
        attempts: attempts(error.tries),
    }
}

impl From<&ExitStatus> for Exit {
    fn from(exit: &ExitStatus) -> Self {
        Self {
            exit_code: exit.code,
            out_of_memory: exit.out_of_memory,
            error: exit.error.clone(),
            at: exit.at.into(),
        }
    }
}

pub(super) fn termination(last_termination: &LastTermination) -> Termination {
    Termination {
        exit: (&last_termination.exit).into(),
        log: last_termination.log.clone(),
        port_not_shared: last_termination
            .port_not_shared
            .as_ref()
            .map(|found| PortConflict { image: found.image.to_string(), port: found.port }),
        user_conflict: last_termination.other_user.map(Into::into),
        exclusive_port: last_termination.exclusive_port.as_ref().map(Into::into),
    }
}

impl From<&plan::ExclusivePort> for ExclusivePort {
    fn from(plan::ExclusivePort { port, protocol }: &plan::ExclusivePort) -> Self {
        Self { port: *port, protocol: protocol.to_string() }
    }
}

impl From<OtherUser> for UserConflict {
    fn from(OtherUser { port, user, owner }: OtherUser) -> Self {
        Self { port, user, owner }
    }
}

impl From<kernel::Counters> for Counters {
    fn from(counters: kernel::Counters) -> Self {
        let kernel::Counters { opened, migrated, lost_in_migration, overflowed, reset } = counters;
        Self { opened, migrated, migration_failures: lost_in_migration, overflowed, reset }
    }
}

fn traffic(traffic: &ReplicaTraffic) -> Traffic {
    let port = |port: &plan::PortTraffic| PortTraffic {
        port: port.port,
        protocol: port.protocol.clone(),
        connections: port.live,
        connections_total: port.total,
        queued: port.queue,
        listening: port.listens,
        shared: port.shared,
    };
    Traffic {
        address: traffic.address.map(|address| address.to_string()),
        weight: traffic.weight,
        desired_weight: traffic.wanted_weight,
        connections: traffic.live,
        connections_total: traffic.total,
        queued: traffic.queue,
        udp_idle_seconds: traffic.udp_idle.map(|idle| idle.as_secs()),
        unsteered_listeners: traffic.unsteered,
        ports: traffic.ports.iter().map(port).collect(),
    }
}
