//! A project's folder on bpffs: what is pinned there outlives us.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use aya::programs::links::FdLink;
use rustix::fs::{FlockOperation, flock};

use super::{KernelError, bpf_calls, folders, host, kept::LINK, layout, rights};
use crate::spec::ProjectName;

/// How the names of pods' folders begin; the cookie of the network follows.
const POD: &str = "pod_";

/// How long somebody else may still use it.
const PATIENCE: Duration = Duration::from_secs(2);

/// A project's folder. As long as this lives, nobody else uses it.
#[derive(Debug)]
pub struct Pins {
    path: PathBuf,
    /// The folder, locked.
    lock: Mutex<OwnedFd>,
}

impl Pins {
    /// Makes the folder if it is not there, and mounts bpffs if that is not. From then on it is marked with this
    /// release's layout.
    ///
    /// # Errors
    /// When we may not, or another supervisor of a project with the same name, such as one on another engine,
    /// uses it, or a newer release has made it.
    pub fn open(project: &ProjectName) -> Result<Self, KernelError> {
        let pins = Self::lock(project)?;
        layout::check_version(&pins.path)?;
        layout::mark(&pins.path)?;
        Ok(pins)
    }

    fn lock(project: &ProjectName) -> Result<Self, KernelError> {
        let root = folders::root()?;
        let path = root.join(project.as_str());
        let fail =
            |errno: rustix::io::Errno| KernelError::io(format!("lock {}", path.display()))(errno.into());
        // A supervisor that is about to end may have it still.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let lock = folders::make(&root, &path)?;
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if folders::is_at(&lock, &path) => return Ok(Self { path, lock: Mutex::new(lock) }),
                // Who had it has removed it.
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(20));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(in_use(&path)),
                Err(errno) => return Err(fail(errno)),
            }
        }
    }

    /// Makes the folder again that somebody has removed while we use it, and mounts bpffs where that was unmounted. Returns
    /// whether anything was lost.
    ///
    /// # Errors
    /// When it cannot be made, or somebody else has made it and uses it.
    pub fn mend(&self) -> Result<bool, KernelError> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if folders::is_at(&lock, &self.path) && layout::is_current(&self.path)? {
            return Ok(false);
        }
        folders::mount_again(self.root())?;
        let folder = folders::make(self.root(), &self.path)?;
        if !folders::is_at(&lock, &self.path) {
            match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => *lock = folder,
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(in_use(&self.path)),
                Err(errno) => {
                    return Err(KernelError::io(format!("lock {}", self.path.display()))(errno.into()));
                }
            }
        }
        layout::check_version(&self.path)?;
        layout::mark(&self.path)?;
        Ok(true)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of all projects.
    #[must_use]
    pub fn root(&self) -> &Path {
        root_of(&self.path)
    }

    /// The folder of a pod, by the cookie of its network.
    #[must_use]
    pub fn pod(&self, netns: u64) -> PathBuf {
        self.path.join(format!("{POD}{netns}"))
    }

    /// Cookies of the networks of all pods that have a folder.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn pods(&self) -> Result<Vec<u64>, KernelError> {
        Ok(self.names()?.iter().filter_map(|name| name.strip_prefix(POD)?.parse().ok()).collect())
    }

    /// Removes the folder of a pod.
    ///
    /// # Errors
    /// When the kernel does not let something go.
    pub fn remove_pod(&self, netns: u64) -> Result<(), KernelError> {
        remove_folder(&self.pod(netns), &|_| true)
    }

    /// Lets go of what is pinned under a name.
    ///
    /// # Errors
    /// When the kernel does not.
    pub fn release(&self, name: &str) -> Result<(), KernelError> {
        remove(&self.path.join(name))
    }

    /// Names of all that is pinned.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn names(&self) -> Result<Vec<String>, KernelError> {
        folders::names(&self.path)
    }

    /// Lets go of all, links first: nothing is called any more when the maps go. The mark goes last: it holds as long as
    /// there is something. If no project is left on this host, what all share goes as well.
    ///
    /// # Errors
    /// When the kernel does not let go of something; as much as can be is gone then.
    pub fn remove_all(&self) -> Result<(), KernelError> {
        let pods = self.pods()?;
        let removed = [
            pods.iter().map(|pod| self.remove_pod(*pod)).collect::<Vec<_>>().into_iter().collect(),
            remove_folder(&self.path, &|name| name != layout::MARK),
            // The folder above is common to all projects, and stays.
            remove_folder(&self.path, &|_| true),
            host::release(self.root(), &pods),
        ];
        removed.into_iter().collect()
    }

    /// Whether anything is pinned for a project.
    #[must_use]
    pub fn exist(project: &ProjectName) -> bool {
        existing(project).is_some()
    }

    /// Whether this release can take over what is pinned for a project, if anything is; nothing is changed. To be asked
    /// before a supervisor begins.
    ///
    /// # Errors
    /// When a newer release has pinned it, or a map is not as this release has it.
    pub fn check(project: &ProjectName) -> Result<(), KernelError> {
        let Some(folder) = existing(project) else { return Ok(()) };
        let look = move || {
            folders::open_ours(root_of(&folder), &folder)?;
            layout::check_version(&folder)?;
            layout::check_maps(&folder)?;
            layout::check_maps(&host::folder(root_of(&folder)))
        };
        match with_rights(look) {
            // Whoever may not look cannot take anything over, and begins without. Whose it is if not ours is told then.
            Err(KernelError::Denied { .. } | KernelError::Foreign { .. }) => Ok(()),
            looked => looked,
        }
    }

    /// Removes what a project that has no supervisor has pinned; nothing if there is none of it. What all projects share
    /// goes as well if none of them is left, such as after a supervisor that was killed while it removed all.
    ///
    /// # Errors
    /// When it is in use, or we may not.
    pub fn clear(project: &ProjectName) -> Result<(), KernelError> {
        if Self::exist(project) {
            let project = project.clone();
            return with_rights(move || Self::open(&project)?.remove_all());
        }
        let Some(root) = folders::existing_root().filter(|root| host::folder(root).exists()) else {
            return Ok(());
        };
        match with_rights(move || host::release(&root, &[])) {
            // Whoever may not has left nothing there.
            Err(KernelError::Denied { .. }) => Ok(()),
            released => released,
        }
    }
}

