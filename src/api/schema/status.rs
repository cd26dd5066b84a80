//! The status of a project: `sameport ps`, `sameport status` and the `status` request.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ForeignResource, Rollout, Target, Time};

/// The status of a project.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The project's name.
    pub project: String,
    /// Whether a supervisor runs.
    pub supervised: bool,
    /// Whether everything wanted is up and nothing is left to do.
    pub converged: bool,
    /// Whether nothing is left to do at the moment: what is not up yet takes its time, or has failed.
    pub idle: bool,
    /// Whether all that is left to do is to wait for connections of replicas that are to end.
    #[serde(default)]
    pub only_draining: bool,
    /// The pods, by name.
    pub pods: Vec<Pod>,
    /// The replicas, wanted or present, by service and slot.
    pub replicas: Vec<Replica>,
    /// Rollouts in progress.
    pub rollouts: Vec<Rollout>,
    /// Names of containers of services that the file no longer has.
    pub orphans: Vec<String>,
    /// What carries sameport's labels and sameport did not make. It is never touched.
    pub foreign_resources: Vec<ForeignResource>,
    /// What is in the way of what is wanted.
    pub errors: Vec<ErrorCondition>,
    /// Sockets and pid files that several replicas of a service share: each program replaces or removes the others'.
    #[serde(default)]
    pub shared_files: Vec<SharedFile>,
    /// When the engine answered the supervisor last, if it does not answer now: everything is as it was then.
    #[serde(default)]
    pub engine_unreachable_since: Option<Time>,
}

/// A pod: the namespaces that replicas share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// The id of its sandbox container, once there is one.
    pub sandbox_id: Option<String>,
    /// Whether replicas can join it.
    pub ready: bool,
    /// Who makes its listeners share a port.
    pub sharing: Sharing,
    /// Why the kernel does not, where it was to.
    pub sharing_error: Option<String>,
    /// Ports of the host that lead into it, such as `127.0.0.1:8080->80/tcp`.
    pub ports: Vec<String>,
    /// Ports that only one of its replicas can hold at a time, such as `30000-30009/tcp`; empty where the kernel does not
    /// share the others.
    pub exclusive_ports: Vec<String>,
    /// Connections that wait until a replica is ready, by port.
    pub waiting: Vec<WaitingConnections>,
    /// Listening sockets on the replicas' ports that are not a replica's.
    pub foreign_listeners: Vec<ForeignListener>,
    /// Users who could not be given a port that replicas of another user share.
    pub user_conflicts: Vec<UserConflict>,
    /// Published ports on which no replica of their service can be reached, though it has replicas that serve.
    #[serde(default)]
    pub unserved_ports: Vec<UnservedPort>,
    /// What the kernel has counted in its network; absent where it does not choose.
    pub counters: Option<Counters>,
    /// What the kernel cannot do there.
    pub error: Option<String>,
}

/// Who makes listeners share a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// The kernel, for any image; it also chooses the replica of each connection.
    Kernel,
    /// The images set `SO_REUSEPORT` themselves.
    Application,
}

/// A published port on which no replica can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnservedPort {
    /// The service that publishes it.
    pub service: String,
    /// The port in the pod.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Where a replica listens on it, such as `127.0.0.1:9229`, if nobody outside of its container can reach it there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable_address: Option<String>,
}

/// Connections that wait until a replica is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaitingConnections {
    /// The port in the pod.
    pub port: u16,
    /// How many wait.
    pub connections: u64,
    /// How many can wait; more are refused.
    pub capacity: u64,
}

/// A listening socket on a port of the replicas that is not a replica's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ForeignListener {
    /// The port in the pod.
    pub port: u16,
    /// The more specific address for which it takes connections; absent: it gets none.
    pub address: Option<String>,
    /// Its process, if that is still there.
    pub pid: Option<u32>,
    /// The process's name.
    pub command: String,
}

/// A file that is meant for one process, and that several replicas of a service share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SharedFile {
    /// The service.
    pub service: String,
    /// The file's path in its containers.
    pub path: String,
    /// What it is.
    pub kind: SharedFileKind,
}

