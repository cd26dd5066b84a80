//! What there is once on a host, for all projects and whoever supervises them: the programs at the root of the control
//! groups, and the maps by which they know pods and replicas.
//!
//! The kernel takes 64 programs of a kind at one control group, so projects share one set of them. There is one folder for
//! each layout: releases of different layouts stand beside one another, each with programs of its own. The first project makes
//! it, the last one removes it.

use std::{
    fs,
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, symlink},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open};

use super::{KernelError, layout, maps::HostMaps, pins, processes::Cgroup, programs::Programs};

/// Names in the host's folder: a link that says which programs are attached.
const BUILD: &str = "build";

/// The host's folder, open to be changed: nobody else changes it as long as this lives.
struct Locked {
    path: PathBuf,
    _lock: OwnedFd,
}

impl Locked {
    fn open(root: &Path) -> Result<Self, KernelError> {
        let path = folder(root);
        let fail = || KernelError::io(format!("lock {}", path.display()));
        loop {
            fs::create_dir_all(&path).map_err(KernelError::io(format!("make {}", path.display())))?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let lock = match open(&path, flags, Mode::empty()) {
                Ok(lock) => lock,
                // The last project has just removed it.
                Err(rustix::io::Errno::NOENT) => continue,
                Err(errno) => return Err(fail()(errno.into())),
            };
            flock(&lock, FlockOperation::LockExclusive).map_err(|errno| fail()(errno.into()))?;
            let ours = fstat(&lock).map_err(|errno| fail()(errno.into()))?.st_ino;
            // Else it was removed while we waited, and is another one's by now.
            if fs::metadata(&path).is_ok_and(|meta| meta.ino() == ours) {
                return Ok(Self { path, _lock: lock });
            }
        }
    }
}

/// Where the host's maps and programs are pinned, below the folder of all of sameport's pins.
#[must_use]
pub fn folder(root: &Path) -> PathBuf {
    // No project has such a name.
    root.join(format!("_host_{}", layout::LAYOUT))
}

/// What this host shares.
pub struct Host {
    root: PathBuf,
    pub maps: HostMaps,
}

impl Host {
    /// Attaches the programs of this release at the root of the control groups, unless they are there, and enters this
    /// process as a supervisor. `root` is the folder of all of sameport's pins.
    ///
    /// # Errors
    /// When the kernel takes one of them not, or we may not (`CAP_BPF`, `CAP_NET_ADMIN`, `CAP_PERFMON`).
    pub fn open(root: &Path, programs: &mut Programs) -> Result<Self, KernelError> {
        let locked = Locked::open(root)?;
        layout::check_maps(&locked.path)?;
        let link = locked.path.join(BUILD);
        let attached = fs::read_link(&link).ok();
        let all_there = Programs::hook_names().iter().all(|name| locked.path.join(name).exists());
        if !all_there || attached.as_deref() != Some(Path::new(&Programs::build())) {
            programs.attach_hooks(&locked.path)?;
            let fail = || KernelError::io(format!("make {}", link.display()));
            pins::remove(&link)?;
            symlink(Programs::build(), &link).map_err(fail())?;
        }
        let mut maps = HostMaps::open(&locked.path)?;
        maps.add_supervisor(Cgroup::of(std::process::id())?.id)?;
        Ok(Self { root: root.to_owned(), maps })
    }

    /// The same with descriptors of its own.
    ///
    /// # Errors
    /// When a map cannot be opened.
    pub fn for_another_thread(&self) -> Result<Self, KernelError> {
        Ok(Self { root: self.root.clone(), maps: HostMaps::open(&self.folder())? })
    }

    /// Where the maps are pinned.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        folder(&self.root)
    }
}

/// Lets go of the networks of pods, and of everything if no project is left on this host.
///
/// # Errors
/// When the kernel does not let something go.
pub fn release(root: &Path, pods: &[u64]) -> Result<(), KernelError> {
    if !folder(root).exists() {
        return Ok(());
    }
    let locked = Locked::open(root)?;
    if is_in_use(root)? {
        let mut maps = HostMaps::open(&locked.path)?;
        return pods.iter().try_for_each(|pod| maps.remove_pod(*pod));
    }
    pins::remove_folder(&locked.path, &|_| true)
}

/// Whether any project has pins of this layout.
fn is_in_use(root: &Path) -> Result<bool, KernelError> {
    let fail = || KernelError::io(format!("read {}", root.display()));
    for entry in fs::read_dir(root).map_err(fail())? {
        if layout::is_current(&entry.map_err(fail())?.path())? {
            return Ok(true);
        }
    }
    Ok(false)
}
