//! Ensures that a project on an engine has one supervisor, whoever starts it and on whichever host.
//!
//! The [lock file](super::lock) covers one user on one host only. All supervisors of a project share the engine: there
//! a supervisor holds a [container](crate::engine::docker::lock) with a unique name.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
    thread,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::{task::JoinHandle, time};

use crate::{
    engine::{
        ContainerId, EngineError,
        docker::{
            Docker,
            lock::{Attempt, Connection, Liveness, LockContainer},
        },
    },
    spec::ProjectName,
};

use super::owner::Owner;

/// How long to retry while other supervisors come and go. An engine reserves a name some time before it shows the
/// container, and takes seconds to create it under load.
const CONTEST: Duration = Duration::from_secs(30);
/// The label of a lock that is created only to test whether its owner is alive.
const PROBE: &str = "";
/// The interval of these attempts.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the owner of a lock with a running container may take to start it.
const STARTING: SignedDuration = SignedDuration::from_secs(60);
/// The interval of checks whether the lock still exists, in case an event is lost.
const GLANCE: Duration = Duration::from_secs(30);
/// Minimum delay between two checks of a held lock, whatever the engine reports.
const HELD_PAUSE: Duration = Duration::from_millis(200);
/// The interval of attempts to acquire the lock after a failure of the engine.
const RETRY: Duration = Duration::from_secs(1);
/// How long the engine may take to release a lock.
const RELEASE: Duration = Duration::from_secs(2);

/// Why the lock of a project cannot be acquired.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineLockError {
    /// Another supervisor holds it.
    #[error("project `{project}` is already supervised by {owner}")]
    Held {
        /// The project.
        project: ProjectName,
        /// The supervisor that holds it.
        owner: Box<Owner>,
    },
    /// A container has its name but is not a lock, or is a lock that this release cannot read.
    #[error("cannot take the lock of project `{project}`: another container has its name, {name} ({id})")]
    NameTaken {
        /// The project.
        project: ProjectName,
        /// The name of the container.
        name: String,
        /// The short ID of the container.
        id: String,
    },
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl EngineLockError {
    /// What the user can do about it.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Held { owner, .. } if owner.is_of_this_user() => Some(
                "it carries out commands such as `sameport scale` and `sameport up -d`; `sameport down` ends it"
                    .to_owned(),
            ),
            Self::Held { owner, .. } => Some(format!(
                "give the command as {} on {}; or end that process there, which leaves everything running",
                owner.user, owner.host
            )),
            Self::NameTaken { name, .. } => {
                Some(format!("if that container is not needed: `docker rm {name}`"))
            }
            Self::Engine(error) => error.help().map(str::to_owned),
        }
    }
}

/// The content of a lock's label.
#[derive(Debug, Serialize, Deserialize)]
struct Label {
    owner: Owner,
    liveness: Liveness,
}

/// The state of a held lock after a check.
#[derive(Debug)]
enum Fate {
    /// It is gone and has to be acquired again.
    Lost,
    /// As far as is known, it still exists.
    Held,
}

/// Held until it is released or this process ends, however it ends.
///
/// If the engine cannot create the lock, for example on a full disk, the supervisor runs without it and retries.
#[derive(Debug)]
pub struct EngineLock {
    held: Arc<Mutex<Option<ContainerId>>>,
    docker: Docker,
    keeper: JoinHandle<()>,
}

