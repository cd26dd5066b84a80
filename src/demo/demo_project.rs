//! The demo's project on the engine, from its start to its removal.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use crate::{
    clock::Clock,
    engine::{ContainerId, Engine},
    spec::{Project, ProjectName},
    supervisor::{
        self, Apply, Event, EventKind, Handle, HostProcesses, Kernel, NetnsOf, Reply, Request, Settings,
        StateFile, lock::Lock,
    },
    tick::Ticker,
};

use super::DemoError;

/// Limit for the replicas to start.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Limit for the removal of the project.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(60);
/// The number of failed actions at which the start is given up.
const MAX_FAILURES: u32 = 5;

/// A supervised project. [`DemoProject::clear`] or [`DemoProject::leave`] must end it.
pub struct DemoProject<E> {
    engine: Arc<E>,
    project: ProjectName,
    handle: Handle,
    supervisor: JoinHandle<()>,
    lock: Lock,
    lock_file: PathBuf,
}

impl<E: Engine> DemoProject<E> {
    /// Starts a supervisor and requests the project.
    ///
    /// # Errors
    /// If the project is supervised already, or the supervisor rejects it.
    pub async fn set(
        engine: Arc<E>,
        project: Project,
        lock_file: PathBuf,
        netns_of: NetnsOf,
        kernel: Arc<dyn Kernel>,
    ) -> Result<Self, DemoError> {
        let name = project.name.clone();
        let lock = Lock::acquire(&lock_file)?;
        let settings = Settings {
            // The demo keeps no state after it ends.
            state: StateFile::default(),
            clock: Clock::default(),
            netns_of,
            processes: Arc::new(HostProcesses),
            kernel,
            ticker: Ticker::by_thread(),
            check_folder: None,
        };
        let (handle, supervisor) = supervisor::start(Arc::clone(&engine), name.clone(), settings)?;
        let demo_project = Self { engine, project: name, handle, supervisor, lock, lock_file };
        let apply = Apply::all(project, "demo");
        demo_project.ask(Request::Apply(Box::new(apply))).await?;
        Ok(demo_project)
    }

    /// Waits until all replicas run.
    ///
    /// # Errors
    /// If that takes more than 60 s, or five actions have failed.
    pub async fn up(&self) -> Result<(), DemoError> {
        let (kept, mut events) = self.handle.journal().follow();
        let mut kept = kept.into_iter();
        let deadline = Instant::now() + START_TIMEOUT;
        let (mut reason, mut failures) = (None, 0);
        while failures < MAX_FAILURES {
            let event = match kept.next() {
                Some(event) => event,
                None => match timeout_at(deadline, next(&mut events)).await {
                    Ok(event) => event?,
                    Err(_) => break,
                },
            };
            match event.kind {
                EventKind::Converged => return Ok(()),
                EventKind::Failed { error, .. } => {
                    reason = Some(error);
                    failures += 1;
                }
                EventKind::Exited { exit, log, .. } => {
                    let last = log.last().map(|line| format!(": {line}")).unwrap_or_default();
                    reason = Some(format!("a replica exited with code {}{last}", exit.code));
                    failures += 1;
                }
                _ => {}
            }
        }
        Err(DemoError::NotStarted { limit: START_TIMEOUT, reason })
    }

    /// Kills the replica of a slot with SIGKILL. The supervisor is not informed.
    ///
    /// # Errors
    /// If the slot has no running replica, or the engine fails.
    pub async fn kill(&self, slot: u32) -> Result<(), DemoError> {
        let victim = self.container(slot).await?.ok_or(DemoError::NoReplica { slot })?;
        Ok(self.engine.kill(&victim, "SIGKILL").await?)
    }

    async fn container(&self, slot: u32) -> Result<Option<ContainerId>, DemoError> {
        let Reply::Status(status) = self.ask(Request::Status).await? else { return Ok(None) };
        let replica = status.replicas.into_iter().find(|r| r.slot.number() == slot && r.state.is_up());
        Ok(replica.and_then(|r| r.container))
    }

    async fn ask(&self, request: Request) -> Result<Reply, DemoError> {
        match self.handle.request(request).await? {
            Reply::Rejected(rejection) => Err(rejection.into()),
            reply => Ok(reply),
        }
    }

