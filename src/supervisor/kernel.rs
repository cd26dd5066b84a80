//! Access to the kernel for a supervisor; used only once a project wants the kernel to share its ports.

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

/// The start of steering, or why it failed: the host does not support it, or permissions are missing.
pub type Beginning = BoxFuture<'static, Result<Arc<dyn Steering>, KernelError>>;

/// Provides the steering of projects.
pub trait Kernel: Send + Sync {
    /// Starts to steer a project. The work starts immediately, whether or not the future is polled.
    fn steer(&self, project: &ProjectName) -> Beginning;

    /// Whether the kernel still steers a project for a supervisor that has ended.
    fn steers(&self, project: &ProjectName) -> bool;

    /// Removes the kernel state that an earlier supervisor left of a removed project.
    ///
    /// # Errors
    /// If the kernel refuses to remove something.
    fn clear(&self, project: &ProjectName) -> Result<(), KernelError>;
}

/// The kernel of this host.
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

/// No kernel: images share their ports themselves.
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
