//! Requests to a supervisor and their replies, as sent over the control socket.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{Preview, Reading};
use crate::{
    plan::{
        Orphans,
        status::ProjectStatus,
        versions::{Impossible, Steps},
    },
    spec::{Image, Project, ServiceName, Slot},
};

/// A request to a supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Load a file without applying it: services stay as they are until a request changes them.
    Load(Box<Project>),
    /// Load a file, and resume the last desired state from the state file.
    Resume(Box<Project>),
    /// Watch the files and reload them when they change. The client must have read the same files with the same
    /// meaning.
    Watch(Reading),
    /// Create and update services to match the file.
    Apply(Box<Apply>),
    /// Set replica counts, by service. They hold until the file has another count or the project goes down.
    Scale(BTreeMap<ServiceName, u32>),
    /// Stop services but keep their containers.
    Stop {
        /// The services; empty means all.
        services: Vec<ServiceName>,
        /// The stop timeout; `None`: that of the file.
        grace: Option<Duration>,
    },
    /// Start stopped services, including replicas that completed or were given up.
    Start {
        /// The services; empty means all.
        services: Vec<ServiceName>,
    },
    /// Restart replicas, one at a time in each service; a stopped service is started.
    Restart {
        /// The services or replicas; empty means all.
        replicas: Vec<Selector>,
        /// The stop timeout; `None`: that of the file.
        grace: Option<Duration>,
    },
    /// Set the weights of replicas, relative to the others; 0: no new connections.
    Weight(Vec<Weight>),
    /// Stop draining replicas immediately, without waiting for their connections.
    EndDrain(Vec<Selector>),
    /// Start or change a rollout.
    Rollout(Box<RolloutRequest>),
    /// Stop all services but keep their containers, and reject most requests from then on: the supervisor is about to
    /// end.
    Close {
        /// The stop timeout; `None`: that of the file.
        grace: Option<Duration>,
    },
    /// Remove all resources of the project, then end.
    Down {
        /// Whether volumes are removed as well.
        volumes: bool,
        /// The stop timeout; `None`: that of the file.
        grace: Option<Duration>,
    },
    /// Stop a [`Request::Down`] in progress, and leave what still exists as it is. The client ends the supervisor
    /// afterwards.
    CancelDown,
    /// Return the status of the project.
    Status,
    /// Return what the supervisor would do for a request, without doing it.
    Preview(Box<Request>),
    /// End the supervisor, and leave everything running.
    Detach,
}

/// A file to apply.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Apply {
    /// The resolved file.
    pub project: Project,
    /// Apply only these services and their dependencies; empty means all.
    pub services: Vec<ServiceName>,
    /// Replica counts that override those of the file.
    pub scale: BTreeMap<ServiceName, u32>,
    /// How to handle containers of services that are not in the file.
    pub orphans: Orphans,
    /// The user who applies the file.
    pub by: String,
    /// Whether to retry versions that failed.
    pub again: bool,
    /// The content IDs of images by reference, as far as they are known.
    pub images: BTreeMap<Image, String>,
    /// Images whose reference may resolve to a new version; others keep the image that they resolved to first.
    pub renew: BTreeSet<Image>,
    /// Whether a pod may be stopped if its namespaces have to be recreated.
    pub recreate_pod: bool,
    /// Whether new replicas get new anonymous volumes instead of those of their slot.
    #[serde(default)]
    pub renew_volumes: bool,
    /// The names of the variables that the file uses and that the client's environment sets.
    #[serde(default)]
    pub variables: BTreeSet<String>,
    /// The folder to which relative paths in the file refer, if known.
    #[serde(default)]
    pub folder: Option<PathBuf>,
}

impl Apply {
    /// Applies the whole file with default options.
    #[must_use]
    pub fn all(project: Project, by: impl Into<String>) -> Self {
        Self {
            project,
            services: Vec::new(),
            scale: BTreeMap::new(),
            orphans: Orphans::Keep,
            by: by.into(),
            again: false,
            images: BTreeMap::new(),
            renew: BTreeSet::new(),
            recreate_pod: false,
            renew_volumes: false,
            variables: BTreeSet::new(),
            folder: None,
        }
    }
}

