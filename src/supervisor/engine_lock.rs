//! One supervisor of a project on an engine, whoever starts it, and on whichever host.
//!
//! The [lock file](super::lock) is of one user on one host. What all who supervise a project have in common is the engine:
//! there the supervisor holds a [container](crate::engine::docker::lock) whose name only one can have.

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

/// How long it is tried anew where others come and go. An engine gives a name away some time before it shows the container,
/// and a busy one takes seconds to make it.
const CONTEST: Duration = Duration::from_secs(30);
/// What stands in place of an owner in a lock that is only made to see whether that is possible.
const PROBE: &str = "";
/// Between two of these tries.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the owner of a lock that has to run may take to start it.
const STARTING: SignedDuration = SignedDuration::from_secs(60);
/// Events get lost: so often it is looked whether the lock is still there.
const GLANCE: Duration = Duration::from_secs(30);
/// Between two looks at a lock that is held, whatever the engine tells.
const HELD_PAUSE: Duration = Duration::from_millis(200);
/// Between two tries to have the lock where the engine did not give it.
const RETRY: Duration = Duration::from_secs(1);
/// How long the engine may take to give a lock back.
const RELEASE: Duration = Duration::from_secs(2);

/// Why the lock of a project cannot be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineLockError {
    /// Another supervisor has it.
    #[error("project `{project}` is already supervised by {owner}")]
    Held {
        /// Of which project.
        project: ProjectName,
        /// Which one.
        owner: Box<Owner>,
    },
    /// A container has its name that is not a lock, or one that this release does not understand.
    #[error("the lock of project `{project}` cannot be had: a container has its name, {name} ({id})")]
    NameTaken {
        /// Of which project.
        project: ProjectName,
        /// The name.
        name: String,
        /// The container.
        id: String,
    },
    /// The engine does not say.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl EngineLockError {
    /// What the user can do about it.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Held { owner, .. } if owner.is_of_this_user() => Some(
                "it does what commands such as `sameport scale` and `sameport up -d` ask of it; \
                 `sameport down` ends it"
                    .to_owned(),
            ),
            Self::Held { owner, .. } => Some(format!(
                "give the command as {} on {}; or end that process there, which leaves everything running",
                owner.user, owner.host
            )),
            Self::NameTaken { name, .. } => {
                Some(format!("if nobody needs that container: `docker rm {name}`"))
            }
            Self::Engine(error) => error.help().map(str::to_owned),
        }
    }
}

/// What the label of a lock holds.
#[derive(Debug, Serialize, Deserialize)]
struct Label {
    owner: Owner,
    liveness: Liveness,
}

/// What became of a lock that was held.
#[derive(Debug)]
enum Fate {
    /// It has to be had again.
    Lost,
    /// As far as is known, it is still there.
    Held,
}

/// Held until it is released, or this process ends, however it ends.
///
/// An engine that cannot give it, as one whose disk is full, keeps nobody from supervising: it is asked again.
#[derive(Debug)]
pub struct EngineLock {
    held: Arc<Mutex<Option<ContainerId>>>,
    docker: Docker,
    keeper: JoinHandle<()>,
}

impl EngineLock {
    /// Takes the lock. If it is lost later, by `docker rm` or by an end of the engine, it is taken again; `superseded` is
    /// called when another supervisor was faster.
    ///
    /// # Errors
    /// When another supervisor has it.
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

