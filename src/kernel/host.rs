//! What there is once on a host, for all projects and whoever supervises them: the programs at the root of the control
//! groups, and the maps by which they know pods and replicas.
//!
//! The kernel takes 64 programs of a kind at one control group, so projects share one set of them. There is one folder for
//! each layout: releases of different layouts stand beside one another, each with programs of its own. The first project makes
//! it, the last one removes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, symlink},
        },
    },
    path::{Path, PathBuf},
};

use aya::{
    maps::MapData,
    programs::{
        links::{FdLink, PinnedLink},
        loaded_programs,
    },
};
use rustix::fs::{FlockOperation, flock};

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
            let lock = pins::open_folder(&path)?;
            flock(&lock, FlockOperation::LockExclusive).map_err(|errno| fail()(errno.into()))?;
            if pins::is_at(&lock, &path) {
                return Ok(Self { path, _lock: lock });
            }
        }
    }

    fn missing_maps(&self) -> Vec<&'static str> {
        Programs::map_names().filter(|name| !self.path.join(name).exists()).collect()
    }

    /// Sees to it that all maps are pinned, or none: whoever made them, or let them go, may have died in the middle of it.
    ///
    /// One whose pin alone is gone is pinned again: programs that are attached use it, here or in a pod. Where none does, it
    /// may be lost, and the others are of no use without it.
    fn make_whole(&self, root: &Path) -> Result<(), KernelError> {
        let missing = self.missing_maps();
        if missing.is_empty() {
            return Ok(());
        }
        for (name, map) in maps_of_links(root) {
            if missing.contains(&name.as_str()) {
                let path = self.path.join(&name);
                map.pin(&path).map_err(KernelError::bpf(format!("pin {}", path.display())))?;
            }
        }
        if !self.missing_maps().is_empty() {
            pins::empty_folder(&self.path, &|_| true)?;
        }
        Ok(())
    }
}

/// The maps that programs use whose links are pinned, here or for pods, by name.
fn maps_of_links(root: &Path) -> BTreeMap<String, MapData> {
    let attached: Vec<u32> = links(root).iter().filter_map(|link| program_of(link)).collect();
    let programs = loaded_programs().filter_map(Result::ok).filter(|info| attached.contains(&info.id()));
    let ids: BTreeSet<u32> = programs.filter_map(|info| info.map_ids().ok().flatten()).flatten().collect();
    let maps = ids.into_iter().filter_map(|id| {
        let map = MapData::from_id(id).ok()?;
        let name = map.info().ok()?.name_as_str()?.to_owned();
        Some((name, map))
    });
    maps.collect()
}

/// Links in the host's folder, and of pods of all projects of this layout.
fn links(root: &Path) -> Vec<PathBuf> {
    // What is gone since has none.
    let below = |folder: &Path| -> Vec<PathBuf> {
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    let projects = below(root).into_iter().filter(|folder| layout::is_current(folder).unwrap_or(false));
    let pods = projects.flat_map(|project| below(&project)).flat_map(|pod| below(&pod));
    let links = below(&folder(root)).into_iter().chain(pods);
    links.filter(|path| path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"link_"))).collect()
}

fn program_of(link: &Path) -> Option<u32> {
    Some(FdLink::from(PinnedLink::from_pin(link).ok()?).info().ok()?.program_id())
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
    /// By which the pin of one of its maps is known from a later one.
    pin: u64,
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
        locked.make_whole(root)?;
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
        let pin =
            pin_of(root).ok_or_else(|| KernelError::Gone { what: locked.path.display().to_string() })?;
        Ok(Self { root: root.to_owned(), maps, pin })
    }

    /// Whether what is pinned is still what was opened: else somebody has removed it, and nothing of what we enter is heeded.
    #[must_use]
    pub fn is_current(&self) -> bool {
        pin_of(&self.root) == Some(self.pin)
    }

    /// The same with descriptors of its own.
    ///
    /// # Errors
    /// When a map cannot be opened.
    pub fn for_another_thread(&self) -> Result<Self, KernelError> {
        Ok(Self { root: self.root.clone(), maps: HostMaps::open(&self.folder())?, pin: self.pin })
    }

    /// Where the maps are pinned.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        folder(&self.root)
    }
}

/// Tells the pin of a map from a later one at the same place.
fn pin_of(root: &Path) -> Option<u64> {
    fs::metadata(folder(root).join("sp_pods")).ok().map(|meta| meta.ino())
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
        if pods.is_empty() {
            return Ok(());
        }
        locked.make_whole(root)?;
        // None of it is left: whoever comes next makes it anew.
        if !locked.missing_maps().is_empty() {
            return Ok(());
        }
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
