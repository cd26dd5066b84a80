//! The kernel, as a supervisor begins with it: only once a project wants its ports shared by it.

use std::sync::Arc;

use crate::{
    kernel::{
        KernelError, Pins,
        steering::{KernelSteering, Steering},
    },
    spec::ProjectName,
};

/// Where a project's steering comes from.
pub trait Kernel: Send + Sync {
    /// Begins to steer a project, or says why that is not possible.
    ///
    /// # Errors
    /// When this host cannot do it, or we may not.
    fn steer(&self, project: &ProjectName) -> Result<Arc<dyn Steering>, KernelError>;

    /// Whether a supervisor that is no more steers a project still: what is in the kernel goes on without it.
    fn steers(&self, project: &ProjectName) -> bool;

    /// Takes away what a supervisor before us, which did steer, has left of a project that is removed.
    ///
    /// # Errors
    /// When the kernel does not let something go.
    fn clear(&self, project: &ProjectName) -> Result<(), KernelError>;
}

/// This host's.
#[derive(Clone, Copy, Debug)]
pub struct ThisKernel;

impl Kernel for ThisKernel {
    fn steer(&self, project: &ProjectName) -> Result<Arc<dyn Steering>, KernelError> {
        Ok(Arc::new(KernelSteering::start(project)?))
    }

    fn steers(&self, project: &ProjectName) -> bool {
        Pins::exist(project)
    }

    fn clear(&self, project: &ProjectName) -> Result<(), KernelError> {
        Pins::clear(project)
    }
}

/// None: images share their ports by themselves.
#[derive(Clone, Copy, Debug)]
pub struct NoKernel;

impl Kernel for NoKernel {
    fn steer(&self, _: &ProjectName) -> Result<Arc<dyn Steering>, KernelError> {
        Err(KernelError::Unsupported {
            what: "share ports in the kernel".to_owned(),
            reason: "the engine is on another host".to_owned(),
        })
    }

    fn steers(&self, _: &ProjectName) -> bool {
        false
    }

    fn clear(&self, _: &ProjectName) -> Result<(), KernelError> {
        Ok(())
    }
}