    /// Gives it back. An engine that does not answer keeps it; whoever comes next sees that its owner is gone.
    pub async fn release(self) {
        self.keeper.abort();
        // Between two steps of the keeper nothing else has it.
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

/// Who supervises a project, if somebody does who lives.
///
/// # Errors
/// When the engine does not answer.
pub async fn owner(docker: &Docker, project: &ProjectName) -> Result<Option<Owner>, EngineError> {
    let name = name(project);
    let Some(container) = docker.lock(&name).await? else { return Ok(None) };
    let Some(label) = read(&container) else { return Ok(None) };
    Ok(lives(docker, &container, &label).await?.then_some(label.owner))
}

/// The projects that somebody supervises who lives.
///
/// # Errors
/// When the engine does not answer.
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

/// No project has a dot in its name: no other container of ours is called so.
const SUFFIX: &str = ".supervisor";

fn name(project: &ProjectName) -> String {
    format!("{project}{SUFFIX}")
}

fn read(container: &LockContainer) -> Option<Label> {
    serde_json::from_str(container.label.as_deref()?).ok()
}

/// Whether the owner of a lock lives. In doubt it does.
async fn lives(docker: &Docker, container: &LockContainer, label: &Label) -> Result<bool, EngineError> {
    if label.liveness == Liveness::Connection {
        let is_starting = Timestamp::now().duration_since(container.created) < STARTING;
        return Ok(container.running || (is_starting && container.is_new));
    }
    match docker.create_lock(&container.name, PROBE, label.liveness).await {
        Ok(Attempt::NameTaken) => Ok(true),
        Ok(Attempt::NoSuchThread) => Ok(false),
        // Its owner gave it back at this moment.
        Ok(Attempt::Created(id)) => {
            docker.remove_lock(&id).await?;
            Ok(false)
        }
        // Who may only look can be told no more than what the lock says.
        Err(EngineError::Denied { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}

/// A lock that is held.
struct Got {
    id: ContainerId,
    /// Where the owner is on another host than the engine.
    connection: Option<Connection>,
}

/// Who wants which lock.
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
                // The engine is on another host, or sees other processes than we do.
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

    /// Removes the lock of an owner that is gone.
    async fn contest(&self, name: &str) -> Result<(), EngineLockError> {
        let Some(container) = self.docker.lock(name).await? else { return Ok(()) };
        let project = self.project.clone();
        if container.label.as_deref() == Some(PROBE) {
            // Whoever made it removes it, unless he was killed.
            return Ok(self.docker.remove_lock(&container.id).await?);
        }
        let Some(label) = read(&container) else {
            let id = container.id.short().to_owned();
            return Err(EngineLockError::NameTaken { project, name: name.to_owned(), id });
        };
        if lives(&self.docker, &container, &label).await? {
            return Err(EngineLockError::Held { project, owner: Box::new(label.owner) });
        }
        // By its id: another one of that name is another one's.
        Ok(self.docker.remove_lock(&container.id).await?)
    }

    fn label(&self, liveness: Liveness) -> String {
        // Nothing in it can fail to be written.
        serde_json::to_string(&Label { owner: self.owner.clone(), liveness }).unwrap_or_default()
    }

    /// Waits until the lock may be lost, or events of it may be.
    async fn watch(&self, got: &mut Got) -> Result<Fate, EngineError> {
        let Got { id, connection } = got;
        // Of what happens after this look, the engine tells.
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

/// Holds a lock, and takes it again when it is lost.
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
                // An engine that tells of no events is not asked without a pause.
                Ok(Fate::Held) => time::sleep(HELD_PAUSE).await,
                Ok(Fate::Lost) => {
                    tracing::warn!("the lock of the project was removed from the engine; taking it again");
                    // It may be there by another name.
                    let removed = ask.docker.remove_lock(&lock.id).await;
                    removed.unwrap_or_else(|error| tracing::debug!(%error, "a lock that is lost stays"));
                    got = None;
                }
                // Whether it is lost is known once the engine answers.
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

/// A thread that lives as long as this process, and that nothing needs: `None` where there can be none.
fn thread_of_this_process() -> Option<(u32, u32)> {
    static THREAD: OnceLock<Option<u32>> = OnceLock::new();
    let start = || {
        let (tell, told) = mpsc::channel();
        let park = move || {
            // Whoever starts it waits for this.
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

    /// How often the name is taken before it is free.
    const TAKEN: usize = 30;

    /// An engine that has given the name of the lock to a container which it does not show yet.
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
                    // Whoever asks may leave.
                    thread::spawn(move || drop(serving.serve(stream)));
                }
            });
            engine
        }
    }

    #[tokio::test]
    async fn a_name_that_is_given_away_before_its_container_is_shown_is_waited_for() {
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
