//! Errors and rejected requests.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A request that the supervisor rejected; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    /// The reason, as a stable code.
    pub code: RejectionCode,
    /// The reason, in words.
    pub message: String,
    /// What to do instead.
    pub help: Option<String>,
}

/// The reason of a [`Rejection`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RejectionCode {
    /// The Compose file has no such service.
    UnknownService,
    /// The service has no such replica.
    UnknownReplica,
    /// The replica is not draining.
    NotDraining,
    /// The kernel does not choose among the replicas of this service (it is not steered).
    NotSteered,
    /// The rollout cannot be started or changed in the current state.
    RolloutNotPossible,
    /// A service with a `container_name` can have one replica only.
    FixedName,
    /// More replicas than a service can have.
    TooManyReplicas,
    /// The project's files cannot be watched.
    NotWatched,
    /// The project is being stopped, and its supervisor is about to end.
    Closing,
    /// `down` is removing the project.
    GoingDown,
    /// The state file cannot be written.
    NotSaved,
}

/// The error of a failed command, on standard error with `--format json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorReport {
    /// What happened and why.
    pub error: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The exit code of the command: 1 for a failure, 2 for wrong usage or an invalid file, 3 if the engine cannot be
    /// reached, 130 if interrupted.
    pub exit_code: i64,
}
