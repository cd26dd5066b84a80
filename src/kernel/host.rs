//! What there is once on a host, for all projects and whoever supervises them: the programs at the root of the control
//! groups, and the maps by which they know pods and replicas.
//!
//! The kernel takes 64 programs of a kind at one control group, so projects share one set of them. There is one folder for
//! each layout: releases of different layouts stand beside one another, each with programs of its own. The first project makes
//! it, the last one removes it.

use std::{
    fs,
    os::{fd::OwnedFd, unix::fs::symlink},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};

use super::{
    KernelError, folders,
    kept::{Kept, LINK},
    layout,
    maps::HostMaps,
    pins,
    processes::Cgroup,
    programs::Programs,
    whole,
};

/// Names in the host's folder: a link that says which programs are attached.
const BUILD: &str = "build";

/// So long a supervisor that begins leaves it to those that run to pin again what was removed: they have it.
const PATIENCE: Duration = Duration::from_millis(1500);

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
            let lock = folders::make(root, &path)?;
            flock(&lock, FlockOperation::LockExclusive).map_err(|errno| fail()(errno.into()))?;
            if folders::is_at(&lock, &path) {
                return Ok(Self { path, _lock: lock });
            }
        }
    }

    /// The same once those who run have pinned again what some of is missing, if any run but the one whose folder is `own`.
    fn open_mended(root: &Path, own: &Path) -> Result<Self, KernelError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let locked = Self::open(root)?;
            let (missing, all) = (whole::missing(&locked.path, &map_names()), map_names());
            let is_half = !missing.is_empty() && missing.len() < all.len();
            if !is_half || Instant::now() > deadline || !is_anybody_there(root, own)? {
                return Ok(locked);
            }
            drop(locked);
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sees to it that all maps are pinned, or none: whoever made them, or let them go, may have died in the middle of it.
    ///
    /// One whose pin alone is gone is pinned again: programs that are attached use it, here or in a pod. Where none does, it
    /// may be lost, and the others are of no use without it. Then links stay where they are: what they are those of goes on
    /// until others take their place.
    fn make_whole(&self, root: &Path) -> Result<(), KernelError> {
        let names = map_names();
        if !whole::complete(&self.path, &names, &links(root))?.is_empty() {
            pins::remove(&self.path.join(BUILD))?;
            whole::drop_maps(&self.path, &names)?;
        }
        Ok(())
    }

    fn build(&self) -> Option<String> {
        build_of(&self.path)
    }

    /// Puts this release's programs in place of those that are attached, and of those that another one has beyond them.
    fn attach(&self, programs: &mut Programs) -> Result<(), KernelError> {
        let mark = self.path.join(BUILD);
        pins::remove(&mark)?;
        programs.attach_hooks(&self.path)?;
        for link in whole::links(&self.path) {
            if !link.file_name().and_then(|name| name.to_str()).is_some_and(Programs::is_link) {
                pins::remove(&link)?;
            }
        }
        self.say(&Programs::build())
    }

    /// Says which programs are attached.
    fn say(&self, build: &str) -> Result<(), KernelError> {
        let mark = self.path.join(BUILD);
        pins::remove(&mark)?;
        symlink(build, &mark).map_err(KernelError::io(format!("make {}", mark.display())))
    }

    fn keep(&self, root: &Path) -> Result<Kept, KernelError> {
        let maps = map_names().into_iter().map(str::to_owned);
        Kept::open(root, &self.path, maps.chain(self.links()?))
    }

    /// Names of the links of whichever programs are attached.
    fn links(&self) -> Result<Vec<String>, KernelError> {
        let mut names = folders::names(&self.path)?;
        // Who has died in the middle of replacing one has left the new one beside it.
        names.retain(|name| name.starts_with(LINK) && !name.ends_with("_new"));
        Ok(names)
    }
}

fn map_names() -> Vec<&'static str> {
    Programs::map_names().collect()
}

fn build_of(folder: &Path) -> Option<String> {
    fs::read_link(folder.join(BUILD)).ok().map(|build| build.to_string_lossy().into_owned())
}

/// Folders of all projects of this layout.
fn projects(root: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let mut projects = Vec::new();
    for name in folders::names(root)? {
        let folder = root.join(name);
        if layout::is_current(&folder)? {
            projects.push(folder);
        }
    }
    Ok(projects)
}

