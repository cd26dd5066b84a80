//! What is pinned in a folder, with a descriptor for each of it: so it lives as long as we do, whatever becomes of its pins.
//!
//! This is the one place that knows what has to be pinned and attached: [`Kept::lost`] tells what is not, and [`Kept::mend`]
//! pins it again.

use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya::maps::MapData;

use super::{
    KernelError, bpf_calls,
    folders::{self, Place},
    pins,
};

/// How the names of links begin; all others are those of maps.
pub const LINK: &str = "link_";

/// A map or a link.
#[derive(Debug)]
struct Pinned {
    name: String,
    object: OwnedFd,
    id: u32,
    /// The pin; none if it was lost.
    place: Option<Place>,
}

impl Pinned {
    fn is_link(&self) -> bool {
        self.name.starts_with(LINK)
    }

    /// What the kernel does not tell is not known to be lost.
    fn is_detached(&self) -> bool {
        self.is_link() && matches!(bpf_calls::is_attached(&self.object), Ok(false))
    }
}

/// All that is pinned in a folder.
#[derive(Debug)]
pub struct Kept {
    root: PathBuf,
    folder: PathBuf,
    pins: Vec<Pinned>,
}

impl Kept {
    /// Opens maps and links of these names. `root` is the folder of all of our pins.
    ///
    /// # Errors
    /// When one is not there.
    pub fn open(
        root: &Path,
        folder: &Path,
        names: impl IntoIterator<Item = String>,
    ) -> Result<Self, KernelError> {
        let mut kept = Self { root: root.to_owned(), folder: folder.to_owned(), pins: Vec::new() };
        names.into_iter().try_for_each(|name| kept.keep(&name))?;
        Ok(kept)
    }

    /// Keeps what is pinned under a name, in place of what was.
    ///
    /// # Errors
    /// When there is nothing.
    pub fn keep(&mut self, name: &str) -> Result<(), KernelError> {
        let folder = folders::open_ours(&self.root, &self.folder)?;
        let place = folders::place(&folder, name)?;
        let (object, id) = self.pinned(name)?;
        self.pins.retain(|pin| pin.name != name);
        self.pins.push(Pinned { name: name.to_owned(), object, id, place });
        Ok(())
    }

    fn pinned(&self, name: &str) -> Result<(OwnedFd, u32), KernelError> {
        let path = self.folder.join(name);
        let fail = || KernelError::io(format!("use {}", path.display()));
        let object = bpf_calls::pinned(&path).map_err(fail())?;
        let id = bpf_calls::object_id(&object).map_err(fail())?;
        Ok((object, id))
    }

    /// Names of links.
    pub fn links(&self) -> impl Iterator<Item = &str> {
        self.pins.iter().filter(|pin| pin.is_link()).map(|pin| pin.name.as_str())
    }

    /// Heeds a link no more.
    pub fn forget(&mut self, name: &str) {
        self.pins.retain(|pin| pin.name != name);
    }

    /// A map, with a descriptor of its own, whether or not it is still pinned.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn map(&self, name: &str) -> Result<MapData, KernelError> {
        let what = || format!("use the BPF map {name}");
        let Some(pin) = self.pins.iter().find(|pin| pin.name == name) else {
            return Err(KernelError::Gone { what: what() });
        };
        let object = pin.object.try_clone().map_err(KernelError::io(what()))?;
        MapData::from_fd(object).map_err(KernelError::bpf(what()))
    }

    /// Names of what is not pinned (as we have it), or not attached. Empty: all is well.
    ///
    /// # Errors
    /// When it cannot be looked, as without a free descriptor: then nothing is known to be lost.
    pub fn lost(&self) -> Result<Vec<&str>, KernelError> {
        let folder = match folders::open_ours(&self.root, &self.folder) {
            Ok(folder) => Some(folder),
            Err(KernelError::Gone { .. } | KernelError::Foreign { .. }) => None,
            Err(error) => return Err(error),
        };
        let mut lost = Vec::new();
        for pin in &self.pins {
            let place = match &folder {
                Some(folder) => folders::place(folder, &pin.name)?,
                None => None,
            };
            if place.is_none() || place != pin.place || pin.is_detached() {
                lost.push(pin.name.as_str());
            }
        }
        Ok(lost)
    }

    /// Whether all maps are pinned and none of them is ours: somebody has made them anew, and uses those.
    ///
    /// # Errors
    /// When what is pinned cannot be opened.
    pub fn is_replaced(&self) -> Result<bool, KernelError> {
        for pin in self.pins.iter().filter(|pin| !pin.is_link()) {
            match self.pinned(&pin.name) {
                Ok((_, id)) if id != pin.id => {}
                Ok(_) | Err(KernelError::Gone { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Pins all again that has lost its pin. A link that somebody has put in place of ours is kept from now on; a map is
    /// not: those that are in use are ours, and there must never be some of either.
    ///
    /// Returns names of links whose program is attached nowhere.
    ///
    /// # Errors
    /// When the folder is not ours any more, or cannot be made; or the kernel does not pin something.
    pub fn mend(&mut self) -> Result<Vec<String>, KernelError> {
        let folder = folders::make(&self.root, &self.folder)?;
        for at in 0..self.pins.len() {
            self.mend_one(&folder, at)?;
        }
        let detached = self.pins.iter().filter(|pin| pin.is_detached());
        Ok(detached.map(|pin| pin.name.clone()).collect())
    }

    fn mend_one(&mut self, folder: impl AsFd, at: usize) -> Result<(), KernelError> {
        let Some(pin) = self.pins.get(at) else { return Ok(()) };
        let path = self.folder.join(&pin.name);
        let found = match self.pinned(&pin.name) {
            Err(KernelError::Gone { .. }) => None,
            found => Some(found?),
        };
        let Some(pin) = self.pins.get_mut(at) else { return Ok(()) };
        match found {
            Some((_, id)) if id == pin.id => {}
            Some((object, id)) if pin.is_link() => (pin.object, pin.id) = (object, id),
            found => {
                if found.is_some() {
                    pins::remove(&path)?;
                }
                if !pin.is_detached() {
                    bpf_calls::pin(&pin.object, &path)
                        .map_err(KernelError::io(format!("pin {}", path.display())))?;
                }
            }
        }
        pin.place = folders::place(folder, &pin.name)?;
        Ok(())
    }
}