/// What a shared file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SharedFileKind {
    /// A Unix socket.
    Socket,
    /// A pid file.
    PidFile,
}

/// A replica wanted a port that replicas of another user share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UserConflict {
    /// The port in the pod.
    pub port: u16,
    /// The user id that wanted it.
    pub user: u32,
    /// The user id that has it.
    pub owner: u32,
}

/// What the kernel has counted in a pod's network since that exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counters {
    /// Connections opened to a listener (`Tcp: PassiveOpens`).
    pub opened: u64,
    /// Connections that moved to another replica because their listener closed (`TcpExt: TCPMigrateReqSuccess`).
    pub migrated: u64,
    /// Connections that were reset because no other replica could take them (`TcpExt: TCPMigrateReqFailure`).
    pub migration_failures: u64,
    /// Handshakes that found the queue of their listener full (`TcpExt: ListenOverflows`).
    pub overflowed: u64,
    /// Connections reset by either side (`Tcp: EstabResets`).
    pub reset: u64,
}

/// A replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Replica {
    /// The project's name.
    pub project: String,
    /// How it is called: `web-1`.
    pub replica: String,
    /// Its service.
    pub service: String,
    /// Its slot in the service, from 1.
    pub slot: u32,
    /// Whether it is to take over from the one in its slot.
    pub replacement: bool,
    /// Whether another one has followed it in its slot, while it finishes its connections.
    #[serde(default)]
    pub set_aside: bool,
    /// Whether the file no longer has its service, or there is no file.
    pub orphan: bool,
    /// The name of its container.
    pub name: String,
    /// The id of its container, once there is one.
    pub id: Option<String>,
    /// The image that its version names, where that is known.
    pub image: Option<String>,
    /// The pod that it is in.
    pub pod: String,
    /// Which version of its service it runs.
    pub generation: Option<String>,
    /// Whether that is the wanted version.
    pub up_to_date: bool,
    /// Its state.
    #[serde(flatten)]
    pub state: ReplicaState,
    /// Its state in words, for people.
    pub status: String,
    /// When its process started.
    pub started_at: Option<Time>,
    /// How often in a row it ended soon after its start.
    pub exits: u32,
    /// How its last process ended, until the next one has stayed up.
    pub last_termination: Option<Termination>,
    /// Why its last process was replaced, until the next one has stayed up.
    pub replaced: Option<Replaced>,
    /// What is wrong with it now, or what its health check or probe says as long as it is not ready.
    pub unhealthy_reason: Option<String>,
    /// Why its health check cannot be run, if so: it is ignored then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check_error: Option<String>,
    /// Since when it gets no new connections, if it gets none: it drains, or is not ready.
    pub out_of_rotation_since: Option<Time>,
    /// When another program than sameport stopped it, if that is why it is stopped: by the engine's clock.
    pub stopped_externally_at: Option<Time>,
    /// Who makes its listeners share a port.
    pub sharing: Sharing,
    /// Ports of the host that lead to it, such as `127.0.0.1:8080->80/tcp`.
    pub ports: Vec<String>,
    /// Ports of its pod that only one replica can hold at a time, such as `30000-30009/tcp`.
    pub exclusive_ports: Vec<String>,
    /// Its connections, where the kernel counts them and it runs.
    pub traffic: Option<Traffic>,
}

