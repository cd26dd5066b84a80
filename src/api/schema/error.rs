//! Why something was not done.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a supervisor refuses a request; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    /// What kind of refusal it is.
    pub code: RejectionCode,
    /// Why, in words.
    pub message: String,
    /// What to do instead.
    pub help: Option<String>,
}

/// What kind of refusal a [`Rejection`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RejectionCode {
    /// The file has no such service.
    UnknownService,
    /// The service has no such replica.
    UnknownReplica,
    /// The replica is not about to end.
    NotDraining,
    /// The kernel does not choose among the service's replicas.
    NotSteered,
    /// The rollout is not possible.
    RolloutNotPossible,
    /// A service with a `container_name` has one replica only.
    FixedName,
    /// More replicas than a service can have.
    TooManyReplicas,
    /// The files cannot be watched.
    NotWatched,
    /// The project is being stopped, and its supervisor ends then.
    Closing,
    /// The project is going down.
    GoingDown,
    /// The state file cannot be written.
    NotSaved,
}

/// Why a command failed: on standard error, with `--format json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorReport {
    /// What happened and why.
    pub error: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The exit code of the command.
    pub exit_code: i64,
}