/// A request to start or change a rollout.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RolloutRequest {
    /// The service.
    pub service: ServiceName,
    /// The user who requests it.
    pub by: String,
    /// The change.
    pub change: Change,
}

/// A change of a rollout.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Start a rollout to another image, or to the version of the file again.
    Start {
        /// The image; `None`: that of the file.
        image: Option<Image>,
        /// The content ID of the image, if the engine has it.
        image_id: Option<String>,
        /// The traffic steps; `None`: replicas are replaced slot by slot.
        steps: Option<Steps>,
    },
    /// Pause: replace no further replicas for now.
    Pause,
    /// Continue a paused rollout.
    Resume,
    /// Roll back to the previous version, or to a given one.
    Undo {
        /// The number of the version; `None`: the previous one.
        to: Option<u32>,
    },
    /// Give the new version all traffic, and remove the old replicas.
    Promote,
    /// Abort the rollout in progress, and remove the new replicas.
    Abort,
}

/// The weight of a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weight {
    /// The service.
    pub service: ServiceName,
    /// The slot of the replica.
    pub slot: Slot,
    /// The weight relative to the others; the default is 100.
    pub weight: u32,
}

/// A service or one of its replicas: `web` or `web-2`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    /// The service.
    pub service: ServiceName,
    /// The slot of the replica; `None`: all replicas.
    pub slot: Option<Slot>,
}

/// The reply of a supervisor to a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The request is part of the desired state now; events report its progress.
    Accepted,
    /// The status of the project.
    Status(Box<ProjectStatus>),
    /// The effect that the request would have.
    Preview(Box<Preview>),
    /// The request is rejected; nothing changed.
    Rejected(Rejection),
}

/// Why a request was rejected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    /// The file has no such service.
    #[error("there is no service `{name}`; the file has {}", known.join(", "))]
    UnknownService {
        /// The requested service.
        name: ServiceName,
        /// The services of the file.
        known: Vec<String>,
    },
    /// The service has no such replica.
    #[error("service `{service}` has no replica {slot}")]
    UnknownReplica {
        /// The service.
        service: ServiceName,
        /// The slot.
        slot: Slot,
    },
    /// The replica is not draining.
    #[error(
        "`{service}-{slot}` is not about to end: no rollout, `scale`, `stop`, `restart` or `down` waits for its connections"
    )]
    NotDraining {
        /// The service.
        service: ServiceName,
        /// The slot.
        slot: Slot,
    },
    /// The kernel does not choose among the replicas of the service, so weights have no effect.
    #[error("the kernel does not choose among the replicas of `{service}`: {reason}")]
    NotSteered {
        /// The service.
        service: ServiceName,
        /// The reason.
        reason: String,
    },
    /// The rollout cannot be started or changed.
    #[error("`{service}`: {reason}")]
    Rollout {
        /// The service.
        service: ServiceName,
        /// The reason.
        reason: Impossible,
    },
    /// A container name can be used only once.
    #[error("service `{service}` has a `container_name` and can have only one replica")]
    FixedName {
        /// The service.
        service: ServiceName,
    },
    /// More replicas than a service can have.
    #[error("service `{service}` cannot have {replicas} replicas: the maximum is {most}")]
    TooMany {
        /// The service.
        service: ServiceName,
        /// The requested number of replicas.
        replicas: u32,
        /// The maximum number of replicas of a service.
        most: u32,
    },
    /// The files cannot be watched.
    #[error("the running supervisor cannot watch the project's files: {reason}")]
    NotWatched {
        /// The reason.
        reason: String,
        /// What to do instead.
        help: String,
    },
    /// The supervisor is stopping all services and ends then.
    #[error("the `sameport up` that supervises the project is stopping it")]
    Closing,
    /// `down` is in progress.
    #[error("the project is going down")]
    GoingDown,
    /// The request could not be saved for the next supervisor.
    #[error("cannot write {path}: {reason}; nothing changed")]
    NotSaved {
        /// The path of the state file.
        path: String,
        /// The error of the operating system.
        reason: String,
    },
}
