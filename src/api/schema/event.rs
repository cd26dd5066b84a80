//! Events: `sameport events` and the event stream of the control socket.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Action, ExclusivePort, Exit, Failure, ForeignListener, ForeignResource, Reason, ReplacementOrder,
    Seconds, SharedFile, Summary, Target, Time, UserConflict,
};

/// An event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// When it happened, by the supervisor's clock.
    pub time: Time,
    /// The severity.
    pub level: Level,
    /// The kind of event and its data.
    #[serde(flatten)]
    pub kind: EventKind,
    /// The event in words, possibly several lines; absent for events that are of no interest to people.
    pub message: Option<String>,
}

/// The severity of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Normal operation.
    Info,
    /// Something may need attention.
    Warning,
    /// Something failed.
    Error,
}

/// The kind of an event. Keys beside `event` are present only for the kinds that define them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// A Compose file was applied.
    Applied {
        /// The number of services in it.
        service_count: usize,
    },
    /// A changed Compose file was rejected; the previous one stays in force.
    Rejected {
        /// The error in words.
        error: String,
        /// The positions in the file; empty if the error has none.
        diagnostics: Vec<Diagnostic>,
    },
    /// The project's files cannot be watched; the supervisor reads them at intervals instead.
    WatchUnavailable {
        /// The error of the operating system.
        error: String,
    },
    /// The state file was damaged and was rebuilt from the engine.
    StateReset {
        /// The path of the state file.
        path: String,
        /// What was wrong with it.
        error: String,
        /// The new path of the damaged file; absent if it was overwritten.
        moved_to: Option<String>,
        /// Services that keep a replica count other than that of the file, because that many replicas exist.
        scale: BTreeMap<String, u32>,
        /// Services whose pre-deploy job does not run again.
        jobs: Vec<String>,
        /// Services whose version was restored.
        known_versions: Vec<String>,
    },
    /// An action started.
    Started {
        /// The action.
        action: Action,
        /// The target of the action.
        target: Target,
    },
    /// An action succeeded.
    Done {
        /// The action.
        action: Action,
        /// The target of the action.
        target: Target,
    },
    /// An action failed; it is retried after a delay.
    Failed {
        /// The action.
        action: Action,
        /// The target of the action.
        target: Target,
        /// The error of the engine.
        error: String,
        /// What to do about it.
        help: Option<String>,
    },
    /// A replica ended without being stopped by sameport.
    Exited {
        /// The name of the replica, such as `web-1`.
        replica: String,
        /// The service.
        service: String,
        /// The slot, from 1.
        slot: u32,
        /// How the process ended.
        exit: Exit,
        /// The number of consecutive exits soon after the start.
        exits: u32,
        /// The last lines of its log.
        log: Vec<String>,
    },
    /// A replica ended because another replica holds its port, which the image does not share.
    PortNotShared {
        /// The name of the replica, such as `web-1`.
        replica: String,
        /// The service.
        service: String,
        /// The slot, from 1.
        slot: u32,
        /// The image.
        image: String,
        /// The port, if known.
        port: Option<u16>,
    },
    /// A replica ended because replicas of another user hold its port.
    UserConflict {
        /// The name of the replica, such as `web-1`.
        replica: String,
        /// The service.
        service: String,
        /// The slot, from 1.
        slot: u32,
        /// The port and the users.
        conflict: UserConflict,
    },
    /// A replica ended after it requested an exclusive port that another replica holds.
    ExclusivePort {
        /// The name of the replica, such as `web-1`.
        replica: String,
        /// The service.
        service: String,
        /// The slot, from 1.
        slot: u32,
        /// The port.
        exclusive_port: ExclusivePort,
    },
    /// From now on, the kernel shares the ports of pods.
    SharedByKernel,
    /// The kernel cannot share ports; the images have to set `SO_REUSEPORT` themselves.
    SharedByApplication {
        /// What is missing.
        reason: String,
    },
    /// The kernel cannot steer connections in a pod, or not fully.
    SteeringUnavailable {
        /// The pod.
        pod: String,
        /// The error.
        error: String,
    },
    /// Kernel state of a removed project could not be removed.
    KernelStateLeft {
        /// What is left, and why.
        error: String,
    },
    /// The weight of a replica changed: it enters or leaves rotation, or gets another share of the connections.
    Rotation {
        /// The name of the replica, such as `web-1`.
        replica: String,
        /// The service.
        service: String,
        /// The slot, from 1.
        slot: u32,
        /// The new weight, relative to the other replicas; 0: no new connections.
        weight: u32,
        /// Open connections.
        connections: u64,
        /// Total connections so far; for UDP, flows.
        connections_total: u64,
        /// Connections that it has not accepted yet.
        queued: u64,
    },
    /// New connections to some ports of a pod cannot be held while no replica is ready, because the supervisor's limit
    /// of open files is too low.
    TooFewFiles {
        /// The pod.
        pod: String,
        /// The limit of open files of the supervisor.
        limit: u64,
        /// The effect in words, and what to do.
        error: String,
    },
    /// The health check of a service cannot be run, for example because its program is missing in the image. It is
    /// ignored: replicas count as ready once they listen. Reported once for each version.
    HealthCheckError {
        /// The replica on which the check failed to run.
        replica: String,
        /// The service.
        service: String,
        /// The slot, from 1.
        slot: u32,
        /// The error.
        error: String,
    },
    /// All replicas of a service fail a health check that no replica of this version has ever passed. They get
    /// connections anyway, and none is replaced because of the check.
    HealthCheckNeverPassed {
        /// The service.
        service: String,
        /// The last output of the check.
        output: String,
    },
    /// A replica has more listeners than can be steered. Reported once for each container.
    UnsteeredListeners {
        /// The name of the replica, such as `web-1`.
        replica: String,
        /// The service.
        service: String,
        /// The slot, from 1.
        slot: u32,
        /// The number of listeners beyond the limit when this was first seen.
        unsteered_listeners: u64,
    },
    /// A program tried to choose which listener gets the connections of a port, with `SO_ATTACH_REUSEPORT_EBPF`,
    /// `SO_ATTACH_REUSEPORT_CBPF` or `SO_DETACH_REUSEPORT_BPF`. The call has no effect. Reported once for each
    /// container.
    ReuseportProgramIgnored {
        /// The pod.
        pod: String,
        /// The replica; absent if the process belongs to no replica.
        #[serde(skip_serializing_if = "Option::is_none")]
        replica: Option<String>,
        /// The port.
        port: u16,
        /// `tcp` or `udp`.
        protocol: String,
    },
    /// Connections are being held because no replica is ready; with `connections` 0, none is held any more.
    Waiting {
        /// The pod.
        pod: String,
        /// The port in the pod.
        port: u16,
        /// The number of held connections.
        connections: u64,
    },
    /// A process that is not a replica listens on a port of the replicas.
    ForeignListener {
        /// The pod.
        pod: String,
        /// The socket and its process.
        listener: ForeignListener,
    },
    /// Several replicas share a socket or a pid file that is meant for one process.
    SharedFile {
        /// The file and its service.
        shared_file: SharedFile,
    },
    /// A container, network or volume has sameport's labels but was not made by sameport. It is never changed.
    ForeignResource {
        /// The resource.
        resource: ForeignResource,
    },
    /// The `pre_stop` commands of a replica failed; the replica is stopped anyway.
    PreStopFailed {
        /// The replica.
        target: Target,
        /// The command that failed, and its error.
        error: String,
    },
    /// The pre-deploy job of a version failed; no replica of that version is started.
    JobFailed {
        /// The job.
        target: Target,
        /// How it ended.
        exit: Exit,
        /// The last lines of its log.
        log: Vec<String>,
    },
    /// The health of a replica changed.
    Health {
        /// The name of the replica, such as `web-1`.
        replica: String,
        /// The service.
        service: String,
        /// The slot, from 1.
        slot: u32,
        /// `none`, `starting`, `healthy` or `unhealthy`.
        health: String,
    },
    /// A replica accepts no connections while others do; it gets no new ones for now.
    Stuck {
        /// The name of the replica, such as `web-1`.
        replica: String,
        /// The service.
        service: String,
        /// The slot, from 1.
        slot: u32,
        /// Connections that it has not accepted.
        queued: u64,
    },
    /// A replica does not work and is being replaced.
    Replaced {
        /// The name of the replica, such as `web-1`.
        replica: String,
        /// The service.
        service: String,
        /// The slot, from 1.
        slot: u32,
        /// The reason, in words.
        reason: String,
    },
    /// A rollout reached a new phase.
    Rollout {
        /// The service.
        service: String,
        /// The phase and its data.
        #[serde(flatten)]
        phase: RolloutPhase,
    },
    /// A pod lost its namespaces; its replicas are started again in new ones.
    PodLost {
        /// The pod.
        pod: String,
    },
    /// The sandbox of a pod was disconnected from a network from outside.
    PodDisconnected {
        /// The pod.
        pod: String,
        /// The name of the network on the engine.
        network: String,
    },
    /// The state file cannot be written. The supervisor keeps its content in memory and retries.
    StateNotSaved {
        /// The path of the state file.
        path: String,
        /// The error of the operating system.
        reason: String,
    },
    /// The state file could be written again.
    StateSaved,
    /// Another program recreated the container of a replica with a different image. The replica is replaced.
    ContainerRecreated {
        /// The name of the replica, such as `web-1`.
        replica: String,
        /// The service.
        service: String,
        /// The slot, from 1.
        slot: u32,
        /// The image of the recreated container, by its content ID.
        image: String,
    },
    /// A replica was stopped from outside, without sameport. It stays down until it is started again.
    StoppedExternally {
        /// The name of the replica, such as `web-1`.
        replica: String,
        /// The service.
        service: String,
        /// The slot, from 1.
        slot: u32,
        /// When it was stopped, by the engine's clock.
        stopped_at: Time,
    },
    /// A replica was paused from outside. It gets no new connections until it is unpaused.
    Paused {
        /// The name of the replica, such as `web-1`.
        replica: String,
        /// The service.
        service: String,
        /// The slot, from 1.
        slot: u32,
    },
    /// The process of a container is gone although the engine reports it as running. The container is replaced.
    ProcessLost {
        /// The owner of the process, such as a replica.
        target: Target,
    },
    /// The engine's container list lacks containers that run. They are left alone.
    ContainersUnlisted {
        /// The names of the containers.
        container_names: Vec<String>,
    },
    /// The engine cannot be reached; running containers go on.
    EngineUnreachable {
        /// The error of the operating system.
        reason: String,
    },
    /// The engine can be reached again.
    EngineReachable,
    /// The project matches the desired state: everything is up, and nothing is left to do.
    Converged,
    /// The project is removed.
    Removed,
}

