//! Records events: every action, every exit, every error.

use std::{
    collections::VecDeque,
    ops::Deref,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use super::{Mistake, StateReset};
use crate::{
    engine::ownership::Foreign,
    kernel::steering::{ForeignListener, OtherUser},
    plan::{
        ExclusivePort, Failure, ReplacementOrder, RolloutSummary, SharedFile, Target, Verb,
        status::ExitStatus, versions::Underway,
    },
    spec::{FailureAction, Image, PodName, Protocol, ServiceName, Share, Slot},
};

/// The number of events that are kept as history.
const KEPT: usize = 1024;

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it happened, by the supervisor's clock.
    pub time: Timestamp,
    /// The kind of event and its data.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// The kind of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// A Compose file was applied.
    Applied {
        /// The number of services to run.
        services: usize,
    },
    /// A changed Compose file was rejected; the previous one stays in force.
    Rejected {
        /// The error in words, several lines.
        error: String,
        /// The positions in the file; empty if the error has none.
        mistakes: Vec<Mistake>,
    },
    /// The file cannot be watched any more and is read at intervals; changes may be seen late.
    WatchUnavailable {
        /// The error of the operating system.
        error: String,
    },
    /// An action started.
    Started {
        /// The action.
        verb: Verb,
        /// The target of the action.
        target: Target,
    },
    /// An action succeeded.
    Done {
        /// The action.
        verb: Verb,
        /// The target of the action.
        target: Target,
    },
    /// An action failed, and is retried after a delay.
    Failed {
        /// The action.
        verb: Verb,
        /// The target of the action.
        target: Target,
        /// The error of the engine.
        error: String,
        /// What the user can do about it.
        help: Option<String>,
    },
    /// A replica ended without being stopped by sameport.
    Exited {
        /// The service.
        service: ServiceName,
        /// The slot of the replica.
        slot: Slot,
        /// How the process ended.
        exit: ExitStatus,
        /// The number of consecutive exits soon after the start; three and more are a crash loop.
        exits: u32,
        /// The last lines of its log.
        log: Vec<String>,
    },
    /// A replica ended because another replica holds its port, which the image does not share.
    PortNotShared {
        /// The service.
        service: ServiceName,
        /// The slot of the replica.
        slot: Slot,
        /// The image of the replica.
        image: Image,
        /// The port, if the log or the kernel names it.
        port: Option<u16>,
    },
    /// A replica ended because replicas of another user hold its port. The port passes to its own user, and the replica
    /// is started again.
    UserConflict {
        /// The service.
        service: ServiceName,
        /// The slot of the replica.
        slot: Slot,
        /// The port, the user that wanted it, and the user that holds it.
        #[serde(flatten)]
        other: OtherUser,
    },
    /// A replica ended after it requested an exclusive port that another replica holds.
    ExclusivePort {
        /// The service.
        service: ServiceName,
        /// The slot of the replica.
        slot: Slot,
        /// The port.
        #[serde(flatten)]
        port: ExclusivePort,
    },
    /// From now on, the kernel shares the ports of pods.
    SharedByKernel,
    /// The kernel cannot share ports; the images have to set `SO_REUSEPORT` themselves.
    SharedByApplication {
        /// What is missing.
        reason: String,
    },
    /// The kernel cannot steer connections in a pod, or not fully.
    SteeringUnavailable {
        /// The pod.
        pod: PodName,
        /// The error.
        error: String,
    },
    /// Connections to some ports of a pod cannot be held, because the supervisor's limit of open files is too low.
    TooFewFiles {
        /// The pod.
        pod: PodName,
        /// The limit of open files of the supervisor.
        most: u64,
    },
    /// Kernel state of a removed project could not be removed.
    KernelStateLeft {
        /// What is left, and why.
        error: String,
    },
    /// The weight of a replica changed: it enters or leaves rotation, or gets another share of the connections.
    Rotation {
        /// The service.
        service: ServiceName,
        /// The slot of the replica.
        slot: Slot,
        /// The new weight, relative to the other replicas; 0: no new connections.
        weight: u32,
        /// Open connections.
        live: u64,
        /// Total connections so far; for UDP, flows.
        total: u64,
        /// Connections that it has not accepted yet.
        queue: u64,
    },
    /// The health check of a service cannot be run, and is ignored.
    HealthCheckError {
        /// The service.
        service: ServiceName,
        /// The slot of the replica on which the check failed to run.
        slot: Slot,
        /// The error.
        error: String,
    },
    /// All replicas of a service fail a health check that no replica of this version has ever passed. They get
    /// connections anyway.
    HealthCheckNeverPassed {
        /// The service.
        service: ServiceName,
        /// The last output of the check.
        said: String,
    },
    /// A replica has more listeners than can be steered; the kernel chooses among the others without regard to weights.
    UnsteeredListeners {
        /// The service.
        service: ServiceName,
        /// The slot of the replica.
        slot: Slot,
        /// The number of listeners beyond the limit.
        listeners: u64,
    },
    /// A program in a pod tried to choose which listener gets the connections of a port. The call had no effect.
    ReuseportProgramIgnored {
        /// The pod.
        pod: PodName,
        /// The replica; `None` if the process belongs to no replica.
        replica: Option<(ServiceName, Slot)>,
        /// The port.
        port: u16,
        /// The protocol of the port.
        protocol: Protocol,
    },
    /// Connections are being held because no replica is ready, or none is held any more.
    Waiting {
        /// The pod.
        pod: PodName,
        /// The port in the pod.
        port: u16,
        /// The number of held connections.
        connections: u64,
    },
    /// A process that is not a replica listens on a port of the replicas.
    ForeignListener {
        /// The pod.
        pod: PodName,
        /// The socket, its process, and what it receives.
        #[serde(flatten)]
        foreign_listener: ForeignListener,
    },
    /// Several replicas share a socket or a pid file that is meant for one process.
    SharedFile {
        /// The file and its service.
        #[serde(flatten)]
        file: SharedFile,
    },
    /// A resource has sameport's labels but was not made by sameport. It is never changed.
    ForeignResource {
        /// The resource, and why it does not count as sameport's.
        #[serde(flatten)]
        foreign: Foreign,
    },
    /// The `pre_stop` commands of a replica failed; it is stopped anyway.
    PreStopFailed {
        /// The replica.
        target: Target,
        /// The command that failed, and its error.
        error: String,
    },
    /// The pre-deploy job of a version failed; no replica of that version is started.
    JobFailed {
        /// The job.
        target: Target,
        /// How it ended.
        exit: ExitStatus,
        /// The last lines of its log.
        log: Vec<String>,
    },
    /// The health of a replica changed.
    Health {
        /// The service.
        service: ServiceName,
        /// The slot of the replica.
        slot: Slot,
        /// The new health.
        health: crate::engine::Health,
    },
    /// A replica accepts no connections while others do; it gets no new ones for now.
    Stuck {
        /// The service.
        service: ServiceName,
        /// The slot of the replica.
        slot: Slot,
        /// Connections that it has not accepted.
        waiting: u64,
    },
    /// A replica does not work, and is being replaced by a new process.
    Replaced {
        /// The service.
        service: ServiceName,
        /// The slot of the replica.
        slot: Slot,
        /// The reason, in words: `unhealthy for 10 s: no database`.
        why: String,
    },
    /// A rollout reached a new phase.
    Rollout {
        /// The service.
        service: ServiceName,
        /// The phase and its data.
        #[serde(flatten)]
        milestone: Milestone,
    },
    /// A pod lost its namespaces; its replicas are started again in new ones.
    PodLost {
        /// The pod.
        pod: PodName,
    },
    /// The sandbox of a pod was disconnected from a network from outside.
    PodDisconnected {
        /// The pod.
        pod: PodName,
        /// The name of the network on the engine.
        network: String,
    },
    /// Another program recreated the container of a replica.
    ContainerRecreated {
        /// The service.
        service: ServiceName,
        /// The slot of the replica.
        slot: Slot,
        /// The content ID of the image that it chose.
        image: String,
    },
    /// A replica was stopped from outside. It stays down until it is started again.
    StoppedExternally {
        /// The service.
        service: ServiceName,
        /// The slot of the replica.
        slot: Slot,
        /// When it was stopped, by the engine's clock.
        at: Timestamp,
    },
    /// A replica was paused from outside. It gets no connections until it is unpaused.
    Paused {
        /// The service.
        service: ServiceName,
        /// The slot of the replica.
        slot: Slot,
    },
    /// The state file cannot be written. The supervisor keeps its content in memory and retries.
    StateNotSaved {
        /// The path of the state file.
        path: PathBuf,
        /// The error of the operating system.
        reason: String,
    },
    /// The state file could be written again.
    StateSaved,
    /// The process of a container is gone although the engine reports it as running.
    ProcessLost {
        /// The owner of the process, such as a replica.
        target: Target,
    },
    /// The engine's list lacks containers that run. They are left alone.
    ContainersUnlisted {
        /// The names of the containers.
        containers: Vec<String>,
    },
    /// The state file was damaged, and was rebuilt from the engine.
    StateReset {
        /// The damage, and what was recovered.
        #[serde(flatten)]
        reset: StateReset,
    },
    /// The engine cannot be reached; running containers go on.
    EngineUnreachable {
        /// The error of the operating system.
        reason: String,
    },
    /// The engine can be reached again.
    EngineReachable,
    /// The project matches the desired state.
    Converged,
    /// The project is removed.
    Removed,
}

