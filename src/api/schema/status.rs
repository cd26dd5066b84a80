//! The status of a project: `sameport ps`, `sameport status` and the `status` request.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ForeignResource, Rollout, Target, Time};

/// The status of a project.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The project's name.
    pub project: String,
    /// Whether a supervisor is running.
    pub supervised: bool,
    /// Whether the project matches the desired state: everything is up, and nothing is left to do.
    pub converged: bool,
    /// Whether nothing is left to do at the moment: what is not up yet is starting, or has failed.
    pub idle: bool,
    /// Whether the only thing left to do is to wait for connections of draining replicas.
    #[serde(default)]
    pub only_draining: bool,
    /// The pods, by name.
    pub pods: Vec<Pod>,
    /// The replicas, desired or present, by service and slot.
    pub replicas: Vec<Replica>,
    /// Rollouts in progress.
    pub rollouts: Vec<Rollout>,
    /// Names of containers whose service is no longer in the Compose file.
    pub orphans: Vec<String>,
    /// Containers, networks and volumes that have sameport's labels but were not made by sameport. They are never
    /// changed.
    pub foreign_resources: Vec<ForeignResource>,
    /// Errors that prevent the desired state.
    pub errors: Vec<ErrorCondition>,
    /// Sockets and pid files that several replicas of a service share: each program replaces or removes those of the
    /// others.
    #[serde(default)]
    pub shared_files: Vec<SharedFile>,
    /// When the engine answered last, if it does not answer now; the status is as of then.
    #[serde(default)]
    pub engine_unreachable_since: Option<Time>,
}

/// A pod: the namespaces that replicas share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pod {
    /// The pod's name.
    pub name: String,
    /// The ID of its sandbox container, if it exists.
    pub sandbox_id: Option<String>,
    /// Whether replicas can join it.
    pub ready: bool,
    /// How its replicas share ports.
    pub sharing: Sharing,
    /// Why the kernel does not share the ports, if it should.
    pub sharing_error: Option<String>,
    /// Ports of the host that are published to it, such as `127.0.0.1:8080->80/tcp`.
    pub ports: Vec<String>,
    /// Ports that only one of its replicas can hold at a time, such as `30000-30009/tcp`; empty if the kernel does not
    /// share the other ports.
    pub exclusive_ports: Vec<String>,
    /// Connections that are held until a replica is ready, by port.
    pub waiting: Vec<WaitingConnections>,
    /// Sockets of other processes that listen on a port of the replicas.
    pub foreign_listeners: Vec<ForeignListener>,
    /// Users whose replicas could not get a port, because replicas of another user share it.
    pub user_conflicts: Vec<UserConflict>,
    /// Published ports on which no replica can be reached, although the service has replicas that serve.
    #[serde(default)]
    pub unserved_ports: Vec<UnservedPort>,
    /// Kernel counters of its network; absent if the kernel does not steer connections there.
    pub counters: Option<Counters>,
    /// Why the kernel cannot steer connections there, or not fully.
    pub error: Option<String>,
}

/// How replicas share a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// The kernel shares it for any image, and chooses the replica of each connection.
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
    /// Where a replica listens on it, such as `127.0.0.1:9229`, if that address cannot be reached from outside its
    /// container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable_address: Option<String>,
}

/// Connections that are held until a replica is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaitingConnections {
    /// The port in the pod.
    pub port: u16,
    /// The number of held connections.
    pub connections: u64,
    /// The maximum number; more are refused.
    pub capacity: u64,
}

/// A socket of a process that is not a replica and listens on a port of the replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ForeignListener {
    /// The port in the pod.
    pub port: u16,
    /// The specific address for which it gets connections; absent: it gets none.
    pub address: Option<String>,
    /// The process ID, if the process still exists.
    pub pid: Option<u32>,
    /// The name of the process.
    pub command: String,
}

/// A file that is meant for one process and that several replicas of a service share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SharedFile {
    /// The service.
    pub service: String,
    /// The path of the file in the containers.
    pub path: String,
    /// The kind of file.
    pub kind: SharedFileKind,
}

/// The kind of a shared file.
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
    /// The user ID that wanted the port.
    pub user: u32,
    /// The user ID that holds the port.
    pub owner: u32,
}

/// Connections opened to a listener (`Tcp: PassiveOpens`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counters {
    /// Connections accepted by a listener (`Tcp: PassiveOpens`).
    pub opened: u64,
    /// Connections that moved to another replica because their listener was closed (`TcpExt: TCPMigrateReqSuccess`).
    pub migrated: u64,
    /// Connections that were reset because no other replica could take them (`TcpExt: TCPMigrateReqFailure`).
    pub migration_failures: u64,
    /// Handshakes that found the accept queue full (`TcpExt: ListenOverflows`).
    pub overflowed: u64,
    /// Connections reset by either side (`Tcp: EstabResets`).
    pub reset: u64,
}

