//! The kernel, as a supervisor begins with it: only once a project wants its ports shared by it.

use std::sync::Arc;

use futures_util::{
    FutureExt,
    future::{self, BoxFuture},
};

use crate::{
    kernel::{
        KernelError, Pins,
        steering::{KernelSteering, Steering},
    },
    spec::ProjectName,
};

/// Steering that begins, or why it cannot: this host does not do it, or we may not have it.
pub type Beginning = BoxFuture<'static, Result<Arc<dyn Steering>, KernelError>>;

/// Where a project's steering comes from.
pub trait Kernel: Send + Sync {
    /// Begins to steer a project, at once, whether or not somebody waits for it.
    fn steer(&self, project: &ProjectName) -> Beginning;

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
    fn steer(&self, project: &ProjectName) -> Beginning {
        let project = project.clone();
        let begun = tokio::task::spawn_blocking(move || KernelSteering::start(&project));
        let gone = |_| KernelError::Gone { what: "the steering thread".to_owned() };
        async move { Ok(Arc::new(begun.await.map_err(gone)??) as Arc<dyn Steering>) }.boxed()
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
    fn steer(&self, _: &ProjectName) -> Beginning {
        let error = KernelError::Unsupported {
            what: "share ports in the kernel".to_owned(),
            reason: "the engine is on another host".to_owned(),
        };
        future::ready(Err(error)).boxed()
    }

    fn steers(&self, _: &ProjectName) -> bool {
        false
    }

    fn clear(&self, _: &ProjectName) -> Result<(), KernelError> {
        Ok(())
    }
}
