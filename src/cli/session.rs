//! The supervisor that a command speaks to: the one that runs, or one in this process.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream, stream::BoxStream};
use sameport::{
    api::{self, Client, ClientError, protocol::Line},
    clock::Clock,
    engine::docker::Docker,
    plan::status::ProjectStatus,
    spec::{Project, ProjectName},
    supervisor::{self, Event, EventKind, Handle, Preview, Reply, Request, WatchAsked, lock::Lock},
};
use tokio::{
    sync::{broadcast::error::RecvError, mpsc},
    task::JoinHandle,
};

use super::{context::Context, error::CliError};

/// How long a supervisor that has just begun may take to open its socket.
const OPENING: Duration = Duration::from_secs(2);

/// How long those who listen to a supervisor that has ended may take to hear the last of it.
const FAREWELL: Duration = Duration::from_secs(2);

/// The supervisor that a command speaks to.
pub enum Session {
    /// Another process.
    Other(Client),
    /// This one.
    Own(Own),
}

/// A supervisor in this process. The lock goes last.
pub struct Own {
    handle: Handle,
    clock: Clock,
    task: JoinHandle<()>,
    server: api::Server,
    _lock: Lock,
}

impl Session {
    /// The supervisor that runs, if there is one.
    pub async fn running(context: &Context, project: &ProjectName) -> Result<Option<Self>, CliError> {
        let socket = context.paths()?.socket(project);
        let deadline = tokio::time::Instant::now() + OPENING;
        loop {
            let Some(client) = Client::connect(&socket).await? else { return Ok(None) };
            match client.request(&Request::Status).await {
                // One that is about to be gone may still be connected to.
                Err(ClientError::BrokenOff(_) | ClientError::Ended)
                    if tokio::time::Instant::now() < deadline =>
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(Some(Self::Other(client))),
            }
        }
    }

    /// A supervisor in this process; refused when there is another one.
    pub fn begin(context: &Context, project: &ProjectName, docker: Docker) -> Result<Self, CliError> {
        let lock = Lock::acquire(&context.paths()?.lock(project))?;
        Self::begin_locked(context, project, docker, lock)
    }

    /// A supervisor in this process, which holds the project's lock already.
    pub fn begin_locked(
        context: &Context,
        project: &ProjectName,
        docker: Docker,
        lock: Lock,
    ) -> Result<Self, CliError> {
        let settings = context.settings(project, &docker)?;
        let clock = settings.clock;
        let (handle, task) = supervisor::start(Arc::new(docker), project.clone(), settings)?;
        let path = context.paths()?.socket(project);
        let server = api::bind(&path, handle.clone())
            .map_err(CliError::io(format!("cannot open the control socket {}", path.display())))?;
        Ok(Self::Own(Own { handle, clock, task, server, _lock: lock }))
    }

