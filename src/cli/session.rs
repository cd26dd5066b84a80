//! The supervisor that a command speaks to: the one that runs, or one in this process.

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
        self, EventKind, Handle, Request, WatchAsked,
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

/// How long a supervisor that has just begun may take to open its socket.
const OPENING: Duration = Duration::from_secs(2);

/// How long the engine may take to tell who supervises a project, where that is not needed.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A supervisor that does not tell where the past ends tells it without such a pause.
const PAST: Duration = Duration::from_millis(300);

/// How long those who listen to a supervisor that has ended may take to hear the last of it.
const FAREWELL: Duration = Duration::from_secs(2);

/// The supervisor that a command speaks to.
pub enum Session {
    /// Another process.
    Other(Client),
    /// This one.
    Own(Box<Own>),
}

/// Who can tell a command where a project stands.
pub enum Readable {
    /// The supervisor that runs.
    Running(Session),
    /// One runs that the command does not understand: it has to look by itself.
    OtherRelease,
    /// None runs.
    Nobody,
}

/// A supervisor in this process. The lock goes last.
pub struct Own {
    project: ProjectName,
    handle: Handle,
    clock: Clock,
    task: JoinHandle<()>,
    server: api::Server,
    engine_lock: EngineLock,
    /// Why it has ended, if another one has taken its place.
    superseded: Arc<OnceLock<EngineLockError>>,
    _lock: Arc<Lock>,
}

/// Has a supervisor end when another one has taken its place. What runs goes on.
async fn give_way(
    error: oneshot::Receiver<EngineLockError>,
    handle: Handle,
    superseded: Arc<OnceLock<EngineLockError>>,
) {
    let Ok(error) = error.await else { return };
    tracing::error!(%error, "another supervisor has taken over; ending");
    // There is one who sets it.
    let _ = superseded.set(error);
    // One that has ended is as good.
    let _ = handle.request(Request::Detach).await;
}

