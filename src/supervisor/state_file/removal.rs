//! A state file that somebody removes, as by cleaning up folders, while the state is still known.

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::StateFile;
use crate::tick::TICK;

/// Looks now and then whether the file is there, so that it is written again.
pub struct Removal {
    file: StateFile,
    timer: Interval,
}

impl Removal {
    /// Looks for that file.
    pub fn of(file: StateFile) -> Self {
        let mut timer = interval_at(Instant::now() + TICK, TICK);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
