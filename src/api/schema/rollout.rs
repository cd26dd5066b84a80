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
    /// The number of the version that serves and has proved itself; absent while none is known.
    pub stable_version: Option<u32>,
    /// The image of that version.
    pub image: Option<String>,
    /// The rollout in progress.
    pub in_progress: Option<Rollout>,
    /// A version that is kept though the file has another one.
    pub pinned: Option<Pinned>,
    /// How the last rollout ended.
    pub last: Option<RolloutResult>,
}

/// A rollout in progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rollout {
    /// The service.
    pub service: String,
    /// The number of the version that it leads from.
    pub previous_version: u32,
    /// The image of that version, where it is known.
    pub previous_image: Option<String>,
    /// The number of the version that it leads to.
    pub version: u32,
    /// The image of that version, where it is known.
    pub image: Option<String>,
    /// Why it rolls back; absent when it does not.
    pub rollback: Option<Reason>,
    /// Why it is paused; absent when it is not.
    pub paused: Option<Reason>,
    /// How connections shift to the new version in steps; absent: replicas are replaced slot by slot.
    pub traffic_steps: Option<Steps>,
    /// When it started.
    pub started_at: Time,
    /// Slots that run the new version, proved.
    pub done: u32,
    /// Slots in all.
    pub total: u32,
}

impl Rollout {
    /// Whether all that is to come for now is there, or nothing more comes.
    #[must_use]
    pub fn has_arrived(&self) -> bool {
        let wanted = self.traffic_steps.as_ref().map_or(self.total, |steps| steps.new_replicas);
        self.paused.is_some() || self.done >= wanted
    }

    /// Whether it goes on only when somebody says so.
    #[must_use]
    pub fn waits_for_command(&self) -> bool {
        let waits = self.traffic_steps.as_ref().is_some_and(|steps| steps.interval_seconds.is_none());
        self.paused.is_some() || waits
    }
}

/// Connections shift to the new version in steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Steps {
    /// The new version's share of the connections at each step, in percent.
    pub percents: Vec<f64>,
    /// The step that is in force, from 0.
    pub current: usize,
    /// The share in force, in percent.
    pub current_percent: f64,
    /// How many replicas of the new version there are at this step.
    pub new_replicas: u32,
    /// How long each step lasts; absent: until somebody says so.
    pub interval_seconds: Option<Seconds>,
}

/// In which order the replicas of a service are replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplacementOrder {
    /// The order.
    pub order: Order,
    /// Why.
    pub order_reason: OrderReason,
    /// The same in words.
    pub order_message: String,
    /// Where the storage is mounted that the order is for; absent for other reasons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<String>,
}

/// Which replica goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The new one starts before the old one stops.
    StartFirst,
    /// The old one stops before the new one starts.
    StopFirst,
}

/// Why replicas are replaced in an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderReason {
    /// The Compose file says so.
    ComposeFile,
    /// Two replicas must not write to the same storage at once.
    Storage,
    /// The only replica declares no port, so there are no connections to take over.
    NoPort,
    /// The new replica takes over connections.
    Connections,
    /// There are several replicas.
    Replicas,
}

/// Why a rollout rolls back or is paused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    /// Somebody asked for it.
    Requested,
    /// The new version failed.
    Failed {
        /// How.
        failure: Box<Failure>,
    },
}

/// How a version failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// The slot where it was seen first.
    pub slot: u32,
    /// What kind of failure it is.
    pub code: FailureCode,
    /// What went wrong, in words.
    pub message: String,
    /// How the process ended, where that is the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination: Option<Termination>,
    /// The users, where another one has the port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_conflict: Option<UserConflict>,
}

/// What kind of failure a [`Failure`] is.
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
    /// It listens on other ports than the published ones, or where nobody outside of its container can reach it.
    ListensElsewhere,
    /// It was not ready in time.
    DeadlineExceeded,
    /// It runs and does not work.
    NotWorking,
    /// More of its connections are reset than of the previous version.
    Resets,
    /// Its queues overflow.
    Overflows,
    /// Far more connections wait for it than for the previous version.
    Queues,
    /// Replicas of another user have the port.
    UserConflict,
}

/// A version that is kept though the file has another one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pinned {
    /// The number of the version that is kept.
    pub version: u32,
    /// Why.
    pub trigger: Reason,
}

/// How a rollout ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RolloutResult {
    /// The number of the version that it led to.
    pub version: u32,
    /// When it ended.
    pub ended_at: Time,
    /// The version that failed, if it rolled back.
    pub failed_version: Option<u32>,
    /// How that failed.
    pub failure: Option<Failure>,
    /// What happened to connections meanwhile, where the kernel counts them.
    pub summary: Option<Summary>,
}

/// What happened to the connections of a pod during a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// Connections opened.
    pub connections: u64,
    /// Connections that moved to another replica before they were accepted.
    pub migrated: u64,
    /// Connections that found no room, or nobody.
    pub refused: u64,
    /// Connections reset by either side.
    pub reset: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, migrated, refused, reset } = self;
        write!(
            f,
            "{connections} connections meanwhile, {migrated} migrated, {refused} refused, {reset} reset"
        )
    }
}

/// A version of a service: `sameport rollout history`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Revision {
    /// Its number, from 1.
    pub version: u32,
    /// When it was first wanted.
    pub created_at: Time,
    /// Who wanted it.
    pub created_by: String,
    /// What caused it, such as `up` or `undo to 3`.
    pub cause: String,
    /// Its image.
    pub image: String,
    /// The content id of that image when it was first used.
    pub image_id: Option<String>,
    /// Its generation, as its replicas' labels have it.
    pub generation: String,
    /// Whether it serves.
    pub state: RevisionState,
    /// Whether it has served: it was the stable version, and one of its replicas was ready. Absent where an earlier release
    /// began it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<bool>,
    /// How it failed when it was tried last; absent when it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Its environment: names, and values only with `--show-env`.
    pub environment: BTreeMap<String, Option<String>>,
}

/// Whether a version serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RevisionState {
    /// It has proved itself and serves.
    Stable,
    /// A rollout leads to it.
    InProgress,
    /// It is a previous version.
    Previous,
}
