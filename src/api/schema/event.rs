//! Events: `sameport events` and the stream of events on the control socket.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Action, ExclusivePort, Exit, Failure, ForeignListener, ForeignResource, Reason, ReplacementOrder,
    Seconds, SharedFile, Summary, Target, Time, UserConflict,
};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// When, by the supervisor's clock.
    pub time: Time,
    /// How much it matters.
    pub level: Level,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
    /// What happened, in words, with further lines where it takes them; absent where a person need not know.
    pub message: Option<String>,
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// It is as it should be.
    Info,
    /// Somebody may want to look.
    Warning,
    /// Something failed.
    Error,
}

/// What happened. Keys beside `event` exist only for the events that give them a meaning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// A Compose file is in force from now on.
    Applied {
        /// How many services it runs.
        service_count: usize,
    },
    /// A changed Compose file was rejected; the one before stays in force.
    Rejected {
        /// Why, as a person reads it.
        error: String,
        /// Where in the file; empty where it is something else.
        diagnostics: Vec<Diagnostic>,
    },
    /// The project's files cannot be watched; they are read now and then.
    WatchUnavailable {
        /// Why.
        error: String,
    },
    /// The state file was damaged and was made anew from the engine.
    StateReset {
        /// The state file.
        path: String,
        /// What was wrong with it.
        error: String,
        /// Where the damaged file is now; absent: it is overwritten.
        moved_to: Option<String>,
        /// Services that keep another number of replicas than the file says, because so many exist.
        scale: BTreeMap<String, u32>,
        /// Services whose pre-deploy job is not run again.
        jobs: Vec<String>,
        /// Services whose version is known again.
        known_versions: Vec<String>,
    },
    /// An action started.
    Started {
        /// What is done.
        action: Action,
        /// To what.
        target: Target,
    },
    /// An action is done.
    Done {
        /// What was done.
        action: Action,
        /// To what.
        target: Target,
    },
    /// An action failed; it is tried again after a pause.
    Failed {
        /// What was to be done.
        action: Action,
        /// To what.
        target: Target,
        /// What the engine said.
        error: String,
        /// What to do about it.
        help: Option<String>,
    },
    /// A replica ended, not by sameport's doing.
    Exited {
        /// The replica, `web-1`.
        replica: String,
        /// Its service.
        service: String,
        /// Its slot.
        slot: u32,
        /// How.
        exit: Exit,
        /// How often in a row soon after its start.
        exits: u32,
        /// The last lines that it wrote.
        log: Vec<String>,
    },
    /// A replica ended because another replica had its port, which the image does not share.
    PortNotShared {
        /// The replica, `web-1`.
        replica: String,
        /// Its service.
        service: String,
        /// Its slot.
        slot: u32,
        /// Its image.
        image: String,
        /// The port, if it is known.
        port: Option<u16>,
    },
    /// A replica ended because replicas of another user have its port.
    UserConflict {
        /// The replica, `web-1`.
        replica: String,
        /// Its service.
        service: String,
        /// Its slot.
        slot: u32,
        /// The port and the users.
        conflict: UserConflict,
    },
    /// A replica ended after it had asked for a port that is exclusive and that another replica holds.
    ExclusivePort {
        /// The replica, `web-1`.
        replica: String,
        /// Its service.
        service: String,
        /// Its slot.
        slot: u32,
        /// The port.
        exclusive_port: ExclusivePort,
    },
    /// The kernel shares the ports of pods from now on.
    SharedByKernel,
    /// The kernel cannot share ports; the images have to.
    SharedByApplication {
        /// What is missing.
        reason: String,
    },
    /// The kernel cannot do something for a pod.
    SteeringUnavailable {
        /// The pod.
        pod: String,
        /// What it is.
        error: String,
    },
    /// Something of a removed project is left in the kernel.
    KernelStateLeft {
        /// What it is.
        error: String,
    },
    /// A replica gets connections from now on, or another share of them, or none.
    Rotation {
        /// The replica, `web-1`.
        replica: String,
        /// Its service.
        service: String,
        /// Its slot.
        slot: u32,
        /// Its weight, compared with others.
        weight: u32,
        /// Its open connections.
        connections: u64,
        /// Its connections so far.
        connections_total: u64,
        /// Those that it has not accepted yet.
        queued: u64,
    },
    /// At some ports of a pod connections cannot wait, because the supervisor may open too few files.
    TooFewFiles {
        /// The pod.
        pod: String,
        /// How many files it may open.
        limit: u64,
        /// That in words, and what to do.
        error: String,
    },
    /// The health check of a service cannot be run, such as for want of its program in the image: it is ignored, and replicas
    /// count as ready once they listen. Told once for each version.
    HealthCheckError {
        /// The replica where that was found.
        replica: String,
        /// Its service.
        service: String,
        /// Its slot.
        slot: u32,
        /// What was said of it.
        error: String,
    },
    /// All replicas of a service fail a health check that no replica of its version has ever passed: they get connections all
    /// the same, and none is replaced for it.
    HealthCheckNeverPassed {
        /// The service.
        service: String,
        /// What the check said last.
        output: String,
    },
    /// A replica has more listeners than there is room for. Told once for each container.
    UnsteeredListeners {
        /// The replica.
        replica: String,
        /// Its service.
        service: String,
        /// Its slot.
        slot: u32,
        /// How many there was no room for at first.
        unsteered_listeners: u64,
    },
    /// A program tried to choose which listener gets the connections of a port, by `SO_ATTACH_REUSEPORT_EBPF`,
    /// `SO_ATTACH_REUSEPORT_CBPF` or `SO_DETACH_REUSEPORT_BPF`. The call has no effect. Told once for each container.
    ReuseportProgramIgnored {
        /// The pod.
        pod: String,
        /// The replica; absent: the process belongs to no replica.
        #[serde(skip_serializing_if = "Option::is_none")]
        replica: Option<String>,
        /// Its port.
        port: u16,
        /// `tcp` or `udp`.
        protocol: String,
    },
    /// Connections start to wait because no replica is ready, or no longer do.
    Waiting {
        /// The pod.
        pod: String,
        /// The port.
        port: u16,
        /// How many wait.
        connections: u64,
    },
    /// A listening socket on a replicas' port is not a replica's.
    ForeignListener {
        /// The pod.
        pod: String,
        /// The socket.
        listener: ForeignListener,
    },
    /// Several replicas share a socket or a pid file that is meant for one process.
    SharedFile {
        /// The file.
        shared_file: SharedFile,
    },
    /// Something carries sameport's labels, and sameport did not make it. It is never touched.
    ForeignResource {
        /// What it is.
        resource: ForeignResource,
    },
    /// The `pre_stop` commands of a replica failed; it is stopped anyway.
    PreStopFailed {
        /// What is stopped.
        target: Target,
        /// Which command failed, and how.
        error: String,
    },
    /// The pre-deploy job of a version failed; no replica of it is started.
    JobFailed {
        /// The job.
        target: Target,
        /// How it ended.
        exit: Exit,
        /// The last lines that it wrote.
        log: Vec<String>,
    },
    /// The health of a replica changed.
    Health {
        /// The replica, `web-1`.
        replica: String,
        /// Its service.
        service: String,
        /// Its slot.
        slot: u32,
        /// `none`, `starting`, `healthy` or `unhealthy`.
        health: String,
    },
    /// A replica takes no connections while others do; it gets no new ones for now.
    Stuck {
        /// The replica, `web-1`.
        replica: String,
        /// Its service.
        service: String,
        /// Its slot.
        slot: u32,
        /// Connections that wait for it.
        queued: u64,
    },
    /// A replica does not work, and is replaced.
    Replaced {
        /// The replica, `web-1`.
        replica: String,
        /// Its service.
        service: String,
        /// Its slot.
        slot: u32,
        /// Why, in words.
        reason: String,
    },
    /// A rollout got on.
    Rollout {
        /// The service.
        service: String,
        /// How.
        #[serde(flatten)]
        phase: RolloutPhase,
    },
    /// A pod lost its namespaces; its replicas start again in new ones.
    PodLost {
        /// The pod.
        pod: String,
    },
    /// Somebody has taken the sandbox of a pod off a network.
    PodDisconnected {
        /// The pod.
        pod: String,
        /// The network, by its name on the engine.
        network: String,
    },
    /// The state file cannot be written. Its content is known as long as this supervisor runs, and is written once that is
    /// possible.
    StateNotSaved {
        /// The state file.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// The state file is written again.
    StateSaved,
    /// Another program has made the container of a replica anew, of another image. It is replaced.
    ContainerRecreated {
        /// The replica, `web-1`.
        replica: String,
        /// Its service.
        service: String,
        /// Its slot.
        slot: u32,
        /// The image that the other program chose, by its content id.
        image: String,
    },
    /// Somebody has stopped a replica without sameport. It stays down until somebody starts it.
    StoppedExternally {
        /// The replica, `web-1`.
        replica: String,
        /// Its service.
        service: String,
        /// Its slot.
        slot: u32,
        /// When, by the engine's clock.
        stopped_at: Time,
    },
    /// Somebody has paused a replica. It gets no new connections until it is unpaused.
    Paused {
        /// The replica, `web-1`.
        replica: String,
        /// Its service.
        service: String,
        /// Its slot.
        slot: u32,
    },
    /// The process of a container is not there, though the engine says that it runs. The container is replaced.
    ProcessLost {
        /// Whose it was.
        target: Target,
    },
    /// The engine's list lacks containers that run. They are left as they are.
    ContainersUnlisted {
        /// Their names.
        container_names: Vec<String>,
    },
    /// The engine cannot be reached; what runs goes on.
    EngineUnreachable {
        /// What the system said.
        reason: String,
    },
    /// The engine can be reached again.
    EngineReachable,
    /// Everything wanted is up, and nothing is left to do.
    Converged,
    /// The project is removed.
    Removed,
}

