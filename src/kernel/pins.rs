//! A project's folder on bpffs: what is pinned there outlives us.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use aya::programs::links::FdLink;
use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock, fstat, open},
    mount::{MountFlags, mount},
};

use super::{KernelError, capability, host, layout, rights};
use crate::spec::ProjectName;

/// Where bpffs is usually mounted, and where we mount it if it is nowhere.
const BPFFS: &str = "/sys/fs/bpf";

/// How the names of pods' folders begin; the cookie of the network follows.
const POD: &str = "pod_";

/// How long somebody else may still use it.
const PATIENCE: Duration = Duration::from_secs(2);

/// A project's folder. As long as this lives, nobody else uses it.
#[derive(Debug)]
pub struct Pins {
    path: PathBuf,
    _lock: OwnedFd,
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
        let path = bpffs()?.join("sameport").join(project.as_str());
        let fail =
            |errno: rustix::io::Errno| KernelError::io(format!("lock {}", path.display()))(errno.into());
        // A supervisor that is about to end may have it still.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let lock = open_folder(&path)?;
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_at(&lock, &path) => return Ok(Self { path, _lock: lock }),
                // Who had it has removed it.
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(20));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(KernelError::Unsupported {
                        what: format!("use {}", path.display()),
                        reason: "another supervisor of a project with this name does".to_owned(),
                    });
                }
                Err(errno) => return Err(fail(errno)),
            }
        }
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
        let folder = self.pod(netns);
        if folder.exists() { remove_folder(&folder, &|_| true) } else { Ok(()) }
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
        let fail = || KernelError::io(format!("read {}", self.path.display()));
        let entries = fs::read_dir(&self.path).map_err(fail())?;
        entries.map(|entry| Ok(entry.map_err(fail())?.file_name().to_string_lossy().into_owned())).collect()
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
            layout::check_version(&folder)?;
            layout::check_maps(&folder)?;
            layout::check_maps(&host::folder(root_of(&folder)))
        };
        match with_rights(look) {
            // Whoever may not look cannot take anything over, and begins without.
            Err(KernelError::Denied { .. }) => Ok(()),
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
        let Some(root) = capability::mounted("bpf").map(|bpffs| bpffs.join("sameport")) else {
            return Ok(());
        };
        if !host::folder(&root).exists() {
            return Ok(());
        }
        match with_rights(move || host::release(&root, &[])) {
            // Whoever may not has left nothing there.
            Err(KernelError::Denied { .. }) => Ok(()),
            released => released,
        }
    }
}

/// A folder, which is made if it is not there.
///
/// # Errors
/// When it cannot be made or opened.
pub fn open_folder(path: &Path) -> Result<OwnedFd, KernelError> {
    loop {
        fs::create_dir_all(path).map_err(KernelError::io(format!("make {}", path.display())))?;
        match open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(folder) => return Ok(folder),
            // Somebody has just removed it.
            Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(KernelError::io(format!("open {}", path.display()))(errno.into())),
        }
    }
}

/// Whether a folder is the one at that path: else it was removed since it was opened, and is another one's by now.
pub fn is_at(folder: &OwnedFd, path: &Path) -> bool {
    let opened = fstat(folder).map(|stat| stat.st_ino);
    fs::metadata(path).is_ok_and(|meta| opened == Ok(meta.ino()))
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
    let folder = capability::mounted("bpf")?.join("sameport").join(project.as_str());
    folder.exists().then_some(folder)
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
    let pinned = link.pin(&beside).map_err(KernelError::bpf(format!("pin {}", path.display())))?;
    remove(&path)?;
    fs::rename(&beside, &path).map_err(fail())?;
    // Its descriptor is closed, its pin keeps it.
    drop(pinned);
    Ok(())
}

/// Removes what is in a folder and has such a name, links first, and the folder if it is empty then.
///
/// # Errors
/// When something stays that should not; as much as can be is gone then.
pub fn remove_folder(folder: &Path, is_gone: &dyn Fn(&str) -> bool) -> Result<(), KernelError> {
    if empty_folder(folder, is_gone)? {
        fs::remove_dir(folder).map_err(KernelError::io(format!("remove {}", folder.display())))?;
    }
    Ok(())
}

/// Removes what is in a folder and has such a name, links first; whether nothing is left in it.
///
/// # Errors
/// As [`remove_folder`].
pub fn empty_folder(folder: &Path, is_gone: &dyn Fn(&str) -> bool) -> Result<bool, KernelError> {
    let fail = || KernelError::io(format!("read {}", folder.display()));
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail())? {
        names.push(entry.map_err(fail())?.file_name().to_string_lossy().into_owned());
    }
    let (mut gone, stay): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| is_gone(name));
    gone.sort_by_key(|name| !name.starts_with("link_"));
    let removed: Vec<_> = gone.iter().map(|name| remove(&folder.join(name))).collect();
    removed.into_iter().collect::<Result<(), _>>()?;
    Ok(stay.is_empty())
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

/// Where bpffs is mounted; it is mounted if need be, as systemd does at the start of a host.
fn bpffs() -> Result<PathBuf, KernelError> {
    if let Some(path) = capability::mounted("bpf") {
        return Ok(path);
    }
    let fail = |errno: rustix::io::Errno| KernelError::io(format!("mount bpffs at {BPFFS}"))(errno.into());
    // One at a time: a second one on top of the first would hide what is pinned there.
    let place =
        open(BPFFS, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(fail)?;
    flock(&place, FlockOperation::LockExclusive).map_err(fail)?;
    if let Some(path) = capability::mounted("bpf") {
        return Ok(path);
    }
    mount("bpf", BPFFS, "bpf", MountFlags::empty(), Some(c"mode=0700")).map_err(fail)?;
    Ok(PathBuf::from(BPFFS))
}