/// A replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Replica {
    /// The project's name.
    pub project: String,
    /// The name of the replica, such as `web-1`.
    pub replica: String,
    /// The service.
    pub service: String,
    /// The slot, from 1.
    pub slot: u32,
    /// Whether it is a replacement: it takes over the slot once it is ready.
    pub replacement: bool,
    /// Whether a replacement has taken over its slot while it finishes its connections.
    #[serde(default)]
    pub set_aside: bool,
    /// Whether its service is not in the Compose file, or there is no file.
    pub orphan: bool,
    /// The name of the container.
    pub name: String,
    /// The ID of the container, if it exists.
    pub id: Option<String>,
    /// The image of its version, if known.
    pub image: Option<String>,
    /// The pod that it is in.
    pub pod: String,
    /// The version of the service that it runs.
    pub generation: Option<String>,
    /// Whether it runs the desired version.
    pub up_to_date: bool,
    /// The state and its data.
    #[serde(flatten)]
    pub state: ReplicaState,
    /// The state in words, for people.
    pub status: String,
    /// When its process started.
    pub started_at: Option<Time>,
    /// The number of consecutive exits soon after the start.
    pub exits: u32,
    /// How its last process ended; absent once the next one has stayed up.
    pub last_termination: Option<Termination>,
    /// Why its last process was replaced; absent once the next one has stayed up.
    pub replaced: Option<Replaced>,
    /// Why it is unhealthy, or the output of its health check or probe while it is not ready.
    pub unhealthy_reason: Option<String>,
    /// Why its health check cannot be run; the check is ignored then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check_error: Option<String>,
    /// Since when it gets no new connections, because it drains or is not ready; absent if it gets some.
    pub out_of_rotation_since: Option<Time>,
    /// When it was stopped from outside, by the engine's clock; absent if that is not why it is stopped.
    pub stopped_externally_at: Option<Time>,
    /// How it shares ports with other replicas.
    pub sharing: Sharing,
    /// Ports of the host that are published to it, such as `127.0.0.1:8080->80/tcp`.
    pub ports: Vec<String>,
    /// Ports of its pod that only one replica can hold at a time, such as `30000-30009/tcp`.
    pub exclusive_ports: Vec<String>,
    /// Its connections, if it runs and the kernel counts them.
    pub traffic: Option<Traffic>,
}

/// The state of a replica. Keys beside `state` are present only in the states that define them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ReplicaState {
    /// To be created.
    Pending,
    /// Waiting for another service.
    Waiting {
        /// The service and its condition.
        waiting_for: WaitingFor,
    },
    /// Waiting for the pre-deploy job of its version.
    WaitingForJob,
    /// Running; its `post_start` commands are not done yet.
    Preparing,
    /// Running; its health check has not passed yet.
    Starting,
    /// Running; it does not listen on its published ports yet.
    NotListening {
        /// The ports on which it should listen.
        missing_ports: Vec<u16>,
        /// Where it listens on one of them, such as `127.0.0.1:3000`, if that address cannot be reached from outside
        /// the container.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        unreachable_address: Option<String>,
    },
    /// Running; it has no health check.
    Running,
    /// Running; its health check passes.
    Healthy,
    /// Running; its health check fails.
    Unhealthy,
    /// Running; it accepts no connections while others do.
    Stuck,
    /// Paused from outside.
    Paused,
    /// Ended; it will be started again.
    Restarting {
        /// How it ended.
        exit: Exit,
        /// When it will be started again.
        retry_at: Time,
    },
    /// Ended successfully; it is not started again.
    Completed,
    /// Failed; its restart policy allows no further attempt.
    Failed {
        /// How it ended.
        exit: Exit,
    },
    /// Stopped on request.
    Stopped,
    /// Being removed.
    Removing,
    /// The engine refuses or fails a planned action.
    Blocked {
        /// The error of the engine.
        error: String,
        /// What to do about it.
        help: Option<String>,
        /// The number of attempts; absent if it is not attempted because it cannot succeed.
        attempts: Option<u32>,
    },
}

impl ReplicaState {
    /// Whether it runs and is ready, or completed.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Running | Self::Healthy | Self::Completed)
    }
}

/// The dependency that a replica waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaitingFor {
    /// The other service.
    pub service: String,
    /// The required condition: `started`, `healthy` or `completed_successfully`.
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

/// The last termination of a replica that was not stopped by sameport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Termination {
    /// How it ended.
    pub exit: Exit,
    /// The last lines of its log.
    pub log: Vec<String>,
    /// Set if another replica held its port, which the image does not share.
    pub port_not_shared: Option<PortConflict>,
    /// Set if replicas of another user held its port and it did not get the port in repeated attempts.
    pub user_conflict: Option<UserConflict>,
    /// Set if it requested an exclusive port that another replica held.
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

/// A replica ended because another replica held its port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortConflict {
    /// The image.
    pub image: String,
    /// The port, if known.
    pub port: Option<u16>,
}

/// A process was stopped because it did not work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Replaced {
    /// The reason, in words.
    pub reason: String,
    /// When it was stopped.
    pub at: Time,
}

/// The connections of a replica, summed over all of its ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Traffic {
    /// The address, inside its pod, by which exactly this replica is reached.
    pub address: Option<String>,
    /// The weight in force, relative to the other replicas; 0 while it is not ready or drains.
    pub weight: u32,
    /// The weight that it gets once it is ready.
    pub desired_weight: u32,
    /// Open connections.
    pub connections: u64,
    /// Total connections so far; for UDP, flows.
    pub connections_total: u64,
    /// Connections that it has not accepted yet.
    pub queued: u64,
    /// While its weight is 0: whole seconds since its last datagram, at most 5, after which its flows count as
    /// finished. Absent if no datagram came.
    pub udp_idle_seconds: Option<u64>,
    /// Listeners beyond the limit of those that can be steered. Their connections are spread without regard to
    /// readiness, load and weight.
    #[serde(default)]
    pub unsteered_listeners: u64,
    /// The connections by port.
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
    /// Total connections so far; for UDP, flows.
    pub connections_total: u64,
    /// Connections that it has not accepted yet.
    pub queued: u64,
    /// Whether it listens; if not, it may still have connections to finish.
    pub listening: bool,
    /// Whether the kernel chooses among several listeners; if not, this replica alone holds the port.
    pub shared: bool,
}

/// An error that prevents the desired state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorCondition {
    /// What the error is about.
    pub target: Target,
    /// What went wrong.
    pub error: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The number of attempts; absent if it is not attempted because it cannot succeed.
    pub attempts: Option<u32>,
}
