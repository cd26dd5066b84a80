//! Limits the number of concurrent health checks, across all supervisors of this user on the host.
//!
//! A check acquires one of a few slots. A slot is a locked file: the kernel releases it however the process ends.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::fcntl::{Flock, FlockArg};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep},
};

/// The number of checks that run concurrently.
pub const MAX_CONCURRENT: usize = 4;
/// The interval of attempts to acquire a slot.
const PAUSE: Duration = Duration::from_millis(10);
/// How long a check waits for a slot; then it runs without one. A supervisor that is stopped by a signal keeps its
/// slots.
const SLOT_TIMEOUT: Duration = Duration::from_secs(5);

/// The slots that all supervisors share that use the same folder.
#[derive(Debug)]
pub struct CheckPlaces {
    here: Semaphore,
    folder: Option<PathBuf>,
}

/// A slot; held while a check runs.
#[derive(Debug)]
pub struct Place<'a> {
    _here: Option<SemaphorePermit<'a>>,
    _on_host: Option<Flock<File>>,
}

impl CheckPlaces {
    /// Slots that are shared through `folder`; `None`: this supervisor has slots of its own.
    #[must_use]
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self { here: Semaphore::new(MAX_CONCURRENT), folder }
    }

    /// Waits for a slot, at most for 5 s.
    pub async fn take(&self) -> Place<'_> {
        // `acquire` fails only on a closed semaphore, and this one is never closed.
        let here = self.here.acquire().await.ok();
        let Some(folder) = &self.folder else { return Place { _here: here, _on_host: None } };
        let begun = Instant::now();
        loop {
            match free_place(folder) {
                Ok(None) if begun.elapsed() < SLOT_TIMEOUT => sleep(PAUSE).await,
                Ok(on_host) => return Place { _here: here, _on_host: on_host },
                Err(error) => {
                    tracing::debug!(%error, "health checks are counted for this supervisor only");
                    return Place { _here: here, _on_host: None };
                }
            }
        }
    }
}

impl Drop for CheckPlaces {
    fn drop(&mut self) {
        // Leave no files behind. Other supervisors recreate them; until then, a few more checks may run concurrently.
        let files =
            self.folder.iter().flat_map(|folder| (1..=MAX_CONCURRENT).map(|number| file(folder, number)));
        files.for_each(|file| drop(std::fs::remove_file(file)));
    }
}

fn file(folder: &Path, number: usize) -> PathBuf {
    // Project names contain no dots.
    folder.join(format!("check.{number}.lock"))
}

/// Acquires a free slot, if there is one.
fn free_place(folder: &Path) -> std::io::Result<Option<Flock<File>>> {
    for number in 1..=MAX_CONCURRENT {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        match Flock::lock(options.open(file(folder, number))?, FlockArg::LockExclusiveNonblock) {
            Ok(place) => return Ok(Some(place)),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {}
            Err((_, errno)) => return Err(errno.into()),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn supervisors_share_slots_through_a_folder_and_a_hung_one_blocks_only_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (
            CheckPlaces::new(Some(folder.path().to_owned())),
            CheckPlaces::new(Some(folder.path().to_owned())),
        );
        let mut held = Vec::new();
        for number in 0..MAX_CONCURRENT {
            held.push(if number % 2 == 0 { one.take().await } else { other.take().await });
        }
        for places in [&one, &other] {
            assert!(timeout(SLOT_TIMEOUT / 2, places.take()).await.is_err(), "a fifth one");
        }
        held.pop();
        let place = timeout(SLOT_TIMEOUT / 2, one.take()).await.unwrap();
        assert!(place._on_host.is_some());
        let late = timeout(2 * SLOT_TIMEOUT, other.take()).await.unwrap();
        assert!(late._on_host.is_none());
    }

    #[tokio::test]
    async fn a_missing_folder_does_not_prevent_checks() {
        let folder = tempfile::tempdir().unwrap();
        let places = CheckPlaces::new(Some(folder.path().join("gone")));
        assert!(timeout(SLOT_TIMEOUT / 2, places.take()).await.unwrap()._on_host.is_none());
    }
}