impl EngineLock {
    /// Acquires the lock. If it is lost later, because of `docker rm` or a failure of the engine, it is acquired again.
    /// `superseded` is called if another supervisor acquires it first.
    ///
    /// # Errors
    /// If another supervisor holds the lock, or another container has its name. A failure of the engine is no error;
    /// see above.
    pub async fn acquire(
        docker: Docker,
        project: &ProjectName,
        owner: Owner,
        superseded: impl FnOnce(EngineLockError) + Send + 'static,
    ) -> Result<Self, EngineLockError> {
        let ask = Ask { docker: docker.clone(), project: project.clone(), owner };
        let got = match ask.acquire().await {
            Ok(got) => Some(got),
            Err(EngineLockError::Engine(error)) => {
                tracing::warn!(%error, "the engine does not give the lock of the project; trying again");
                None
            }
            Err(error) => return Err(error),
        };
        let held = Arc::new(Mutex::new(got.as_ref().map(|got| got.id.clone())));
        let keeper = tokio::spawn(keep(ask, got, Arc::clone(&held), superseded));
        Ok(Self { held, docker, keeper })
    }

    /// Releases the lock. If the engine does not respond, the lock stays; the next supervisor sees that its owner is
    /// gone.
    pub async fn release(self) {
        self.keeper.abort();
        // Wait for the aborted task, which may hold the lock otherwise.
        let _ = self.keeper.await;
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(id) = held else { return };
        match time::timeout(RELEASE, self.docker.remove_lock(&id)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the lock of the project stays"),
            Err(_late) => tracing::debug!("the lock of the project stays: the engine does not answer"),
        }
    }
}

/// The live supervisor of a project, if there is one.
///
/// # Errors
/// If the engine cannot be reached.
pub async fn owner(docker: &Docker, project: &ProjectName) -> Result<Option<Owner>, EngineError> {
    let name = name(project);
    let Some(container) = docker.lock(&name).await? else { return Ok(None) };
    let Some(label) = read(&container) else { return Ok(None) };
    Ok(lives(docker, &container, &label).await?.then_some(label.owner))
}

/// The projects with a live supervisor.
///
/// # Errors
/// If the engine cannot be reached.
pub async fn owners(docker: &Docker) -> Result<Vec<(ProjectName, Owner)>, EngineError> {
    let mut found = Vec::new();
    for name in docker.locks().await? {
        let Some(Ok(project)) = name.strip_suffix(SUFFIX).map(str::parse) else { continue };
        if let Some(owner) = owner(docker, &project).await? {
            found.push((project, owner));
        }
    }
    Ok(found)
}

/// Project names contain no dots, so no other container of a project has such a name.
const SUFFIX: &str = ".supervisor";

fn name(project: &ProjectName) -> String {
    format!("{project}{SUFFIX}")
}

fn read(container: &LockContainer) -> Option<Label> {
    serde_json::from_str(container.label.as_deref()?).ok()
}

