//! The one who acts: keeps what the engine shows equal to what is wanted.
//!
//! In: requests, the engine's events, the time. Out: engine calls, and a [`Journal`] of what happened. Between two
//! looks at the engine everything is decided by [`plan`](crate::plan::plan); [`DesiredState`] holds what users asked for.
//!
//! Always holds: at most one action per target is under way, and a target counts as busy until a look that began
//! after its action ended. So no decision rests on a state that our own action has changed.

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
pub use reading::{Mistake, Reading, WatchAsked};
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

/// Where a project that nobody supervises stands: a look, and nothing is done.
///
/// # Errors
/// When the engine does not answer, or the state file cannot be read. What a damaged one held is taken from the engine, as
/// far as it shows it.
pub async fn look<E: Engine>(
    engine: Arc<E>,
    project: Project,
    settings: &Settings,
) -> Result<ProjectStatus, LookError> {
    // Nothing is kept of a look.
    let mut desired_state = DesiredState::new(project.name.clone(), settings.state.clone())?.simulated();
    desired_state.restore(project);
    let mut observed = observed(engine, &desired_state, settings).await?;
    let now = settings.clock.now();
    // Whoever looks has said that the file is damaged.
    let _ = desired_state.recover(&mut observed, now);
    Ok(status(&desired_state.desired, &observed, now))
}

/// What a supervisor would do for a request, if one began now; nothing is done.
///
/// # Errors
/// When the engine does not answer, or the state file cannot be read.
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
    // Networks and volumes of the file are looked for by their names.
    if let Err(rejection) = desired_state.take(loaded, &Observed::default(), now) {
        return Ok(Err(rejection));
    }
    let mut observed = observed(engine, &desired_state, settings).await?;
    // Whoever asks has said that the file is damaged.
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
        // What it shows, only a supervisor can tell.
        sharing: if steered { Sharing::ByKernel(Arc::default()) } else { Sharing::default() },
        containers: seen.containers.into(),
        networks: seen.networks,
        volumes: seen.volumes,
        foreign: seen.foreign,
        post_start: desired_state.post_start().clone(),
        ..Observed::default()
    })
}

/// Why a project cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// The engine does not show it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// What is remembered of it cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Speaks to a supervisor in this process.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::Sender<PendingRequest>,
    journal: Journal,
    reader: reading::Reader,
}

/// A request, and where its answer goes.
type PendingRequest = (Request, oneshot::Sender<Reply>);

/// The supervisor has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the supervisor has ended")]
pub struct Ended;

impl Handle {
    /// Asks for something.
    ///
    /// # Errors
    /// When the supervisor has ended.
    pub async fn request(&self, request: Request) -> Result<Reply, Ended> {
        let request = match request {
            Request::Watch(reading) => return Ok(self.reader.watch(reading).await),
            request => request,
        };
        let (reply, answer) = oneshot::channel();
        self.requests.send((request, reply)).await.map_err(|_| Ended)?;
        answer.await.map_err(|_| Ended)
    }

    /// Those who want the project's files watched, for the one who reads them; none where somebody hears them already.
    #[must_use]
    pub fn watch_asked(&self) -> Option<mpsc::Receiver<WatchAsked>> {
        self.reader.hear()
    }

    /// What happened and happens.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }
}