/// Whether any supervisor runs but the one of that project.
fn is_anybody_there(root: &Path, own: &Path) -> Result<bool, KernelError> {
    for project in projects(root)?.iter().filter(|project| *project != own) {
        // Who has ended since does not matter.
        let Ok(folder) = folders::open_ours(root, project) else { continue };
        if flock(&folder, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Links in the host's folder, and of pods of all projects of this layout.
fn links(root: &Path) -> Vec<PathBuf> {
    // What is gone since has none.
    let below = |folder: &PathBuf| -> Vec<PathBuf> {
        let names = folders::names(folder).unwrap_or_default();
        names.into_iter().map(|name| folder.join(name)).collect()
    };
    let pods = projects(root).unwrap_or_default().iter().flat_map(below).collect::<Vec<_>>();
    std::iter::once(&folder(root)).chain(&pods).flat_map(|folder| whole::links(folder)).collect()
}

/// Where the host's maps and programs are pinned, below the folder of all of sameport's pins.
#[must_use]
pub fn folder(root: &Path) -> PathBuf {
    // No project has such a name.
    root.join(format!("_host_{}", layout::LAYOUT))
}

/// What a look at the pins has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// All is there and attached.
    Whole,
    /// These were lost, and are had back.
    Mended(Vec<String>),
    /// Somebody has made all of it anew. Nothing of what we enter is heeded any more.
    Replaced,
}

/// What this host shares.
pub struct Host {
    root: PathBuf,
    pub maps: HostMaps,
    /// All threads have one.
    pins: Arc<Mutex<HostPins>>,
}

struct HostPins {
    kept: Kept,
    /// Which programs are attached.
    build: String,
    /// Whether programs of another release were found detached: whoever has them comes first.
    is_another_ones_turn: bool,
}

impl Host {
    /// Attaches the programs of this release at the root of the control groups, unless they are there, and enters this
    /// process as a supervisor. `root` is the folder of all of sameport's pins, `own` that of the project.
    ///
    /// # Errors
    /// When the kernel takes one of them not, or we may not (`CAP_BPF`, `CAP_NET_ADMIN`, `CAP_PERFMON`).
    pub fn open(root: &Path, own: &Path, programs: &mut Programs) -> Result<Self, KernelError> {
        let locked = Locked::open_mended(root, own)?;
        layout::check_maps(&locked.path)?;
        locked.make_whole(root)?;
        let all_attached =
            Programs::hook_names().iter().all(|name| pins::is_attached(&locked.path.join(name)));
        if !all_attached || locked.build() != Some(Programs::build()) {
            locked.attach(programs)?;
        }
        let kept = locked.keep(root)?;
        let mut maps = HostMaps::of(&kept)?;
        maps.add_supervisor(Cgroup::of(std::process::id())?.id)?;
        let pins = HostPins { kept, build: Programs::build(), is_another_ones_turn: false };
        Ok(Self { root: root.to_owned(), maps, pins: Arc::new(Mutex::new(pins)) })
    }

    fn pins(&self) -> MutexGuard<'_, HostPins> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks whether all is pinned and attached, and mends what is not. Whoever else has mended it, or has replaced the
    /// programs, was right: what is pinned and attached counts.
    ///
    /// # Errors
    /// When something cannot be mended. As long as we live, it goes on all the same, unless it was detached.
    pub fn look(&self) -> Result<Look, KernelError> {
        let mut pins = self.pins();
        let folder = self.folder();
        if build_of(&folder).as_ref() == Some(&pins.build) && pins.kept.lost()?.is_empty() {
            pins.is_another_ones_turn = false;
            return Ok(Look::Whole);
        }
        let locked = Locked::open(&self.root)?;
        if pins.kept.is_replaced()? {
            return Ok(Look::Replaced);
        }
        let mut lost: Vec<String> = pins.kept.lost()?.into_iter().map(str::to_owned).collect();
        match locked.build() {
            // Another release has replaced the programs.
            Some(build) if build != pins.build => {
                let old: Vec<String> = pins.kept.links().map(str::to_owned).collect();
                old.iter().for_each(|link| pins.kept.forget(link));
                for link in locked.links()? {
                    pins.kept.keep(&link)?;
                }
                lost.retain(|name| !name.starts_with(LINK));
                pins.build = build;
            }
            Some(_) => {}
            None => lost.push(BUILD.to_owned()),
        }
        let detached = pins.kept.mend()?;
        if locked.build().is_none() {
            locked.say(&pins.build)?;
        }
        if !detached.is_empty() {
            if pins.build != Programs::build() && !pins.is_another_ones_turn {
                pins.is_another_ones_turn = true;
                return Ok(Look::Mended(lost));
            }
            // It takes types of the kernel that we do not keep.
            locked.attach(&mut Programs::new())?;
            pins.kept = locked.keep(&self.root)?;
            pins.build = Programs::build();
        }
        pins.is_another_ones_turn = false;
        Ok(if lost.is_empty() { Look::Whole } else { Look::Mended(lost) })
    }

    /// Whether all maps are pinned, as we have them: whoever loads programs makes what is not.
    ///
    /// # Errors
    /// When it cannot be looked.
    pub fn is_whole(&self) -> Result<bool, KernelError> {
        Ok(self.pins().kept.lost()?.iter().all(|name| name.starts_with(LINK)))
    }

    /// The same with descriptors of its own.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub fn for_another_thread(&self) -> Result<Self, KernelError> {
        let maps = HostMaps::of(&self.pins().kept)?;
        Ok(Self { root: self.root.clone(), maps, pins: Arc::clone(&self.pins) })
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
    if !folders::is_ours(&folder(root))? {
        return Ok(());
    }
    let locked = Locked::open(root)?;
    if projects(root)?.is_empty() {
        return pins::remove_folder(&locked.path, &|_| true);
    }
    if pods.is_empty() {
        return Ok(());
    }
    locked.make_whole(root)?;
    // None of it is left: whoever comes next makes it anew.
    if !whole::missing(&locked.path, &map_names()).is_empty() {
        return Ok(());
    }
    let mut maps = HostMaps::of(&locked.keep(root)?)?;
    pods.iter().try_for_each(|pod| maps.remove_pod(*pod))
}
