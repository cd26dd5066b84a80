//! How many calls of the engine are under way at a time.

use std::{
    fs::File,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::{Semaphore, SemaphorePermit};

/// So long after there were too few descriptors it is tried with twice as many calls.
const CALM: Duration = Duration::from_secs(10);
/// So long it takes at most until the connection of a call that has ended is closed.
const CLOSING: Duration = Duration::from_millis(20);

/// So many descriptors are kept for connections: two for events, one for a call, one for a command that asks meanwhile, and
/// some for what is read in between.
const KEPT: usize = 6;
/// With fewer descriptors than that none are kept.
const FEW: u64 = 128;

/// A bound that is one call at a time while this process may open too few files: calls that are made at the same time, or
/// right after each other, take each other's connections away then, and all are made in vain, again and again.
#[derive(Debug)]
pub(super) struct Calls {
    permits: Semaphore,
    usual: usize,
    bound: Mutex<Bound>,
}

#[derive(Debug)]
struct Bound {
    most: usize,
    /// Descriptors that are given up when there are too few.
    kept: Vec<File>,
    /// When it was lowered, or raised again, last.
    changed: Instant,
}

impl Calls {
    /// At most so many.
    pub(super) fn new(usual: usize) -> Self {
        let bound = Mutex::new(Bound { most: usual, kept: Vec::new(), changed: Instant::now() });
        Self { permits: Semaphore::new(usual), usual, bound }
    }

    /// Keeps some descriptors for connections, in case that the limit of open files is lowered: those with low numbers are
    /// allowed longest, so this comes early.
    pub(super) fn keep_descriptors(&self) {
        if getrlimit(Resource::RLIMIT_NOFILE).is_ok_and(|(now, _)| now >= FEW) {
            self.bound().kept = (0..KEPT).map_while(|_| File::open("/dev/null").ok()).collect();
        }
    }

    /// Waits for its turn.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed; were it, nothing would be bounded and nothing lost.
        self.permits.acquire().await.ok()
    }

    /// A call has ended, or had no descriptor for its connection. To be awaited before the next one has its turn.
    pub(super) async fn ended(&self, is_short_of_files: bool) {
        if is_short_of_files {
            self.lower();
        } else {
            self.raise(Instant::now());
        }
        if self.bound().most < self.usual {
            tokio::time::sleep(CLOSING).await;
        }
    }

    fn bound(&self) -> MutexGuard<'_, Bound> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever says so holds a permit: one is left. Those of calls that are under way stay, too.
    fn lower(&self) {
        let mut bound = self.bound();
        let less = self.permits.forget_permits(bound.most.saturating_sub(1));
        bound.most -= less;
        bound.kept.clear();
        bound.changed = Instant::now();
    }

    fn raise(&self, now: Instant) {
        let mut bound = self.bound();
        if bound.most < self.usual && now.saturating_duration_since(bound.changed) >= CALM {
            let more = bound.most.min(self.usual - bound.most);
            self.permits.add_permits(more);
            bound.most += more;
            bound.changed = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_bound_is_lowered_to_one_and_comes_back_slowly() {
        let calls = Calls::new(16);
        let permit = calls.turn().await;
        calls.keep_descriptors();
        assert_eq!(calls.bound().kept.len(), KEPT);
        calls.lower();
        assert!(calls.bound().kept.is_empty());
        calls.lower();
        drop(permit);
        assert_eq!(calls.permits.available_permits(), 1);
        let begin = Instant::now();
        calls.raise(begin);
        assert_eq!(calls.permits.available_permits(), 1, "it was short a moment ago");
        for (times, wanted) in [(2, 2), (3, 4), (4, 8), (5, 16), (6, 16)] {
            calls.raise(begin + CALM * times);
            assert_eq!(calls.permits.available_permits(), wanted);
        }
    }
}