    /// Removes everything that was created for the project.
    ///
    /// # Errors
    /// If the removal takes more than 60 s.
    pub async fn clear(self) -> Result<(), DemoError> {
        let request = Request::Down { volumes: true, grace: Some(Duration::from_secs(2)) };
        self.ask(request).await?;
        self.end(REMOVE_TIMEOUT).await
    }

    /// Ends the supervisor and leaves the replicas running.
    ///
    /// # Errors
    /// If the supervisor does not end within 60 s.
    pub async fn leave(self) -> Result<(), DemoError> {
        self.ask(Request::Detach).await?;
        self.end(REMOVE_TIMEOUT).await
    }

    async fn end(self, limit: Duration) -> Result<(), DemoError> {
        let Self { project, handle, supervisor, lock, lock_file, .. } = self;
        let ended = tokio::time::timeout(limit, supervisor).await;
        drop(lock);
        // The name of the project is unique to this run, so no other process waits for the file.
        if let Err(error) = std::fs::remove_file(&lock_file) {
            tracing::warn!(%error, path = %lock_file.display(), "the lock file stays");
        }
        match ended {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(DemoError::NotRemoved { project, reason: error.to_string() }),
            Err(_) => {
                let (kept, _) = handle.journal().follow();
                let failed = kept.into_iter().rev().find_map(|event| match event.kind {
                    EventKind::Failed { error, .. } => Some(error),
                    EventKind::EngineUnreachable { reason } => Some(reason),
                    _ => None,
                });
                let reason = failed.unwrap_or_else(|| format!("it took longer than {} s", limit.as_secs()));
                Err(DemoError::NotRemoved { project, reason })
            }
        }
    }
}

/// The next event. Missed events are skipped.
async fn next(events: &mut Receiver<Event>) -> Result<Event, supervisor::Ended> {
    loop {
        match events.recv().await {
            Ok(event) => return Ok(event),
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return Err(supervisor::Ended),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{demo::project::project, engine::memory::Memory, spec::Image, supervisor::NoKernel};

    #[tokio::test(start_paused = true)]
    async fn a_killed_replica_comes_back_and_nothing_is_left_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let lock_file = folder.path().join("demo.lock");
        let engine = Memory::new(Clock::default(), 1);
        let image = Image("localhost/demo".into());
        let project = project(image, 3, "127.0.0.1:4000".parse().unwrap()).unwrap();
        let world = engine.clone();
        let netns_of: NetnsOf = Arc::new(move |pid| world.world().netns_of(pid));
        let demo_project = DemoProject::set(
            Arc::new(engine.clone()),
            project,
            lock_file.clone(),
            netns_of,
            Arc::new(NoKernel),
        )
        .await
        .unwrap();
        demo_project.up().await.unwrap();
        assert_eq!(engine.world().containers().count(), 4, "a sandbox and three replicas");

        demo_project.kill(2).await.unwrap();
        let mut waited = 0;
        while demo_project.container(2).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
            waited += 1;
            assert!(waited < 10_000, "the kill went unnoticed");
        }
        while demo_project.container(2).await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
            waited += 1;
            assert!(waited < 10_000, "the replica did not come back");
        }

        demo_project.clear().await.unwrap();
        assert_eq!(engine.world().containers().count(), 0);
        assert_eq!(engine.world().resources(), Vec::<String>::new());
        assert!(!lock_file.exists());
    }

    #[tokio::test(start_paused = true)]
    async fn replicas_that_cannot_run_are_an_error_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Memory::new(Clock::default(), 1);
        engine.world().faults.refused = 1000;
        let image = Image("localhost/demo".into());
        let project = project(image, 2, "127.0.0.1:4000".parse().unwrap()).unwrap();
        let lock_file = folder.path().join("demo.lock");
        let demo_project = DemoProject::set(
            Arc::new(engine.clone()),
            project,
            lock_file,
            Arc::new(|_| None),
            Arc::new(NoKernel),
        )
        .await
        .unwrap();
        let error = demo_project.up().await.unwrap_err();
        assert!(matches!(&error, DemoError::NotStarted { reason: Some(_), .. }), "{error}");
        engine.world().faults.refused = 0;
        demo_project.clear().await.unwrap();
    }
}
