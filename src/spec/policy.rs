//! What is done when a replica exits, and how its port is shared.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// When a replica that exited is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartCondition {
    /// Never (`restart: "no"`, condition `none`).
    Never,
    /// After an exit code other than 0, a signal, or running out of memory.
    OnFailure,
    /// Whatever the reason (`always`, `unless-stopped`, condition `any`).
    #[default]
    Always,
}

/// The rule for starting a replica again (`restart`, `deploy.restart_policy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// After which exits.
    pub condition: RestartCondition,
    /// A fixed pause before each try; `None` is exponential back-off with jitter, 100 ms to 30 s.
    pub delay: Option<Duration>,
    /// How many tries in a row, until it is given up; `None` is without end.
    pub max_attempts: Option<u32>,
    /// How long it must stay up for a start to count as a success; `None` is ten seconds.
    pub window: Option<Duration>,
}

/// Who makes the listeners share a port (`x-sameport.sharing`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// The kernel where this host can do it, else the application.
    #[default]
    Auto,
    /// A BPF program sets `SO_REUSEPORT` at each bind.
    Kernel,
    /// The image sets `SO_REUSEPORT` itself.
    Application,
}

/// How the kernel chooses the replica of a new connection (`x-sameport.balance`). By each of them a replica gets as
/// much as its weight says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// The one with the fewest connections, of a few that are looked at.
    #[default]
    LeastConnections,
    /// By a hash of both addresses and ports.
    Hash,
    /// At random.
    Random,
}

impl Balance {
    /// Its number in the kernel's table.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::LeastConnections => 0,
            Self::Hash => 1,
            Self::Random => 2,
        }
    }
}

/// What becomes of a replica that stays unhealthy or takes no connections (`x-sameport.replace_unhealthy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unhealthy {
    /// A new process takes its place.
    #[default]
    Replace,
    /// It stays, and gets nothing new.
    Keep,
}
