//! What the user wants.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    engine::{ContainerId, RemoveVolumes},
    spec::{Generation, Project, ServiceName, Slot},
};

use super::{Container, Rollout, StoppedOutside, Versioned, Weights, versions::Versions};

/// What the user wants of a project, as far as it can be wanted: the file, and what was said since.
#[derive(Clone, Debug)]
pub struct Desired {
    /// The file.
    pub project: Versioned,
    /// Whether the project shall be there at all.
    pub phase: Phase,
    /// What each service shall do; one that is not named is left as it is.
    pub goals: BTreeMap<ServiceName, Goal>,
    /// What becomes of containers of services that are no longer in the file.
    pub orphans: Orphans,
    /// Processes that shall be replaced by new ones of the same container: container and start time, and how long they may
    /// take to end, where whoever asked said so.
    pub superseded: BTreeMap<(ContainerId, Timestamp), Option<Duration>>,
    /// Processes that are to end and that shall not finish their connections first.
    pub hurried: BTreeSet<(ContainerId, Timestamp)>,
    /// Processes that ended, and whose containers are started again as if for the first time: after what they depend on.
    pub in_order: BTreeSet<(ContainerId, Timestamp)>,
    /// Replicas that somebody has stopped without us. They stay down until somebody starts them.
    pub stopped_outside: BTreeMap<ContainerId, StoppedOutside>,
    /// Slots whose next replica begins with new anonymous volumes.
    pub renew_volumes: BTreeSet<(ServiceName, Slot)>,
    /// Whether pods that replicas run in may be taken down, where only a new one can be what the file says.
    pub recreate_pods: bool,
    /// How long replicas of services that are to be stopped may take to end, where whoever asked said so.
    pub stop_timeouts: BTreeMap<ServiceName, Duration>,
    /// How long replicas may take to end in [`Phase::Down`], where whoever asked said so.
    pub down_timeout: Option<Duration>,
    /// Weights that users gave to single replicas.
    pub weights: Weights,
    /// The last version of each service whose job before it succeeded.
    pub done_before: BTreeMap<ServiceName, Generation>,
    /// Jobs before a version that were told to end, and when the process began that was.
    pub interrupted_jobs: BTreeMap<ContainerId, Timestamp>,
    /// Services that are on their way to the version in `project`.
    pub rollouts: BTreeMap<ServiceName, Rollout>,
    /// The versions that services had and have.
    pub versions: BTreeMap<ServiceName, Versions>,
}

impl Desired {
    /// Every service of the file runs with the number of replicas that the file asks for.
    #[must_use]
    pub fn all(project: Project) -> Self {
        let goals = project
            .services
            .values()
            .map(|service| (service.name.clone(), Goal::Run { replicas: service.replicas }))
            .collect();
        Self {
            project: Versioned::from(project),
            phase: Phase::Up,
            goals,
            orphans: Orphans::Keep,
            superseded: BTreeMap::new(),
            hurried: BTreeSet::new(),
            in_order: BTreeSet::new(),
            stopped_outside: BTreeMap::new(),
            renew_volumes: BTreeSet::new(),
            recreate_pods: false,
            stop_timeouts: BTreeMap::new(),
            down_timeout: None,
            weights: Weights::new(),
            done_before: BTreeMap::new(),
            interrupted_jobs: BTreeMap::new(),
            rollouts: BTreeMap::new(),
            versions: BTreeMap::new(),
        }
    }

    /// How long a process that was asked to make place for a new one may take to end, if that was said.
    #[must_use]
    pub(super) fn restart_timeout(&self, container: &Container) -> Option<Duration> {
        let key = (container.id.clone(), container.started_at()?);
        self.superseded.get(&key).copied().flatten()
    }

    /// Whether a process was asked to make place for a new one.
    #[must_use]
    pub fn is_superseded(&self, id: &ContainerId, started_at: Timestamp) -> bool {
        !self.superseded.is_empty() && self.superseded.contains_key(&(id.clone(), started_at))
    }
}

/// Whether a project shall be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its goals are pursued.
    Up,
    /// All that we made is removed.
    Down {
        /// Whether the data in its volumes goes too.
        volumes: RemoveVolumes,
    },
}

/// What a service shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// So many replicas run.
    Run {
        /// How many.
        replicas: u32,
    },
    /// Its replicas are stopped and kept.
    Stop,
}

/// What becomes of containers of services that are no longer in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Orphans {
    /// They stay, and are named.
    #[default]
    Keep,
    /// They are stopped and removed.
    Remove,
}