/// The phase of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "rollout", rename_all = "snake_case")]
pub enum Milestone {
    /// The rollout started, or its target version changed.
    Begun {
        /// The versions and parameters of the rollout.
        underway: Underway,
    },
    /// The order in which replicas are replaced was determined.
    Order {
        /// The order and its reason.
        order: ReplacementOrder,
    },
    /// The new version gets a larger share of the connections.
    Step {
        /// The share.
        share: Share,
    },
    /// The new version gets all connections; the old replicas are removed.
    Promoted,
    /// The new version failed.
    Failed {
        /// The number of the version.
        version: u32,
        /// The failure.
        failure: Failure,
        /// The reaction: roll back, pause or continue.
        action: FailureAction,
    },
    /// All replicas run the version, and it passed its monitoring period.
    Done {
        /// The versions and parameters of the rollout.
        underway: Underway,
        /// The connections during the rollout, where the kernel counts them.
        rollout_summary: Option<RolloutSummary>,
        /// How long no replica was ready during the rollout, as far as the supervisor observed it.
        outage: Option<Duration>,
    },
}

/// Records events, distributes them to readers, and keeps the most recent ones.
#[derive(Clone, Debug)]
pub struct Journal {
    inner: Arc<Mutex<JournalInner>>,
}

#[derive(Debug)]
struct JournalInner {
    kept: VecDeque<Event>,
    /// `None` once the supervisor has ended.
    live: Option<broadcast::Sender<Event>>,
}

