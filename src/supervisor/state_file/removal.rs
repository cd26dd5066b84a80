//! A state file that somebody removes, as by cleaning up folders, while the state is still known.

use std::time::Duration;

use super::StateFile;

/// The time between two looks. Such a look is one system call.
const GLANCE: Duration = Duration::from_millis(500);

/// Looks now and then whether the file is there, so that it is written again.
pub struct Removal {
    file: StateFile,
    timer: tokio::time::Interval,
}

impl Removal {
    /// Looks for that file.
    pub fn of(file: StateFile) -> Self {
        let mut timer = tokio::time::interval_at(tokio::time::Instant::now() + GLANCE, GLANCE);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Self { file, timer }
    }

    /// Waits until the file is not there though something is `written`.
    pub async fn seen(&mut self, written: impl Fn() -> bool) {
        loop {
            self.timer.tick().await;
            if written() && self.file.is_absent() {
                return;
            }
        }
    }
}
