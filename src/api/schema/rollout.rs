//! Rollouts: `sameport rollout status` and `history`.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Seconds, Termination, Time, UserConflict};

/// The versions of a service: `sameport rollout status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RolloutStatus {
    /// The service.
    pub service: String,
    /// The number of the stable version: the last one that passed its monitoring period. Absent if none is known.
    pub stable_version: Option<u32>,
    /// The image of the stable version.
    pub image: Option<String>,
    /// The rollout in progress.
    pub in_progress: Option<Rollout>,
    /// A version that is kept although the Compose file has another one.
    pub pinned: Option<Pinned>,
    /// The result of the last rollout.
    pub last: Option<RolloutResult>,
}

/// A rollout in progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rollout {
    /// The service.
    pub service: String,
    /// The number of the version that it replaces.
    pub previous_version: u32,
    /// The image of that version, if known.
    pub previous_image: Option<String>,
    /// The number of the target version.
    pub version: u32,
    /// The image of the target version, if known.
    pub image: Option<String>,
    /// Why it rolls back; absent if it does not.
    pub rollback: Option<Reason>,
    /// Why it is paused; absent if it is not.
    pub paused: Option<Reason>,
    /// The steps by which traffic shifts to the new version; absent if replicas are replaced slot by slot.
    pub traffic_steps: Option<Steps>,
    /// When it started.
    pub started_at: Time,
    /// The number of slots in which the new version passed its monitoring period.
    pub done: u32,
    /// The number of all slots.
    pub total: u32,
}

impl Rollout {
    /// Whether all replicas of the current step are done, or the rollout is paused.
    #[must_use]
    pub fn has_arrived(&self) -> bool {
        let wanted = self.traffic_steps.as_ref().map_or(self.total, |steps| steps.new_replicas);
        self.paused.is_some() || self.done >= wanted
    }

    /// Whether it is paused or has no step interval, so that only a command continues it.
    #[must_use]
    pub fn waits_for_command(&self) -> bool {
        let waits = self.traffic_steps.as_ref().is_some_and(|steps| steps.interval_seconds.is_none());
        self.paused.is_some() || waits
    }
}

/// Traffic shifts to the new version in steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Steps {
    /// The new version's share of the connections at each step, in percent.
    pub percents: Vec<f64>,
    /// The index of the current step, from 0.
    pub current: usize,
    /// The share at the current step, in percent.
    pub current_percent: f64,
    /// The number of replicas of the new version at the current step.
    pub new_replicas: u32,
    /// How long each step lasts; absent: until a command continues the rollout.
    pub interval_seconds: Option<Seconds>,
}

/// The order in which the replicas of a service are replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplacementOrder {
    /// The order.
    pub order: Order,
    /// The reason, as a stable code.
    pub order_reason: OrderReason,
    /// The reason, in words.
    pub order_message: String,
    /// The mount path of the storage that requires the order; absent for other reasons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<String>,
}

/// The order in which the old and the new replica of a slot are stopped and started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The new replica starts before the old one stops.
    StartFirst,
    /// The old replica stops before the new one starts.
    StopFirst,
}

/// The reason for a replacement order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderReason {
    /// The Compose file sets it.
    ComposeFile,
    /// Two replicas must not write to the same storage at once.
    Storage,
    /// The only replica declares no port, so there are no connections to take over.
    NoPort,
    /// The new replica takes over connections.
    Connections,
    /// The service has several replicas.
    Replicas,
}

/// Why a rollout rolls back or is paused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    /// A user requested it.
    Requested,
    /// The new version failed.
    Failed {
        /// The failure.
        failure: Box<Failure>,
    },
}

/// The failure of a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// The slot in which it was seen first.
    pub slot: u32,
    /// The kind of failure, as a stable code.
    pub code: FailureCode,
    /// What went wrong, in words.
    pub message: String,
    /// How the process ended, if that is the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination: Option<Termination>,
    /// The port and the users, if another user holds the port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_conflict: Option<UserConflict>,
}

/// The kind of a [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// A replica ended.
    Ended,
    /// The engine does not run it.
    Refused,
    /// The pre-deploy job failed.
    JobFailed,
    /// Its health check fails.
    Unhealthy,
    /// It listens on other ports than the published ones, or on an address that cannot be reached from outside its
    /// container.
    ListensElsewhere,
    /// It was not ready by the progress deadline.
    DeadlineExceeded,
    /// It runs but does not work.
    NotWorking,
    /// A larger share of its connections is reset than of the previous version's.
    Resets,
    /// Its accept queues overflow.
    Overflows,
    /// Far more connections wait in its accept queues than in those of the previous version.
    Queues,
    /// Replicas of another user hold the port.
    UserConflict,
}

/// A version that is kept although the Compose file has another one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pinned {
    /// The number of the version that is kept.
    pub version: u32,
    /// Why it is kept.
    pub trigger: Reason,
}

/// The result of a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RolloutResult {
    /// The number of the target version.
    pub version: u32,
    /// When it ended.
    pub ended_at: Time,
    /// The number of the version that failed, if the rollout rolled back.
    pub failed_version: Option<u32>,
    /// The failure of that version.
    pub failure: Option<Failure>,
    /// The connections during the rollout, where the kernel counts them.
    pub summary: Option<Summary>,
}

/// The connections of a pod during a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// Connections opened.
    pub connections: u64,
    /// Connections that moved to another replica before they were accepted.
    pub migrated: u64,
    /// Connections that were refused because a queue was full or no listener existed.
    pub refused: u64,
    /// Connections reset by either side.
    pub reset: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, migrated, refused, reset } = self;
        let noun = if *connections == 1 { "connection" } else { "connections" };
        write!(
            f,
            "{connections} {noun} during the rollout, {migrated} migrated, {refused} refused, {reset} reset"
        )
    }
}

/// A version of a service: `sameport rollout history`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Revision {
    /// The number, from 1.
    pub version: u32,
    /// When it was first requested.
    pub created_at: Time,
    /// The user who requested it.
    pub created_by: String,
    /// The command that caused it, such as `up` or `undo to 3`.
    pub cause: String,
    /// The image.
    pub image: String,
    /// The content ID of the image when it was first used.
    pub image_id: Option<String>,
    /// The generation, as in the labels of its replicas.
    pub generation: String,
    /// Whether it is in use.
    pub state: RevisionState,
    /// Whether it served: it was the stable version and had a ready replica. Absent if an earlier release started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<bool>,
    /// Its failure in the last attempt; absent if it did not fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Its environment variables; values only with `--show-env`.
    pub environment: BTreeMap<String, Option<String>>,
}

/// Whether a version is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RevisionState {
    /// It passed its monitoring period and serves.
    Stable,
    /// A rollout to it is in progress.
    InProgress,
    /// A previous version.
    Previous,
}