/// The phase of a rollout. Keys beside `phase` are present only for the phases that define them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum RolloutPhase {
    /// The rollout started, or its target version changed.
    Started {
        /// The number of the version that it replaces.
        previous_version: u32,
        /// The number of the target version.
        version: u32,
        /// Why it rolls back; absent if it does not.
        rollback: Option<Reason>,
    },
    /// The order in which replicas are replaced was determined.
    Order {
        /// The order and its reason.
        #[serde(flatten)]
        order: ReplacementOrder,
    },
    /// The new version gets a larger share of the connections.
    Step {
        /// The share, in percent.
        percent: f64,
    },
    /// The new version gets all connections.
    Promoted,
    /// The new version failed.
    Failed {
        /// The number of the new version.
        version: u32,
        /// The failure.
        failure: Failure,
        /// The reaction: `rollback`, `pause` or `continue`.
        then: String,
    },
    /// All replicas run the version, and it passed its monitoring period.
    Done {
        /// The number of the version.
        version: u32,
        /// The connections during the rollout, where the kernel counts them.
        summary: Option<Summary>,
        /// How long no replica of the service was ready during the rollout; absent if the supervisor was restarted
        /// meanwhile.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        outage_seconds: Option<Seconds>,
    },
}

/// A diagnostic about a position in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diagnostic {
    /// What is wrong.
    pub message: String,
    /// The file, if the diagnostic is about one.
    pub file: Option<String>,
    /// The line, from 1.
    pub line: Option<usize>,
    /// The column, in characters from 1.
    pub column: Option<usize>,
    /// What to do about it.
    pub help: Option<String>,
}
