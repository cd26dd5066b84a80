//! The supervisor: keeps the observed state of a project equal to its desired state.
//!
//! Its inputs are requests, engine events and the time; its outputs are engine calls and a [`Journal`] of events. After
//! each observation of the engine, [`plan`](crate::plan::plan) decides what to do; [`DesiredState`] holds what users
//! requested.
//!
//! Invariant: each target has at most one action in progress, and stays busy until an observation that started after
//! the end of that action. Therefore no decision is based on a state that an action of the supervisor has changed
//! meanwhile.

mod act;
mod bind_sources;
mod check_places;
mod desired_state;
mod diagnosis;
pub mod engine_lock;
mod first_checks;
mod graceful_close;
mod hooks;
mod image;
mod journal;
mod kept_images;
mod kernel;
pub mod lock;
mod observe;
mod own_connections;
pub mod owner;
pub mod paths;
mod pre_deploy;
mod preview;
pub mod private_folder;
mod probes;
pub mod read_access;
mod reading;
mod request;
mod run;
mod shared_files;
mod slot_volumes;
mod state_file;
mod traffic;
mod unhealthy;
mod vanished;
mod watch;

pub use desired_state::{DesiredState, StateReset};
pub use journal::{Event, EventKind, Journal, Milestone};
pub use kernel::{Beginning, Kernel, NoKernel, ThisKernel};
pub use observe::NetnsOf;
pub use preview::{Gap, Preview, Step};
pub use reading::{Mistake, Reading, WatchRequest};
pub use request::{Apply, Change, Rejection, Reply, Request, RolloutRequest, Selector, Weight};
pub use run::{Settings, start};
pub use state_file::{Damage, FileError, Loaded, Scale, State, StateError, StateFile};
pub use vanished::{HiddenProcesses, HostProcesses, ProcessView};

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::{
    engine::{Engine, EngineError},
    plan::{
        Observed, Sharing,
        status::{ProjectStatus, status},
    },
    spec::Project,
};

/// Returns the status of a project without a supervisor. Changes nothing.
///
/// # Errors
/// If the engine cannot be reached, or the state file cannot be read. The content of a damaged state file is recovered
/// from the engine as far as possible.
pub async fn look<E: Engine>(
    engine: Arc<E>,
    project: Project,
    settings: &Settings,
) -> Result<ProjectStatus, LookError> {
    // The result of this call is not saved.
    let mut desired_state = DesiredState::new(project.name.clone(), settings.state.clone())?.simulated();
    desired_state.restore(project);
    let mut observed = observed(engine, &desired_state, settings).await?;
    let now = settings.clock.now();
    // The caller reports the damage.
    let _ = desired_state.recover(&mut observed, now);
    Ok(status(&desired_state.desired, &observed, now))
}

/// Returns what a supervisor would do for a request if it started now. Changes nothing.
///
/// # Errors
/// If the engine cannot be reached, or the state file cannot be read.
pub async fn preview<E: Engine>(
    engine: Arc<E>,
    project: Project,
    request: Request,
    settings: &Settings,
) -> Result<Result<Preview, Rejection>, LookError> {
    let mut desired_state = DesiredState::new(project.name.clone(), settings.state.clone())?.simulated();
    let now = settings.clock.now();
    let loaded = Request::Load(Box::new(match &request {
        Request::Apply(apply) => apply.project.clone(),
        _ => project,
    }));
    // The project has to be loaded before the observation, because networks and volumes are looked up by name.
    if let Err(rejection) = desired_state.take(loaded, &Observed::default(), now) {
        return Ok(Err(rejection));
    }
    let mut observed = observed(engine, &desired_state, settings).await?;
    // The caller reports the damage.
    let _ = desired_state.recover(&mut observed, now);
    Ok(preview::preview(desired_state, observed, request, now))
}

async fn observed<E: Engine>(
    engine: Arc<E>,
    desired_state: &DesiredState,
    settings: &Settings,
) -> Result<Observed, EngineError> {
    let processes = Arc::clone(&settings.processes);
    let mut observer = observe::Observer::new(engine, settings.netns_of.clone(), processes, settings.clock);
    let seen =
        observer.look(&desired_state.desired, &desired_state.expected(), &observe::Dirty::EVERYTHING).await?;
    let steered = settings.kernel.steers(&desired_state.desired.project.name);
    Ok(Observed {
        // Only a supervisor has the kernel's report.
        sharing: if steered { Sharing::ByKernel(Arc::default()) } else { Sharing::default() },
        containers: seen.containers.into(),
        networks: seen.networks,
        volumes: seen.volumes,
        foreign: seen.foreign,
        post_start: desired_state.post_start().clone(),
        ..Observed::default()
    })
}

/// Why a project cannot be observed.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// The engine cannot be reached, or fails.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The state file cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Sends requests to a supervisor in this process.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::Sender<PendingRequest>,
    journal: Journal,
    reader: reading::Reader,
}

/// A request and the channel for its reply.
type PendingRequest = (Request, oneshot::Sender<Reply>);

/// The supervisor has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the supervisor has ended")]
pub struct Ended;

impl Handle {
    /// Sends a request and waits for the reply.
    ///
    /// # Errors
    /// If the supervisor has ended.
    pub async fn request(&self, request: Request) -> Result<Reply, Ended> {
        let request = match request {
            Request::Watch(reading) => return Ok(self.reader.watch(reading).await),
            request => request,
        };
        let (reply, answer) = oneshot::channel();
        self.requests.send((request, reply)).await.map_err(|_| Ended)?;
        answer.await.map_err(|_| Ended)
    }

    /// The requests to watch the project's files, for the task that reads them; `None` if another task receives them
    /// already.
    #[must_use]
    pub fn watch_asked(&self) -> Option<mpsc::Receiver<WatchRequest>> {
        self.reader.hear()
    }

    /// The events of the supervisor.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }
}