/// The state of a replica. Keys beside `state` exist only in the state that gives them a meaning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ReplicaState {
    /// To be created.
    Pending,
    /// Waits for another service.
    Waiting {
        /// For what.
        waiting_for: WaitingFor,
    },
    /// Waits for the pre-deploy job of its version.
    WaitingForJob,
    /// Up; its `post_start` commands run.
    Preparing,
    /// Up; its health check has not passed yet.
    Starting,
    /// Up; does not listen on its published ports yet.
    NotListening {
        /// The ports that it should listen on.
        missing_ports: Vec<u16>,
        /// Where it listens on one of them, such as `127.0.0.1:3000`, if nobody outside of the container can reach it there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unreachable_address: Option<String>,
    },
    /// Up; it has no health check.
    Running,
    /// Up; its health check passes.
    Healthy,
    /// Up; its health check fails.
    Unhealthy,
    /// Up; takes no connections while others do.
    Stuck,
    /// Paused by somebody.
    Paused,
    /// Ended; starts again.
    Restarting {
        /// How it ended.
        exit: Exit,
        /// When it starts again.
        retry_at: Time,
    },
    /// Ended with success; not started again.
    Completed,
    /// Ended with failure; its restart policy allows no further try.
    Failed {
        /// How it ended.
        exit: Exit,
    },
    /// Stopped on request.
    Stopped,
    /// Being removed.
    Removing,
    /// The engine does not do what is planned.
    Blocked {
        /// What the engine said.
        error: String,
        /// What to do about it.
        help: Option<String>,
        /// How often it was tried; absent: it is not tried, because it cannot succeed.
        attempts: Option<u32>,
    },
}

impl ReplicaState {
    /// Whether it does what it is there for.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Running | Self::Healthy | Self::Completed)
    }
}

/// What a replica waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaitingFor {
    /// The other service.
    pub service: String,
    /// What has to be true of it: `started`, `healthy` or `completed_successfully`.
    pub condition: String,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Exit {
    /// The exit code; 128 + n after signal n.
    pub exit_code: i64,
    /// Whether the kernel killed it because it ran out of memory.
    pub out_of_memory: bool,
    /// Why it could not start, in the engine's words.
    pub error: Option<String>,
    /// When it ended, by the engine's clock.
    pub at: Time,
}

/// How a replica's last process ended, not by sameport's doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Termination {
    /// How it ended.
    pub exit: Exit,
    /// The last lines that it wrote.
    pub log: Vec<String>,
    /// Set when another replica had its port, because the image does not share it.
    pub port_not_shared: Option<PortConflict>,
    /// Set when replicas of another user had its port, and it did not get it after many tries.
    pub user_conflict: Option<UserConflict>,
    /// Set when it asked for a port that is exclusive and that another replica held.
    pub exclusive_port: Option<ExclusivePort>,
}

/// A port that only one replica can hold at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExclusivePort {
    /// The port in the pod.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
}

/// A replica ended because another replica had its port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortConflict {
    /// The image.
    pub image: String,
    /// The port, if it is known.
    pub port: Option<u16>,
}

/// A process was ended because it did not work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Replaced {
    /// Why, in words.
    pub reason: String,
    /// When.
    pub at: Time,
}

/// The connections of a replica, over all of its ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Traffic {
    /// The address by which it alone is reached, inside its pod.
    pub address: Option<String>,
    /// The weight in force, compared with others; 0 while it is not ready, or drains.
    pub weight: u32,
    /// The weight that it gets once it is ready.
    pub desired_weight: u32,
    /// Open connections.
    pub connections: u64,
    /// Connections so far; of UDP, flows.
    pub connections_total: u64,
    /// Connections that it has not accepted yet.
    pub queued: u64,
    /// While its weight is 0: whole seconds since the last datagram came to it, at most 5; then its flows count as finished.
    /// Absent: none came.
    pub udp_idle_seconds: Option<u64>,
    /// Listeners that it has beyond those that there is room for: their connections are spread without regard to readiness,
    /// load and weight.
    #[serde(default)]
    pub unsteered_listeners: u64,
    /// The same by port.
    pub ports: Vec<PortTraffic>,
}

/// The connections of a replica on one port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortTraffic {
    /// The port in the pod.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Open connections.
    pub connections: u64,
    /// Connections or flows so far.
    pub connections_total: u64,
    /// Connections that it has not accepted yet.
    pub queued: u64,
    /// Whether it listens; if not, it may still have connections to finish.
    pub listening: bool,
    /// Whether the kernel chooses among its listeners; if not, the replica has the port for itself.
    pub shared: bool,
}

/// Something that is in the way of what is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorCondition {
    /// What it is about.
    pub target: Target,
    /// What went wrong.
    pub error: String,
    /// What to do about it.
    pub help: Option<String>,
    /// How often it was tried; absent: it is not tried, because it cannot succeed.
    pub attempts: Option<u32>,
}