/// Whether the owner of a lock is alive; `true` if in doubt.
async fn lives(docker: &Docker, container: &LockContainer, label: &Label) -> Result<bool, EngineError> {
    if label.liveness == Liveness::Connection {
        let is_starting = Timestamp::now().duration_since(container.created) < STARTING;
        return Ok(container.running || (is_starting && container.is_new));
    }
    match docker.create_lock(&container.name, PROBE, label.liveness).await {
        Ok(Attempt::NameTaken) => Ok(true),
        Ok(Attempt::NoSuchThread) => Ok(false),
        // Its owner released it just now.
        Ok(Attempt::Created(id)) => {
            docker.remove_lock(&id).await?;
            Ok(false)
        }
        // Users with read-only access to the engine cannot test the lock; assume that its owner is alive.
        Err(EngineError::Denied { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}

/// A held lock.
struct Got {
    id: ContainerId,
    /// The connection that keeps the lock, if the engine does not see this process.
    connection: Option<Connection>,
}

/// The parameters of a lock.
struct Ask {
    docker: Docker,
    project: ProjectName,
    owner: Owner,
}

impl Ask {
    async fn acquire(&self) -> Result<Got, EngineLockError> {
        let name = name(&self.project);
        let mut liveness =
            thread_of_this_process().map_or(Liveness::Connection, |(pid, tid)| Liveness::Thread { pid, tid });
        let end = time::Instant::now() + CONTEST;
        while time::Instant::now() < end {
            match self.docker.create_lock(&name, &self.label(liveness), liveness).await? {
                Attempt::Created(id) if liveness == Liveness::Connection => {
                    return match self.docker.hold_lock(&id).await {
                        Ok(connection) => Ok(Got { id, connection: Some(connection) }),
                        Err(error) => {
                            self.docker.remove_lock(&id).await?;
                            Err(error.into())
                        }
                    };
                }
                Attempt::Created(id) => return Ok(Got { id, connection: None }),
                // The engine is on another host, or in another PID namespace.
                Attempt::NoSuchThread => liveness = Liveness::Connection,
                Attempt::NameTaken => {
                    self.contest(&name).await?;
                    time::sleep(PAUSE).await;
                }
            }
        }
        Err(EngineError::Busy { message: format!("others take and leave the lock {name} all the time") }
            .into())
    }

    /// Removes the lock if its owner is gone.
    async fn contest(&self, name: &str) -> Result<(), EngineLockError> {
        let Some(container) = self.docker.lock(name).await? else { return Ok(()) };
        let project = self.project.clone();
        if container.label.as_deref() == Some(PROBE) {
            // Left over from a test; its creator removes it unless it was killed.
            return Ok(self.docker.remove_lock(&container.id).await?);
        }
        let Some(label) = read(&container) else {
            let id = container.id.short().to_owned();
            return Err(EngineLockError::NameTaken { project, name: name.to_owned(), id });
        };
        if lives(&self.docker, &container, &label).await? {
            return Err(EngineLockError::Held { project, owner: Box::new(label.owner) });
        }
        // Remove it by its ID: a new container of that name belongs to another supervisor.
        Ok(self.docker.remove_lock(&container.id).await?)
    }

    fn label(&self, liveness: Liveness) -> String {
        // Serialization of this type cannot fail.
        serde_json::to_string(&Label { owner: self.owner.clone(), liveness }).unwrap_or_default()
    }

    /// Waits until the lock is lost or has to be checked again.
    async fn watch(&self, got: &mut Got) -> Result<Fate, EngineError> {
        let Got { id, connection } = got;
        // Read the time first, so that no event after this check is missed.
        let since = self.docker.time().await?;
        if self.docker.lock(&name(&self.project)).await?.is_none_or(|there| there.id != *id) {
            return Ok(Fate::Lost);
        }
        let closed = async {
            match connection {
                Some(connection) => connection.closed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = closed => Ok(Fate::Lost),
            () = self.docker.lock_changed(id, since.as_deref()) => Ok(Fate::Held),
            () = time::sleep(GLANCE) => Ok(Fate::Held),
        }
    }
}

/// Keeps a lock, and acquires it again when it is lost.
async fn keep(
    ask: Ask,
    mut got: Option<Got>,
    held: Arc<Mutex<Option<ContainerId>>>,
    superseded: impl FnOnce(EngineLockError),
) {
    let mut told = got.is_none();
    loop {
        match &mut got {
            Some(lock) => match ask.watch(lock).await {
                // Limit the rate in case the engine reports no events.
                Ok(Fate::Held) => time::sleep(HELD_PAUSE).await,
                Ok(Fate::Lost) => {
                    tracing::warn!("the lock of the project was removed from the engine; taking it again");
                    // The container may still exist under another name.
                    let removed = ask.docker.remove_lock(&lock.id).await;
                    removed.unwrap_or_else(|error| tracing::debug!(%error, "a lock that is lost stays"));
                    got = None;
                }
                // The state of the lock is unknown until the engine responds.
                Err(_) => time::sleep(RETRY).await,
            },
            None => match ask.acquire().await {
                Ok(lock) => {
                    *held.lock().unwrap_or_else(PoisonError::into_inner) = Some(lock.id.clone());
                    tracing::info!("the engine holds the lock of the project");
                    told = false;
                    got = Some(lock);
                }
                Err(EngineLockError::Engine(error)) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%error, "the engine does not give the lock of the project; trying again");
                    }
                    time::sleep(RETRY).await;
                }
                Err(error) => return superseded(error),
            },
        }
    }
}

/// The process ID and thread ID of a thread that lives as long as this process and does nothing; `None` if it cannot be
/// started.
fn thread_of_this_process() -> Option<(u32, u32)> {
    static THREAD: OnceLock<Option<u32>> = OnceLock::new();
    let start = || {
        let (tell, told) = mpsc::channel();
        let park = move || {
            // The receiver waits below, so this cannot fail.
            let _ = tell.send(nix::unistd::gettid().as_raw());
            loop {
                thread::park();
            }
        };
        thread::Builder::new().name("engine-lock".to_owned()).stack_size(16 << 10).spawn(park).ok()?;
        told.recv().ok().and_then(|tid| u32::try_from(tid).ok())
    };
    THREAD.get_or_init(start).map(|tid| (std::process::id(), tid))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Read, Write},
        os::unix::net::{UnixListener, UnixStream},
        path::Path,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use crate::engine::docker::Endpoint;

    /// How often creating the container fails before the name is free.
    const TAKEN: usize = 30;

    /// An engine that has reserved the lock's name for a container that it does not show yet.
    struct Engine {
        creates: AtomicUsize,
    }

    impl Engine {
        fn answer(&self, request: &str) -> (u16, &'static str) {
            match request {
                _ if request.contains("/version") => (200, r#"{"ApiVersion":"1.41"}"#),
                _ if request.contains("/images/") => (200, r#"{"Id":"sha256:1"}"#),
                _ if !request.contains("/containers/create") => (404, r#"{"message":"No such container"}"#),
                _ if self.creates.fetch_add(1, Ordering::SeqCst) < TAKEN => {
                    (409, r#"{"message":"Conflict. The container name is already in use"}"#)
                }
                _ => (201, r#"{"Id":"1f","Warnings":[]}"#),
            }
        }

        fn serve(&self, stream: UnixStream) -> std::io::Result<()> {
            let mut reader = BufReader::new(stream.try_clone()?);
            let mut stream = stream;
            loop {
                let (mut request, mut length) = (String::new(), 0);
                if reader.read_line(&mut request)? == 0 {
                    return Ok(());
                }
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line)?;
                    let line = line.trim().to_ascii_lowercase();
                    if let Some(told) = line.strip_prefix("content-length:") {
                        length = told.trim().parse().unwrap();
                    }
                    if line.is_empty() {
                        break;
                    }
                }
                reader.read_exact(&mut vec![0; length])?;
                let (status, body) = self.answer(&request);
                let length = body.len();
                write!(
                    stream,
                    "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
                )?;
            }
        }

        fn start(path: &Path) -> Arc<Self> {
            let engine = Arc::new(Self { creates: AtomicUsize::new(0) });
            let (listener, serving) = (UnixListener::bind(path).unwrap(), Arc::clone(&engine));
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let serving = Arc::clone(&serving);
                    // The client may disconnect.
                    thread::spawn(move || drop(serving.serve(stream)));
                }
            });
            engine
        }
    }

    #[tokio::test]
    async fn acquire_waits_for_a_name_that_is_reserved_for_an_invisible_container() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("engine.sock");
        let engine = Engine::start(&path);
        let endpoint = Endpoint { host: format!("unix://{}", path.display()), certificates: None };
        let docker = Docker::connect_to(&endpoint).await.unwrap();
        let owner = Owner::this_process(&path, None, Timestamp::now());
        let ask = Ask { docker, project: "shop".parse().unwrap(), owner };
        assert_eq!(ask.acquire().await.unwrap().id, ContainerId("1f".to_owned()));
        assert_eq!(engine.creates.load(Ordering::SeqCst), TAKEN + 1);
    }
}
