//! The lock file that ensures one supervisor per project, for one user on one host.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use nix::fcntl::{Flock, FlockArg};

use super::private_folder;

/// Held until it is dropped; the kernel releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    file: Mutex<Flock<File>>,
}

/// Why the lock of a project cannot be acquired.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another supervisor holds it.
    #[error("the project is already supervised by {holder}")]
    Held {
        /// The process that holds it.
        holder: Holder,
    },
    /// The file cannot be used.
    #[error("cannot lock {}: {source}", path.display())]
    Io {
        /// The path of the file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// The process that holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The process ID; `None` if it has not been written yet.
    pub pid: Option<u32>,
    /// The command line of the process.
    pub command: String,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "process {pid} (`{}`)", self.command),
            None => f.write_str("another process"),
        }
    }
}

impl Lock {
    /// Acquires the lock without waiting.
    ///
    /// # Errors
    /// If another process holds it, or the file cannot be used.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let file = Mutex::new(lock(path)?);
        Ok(Self { path: path.to_owned(), file })
    }

    /// Whether the lock file still exists; `true` if that cannot be determined.
    pub fn is_there(&self) -> bool {
        let held = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        is_at(&held, &self.path).unwrap_or(true)
    }

    /// Recreates the lock file if it was removed or replaced: otherwise the next supervisor would not notice this one.
    /// Returns whether it had to be recreated.
    ///
    /// # Errors
    /// If another process has locked a file of that path, or the file cannot be created.
    pub fn restore(&self) -> Result<bool, LockError> {
        let mut held = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let fail = |source| LockError::Io { path: self.path.clone(), source };
        if is_at(&held, &self.path).map_err(fail)? {
            return Ok(false);
        }
        if let Some(folder) = self.path.parent() {
            private_folder::make(folder).map_err(|error| fail(error.into()))?;
        }
        *held = lock(&self.path)?;
        Ok(true)
    }

    /// Removes the file and releases the lock, so that nothing is left of a removed project. A process that waits for
    /// the lock creates a new file.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn remove(self) -> Result<(), LockError> {
        let held = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let fail = |source| LockError::Io { path: self.path.clone(), source };
        if is_at(&held, &self.path).map_err(fail)? {
            fs::remove_file(&self.path).map_err(fail)?;
        }
        Ok(())
    }
}

/// Whether an open file is the one at that path.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (own.dev(), own.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn lock(path: &Path) -> Result<Flock<File>, LockError> {
    let fail = |source| LockError::Io { path: path.to_owned(), source };
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .map_err(fail)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                // The previous holder may have removed the file since it was opened here.
                if !is_at(&file, path).map_err(fail)? {
                    continue;
                }
                if let Err(error) = say_who(&mut file) {
                    // On a full disk, other processes cannot see who holds the lock, but it is held.
                    tracing::warn!(%error, path = %path.display(), "the lock does not say who holds it");
                }
                return Ok(file);
            }
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                return Err(LockError::Held { holder: holder(&mut file) });
            }
            Err((_, errno)) => return Err(fail(errno.into())),
        }
    }
}

/// Overwrites the file and truncates it afterwards, which needs no additional disk space.
fn say_who(file: &mut File) -> io::Result<()> {
    let pid = std::process::id().to_string();
    file.rewind()?;
    file.write_all(pid.as_bytes())?;
    file.set_len(pid.len() as u64)
}

fn holder(file: &mut File) -> Holder {
    let mut text = String::new();
    let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse::<u32>().ok());
    let command = pid
        .and_then(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).trim_end_matches('\0').replace('\0', " "))
        .unwrap_or_default();
    Holder { pid, command }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_supervisor_learns_who_holds_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.lock");
        let first = Lock::acquire(&path).unwrap();
        let message = Lock::acquire(&path).unwrap_err().to_string();
        assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
        drop(first);
        Lock::acquire(&path).unwrap();
    }

    #[test]
    fn a_lock_whose_file_is_removed_or_replaced_is_recreated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/shop.lock");
        fs::create_dir(folder.path().join("run")).unwrap();
        let lock = Lock::acquire(&path).unwrap();
        assert!(!lock.restore().unwrap());
        let breaks: [fn(&Path); 3] = [
            |path| fs::remove_file(path).unwrap(),
            |path| fs::remove_dir_all(path.parent().unwrap()).unwrap(),
            // Simulates a command that found no lock and held one for a moment.
            |path| {
                fs::remove_file(path).unwrap();
                drop(Lock::acquire(path).unwrap());
            },
        ];
        for break_it in breaks {
            break_it(&path);
            assert!(lock.restore().unwrap());
            let message = Lock::acquire(&path).unwrap_err().to_string();
            assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
            assert!(!lock.restore().unwrap());
        }
        // Another process acquired the lock first.
        fs::remove_file(&path).unwrap();
        let other = Lock::acquire(&path).unwrap();
        assert!(matches!(lock.restore(), Err(LockError::Held { .. })));
        drop(other);
        assert!(lock.restore().unwrap());
    }

    #[test]
    fn a_removed_lock_leaves_no_file_and_is_never_held_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.lock");
        Lock::acquire(&path).unwrap().remove().unwrap();
        assert!(!path.exists());
        // Each thread acquires and removes the lock repeatedly, so the file is often removed between `open` and `flock`
        // of another one.
        let holders = std::sync::atomic::AtomicU32::new(0);
        let taken: u32 = std::thread::scope(|scope| {
            let take = || {
                let mut taken = 0;
                for _ in 0..2000 {
                    let Ok(lock) = Lock::acquire(&path) else { continue };
                    assert_eq!(holders.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                    taken += 1;
                    holders.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    lock.remove().unwrap();
                }
                taken
            };
            let all: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            all.into_iter().map(|one| one.join().unwrap()).sum()
        });
        assert!(taken > 100, "{taken}");
        assert!(!path.exists());
    }
}
