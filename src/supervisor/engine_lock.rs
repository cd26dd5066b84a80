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

/// How often it is tried anew where others come and go.
const TRIES: usize = 20;
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
    match docker.create_lock(&container.name, "", label.liveness).await {
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
        for _ in 0..TRIES {
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
                Attempt::NameTaken => self.contest(&name).await?,
            }
        }
        Err(EngineError::Busy { message: format!("others take and leave the lock {name} all the time") }
            .into())
    }

    /// Removes the lock of an owner that is gone.
    async fn contest(&self, name: &str) -> Result<(), EngineLockError> {
        let Some(container) = self.docker.lock(name).await? else { return Ok(()) };
        let project = self.project.clone();
        let Some(label) = read(&container) else {
            let id = container.id.short().to_owned();
            return Err(EngineLockError::NameTaken { project, name: name.to_owned(), id });
        };
        if lives(&self.docker, &container, &label).await? {
            return Err(EngineLockError::Held { project, owner: Box::new(label.owner) });
        }
        // By its id: another one of that name is another one's.
        self.docker.remove_lock(&container.id).await?;
        time::sleep(PAUSE).await;
        Ok(())
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
