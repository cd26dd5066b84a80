//! What a project has in the kernel, beside its pods.

use crate::{
    engine::ContainerId,
    kernel::{KernelError, Pins, host::Host, layout, programs::Programs, rights},
};

/// One life of a replica: its container, and the process that runs in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Life {
    /// Its container.
    pub id: ContainerId,
    /// Its first process.
    pub pid: u32,
}

/// What a project has in the kernel.
pub struct InKernel {
    pub pins: Pins,
    /// What it shares with all projects of this host.
    pub host: Host,
    /// A loader of programs.
    pub programs: Programs,
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
        Ok(Self { pins, host, programs })
    }

    /// Takes part anew in what projects share, which was removed or made anew since. All pods have to be entered again.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn renew(&mut self) -> Result<(), KernelError> {
        (self.host, self.programs) = open_host(&self.pins)?;
        Ok(())
    }
}

fn open_host(pins: &Pins) -> Result<(Host, Programs), KernelError> {
    let mut programs = Programs::new();
    let host = Host::open(pins.root(), &mut programs)?;
    programs.forget_types();
    Ok((host, programs))
}
