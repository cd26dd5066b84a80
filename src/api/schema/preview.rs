//! The effect of a command: `--dry-run`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, ErrorCondition, ReplacementOrder, Seconds, Target};

/// The steps that a command would take, and their effect on traffic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Preview {
    /// The steps, in the order in which they would be taken.
    pub steps: Vec<Step>,
    /// For each service that gets another version, the order in which its replicas are replaced.
    #[serde(default)]
    pub orders: Vec<ServiceOrder>,
    /// Services that would have no ready replica for a while.
    pub gaps: Vec<Gap>,
    /// Errors that exist now or would occur.
    pub errors: Vec<ErrorCondition>,
}

/// The order in which the replicas of a service are replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceOrder {
    /// The service.
    pub service: String,
    /// The order and its reason.
    #[serde(flatten)]
    pub order: ReplacementOrder,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// The earliest time of the step, in seconds after the start.
    pub after_seconds: Seconds,
    /// The action.
    pub action: Action,
    /// The target of the action.
    pub target: Target,
    /// The name of the container, network or volume, if it has one.
    pub name: Option<String>,
    /// The image of a container that is created.
    pub image: Option<String>,
    /// The stop timeout of a container, in seconds.
    pub stop_timeout_seconds: Option<Seconds>,
}

/// A service that has no ready replica for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// The service.
    pub service: String,
    /// Whether its pod is recreated: then new connections are refused. Otherwise they are held.
    pub new_pod: bool,
    /// How long new connections are held, at most.
    pub hold_seconds: Seconds,
    /// Whether it has a UDP port: datagrams cannot be held and are lost.
    pub drops_datagrams: bool,
}
