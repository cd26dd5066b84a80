//! What a rollout has done to connections, by the kernel's own count.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::kernel::{Counters, steering::PodReport};

/// What had been counted in a pod at some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// By the kernel itself.
    pub counters: Counters,
    /// Connections that found nobody, and no room to wait.
    pub refused: u64,
}

impl Counted {
    /// What has been counted now; none where nothing is counted.
    #[must_use]
    pub fn of(report: &PodReport) -> Option<Self> {
        Some(Self { counters: report.counters?, refused: report.refused })
    }

    /// What came since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> RolloutSummary {
        let Counters { opened, migrated, lost_in_migration, overflowed, reset } =
            self.counters.since(&earlier.counters);
        RolloutSummary {
            connections: opened,
            migrated,
            refused: overflowed + lost_in_migration + self.refused.saturating_sub(earlier.refused),
            reset,
        }
    }
}

/// What became of connections meanwhile. It counts for all of the pod: clients that break off are among the resets, and so
/// are connections that replicas made themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutSummary {
    /// How many were opened.
    pub connections: u64,
    /// How many had not been accepted when their replica closed, and went on to another one.
    pub migrated: u64,
    /// How many found no room, or nobody.
    pub refused: u64,
    /// How many were reset, by either side.
    pub reset: u64,
}

impl fmt::Display for RolloutSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, migrated, refused, reset } = self;
        let noun = if *connections == 1 { "connection" } else { "connections" };
        write!(
            f,
            "{connections} {noun} during the rollout, {migrated} migrated, {refused} refused, {reset} reset"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_before_does_not_count() {
        let counters = Counters { opened: 10, migrated: 2, lost_in_migration: 1, overflowed: 3, reset: 4 };
        let before = Counted { counters, refused: 5 };
        let after = Counted {
            counters: Counters { opened: 110, migrated: 5, lost_in_migration: 2, overflowed: 5, reset: 4 },
            refused: 6,
        };
        assert_eq!(
            after.since(&before).to_string(),
            "100 connections during the rollout, 3 migrated, 4 refused, 0 reset"
        );
        // Another network counts anew.
        assert_eq!(Counted::default().since(&before), RolloutSummary::default());
    }
}