/// Puts a lock back that is removed, as long as somebody has it.
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
    /// The supervisor that runs, if there is one.
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

    /// The socket of this user's supervisor that was started with another runtime folder, as by cron.
    async fn elsewhere(context: &Context, project: &ProjectName) -> Option<PathBuf> {
        let owner = Self::owner(context, project).await?;
        owner.is_of_this_user().then_some(owner.socket)
    }

    /// Who supervises a project, if the engine says so at once: who needs the engine learns of its silence elsewhere.
    async fn owner(context: &Context, project: &ProjectName) -> Option<Owner> {
        let look = async { engine_lock::owner(&context.engine().await.ok()?, project).await.ok()? };
        tokio::time::timeout(AT_ONCE, look).await.ok()?
    }

    async fn at(context: &Context, socket: &Path, project: &ProjectName) -> Result<Option<Self>, CliError> {
        let deadline = tokio::time::Instant::now() + OPENING;
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
                // One that is about to be gone may still be connected to.
                Err(ClientError::BrokenOff(_) | ClientError::Ended)
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

    /// As [`Self::running`], for a command that only shows something: that there is a supervisor of another release is
    /// told, and no error.
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

    /// As [`Self::readable`], also of another user of this host, where this one may use the engine: for a command that
    /// asks questions only.
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

    /// A supervisor that answers questions, for a command that can do nothing without one; `so` says that.
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

    /// The supervisor that runs, for a command that can do nothing without one; `so` says that.
    pub async fn required(context: &Context, project: &ProjectName, so: &str) -> Result<Self, CliError> {
        if let Some(session) = Self::running(context, project).await? {
            return Ok(session);
        }
        // Whether there is one is not known to somebody who may not use the engine.
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

    /// A supervisor in this process; refused when there is another one, or as [`Self::begin_locked`].
    pub async fn begin(context: &Context, file: &Project, docker: Docker) -> Result<Self, CliError> {
        let lock = Lock::acquire(&context.paths()?.lock(&file.name))?;
        Self::begin_locked(context, &file.name, Some(file), docker, lock).await
    }

    /// A supervisor in this process, which holds the project's lock already; refused when a newer release has made
    /// something of the project.
    pub async fn begin_locked(
        context: &Context,
        project: &ProjectName,
        file: Option<&Project>,
        docker: Docker,
        lock: Lock,
    ) -> Result<Self, CliError> {
        docker.keep_descriptors();
        // Nothing of it begins, not even without the kernel, where a newer release has had it.
        takeover::check(context, &docker, project).await?;
        layout::check(context, project, file, &docker).await?;
        // Before the lock has connections of its own: there may be few descriptors.
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
        // Nobody needs to hear it who has ended.
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
                    let begun = Self::begin_locked(context, project, file.as_ref(), docker, lock).await;
                    let session = match begun {
                        // It has just begun, in another runtime folder.
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
                // It has the lock, and its socket comes in a moment.
                Err(_) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// As [`Self::open`], for a command that changes something of a project: one that runs is asked also where its file is
    /// gone, or cannot be read.
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

    /// The supervisor that runs, for a command whose file cannot be used; without one, why it cannot.
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

    /// Asks for something that is then wanted.
    pub async fn ask(&self, request: Request) -> Result<(), CliError> {
        match self.request(request).await? {
            Reply::Accepted | Reply::Status(_) | Reply::Preview(_) => Ok(()),
            Reply::Rejected(rejection) => Err(rejection.into()),
        }
    }

    /// Where the project stands.
    pub async fn status(&self) -> Result<Status, CliError> {
        match self.request(Request::Status).await? {
            Reply::Status(status) => Ok(*status),
            Reply::Rejected(rejection) => Err(rejection.into()),
            Reply::Accepted | Reply::Preview(_) => {
                Err(CliError::failed("unexpected reply to a status request", None))
            }
        }
    }

    /// What it would do for a request.
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

    /// What happened and happens, until the supervisor ends.
    pub async fn events(&self) -> Result<BoxStream<'static, Result<Line, CliError>>, CliError> {
        match self {
            Self::Other(client) => {
                Ok(client.events().await?.map(|line| line.map_err(CliError::from)).boxed())
            }
            Self::Own(own) => Ok(api::follow(&own.handle).map(Ok).boxed()),
        }
    }

    /// Tells those who listen to a supervisor of this process what happened to its file.
    pub fn tell(&self, kind: EventKind) {
        if let Self::Own(own) = self {
            own.handle.journal().record(own.clock.now(), kind);
        }
    }

    /// What happened so far, if the supervisor is in this process.
    pub fn told(&self) -> Vec<schema::Event> {
        match self {
            Self::Other(_) => Vec::new(),
            Self::Own(own) => api::past(&own.handle),
        }
    }

    /// What happened so far.
    pub async fn history(&self) -> Result<Vec<schema::Event>, CliError> {
        let Self::Other(client) = self else { return Ok(self.told()) };
        if let Some(history) = client.history().await? {
            return Ok(history);
        }
        let (mut events, mut history) = (client.events().await?, Vec::new());
        while let Ok(Some(line)) = tokio::time::timeout(PAST, events.next()).await {
            match line? {
                Line::History(event) => history.push(event),
                Line::Live(_) => break,
                Line::Missed { .. } => {}
            }
        }
        Ok(history)
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

    /// Has it remove nothing more, and end. The kernel has to know first that those who were taken out of rotation are in it again.
    pub async fn cancel_down(self) -> Result<(), CliError> {
        match self.ask(Request::CancelDown).await {
            Ok(()) => {}
            // It was done at that moment.
            Err(_) if self.has_ended().await => return Ok(()),
            Err(error) => return Err(error),
        }
        let deadline = tokio::time::Instant::now() + OPENING;
        while tokio::time::Instant::now() < deadline && !self.status().await?.idle {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if let Self::Other(client) = &self {
            client.request(&Request::Detach).await?;
        }
        self.leave().await
    }

    /// Whether it ends with this process.
    pub fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }

    /// Leaves it: one in this process ends, and everything goes on running.
    ///
    /// # Errors
    /// When it has ended because another supervisor had taken its place.
    pub async fn leave(self) -> Result<(), CliError> {
        let Self::Own(own) = self else { return Ok(()) };
        let Own { handle, task, server, engine_lock, superseded, _lock, .. } = *own;
        if !task.is_finished() {
            // It may end by itself at this moment; that is as good.
            let _ = handle.request(Request::Detach).await;
            let _ = task.await;
        }
        drop(handle);
        server.finish(FAREWELL).await;
        engine_lock.release().await;
        superseded.get().cloned().map_or(Ok(()), |error| Err(error.into()))
    }

    /// Leaves a supervisor that ends, and waits for its lock; none if somebody else has that by then, or it cannot be had.
    /// With that of another runtime folder comes the one of this command's own folder: nobody begins beside either.
    pub async fn leave_gone(
        self,
        context: &Context,
        project: &ProjectName,
    ) -> Result<Option<Vec<Lock>>, CliError> {
        let mut paths = vec![context.paths()?.lock(project)];
        if let Self::Other(client) = &self {
            // In a folder that somebody else can change, another file may be in the place of the lock.
            let lock = lock_beside(client.path());
            if lock.parent().is_some_and(|folder| private_folder::check(folder).is_ok()) {
                paths.push(lock);
            }
            paths.dedup();
        }
        self.leave().await?;
        let deadline = tokio::time::Instant::now() + takeover::LEAVING;
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