impl Default for Journal {
    fn default() -> Self {
        let live = Some(broadcast::Sender::new(KEPT));
        Self { inner: Arc::new(Mutex::new(JournalInner { kept: VecDeque::new(), live })) }
    }
}

impl Journal {
    /// Records an event and sends it to all readers.
    pub fn record(&self, time: Timestamp, kind: EventKind) {
        let event = Event { time, kind };
        tracing::debug!(?event);
        let mut inner = self.inner();
        if inner.kept.len() == KEPT {
            inner.kept.pop_front();
        }
        inner.kept.push_back(event.clone());
        if let Some(live) = &inner.live {
            // The only error is that there are no readers.
            let _ = live.send(event);
        }
    }

    /// The kept events, and a receiver for new ones, which is closed when the supervisor ends.
    #[must_use]
    pub fn follow(&self) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let inner = self.inner();
        let live = inner.live.as_ref().map_or_else(|| broadcast::channel(1).1, broadcast::Sender::subscribe);
        (inner.kept.iter().cloned().collect(), live)
    }

    fn inner(&self) -> MutexGuard<'_, JournalInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The supervisor's write access to its journal. Dropping it closes all receivers.
#[derive(Debug)]
pub(super) struct JournalWriter(Journal);

impl JournalWriter {
    /// Grants write access to `journal`.
    pub(super) fn new(journal: Journal) -> Self {
        Self(journal)
    }
}

impl Deref for JournalWriter {
    type Target = Journal;

    fn deref(&self) -> &Journal {
        &self.0
    }
}

impl Drop for JournalWriter {
    fn drop(&mut self) {
        self.0.inner().live = None;
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast::error::RecvError;

    use super::*;

    #[tokio::test]
    async fn a_late_reader_gets_the_history() {
        let journal = Journal::default();
        for _ in 0..KEPT + 1 {
            journal.record(Timestamp::UNIX_EPOCH, EventKind::Converged);
        }
        journal.record(Timestamp::UNIX_EPOCH, EventKind::EngineReachable);
        let (past, mut live) = journal.follow();
        assert_eq!(past.len(), KEPT);
        assert_eq!(past.last().unwrap().kind, EventKind::EngineReachable);
        journal.record(Timestamp::UNIX_EPOCH, EventKind::Removed);
        assert_eq!(live.recv().await.unwrap().kind, EventKind::Removed);
    }

    #[tokio::test]
    async fn the_stream_ends_with_the_supervisor() {
        let journal = Journal::default();
        let writer = JournalWriter::new(journal.clone());
        let (_, mut before) = journal.follow();
        writer.record(Timestamp::UNIX_EPOCH, EventKind::Removed);
        drop(writer);
        assert_eq!(before.recv().await.unwrap().kind, EventKind::Removed);
        assert_eq!(before.recv().await, Err(RecvError::Closed));
        let (past, mut after) = journal.follow();
        assert_eq!(past.len(), 1);
        assert_eq!(after.recv().await, Err(RecvError::Closed));
    }
}
