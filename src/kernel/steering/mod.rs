//! Steers the connections of a project's pods: has the kernel share their ports, choose among the replicas that are
//! ready, and count.
//!
//! In: [`SteeringConfigs`], which say who gets how much. Out: a [`Report`] of what the kernel shows. In between threads of its
//! own, one that coordinates and one for each pod: they alone have the rights that this takes, what they do never waits
//! for an engine, and a pod never waits for another one. A pod is looked at when something new is wanted of it, when the
//! programs in the kernel tell that a listener came or went, and now and then.
//!
//! Always holds: whatever happens to us, the kernel goes on choosing by what it was told last.

mod config;
mod coordinator;
mod hold;
mod ids;
mod inbox;
mod pace;
mod pod;
mod port;
mod project;
mod reports;
mod silence;
mod turns;
mod worker;

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::sync::watch;

use self::{
    coordinator::{Coordinator, End, Orders},
    inbox::Inbox,
    project::InKernel,
    reports::Reports,
};
use super::{KernelError, Pins, rights};
use crate::spec::ProjectName;

pub use config::{
    Family, ForeignListener, OtherUser, PodReport, Port, ReplicaConfig, ReplicaReport, Report, Rules,
    SteeringConfig, SteeringConfigs, Traffic, Waiting,
};
pub use reports::Usage;

/// Whoever waits for a look waits so long at most.
const LOOK: Duration = Duration::from_millis(50);

/// Something that takes the rights of the threads that steer.
pub type Job = Box<dyn FnOnce() + Send>;

/// Whoever steers: the kernel, or in a simulation something like it.
pub trait Steering: Send + Sync {
    /// Says what is wanted from now on, of all pods. It is in force a moment later; the report then says so.
    fn want(&self, steering_configs: SteeringConfigs);

    /// Looks at once, and returns once that is done, or nearly.
    fn look(&self);

    /// What is seen.
    fn reports(&self) -> watch::Receiver<Arc<Report>>;

    /// Has something short done by a thread that has the rights for it; where there is none, it is dropped.
    fn delegate(&self, job: Job) {
        drop(job);
    }

    /// Takes everything away that outlives us.
    ///
    /// # Errors
    /// When the kernel does not let something go.
    fn remove(&self) -> Result<(), KernelError>;
}

/// The kernel of this host, steered by threads of ours. They end with this, and what runs goes on.
#[derive(Debug)]
pub struct KernelSteering {
    inbox: Arc<Inbox<Orders>>,
    reports: Arc<Reports>,
    coordinator: Mutex<Option<JoinHandle<Result<(), KernelError>>>>,
}

impl KernelSteering {
    /// Loads the programs for a project, or takes over those that a supervisor before us has left, and begins.
    ///
    /// # Errors
    /// When this host cannot do it, or we may not.
    pub fn start(project: &ProjectName) -> Result<Self, KernelError> {
        let (inbox, reports) = (Arc::new(Inbox::new()?), Arc::new(Reports::new()));
        let (opened, result) = std::sync::mpsc::channel();
        let (name, orders, seen) = (project.clone(), Arc::clone(&inbox), Arc::clone(&reports));
        let begin = move || match rights::raise().and_then(|()| InKernel::open(Pins::open(&name)?)) {
            Ok(kernel) => {
                let _ = opened.send(Ok(()));
                Coordinator::new(kernel, orders, seen).run()
            }
            Err(error) => {
                let _ = opened.send(Err(error));
                Ok(())
            }
        };
        let thread = thread::Builder::new()
            .name(coordinator::THREAD.to_owned())
            .spawn(begin)
            .map_err(KernelError::io("start a thread"))?;
        match result.recv() {
            Ok(Ok(())) => Ok(Self { inbox, reports, coordinator: Mutex::new(Some(thread)) }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(gone()),
        }
    }

    /// What it has cost so far.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.reports.usage()
    }

    fn end(&self, end: End) -> Result<(), KernelError> {
        self.inbox.tell(|orders| orders.end = orders.end.or(Some(end)));
        let thread = self.coordinator.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Who has ended before has told how.
        thread.map_or(Ok(()), |thread| thread.join().map_err(|_| gone())?)
    }
}

fn gone() -> KernelError {
    KernelError::Gone { what: "the steering thread".to_owned() }
}

impl Steering for KernelSteering {
    fn want(&self, steering_configs: SteeringConfigs) {
        self.inbox.tell(|orders| orders.steering_configs = Some(steering_configs));
    }

    fn look(&self) {
        let (asking, looked) = std::sync::mpsc::channel();
        self.inbox.tell(|orders| orders.looks.push(asking));
        // It ends when all threads have dropped the other end. Of whoever is too busy, what was seen last is shown.
        let _ = looked.recv_timeout(LOOK);
    }

    fn reports(&self) -> watch::Receiver<Arc<Report>> {
        self.reports.subscribe()
    }

    fn delegate(&self, job: Job) {
        self.inbox.tell(|orders| orders.jobs.push(job));
    }

    fn remove(&self) -> Result<(), KernelError> {
        self.end(End::Remove)
    }
}

impl Drop for KernelSteering {
    fn drop(&mut self) {
        if let Err(error) = self.end(End::Leave) {
            tracing::error!(%error, "steering has failed");
        }
    }
}
