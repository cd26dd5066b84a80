//! What a supervisor can be asked, and what it answers. This is what travels over the control socket.

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

/// Something that is asked of a supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Know this file, and pursue nothing of it: what is not asked for stays as it is.
    Load(Box<Project>),
    /// Know this file, and go on with what was asked for last, as far as it is remembered.
    Resume(Box<Project>),
    /// Read the files anew whenever they change: those that were read before, and mean the same to both.
    Watch(Reading),
    /// Create and update services to match this file.
    Apply(Box<Apply>),
    /// Run so many replicas, until the file says another number or the project goes down.
    Scale(BTreeMap<ServiceName, u32>),
    /// Stop services and keep their containers; none named means all.
    Stop {
        /// Which ones.
        services: Vec<ServiceName>,
        /// How long a replica may take; `None` is what the file says.
        grace: Option<Duration>,
    },
    /// Run stopped services again, also replicas that had completed or were given up; none named means all.
    Start {
        /// Which ones.
        services: Vec<ServiceName>,
    },
    /// Replace the processes of replicas, one at a time in each service; a stopped service runs again.
    Restart {
        /// Which ones; none named means all.
        replicas: Vec<Selector>,
        /// How long a replica may take; `None` is what the file says.
        grace: Option<Duration>,
    },
    /// Give replicas more or fewer of the new connections, compared with the others; 0: none.
    Weight(Vec<Weight>),
    /// End replicas at once that are about to end and finish their connections.
    EndDrain(Vec<Selector>),
    /// Bring a service to another version, or say how that goes on.
    Rollout(Box<RolloutRequest>),
    /// Stop all services and keep their containers, and take no other request from then on: the supervisor is about to end.
    Close {
        /// How long a replica may take; `None` is what the file says.
        grace: Option<Duration>,
    },
    /// Remove all that was made, then end.
    Down {
        /// Whether the data in volumes goes too.
        volumes: bool,
        /// How long a replica may take; `None` is what the file says.
        grace: Option<Duration>,
    },
    /// Remove nothing more after a [`Request::Down`], and leave what is still there as it is; whoever asks has the supervisor end then.
    CancelDown,
    /// Where does everything stand?
    Status,
    /// What would be done for this? Nothing is.
    Preview(Box<Request>),
    /// End, and leave everything running.
    Detach,
}

/// A file to pursue.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Apply {
    /// The file.
    pub project: Project,
    /// Only these services and what they depend on; none named means all.
    pub services: Vec<ServiceName>,
    /// Replica counts that override the file's.
    pub scale: BTreeMap<ServiceName, u32>,
    /// What becomes of containers of services that the file no longer has.
    pub orphans: Orphans,
    /// Who asks.
    pub by: String,
    /// Whether versions that failed before are tried once more.
    pub again: bool,
    /// What the engine's images are: content ids by reference, as far as they are known.
    pub images: BTreeMap<Image, String>,
    /// Images that are a new version if they mean something else by now; others stay what they were.
    pub renew: BTreeSet<Image>,
    /// Whether a pod whose namespaces have to be made anew may be taken down for it.
    pub recreate_pod: bool,
    /// Whether replicas that are made by this begin with new anonymous volumes, and not with those of their slot.
    #[serde(default)]
    pub renew_volumes: bool,
    /// The names of the variables that the file uses and that whoever asks has in the environment.
    #[serde(default)]
    pub variables: BTreeSet<String>,
    /// The folder that relative paths in the file start from, if that is known.
    #[serde(default)]
    pub folder: Option<PathBuf>,
}

impl Apply {
    /// The whole file, as whoever wrote it would have it.
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

/// What is wanted of a service's way to another version.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RolloutRequest {
    /// Which service.
    pub service: ServiceName,
    /// Who asks.
    pub by: String,
    /// What for.
    pub change: Change,
}

/// What is wanted of a way to another version.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Go to another image, or to the version of the file once more.
    Start {
        /// Which image; `None` is that of the file.
        image: Option<Image>,
        /// What it means, if the engine has it.
        image_id: Option<String>,
        /// Beside the old replicas at first, and how.
        steps: Option<Steps>,
    },
    /// Replace nothing more for now.
    Pause,
    /// Go on.
    Resume,
    /// Go back to the version before, or to that of a number.
    Undo {
        /// Which one.
        to: Option<u32>,
    },
    /// Give the new version all traffic, and let the old replicas go.
    Promote,
    /// Give the rollout up that is in progress, and let the new replicas go.
    Abort,
}

/// How much a replica shall get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weight {
    /// Its service.
    pub service: ServiceName,
    /// Which one.
    pub slot: Slot,
    /// How much, compared with the others; 100 is usual.
    pub weight: u32,
}

/// A service or one of its replicas: `web` or `web.2`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    /// The service.
    pub service: ServiceName,
    /// One of its replicas; `None` is all.
    pub slot: Option<Slot>,
}

/// What a supervisor answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It is wanted now; the journal tells how it goes.
    Accepted,
    /// Where everything stands.
    Status(Box<ProjectStatus>),
    /// What would be done.
    Preview(Box<Preview>),
    /// It cannot be wanted, and nothing changed.
    Rejected(Rejection),
}

/// Why a request changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    /// The file has no such service.
    #[error("there is no service `{name}`; the file has {}", known.join(", "))]
    UnknownService {
        /// What was asked for.
        name: ServiceName,
        /// What there is.
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
    /// Nothing has asked for the replica to end.
    #[error(
        "`{service}-{slot}` is not about to end: no rollout, `scale`, `stop`, `restart` or `down` waits for its connections"
    )]
    NotDraining {
        /// The service.
        service: ServiceName,
        /// The slot.
        slot: Slot,
    },
    /// The images share the ports of the service: nothing can be said about who gets what.
    #[error("the kernel does not choose among the replicas of `{service}`: {reason}")]
    NotSteered {
        /// The service.
        service: ServiceName,
        /// Why.
        reason: String,
    },
    /// A service cannot be brought to another version as it was asked for.
    #[error("`{service}`: {reason}")]
    Rollout {
        /// Which one.
        service: ServiceName,
        /// Why.
        reason: Impossible,
    },
    /// A container name of the user's can only be given once.
    #[error("service `{service}` has a `container_name`, so it can have one replica only")]
    FixedName {
        /// The service.
        service: ServiceName,
    },
    /// More replicas than a service can have.
    #[error("service `{service}` cannot have {replicas} replicas: the most is {most}")]
    TooMany {
        /// The service.
        service: ServiceName,
        /// What was asked for.
        replicas: u32,
        /// Most replicas of a service.
        most: u32,
    },
    /// The files cannot be watched.
    #[error("the supervisor that runs already cannot watch the project's files: {reason}")]
    NotWatched {
        /// Why.
        reason: String,
        /// What to do instead.
        help: String,
    },
    /// Whoever supervises is stopping all of it, and ends then.
    #[error("the project is being stopped by the `sameport up` that supervises it")]
    Closing,
    /// It is going down, and takes no other request.
    #[error("the project is going down")]
    GoingDown,
    /// It could not be remembered over a restart of the supervisor.
    #[error("cannot write {path}: {reason}; nothing changed")]
    NotSaved {
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
    },
}
