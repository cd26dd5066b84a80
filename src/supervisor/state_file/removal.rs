//! Detects that the state file was removed, for example by a cleanup of folders, so that it is written again.

use super::StateFile;
use crate::tick::{Ticker, Watch};

/// Checks periodically whether the file exists.
pub struct Removal {
    file: StateFile,
    absent: Watch,
}

impl Removal {
    /// Starts to check the file.
    pub fn of(file: StateFile, ticker: &Ticker) -> Self {
        let looked_for = file.clone();
        Self { file, absent: ticker.watch(move || looked_for.is_absent()) }
    }

    /// Waits until the file is missing although a state was `written`.
    pub async fn seen(&mut self, written: impl Fn() -> bool) {
        loop {
            self.absent.found().await;
            if written() && self.file.is_absent() {
                return;
            }
        }
    }
}
