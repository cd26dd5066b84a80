//! The time, for everything that a supervisor decides.

use jiff::Timestamp;
use tokio::time::Instant;

/// Wall-clock time that never jumps: read once, then carried on by the monotonic clock. Under tokio's paused
/// clock it is virtual, so that a simulation of hours takes milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: Timestamp,
    started: Instant,
}

impl Clock {
    /// A clock that says `epoch` now.
    #[must_use]
    pub fn starting_at(epoch: Timestamp) -> Self {
        Self { epoch, started: Instant::now() }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.epoch.checked_add(self.started.elapsed()).unwrap_or(Timestamp::MAX)
    }

    /// When the monotonic clock will have reached `time`.
    #[must_use]
    pub fn instant(&self, time: Timestamp) -> Instant {
        let ahead = std::time::Duration::try_from(time.duration_since(self.epoch)).unwrap_or_default();
        self.started + ahead
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::starting_at(Timestamp::now())
    }
}
