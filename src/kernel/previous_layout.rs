//! Takes over what a release of layout 0 or 1 has left in the kernel for a project.
//!
//! It had its maps in the project's folder, a gate in each pod's network, and programs of its own at the control groups. A
//! listener cannot be in its array of sockets and in our map at once: it is taken out there just before it is entered here.
//! Connections from before are counted where they began, so the old program that counts stays attached as long as there are
//! any.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use aya::maps::{Array, HashMap, MapData, ReusePortSockArray, SkStorage};

use super::{
    KernelError,
    maps::{counts, pinned},
    pins,
    raw::{Counts, Listener, PreviousShutKey, Tag},
    sockets::Transport,
};

/// The link of the program that counts.
const COUNT: &str = "link_sameport_count";
/// How the names of its maps, and of its links, begin.
const BEGIN: [&str; 3] = ["sameport_", "link_sameport_", "link_gate_"];
/// Endpoints of a project, and one for each port.
const ENDPOINTS: u32 = 1024 + 64;

/// What an older release has left of a pod.
pub struct PreviousLayout {
    folder: PathBuf,
    /// The pod's number.
    pod: u32,
    /// What its listeners were, by socket cookie.
    known: BTreeMap<u64, Listener>,
    shut: BTreeSet<PreviousShutKey>,
    sockets: Mutex<ReusePortSockArray<MapData>>,
    tags: Mutex<SkStorage<MapData, Tag>>,
    counts: Array<MapData, Counts>,
}

impl PreviousLayout {
    /// What is pinned in the project's folder of a pod, if there is something.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(folder: &Path, netns: u64) -> Result<Option<Self>, KernelError> {
        if !folder.join("sameport_pods").exists() {
            return Ok(None);
        }
        let fail = || KernelError::bpf("read what a supervisor before has left");
        let pods: HashMap<_, u64, u32> = pinned(folder, "sameport_pods")?;
        let Ok(pod) = pods.get(&netns, 0) else { return Ok(None) };
        let known: HashMap<_, u64, Listener> = pinned(folder, "sameport_known")?;
        let shut: HashMap<_, PreviousShutKey, u32> = pinned(folder, "sameport_shut")?;
        Ok(Some(Self {
            folder: folder.to_owned(),
            pod,
            known: known.iter().collect::<Result<_, _>>().map_err(fail())?,
            shut: shut.keys().collect::<Result<_, _>>().map_err(fail())?,
            sockets: Mutex::new(pinned(folder, "sameport_socks")?),
            tags: Mutex::new(pinned(folder, "sameport_tags")?),
            counts: pinned(folder, "sameport_counts")?,
        }))
    }

    /// Where the connections of a listener were counted.
    #[must_use]
    pub fn endpoint(&self, cookie: u64) -> Option<u32> {
        self.known.get(&cookie).map(|listener| listener.endpoint)
    }

    /// What was counted there.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn counts(&self, endpoint: u32) -> Result<Counts, KernelError> {
        counts(&self.counts, endpoint)
    }

    /// Whether a port was closed, because nobody listened on it yet.
    #[must_use]
    pub fn was_closed(&self, (transport, port): (Transport, u16), v4: bool) -> bool {
        let family = if v4 { 2 } else { 10 };
        self.shut.contains(&PreviousShutKey { pod: self.pod, port, protocol: transport.number(), family })
    }

    /// Lets go of a listener, which we are about to enter.
    ///
    /// # Errors
    /// When the kernel does not let it go.
    pub fn let_go(&self, cookie: u64, socket: &impl AsRawFd) -> Result<(), KernelError> {
        let Some(listener) = self.known.get(&cookie) else { return Ok(()) };
        // It is there only if it was steered; and its tag, if its connections were counted.
        let _ = self.sockets.lock().unwrap_or_else(PoisonError::into_inner).clear_index(&listener.index);
        let _ = self.tags.lock().unwrap_or_else(PoisonError::into_inner).remove(socket);
        Ok(())
    }

    /// Opens the old gate of the pod, and detaches the old programs at the control groups, but for the one that counts: ours
    /// are in force.
    ///
    /// # Errors
    /// When the kernel does not let one go.
    pub fn detach(&self) -> Result<(), KernelError> {
        pins::remove(&self.folder.join(format!("link_gate_{}", self.pod)))?;
        for name in names(&self.folder)? {
            if name.starts_with("link_sameport_") && name != COUNT {
                pins::remove(&self.folder.join(name))?;
            }
        }
        Ok(())
    }

    /// Whether no connection is left that it counts.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn is_idle(&self) -> Result<bool, KernelError> {
        for endpoint in 0..ENDPOINTS {
            if self.counts(endpoint)?.live > 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Removes all that releases of older layouts have pinned in a project's folder.
///
/// # Errors
/// When the kernel does not let something go.
pub fn remove(folder: &Path) -> Result<(), KernelError> {
    let mut old = names(folder)?;
    old.retain(|name| BEGIN.iter().any(|begin| name.starts_with(begin)));
    // Links first: nothing is called any more when the maps go.
    old.sort_by_key(|name| !name.starts_with("link_"));
    old.iter().try_for_each(|name| pins::remove(&folder.join(name)))
}

fn names(folder: &Path) -> Result<Vec<String>, KernelError> {
    let fail = || KernelError::io(format!("read {}", folder.display()));
    let entries = fs::read_dir(folder).map_err(fail())?;
    entries.map(|entry| Ok(entry.map_err(fail())?.file_name().to_string_lossy().into_owned())).collect()
}
