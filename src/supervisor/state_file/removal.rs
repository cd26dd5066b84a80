//! A state file that somebody removes, as by cleaning up folders, while the state is still known.

use super::StateFile;
use crate::tick::{Ticker, Watch};

/// Looks now and then whether the file is there, so that it is written again.
pub struct Removal {
    file: StateFile,
    absent: Watch,
}

impl Removal {
    /// Looks for that file.
    pub fn of(file: StateFile, ticker: &Ticker) -> Self {
        let looked_for = file.clone();
        Self { file, absent: ticker.watch(move || looked_for.is_absent()) }
    }

    /// Waits until the file is not there though something is `written`.
    pub async fn seen(&mut self, written: impl Fn() -> bool) {
        loop {
            self.absent.found().await;
            if written() && self.file.is_absent() {
                return;
            }
        }
    }
}
