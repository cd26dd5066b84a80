//! The connection of a command to a supervisor: to one that runs, or to one in this process.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use futures_util::{StreamExt, stream::BoxStream};
use sameport::{
    api::{
        self, Client, ClientError, Served,
        protocol::{Line, Reply},
        schema::{self, Preview, Status},
    },
    clock::Clock,
    engine::{EngineError, docker::Docker},
    spec::{Project, ProjectName},
    supervisor::{
        self, EventKind, Handle, Request, WatchRequest,
        engine_lock::{self, EngineLock, EngineLockError},
        lock::{Lock, LockError},
        owner::Owner,
        paths::lock_beside,
        private_folder,
        read_access::ReadAccess,
    },
    tick::Ticker,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::{context::Context, error::CliError, layout, other_engine, output, takeover};

/// Limit for a supervisor that has just started to open its socket.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(2);

/// Limit for the engine's answer where it is not essential.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(1);

/// A pause of this length ends the history of a supervisor that does not mark its end.
const HISTORY_PAUSE: Duration = Duration::from_millis(300);

/// Limit for clients to read the last events of a supervisor that has ended.
const LAST_EVENTS_TIMEOUT: Duration = Duration::from_secs(2);

/// The supervisor that a command uses.
pub enum Session {
    /// A supervisor in another process.
    Other(Client),
    /// A supervisor in this process.
    Own(Box<Own>),
}

/// Where a command gets the status of a project from.
pub enum Readable {
    /// From the running supervisor.
    Running(Session),
    /// From the engine: the running supervisor speaks another protocol.
    OtherRelease,
    /// From the engine: no supervisor runs.
    Nobody,
}

/// A supervisor in this process. Its lock is released last.
pub struct Own {
    project: ProjectName,
    handle: Handle,
    clock: Clock,
    task: JoinHandle<()>,
    server: api::Server,
    engine_lock: EngineLock,
    /// Set if the supervisor has ended because another one took over.
    superseded: Arc<OnceLock<EngineLockError>>,
    _lock: Arc<Lock>,
}

/// Ends a supervisor after another one has taken over. Replicas keep running.
async fn give_way(
    error: oneshot::Receiver<EngineLockError>,
    handle: Handle,
    superseded: Arc<OnceLock<EngineLockError>>,
) {
    let Ok(error) = error.await else { return };
    tracing::error!(%error, "another supervisor has taken over; ending");
    // It is set only here.
    let _ = superseded.set(error);
    // An error means that it has already ended.
    let _ = handle.request(Request::Detach).await;
}

/// Creates the lock file again whenever it is removed, until the lock is released.
async fn hold(lock: Weak<Lock>, ticker: Ticker) {
    let looked_at = lock.clone();
    let mut removed = ticker.watch(move || looked_at.upgrade().is_none_or(|lock| !lock.is_there()));
    let mut told = false;
    loop {
        removed.found().await;
        let Some(lock) = lock.upgrade() else { return };
        match lock.restore() {
            Ok(false) => told = false,
            Ok(true) => tracing::warn!("the lock of the project was removed, and is put back"),
            Err(error) if !std::mem::replace(&mut told, true) => {
                tracing::error!(%error, "the lock of the project was removed, and cannot be put back");
            }
            Err(_) => {}
        }
    }
}

impl Session {
    /// The running supervisor, if there is one.
    pub async fn running(context: &Context, project: &ProjectName) -> Result<Option<Self>, CliError> {
        let usual = context.paths()?.socket(project);
        if let Some(session) = Self::at(context, &usual, project).await? {
            return Ok(Some(session));
        }
        match Self::elsewhere(context, project).await {
            Some(socket) if socket != usual => Self::at(context, &socket, project).await,
            _ => Ok(None),
        }
    }

    /// The socket of this user's supervisor if it was started with another runtime directory, for example by cron.
    async fn elsewhere(context: &Context, project: &ProjectName) -> Option<PathBuf> {
        let owner = Self::owner(context, project).await?;
        owner.is_of_this_user().then_some(owner.socket)
    }

    /// The owner of the lock on the engine; `None` if the engine does not answer within 1 s. Code that needs the engine
    /// reports that error itself.
    async fn owner(context: &Context, project: &ProjectName) -> Option<Owner> {
        let look = async { engine_lock::owner(&context.engine().await.ok()?, project).await.ok()? };
        tokio::time::timeout(ENGINE_TIMEOUT, look).await.ok()?
    }

    async fn at(context: &Context, socket: &Path, project: &ProjectName) -> Result<Option<Self>, CliError> {
        let deadline = tokio::time::Instant::now() + SOCKET_TIMEOUT;
        loop {
            let Some(client) = Client::connect(socket).await? else { return Ok(None) };
            let answered = async {
                let version = client.version().await?;
                if let Err(other) = takeover::understands(&version, project) {
                    return Ok(Err(other.into()));
                }
                if let Err(error) = other_engine::check(context, project, &version).await {
                    return Ok(Err(error));
                }
                client.request(&Request::Status).await.map(Ok)
            };
            match answered.await {
                // A supervisor that is ending can still accept connections.
                Err(ClientError::ConnectionFailed(_) | ClientError::Ended)
                    if tokio::time::Instant::now() < deadline =>
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => return Err(error.into()),
                Ok(Err(error)) => return Err(error),
                Ok(Ok(_)) => return Ok(Some(Self::Other(client))),
            }
        }
    }

    /// Like [`Self::running`], for a command that only reads: a supervisor with another protocol causes a warning
    /// instead of an error.
    pub async fn readable(context: &Context, project: &ProjectName) -> Result<Readable, CliError> {
        match Self::running(context, project).await {
            Ok(Some(session)) => Ok(Readable::Running(session)),
            Ok(None) => Ok(Readable::Nobody),
            Err(error @ CliError::OtherRelease(_)) => {
                output::colored_note(&error.render().unwrap_or_default())?;
                Ok(Readable::OtherRelease)
            }
            Err(error) => Err(error),
        }
    }

    /// Like [`Self::readable`], but also connects to a supervisor of another user on this host if this user can read
    /// the engine's labels. For commands that only send queries.
    pub async fn answering(context: &Context, project: &ProjectName) -> Result<Readable, CliError> {
        match Self::readable(context, project).await? {
            Readable::Nobody => {
                Ok(Self::of_another_user(context, project).await?.unwrap_or(Readable::Nobody))
            }
            found => Ok(found),
        }
    }

    async fn of_another_user(context: &Context, project: &ProjectName) -> Result<Option<Readable>, CliError> {
        let Some(owner) = Self::owner(context, project).await else { return Ok(None) };
        let access = owner.read_access.as_ref().filter(|_| owner.is_of_this_host());
        let Some(access) = access else { return Ok(None) };
        let Some(client) = Client::connect_to_read(access, owner.uid).await? else { return Ok(None) };
        match takeover::understands(&client.version().await?, project) {
            Ok(()) => Ok(Some(Readable::Running(Self::Other(client)))),
            Err(_) => Ok(Some(Readable::OtherRelease)),
        }
    }

    /// A supervisor that answers queries, for a command that needs one. `so` ends the error message.
    pub async fn required_to_answer(
        context: &Context,
        project: &ProjectName,
        so: &str,
    ) -> Result<Self, CliError> {
        if let Some(session) = Self::running(context, project).await? {
            return Ok(session);
        }
        match Self::of_another_user(context, project).await? {
            Some(Readable::Running(session)) => Ok(session),
            _ => Self::required(context, project, so).await,
        }
    }

    /// The running supervisor, for a command that needs one. `so` ends the error message.
    pub async fn required(context: &Context, project: &ProjectName, so: &str) -> Result<Self, CliError> {
        if let Some(session) = Self::running(context, project).await? {
            return Ok(session);
        }
        // Without access to the engine, it is unknown whether a supervisor runs.
        if let Err(CliError::Engine(error @ EngineError::Denied { .. })) = context.engine().await {
            return Err(error.into());
        }
        match Self::owner(context, project).await {
            Some(owner) => {
                Err(EngineLockError::Held { project: project.clone(), owner: Box::new(owner) }.into())
            }
            None => Err(CliError::failed(
                format!("no supervisor is running for project `{project}`{so}"),
                Some("`sameport up -d` starts one"),
            )),
        }
    }

    /// Starts a supervisor in this process.
    ///
    /// # Errors
    /// If another supervisor runs, and those of [`Self::begin_locked`].
    pub async fn begin(context: &Context, file: &Project, docker: Docker) -> Result<Self, CliError> {
        let lock = Lock::acquire(&context.paths()?.lock(&file.name))?;
        Self::begin_locked(context, &file.name, Some(file), docker, lock).await
    }

    /// Starts a supervisor in this process that already holds the project's lock.
    ///
    /// # Errors
    /// For example if a newer release has created objects of the project, or another supervisor holds the lock on the
    /// engine.
    pub async fn begin_locked(
        context: &Context,
        project: &ProjectName,
        file: Option<&Project>,
        docker: Docker,
        lock: Lock,
    ) -> Result<Self, CliError> {
        docker.keep_descriptors();
        // Checked first: a newer release may own the kernel state and the containers.
        takeover::check(context, &docker, project).await?;
        layout::check(context, project, file, &docker).await?;
        // Before the lock opens connections: file descriptors may be scarce.
        let settings = context.settings(project, &docker).await?;
        let engine = settings.state.engine().cloned();
        let (clock, ticker) = (settings.clock, settings.ticker.clone());
        let path = context.paths()?.socket(project);
        let read_access = ReadAccess::new().map_err(CliError::io("cannot make a key"))?;
        let owner = Owner {
            read_access: Some(read_access.clone()),
            ..Owner::this_process(&path, context.directory().as_deref(), clock.now())
        };
        let (tell, told) = oneshot::channel();
        // If the receiver is gone, the supervisor has already ended.
        let on_superseded = |error| drop(tell.send(error));
        let engine_lock = EngineLock::acquire(docker.clone(), project, owner, on_superseded).await?;
        let (handle, task) = supervisor::start(Arc::new(docker), project.clone(), settings)?;
        let served = Served {
            project: project.clone(),
            handle: handle.clone(),
            engine,
            read_access: Some(read_access),
        };
        let server = api::bind(&path, served, &ticker)
            .map_err(CliError::io(format!("cannot open the control socket {}", path.display())))?;
        let lock = Arc::new(lock);
        tokio::spawn(hold(Arc::downgrade(&lock), ticker));
        let superseded = Arc::default();
        tokio::spawn(give_way(told, handle.clone(), Arc::clone(&superseded)));
        Ok(Self::Own(Box::new(Own {
            project: project.clone(),
            handle,
            clock,
            task,
            server,
            engine_lock,
            superseded,
            _lock: lock,
        })))
    }

    /// The running supervisor, or a new one in this process. A new one knows the file, if there is one, but does not
    /// act on it until a request asks for that.
    pub async fn open(
        context: &Context,
        project: &ProjectName,
        file: Option<Project>,
    ) -> Result<Self, CliError> {
        let deadline = tokio::time::Instant::now() + SOCKET_TIMEOUT;
        loop {
            if let Some(session) = Self::running(context, project).await? {
                return Ok(session);
            }
            match Lock::acquire(&context.paths()?.lock(project)) {
                Ok(lock) => {
                    let docker = context.engine().await?;
                    let begun = Self::begin_locked(context, project, file.as_ref(), docker, lock).await;
                    let session = match begun {
                        // It has just started, with another runtime directory.
                        Err(CliError::EngineLock(EngineLockError::Held { owner, .. }))
                            if owner.is_of_this_user() && tokio::time::Instant::now() < deadline =>
                        {
                            tokio::time::sleep(Duration::from_millis(50)).await;
                            continue;
                        }
                        begun => begun?,
                    };
                    if let Some(file) = file {
                        session.ask(Request::Load(Box::new(file))).await?;
                    }
                    return Ok(session);
                }
                // Another process has the lock and is about to open its socket.
                Err(_) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Like [`Self::open`], for a command that changes a project. A running supervisor is used even if the file is
    /// missing or invalid.
    pub async fn for_change(context: &Context) -> Result<(ProjectName, Self), CliError> {
        let error = match context.load() {
            Ok(loaded) => {
                let name = loaded.project.name.clone();
                let session = Self::open(context, &name, Some(loaded.project)).await?;
                return Ok((name, session));
            }
            Err(error) => error,
        };
        Self::without_file(context, error).await
    }

    /// The running supervisor, for a command whose file cannot be used. Without one, returns `error`.
    pub async fn without_file(context: &Context, error: CliError) -> Result<(ProjectName, Self), CliError> {
        let Ok(name) = context.project() else { return Err(error) };
        let Some(session) = Self::running(context, &name).await? else { return Err(error) };
        if !matches!(&error, CliError::Load(error) if error.is_missing()) {
            output::note(
                "the Compose file cannot be used, see `sameport config`; the supervisor goes by what it read before",
            )?;
        }
        Ok((name, session))
    }

    /// Sends a request that changes the desired state.
    ///
    /// # Errors
    /// If the supervisor rejects it, or does not answer.
    pub async fn ask(&self, request: Request) -> Result<(), CliError> {
        match self.request(request).await? {
            Reply::Accepted | Reply::Status(_) | Reply::Preview(_) => Ok(()),
            Reply::Rejected(rejection) => Err(rejection.into()),
        }
    }

    /// The status of the project.
    pub async fn status(&self) -> Result<Status, CliError> {
        match self.request(Request::Status).await? {
            Reply::Status(status) => Ok(*status),
            Reply::Rejected(rejection) => Err(rejection.into()),
            Reply::Accepted | Reply::Preview(_) => {
                Err(CliError::failed("unexpected reply to a status request", None))
            }
        }
    }

    /// What the supervisor would do for a request.
    pub async fn preview(&self, request: Request) -> Result<Preview, CliError> {
        match self.request(Request::Preview(Box::new(request))).await? {
            Reply::Preview(preview) => Ok(*preview),
            Reply::Rejected(rejection) => Err(rejection.into()),
            Reply::Accepted | Reply::Status(_) => {
                Err(CliError::failed("unexpected reply to a preview request", None))
            }
        }
    }

    async fn request(&self, request: Request) -> Result<Reply, CliError> {
        match self {
            Self::Other(client) => Ok(client.request(&request).await?),
            Self::Own(own) => Ok(api::answer(&own.project, &own.handle, request).await?),
        }
    }

    /// The history of events and then the live ones, until the supervisor ends.
    pub async fn events(&self) -> Result<BoxStream<'static, Result<Line, CliError>>, CliError> {
        match self {
            Self::Other(client) => {
                Ok(client.events().await?.map(|line| line.map_err(CliError::from)).boxed())
            }
            Self::Own(own) => Ok(api::follow(&own.handle).map(Ok).boxed()),
        }
    }

    /// Records an event about the file in the journal of a supervisor in this process.
    pub fn tell(&self, kind: EventKind) {
        if let Self::Own(own) = self {
            own.handle.journal().record(own.clock.now(), kind);
        }
    }

    /// The events so far of a supervisor in this process; empty for another process.
    pub fn told(&self) -> Vec<schema::Event> {
        match self {
            Self::Other(_) => Vec::new(),
            Self::Own(own) => api::past(&own.handle),
        }
    }

    /// The events so far.
    pub async fn history(&self) -> Result<Vec<schema::Event>, CliError> {
        let Self::Other(client) = self else { return Ok(self.told()) };
        if let Some(history) = client.history().await? {
            return Ok(history);
        }
        let (mut events, mut history) = (client.events().await?, Vec::new());
        while let Ok(Some(line)) = tokio::time::timeout(HISTORY_PAUSE, events.next()).await {
            match line? {
                Line::History(event) => history.push(event),
                Line::Live(_) => break,
                Line::Missed { .. } => {}
            }
        }
        Ok(history)
    }

    /// The queue of requests to watch the file; `None` if the supervisor is in another process.
    pub fn watch_asked(&self) -> Option<mpsc::Receiver<WatchRequest>> {
        match self {
            Self::Other(_) => None,
            Self::Own(own) => own.handle.watch_asked(),
        }
    }

    /// Whether the supervisor has ended, as it does once the project is removed.
    pub async fn has_ended(&self) -> bool {
        match self {
            Self::Other(client) => client.request(&Request::Status).await.is_err(),
            Self::Own(own) => own.task.is_finished(),
        }
    }

    /// Waits until the supervisor has ended.
    pub async fn ended(&mut self) {
        match self {
            Self::Other(_) => {
                while !self.has_ended().await {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
            // A panic was reported where it happened.
            Self::Own(own) => drop((&mut own.task).await),
        }
    }

    /// Stops a `down` in progress and ends the supervisor. Before that, replicas that were taken out of rotation must
    /// be back in it.
    pub async fn cancel_down(self) -> Result<(), CliError> {
        match self.ask(Request::CancelDown).await {
            Ok(()) => {}
            // `down` finished at the same moment.
            Err(_) if self.has_ended().await => return Ok(()),
            Err(error) => return Err(error),
        }
        let deadline = tokio::time::Instant::now() + SOCKET_TIMEOUT;
        while tokio::time::Instant::now() < deadline && !self.status().await?.idle {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if let Self::Other(client) = &self {
            client.request(&Request::Detach).await?;
        }
        self.leave().await
    }

    /// Whether the supervisor is in this process and ends with it.
    pub fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }

    /// Disconnects. A supervisor in this process ends, and its replicas keep running.
    ///
    /// # Errors
    /// If it ended because another supervisor took over.
    pub async fn leave(self) -> Result<(), CliError> {
        let Self::Own(own) = self else { return Ok(()) };
        let Own { handle, task, server, engine_lock, superseded, _lock, .. } = *own;
        if !task.is_finished() {
            // An error means that it is already ending.
            let _ = handle.request(Request::Detach).await;
            let _ = task.await;
        }
        drop(handle);
        server.finish(LAST_EVENTS_TIMEOUT).await;
        engine_lock.release().await;
        superseded.get().cloned().map_or(Ok(()), |error| Err(error.into()))
    }

    /// Disconnects from a supervisor that ends, and acquires its lock. For a supervisor with another runtime directory,
    /// the lock of this command's own directory is acquired as well, so that no new supervisor starts in either. `None`
    /// if another process holds a lock, or it cannot be acquired.
    pub async fn leave_gone(
        self,
        context: &Context,
        project: &ProjectName,
    ) -> Result<Option<Vec<Lock>>, CliError> {
        let mut paths = vec![context.paths()?.lock(project)];
        if let Self::Other(client) = &self {
            // In a directory that other users can write to, the lock may have been replaced.
            let lock = lock_beside(client.path());
            if lock.parent().is_some_and(|folder| private_folder::check(folder).is_ok()) {
                paths.push(lock);
            }
            paths.dedup();
        }
        self.leave().await?;
        let deadline = tokio::time::Instant::now() + takeover::STOP_TIMEOUT;
        let mut locks = Vec::new();
        for path in paths {
            loop {
                match Lock::acquire(&path) {
                    Ok(lock) => break locks.push(lock),
                    Err(LockError::Held { .. }) if tokio::time::Instant::now() < deadline => {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "the lock of the project stays");
                        return Ok(None);
                    }
                }
            }
        }
        Ok(Some(locks))
    }
}
