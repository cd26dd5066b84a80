//! What a command would do: `--dry-run`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, ErrorCondition, ReplacementOrder, Seconds, Target};

/// What would be done for a command.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Preview {
    /// The steps, in this order.
    pub steps: Vec<Step>,
    /// In which order the replicas of each service are replaced that gets another version.
    #[serde(default)]
    pub orders: Vec<ServiceOrder>,
    /// Services that nobody serves for a while.
    pub gaps: Vec<Gap>,
    /// What is in the way, now or then.
    pub errors: Vec<ErrorCondition>,
}

/// In which order the replicas of a service are replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceOrder {
    /// The service.
    pub service: String,
    /// The order, and why.
    #[serde(flatten)]
    pub order: ReplacementOrder,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// How long after the start, at the earliest.
    pub after_seconds: Seconds,
    /// What is done.
    pub action: Action,
    /// To what.
    pub target: Target,
    /// The name of the container, network or volume, where it has one.
    pub name: Option<String>,
    /// The image of a container that is created.
    pub image: Option<String>,
    /// How long a container may take to stop.
    pub stop_timeout_seconds: Option<Seconds>,
}

/// A service that nobody serves for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// The service.
    pub service: String,
    /// Whether its pod is created anew: connections are refused meanwhile. Otherwise they wait.
    pub new_pod: bool,
    /// How long connections wait at most.
    pub hold_seconds: Seconds,
    /// Whether it has a UDP port: datagrams cannot wait, and are lost meanwhile.
    pub drops_datagrams: bool,
}
