//! What a project has in the kernel, beside its pods.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    engine::ContainerId,
    kernel::{
        KernelError, Pins,
        host::{Host, Look},
        layout,
        programs::{PodPrograms, Programs, Room},
        rights,
    },
};

/// One life of a replica: its container, and the process that runs in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Life {
    /// Its container.
    pub id: ContainerId,
    /// Its first process.
    pub pid: u32,
}

/// What a project has in the kernel, in the hands of one thread. Each thread has descriptors of its own for the maps, so none
/// waits for another one.
pub struct InKernel {
    /// Nobody else uses them before the last thread has let go of them.
    pub pins: Arc<Pins>,
    /// What it shares with all projects of this host.
    pub host: Host,
    /// A loader of programs: there is only one, since it is expensive to make.
    programs: Arc<Mutex<Programs>>,
}

impl InKernel {
    /// Takes over what is pinned for the project, or begins.
    ///
    /// # Errors
    /// When the kernel cannot do it, or we may not, or a map has another layout.
    pub fn open(pins: Pins) -> Result<Self, KernelError> {
        rights::check()?;
        layout::check_maps(pins.path())?;
        let (host, programs) = open_host(&pins)?;
        Ok(Self { pins: Arc::new(pins), host, programs })
    }

    /// Takes part anew in what projects share, which was removed or made anew since. All pods have to be entered again.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn renew(&mut self) -> Result<(), KernelError> {
        (self.host, self.programs) = open_host(&self.pins)?;
        Ok(())
    }

    /// The same for another thread.
    ///
    /// # Errors
    /// When a map cannot be opened.
    pub fn for_another_thread(&self) -> Result<Self, KernelError> {
        let (pins, programs) = (Arc::clone(&self.pins), Arc::clone(&self.programs));
        Ok(Self { pins, host: self.host.for_another_thread()?, programs })
    }

    /// Makes the maps of a pod in its folder, unless they are there, and loads the programs that choose in it.
    ///
    /// # Errors
    /// When the kernel does not take one of them, or we may not.
    pub fn load_pod(&self, folder: &Path, room: Room) -> Result<PodPrograms, KernelError> {
        let gone = || KernelError::Gone { what: format!("a BPF map in {}", self.host.folder().display()) };
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = programs.load_pod(&self.host.folder(), folder, room)?;
        // One that was not pinned any more is made: the pod's programs have another one than all others.
        if self.host.is_whole()? { Ok(loaded) } else { Err(gone()) }
    }

    /// Looks whether all that the project shares, and its own folder, is there, and mends it if not.
    ///
    /// # Errors
    /// When it cannot be mended.
    pub fn look(&self) -> Result<Look, KernelError> {
        let is_mended = self.pins.mend()?;
        let looked = self.host.look()?;
        Ok(match looked {
            Look::Whole if is_mended => Look::Mended(vec![self.pins.path().display().to_string()]),
            looked => looked,
        })
    }
}

fn open_host(pins: &Pins) -> Result<(Host, Arc<Mutex<Programs>>), KernelError> {
    let mut programs = Programs::new();
    let host = Host::open(pins.root(), pins.path(), &mut programs)?;
    programs.forget_types();
    Ok((host, Arc::new(Mutex::new(programs))))
}