    /// The supervisor that runs, or one in this process that knows the file, if there is one, and pursues
    /// nothing of it yet.
    pub async fn open(
        context: &Context,
        project: &ProjectName,
        file: Option<Project>,
    ) -> Result<Self, CliError> {
        let deadline = tokio::time::Instant::now() + OPENING;
        loop {
            if let Some(session) = Self::running(context, project).await? {
                return Ok(session);
            }
            match Lock::acquire(&context.paths()?.lock(project)) {
                Ok(lock) => {
                    let docker = context.engine().await?;
                    let session = Self::begin_locked(context, project, docker, lock)?;
                    if let Some(file) = file {
                        session.ask(Request::Load(Box::new(file))).await?;
                    }
                    return Ok(session);
                }
                // It has the lock, and its socket comes in a moment.
                Err(_) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Asks for something that is then wanted.
    pub async fn ask(&self, request: Request) -> Result<(), CliError> {
        match self.request(request).await? {
            Reply::Accepted | Reply::Status(_) | Reply::Preview(_) => Ok(()),
            Reply::Rejected(rejection) => Err(rejection.into()),
        }
    }

    /// Where the project stands.
    pub async fn status(&self) -> Result<ProjectStatus, CliError> {
        match self.request(Request::Status).await? {
            Reply::Status(status) => Ok(*status),
            Reply::Rejected(rejection) => Err(rejection.into()),
            Reply::Accepted | Reply::Preview(_) => {
                Err(CliError::failed("the supervisor does not tell where it stands", None))
            }
        }
    }

    /// What it would do for a request.
    pub async fn preview(&self, request: Request) -> Result<Preview, CliError> {
        match self.request(Request::Preview(Box::new(request))).await? {
            Reply::Preview(preview) => Ok(*preview),
            Reply::Rejected(rejection) => Err(rejection.into()),
            Reply::Accepted | Reply::Status(_) => {
                Err(CliError::failed("the supervisor does not tell what it would do", None))
            }
        }
    }

    async fn request(&self, request: Request) -> Result<Reply, CliError> {
        match self {
            Self::Other(client) => Ok(client.request(&request).await?),
            Self::Own(own) => Ok(own.handle.request(request).await?),
        }
    }

    /// What happened and happens, until the supervisor ends.
    pub async fn events(&self) -> Result<BoxStream<'static, Result<Line, CliError>>, CliError> {
        match self {
            Self::Other(client) => {
                Ok(client.events().await?.map(|line| line.map_err(CliError::from)).boxed())
            }
            Self::Own(own) => {
                let (past, live) = own.handle.journal().follow();
                let past = stream::iter(past.into_iter().map(|event| Ok(Line::Past(event))));
                let live = stream::unfold(live, async |mut live| match live.recv().await {
                    Ok(event) => Some((Ok(Line::Now(event)), live)),
                    Err(RecvError::Lagged(events)) => Some((Ok(Line::Missed { events }), live)),
                    Err(RecvError::Closed) => None,
                });
                Ok(past.chain(live).boxed())
            }
        }
    }

    /// Tells those who listen to a supervisor of this process what happened to its file.
    pub fn tell(&self, kind: EventKind) {
        if let Self::Own(own) = self {
            own.handle.journal().record(own.clock.now(), kind);
        }
    }

    /// What happened so far, if the supervisor is in this process.
    pub fn told(&self) -> Vec<Event> {
        match self {
            Self::Other(_) => Vec::new(),
            Self::Own(own) => own.handle.journal().follow().0,
        }
    }

    /// Those who want the file watched by this process, if the supervisor is here.
    pub fn watch_asked(&self) -> Option<mpsc::Receiver<WatchAsked>> {
        match self {
            Self::Other(_) => None,
            Self::Own(own) => own.handle.watch_asked(),
        }
    }

    /// Whether the supervisor has ended, as it does when the project is gone.
    pub async fn has_ended(&self) -> bool {
        match self {
            Self::Other(client) => client.request(&Request::Status).await.is_err(),
            Self::Own(own) => own.task.is_finished(),
        }
    }

    /// Waits until the supervisor ends.
    pub async fn ended(&mut self) {
        match self {
            Self::Other(_) => {
                while !self.has_ended().await {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
            // A panic has been told; it is an end as any other.
            Self::Own(own) => drop((&mut own.task).await),
        }
    }

    /// Leaves it: one in this process ends, and everything goes on running.
    pub async fn leave(self) {
        let Self::Own(Own { handle, task, server, _lock, .. }) = self else { return };
        if !task.is_finished() {
            // It may end by itself at this moment; that is as good.
            let _ = handle.request(Request::Detach).await;
            let _ = task.await;
        }
        drop(handle);
        server.finish(FAREWELL).await;
    }

    /// Leaves a supervisor that ends, and waits until another one could begin.
    pub async fn leave_gone(self, context: &Context, project: &ProjectName) -> Result<(), CliError> {
        let lock = context.paths()?.lock(project);
        self.leave().await;
        let deadline = tokio::time::Instant::now() + OPENING;
        while Lock::acquire(&lock).is_err() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}