/// Does something on a thread of its own, in which the rights that steering takes are in force.
fn with_rights<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KernelError> + Send + 'static,
) -> Result<T, KernelError> {
    let gone = |_| KernelError::Gone { what: "the thread that looks at pins".to_owned() };
    let work = || {
        rights::raise()?;
        work()
    };
    thread::spawn(work).join().map_err(gone)?
}

/// A project's folder, if there is one.
fn existing(project: &ProjectName) -> Option<PathBuf> {
    let folder = folders::existing_root()?.join(project.as_str());
    // What it is, is looked at by whoever uses it.
    fs::symlink_metadata(&folder).is_ok().then_some(folder)
}

fn in_use(path: &Path) -> KernelError {
    KernelError::Unsupported {
        what: format!("use {}", path.display()),
        reason: "another supervisor of a project with this name does".to_owned(),
    }
}

/// The folder above that of a project.
fn root_of(project: &Path) -> &Path {
    project.parent().unwrap_or(project)
}

/// Pins a link under a name. What was pinned there is let go only once the new one is in force, so that there is no moment
/// without one.
///
/// # Errors
/// When the kernel does not do it; then the old one is still there.
pub fn replace(folder: &Path, name: &str, link: FdLink) -> Result<(), KernelError> {
    let path = folder.join(name);
    let beside = folder.join(format!("{name}_new"));
    let fail = || KernelError::io(format!("pin {}", path.display()));
    remove(&beside)?;
    let old = bpf_calls::pinned(&path).ok();
    let pinned = link.pin(&beside).map_err(KernelError::bpf(format!("pin {}", path.display())))?;
    remove(&path)?;
    fs::rename(&beside, &path).map_err(fail())?;
    // Its descriptor is closed, its pin keeps it.
    drop(pinned);
    // Other supervisors keep the old one, until they see that there is a new one. One of a kind that cannot be detached goes
    // then.
    if let Some(old) = old {
        let _ = bpf_calls::detach(&old);
    }
    Ok(())
}

/// Detaches the program of a link that is pinned, and leaves the link, as `bpftool link detach` does.
///
/// # Errors
/// When there is no such link, or the kernel does not do it.
pub fn detach(path: &Path) -> Result<(), KernelError> {
    let fail = || KernelError::io(format!("detach {}", path.display()));
    bpf_calls::detach(&bpf_calls::pinned(path).map_err(fail())?).map_err(fail())
}

/// Whether there is a link, and its program is attached.
#[must_use]
pub fn is_attached(path: &Path) -> bool {
    bpf_calls::pinned(path).is_ok_and(|link| bpf_calls::is_attached(&link).unwrap_or(false))
}

/// Removes what is in a folder and has such a name, links first, and the folder if it is empty then. There may be none.
///
/// # Errors
/// When something stays that should not, or it is not ours; as much as can be is gone then.
pub fn remove_folder(folder: &Path, is_gone: &dyn Fn(&str) -> bool) -> Result<(), KernelError> {
    if !folders::is_ours(folder)? {
        return Ok(());
    }
    let (mut gone, stay): (Vec<_>, Vec<_>) =
        folders::names(folder)?.into_iter().partition(|name| is_gone(name));
    gone.sort_by_key(|name| !name.starts_with(LINK));
    let removed: Vec<_> = gone.iter().map(|name| remove(&folder.join(name))).collect();
    removed.into_iter().collect::<Result<(), _>>()?;
    if !stay.is_empty() {
        return Ok(());
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::io(format!("remove {}", folder.display()))(error))
        }
        _ => Ok(()),
    }
}

/// Lets go of what is pinned at a path, if there is something.
///
/// # Errors
/// When the kernel does not.
pub fn remove(path: &Path) -> Result<(), KernelError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::io(format!("unpin {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}