/// How a rollout got on. Keys beside `phase` exist only for the phases that give them a meaning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum RolloutPhase {
    /// It started, or leads elsewhere from now on.
    Started {
        /// The number of the version that it leads from.
        previous_version: u32,
        /// The number of the version that it leads to.
        version: u32,
        /// Why it rolls back; absent when it does not.
        rollback: Option<Reason>,
    },
    /// It is known in which order it replaces replicas.
    Order {
        /// The order, and why.
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
        /// Its number.
        version: u32,
        /// How.
        failure: Failure,
        /// What follows: `rollback`, `pause` or `continue`.
        then: String,
    },
    /// All replicas run the version, proved.
    Done {
        /// Its number.
        version: u32,
        /// What happened to connections meanwhile, where the kernel counts them.
        summary: Option<Summary>,
        /// How long no replica of the service was ready meanwhile; absent if a supervisor began in between.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        outage_seconds: Option<Seconds>,
    },
}

/// Something that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diagnostic {
    /// What is wrong.
    pub message: String,
    /// In which file, if it is about one.
    pub file: Option<String>,
    /// In which line, from 1.
    pub line: Option<usize>,
    /// In which column, in characters from 1.
    pub column: Option<usize>,
    /// What to do about it.
    pub help: Option<String>,
}
