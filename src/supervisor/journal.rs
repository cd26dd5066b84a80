//! What happened, for people and for programs: every action, every exit, every error.

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

/// How many events are kept for somebody who comes later.
const KEPT: usize = 1024;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, by the supervisor's clock.
    pub time: Timestamp,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// A file is pursued from now on.
    Applied {
        /// How many services shall run.
        services: usize,
    },
    /// The file was read anew and is not pursued: what was valid before stays in force.
    NotApplied {
        /// Why, as a person reads it: several lines.
        error: String,
        /// What is wrong in the file; nothing where it is something else.
        mistakes: Vec<Mistake>,
    },
    /// Changes of the file may be seen late: it cannot be watched any more, and is looked at now and then.
    NotWatched {
        /// Why.
        error: String,
    },
    /// An action began.
    Begun {
        /// What it does.
        verb: Verb,
        /// To what.
        target: Target,
    },
    /// An action succeeded.
    Done {
        /// What it did.
        verb: Verb,
        /// To what.
        target: Target,
    },
    /// An action failed, and is tried again after a pause.
    Failed {
        /// What it was to do.
        verb: Verb,
        /// To what.
        target: Target,
        /// What the engine said.
        error: String,
        /// What the user can do about it.
        help: Option<String>,
    },
    /// A replica ended, not by our doing.
    Exited {
        /// Of which service.
        service: ServiceName,
        /// Which one.
        slot: Slot,
        /// How.
        exit: ExitStatus,
        /// How often in a row, each time soon after its start: three and more are a crash loop.
        exits: u32,
        /// The last lines that it wrote.
        log: Vec<String>,
    },
    /// A replica ended because its port was taken by another replica: the image does not share it.
    PortNotShared {
        /// Of which service.
        service: ServiceName,
        /// Which one.
        slot: Slot,
        /// What it runs.
        image: Image,
        /// The port, if the replica or the kernel told.
        port: Option<u16>,
    },
    /// A replica ended because its port was another user's. It is given to its own, and the replica is started again.
    OtherUser {
        /// Of which service.
        service: ServiceName,
        /// Which one.
        slot: Slot,
        /// The port, who wanted it, and who has it.
        #[serde(flatten)]
        other: OtherUser,
    },
    /// A replica ended after it had asked for a port that is exclusive and that another replica holds.
    ExclusivePort {
        /// Of which service.
        service: ServiceName,
        /// Which one.
        slot: Slot,
        /// Which port.
        #[serde(flatten)]
        port: ExclusivePort,
    },
    /// The kernel shares the ports of pods from now on.
    SharedByKernel,
    /// The kernel cannot share ports: the images have to.
    SharedByImages {
        /// What is missing.
        reason: String,
    },
    /// The kernel cannot do something for a pod.
    CannotSteer {
        /// For which one.
        pod: PodName,
        /// What it is.
        error: String,
    },
    /// At some ports of a pod connections cannot wait: the supervisor may open too few files.
    TooFewFiles {
        /// Of which one.
        pod: PodName,
        /// How many it may open.
        most: u64,
    },
    /// Something of a removed project stays in the kernel.
    LeftInKernel {
        /// What it is.
        error: String,
    },
    /// A replica gets connections from now on, or more or fewer of them, or none.
    Rotation {
        /// Of which service.
        service: ServiceName,
        /// Which one.
        slot: Slot,
        /// How much it gets, compared with the others.
        weight: u32,
        /// Its open connections.
        live: u64,
        /// Its connections so far.
        total: u64,
        /// Those that it has not accepted yet.
        queue: u64,
    },
    /// The health check of a service cannot be run, and says nothing of its replicas.
    CheckCannotRun {
        /// Of which service.
        service: ServiceName,
        /// The replica where that was found.
        slot: Slot,
        /// What was said of it.
        error: String,
    },
    /// All replicas of a service fail a health check that none of its version has ever passed: they get connections all the
    /// same.
    CheckNeverPassed {
        /// Of which service.
        service: ServiceName,
        /// What it says.
        said: String,
    },
    /// A replica has listeners that there is no room for: they are left to the kernel.
    Unsteered {
        /// Of which service.
        service: ServiceName,
        /// Which one.
        slot: Slot,
        /// How many.
        listeners: u64,
    },
    /// A program in a pod tried to choose who gets the connections of a port. It had no effect.
    IgnoredProgram {
        /// In which one.
        pod: PodName,
        /// Of which replica; none: of no replica.
        replica: Option<(ServiceName, Slot)>,
        /// At which port.
        port: u16,
        /// Of which protocol.
        protocol: Protocol,
    },
    /// Connections begin to wait because no replica is ready, or none waits any more.
    Waiting {
        /// In which pod.
        pod: PodName,
        /// On which port.
        port: u16,
        /// How many.
        connections: u64,
    },
    /// A socket has joined those of the replicas that is nobody's; it gets nothing.
    ForeignListener {
        /// In which pod.
        pod: PodName,
        /// Whose it is, and what it gets.
        #[serde(flatten)]
        foreign_listener: ForeignListener,
    },
    /// Several replicas have a socket or a pid file together, which is meant for one program.
    SharedFile {
        /// Which.
        #[serde(flatten)]
        file: SharedFile,
    },
    /// Something carries our labels that we have not made. It is left alone.
    ForeignFound {
        /// What it is, and why it is not ours.
        #[serde(flatten)]
        foreign: Foreign,
    },
    /// The commands before the end of a replica did not succeed; it is stopped all the same.
    PreStopFailed {
        /// What was stopped.
        target: Target,
        /// Which command, and how it ended.
        error: String,
    },
    /// The job before a new version failed: no replica of it is started.
    JobFailed {
        /// Of which service.
        target: Target,
        /// How.
        exit: ExitStatus,
        /// The last lines that it wrote.
        log: Vec<String>,
    },
    /// A health check changed its mind.
    Health {
        /// Of which service.
        service: ServiceName,
        /// Which one.
        slot: Slot,
        /// What it says now.
        health: crate::engine::Health,
    },
    /// A replica takes no connections while others do; it gets no new ones for now.
    Stuck {
        /// Of which service.
        service: ServiceName,
        /// Which one.
        slot: Slot,
        /// How many wait for it.
        waiting: u64,
    },
    /// A replica is ended because it does not work, and a new process takes its place.
    Replaced {
        /// Of which service.
        service: ServiceName,
        /// Which one.
        slot: Slot,
        /// Why, in words: `unhealthy for 10 s: no database`.
        why: String,
    },
    /// A service is on its way to another version.
    Rollout {
        /// Which one.
        service: ServiceName,
        /// What has become of it.
        #[serde(flatten)]
        milestone: Milestone,
    },
    /// A pod lost its namespaces; its replicas have to start again in new ones.
    PodLost {
        /// Which one.
        pod: PodName,
    },
    /// Somebody has taken the sandbox of a pod off a network.
    PodDisconnected {
        /// Which pod.
        pod: PodName,
        /// The network, by the engine's name.
        network: String,
    },
    /// Another program has made the container of a replica anew.
    Recreated {
        /// Of which service.
        service: ServiceName,
        /// Which one.
        slot: Slot,
        /// The content id of the image that it chose.
        image: String,
    },
    /// Somebody has stopped a replica without sameport: it stays down until somebody starts it.
    StoppedOutside {
        /// Of which service.
        service: ServiceName,
        /// Which one.
        slot: Slot,
        /// When, by the engine's clock.
        at: Timestamp,
    },
    /// Somebody has frozen a replica: it gets no connections until it goes on.
    Paused {
        /// Of which service.
        service: ServiceName,
        /// Which one.
        slot: Slot,
    },
    /// The state cannot be written: it is known as long as this supervisor lives, and written once that can be done.
    StateNotSaved {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The state is written again.
    StateSaved,
    /// The process of a container is not there, though the engine says that it runs.
    ProcessLost {
        /// Whose it was.
        target: Target,
    },
    /// The engine's list lacks containers that run: they are left as they are.
    Unlisted {
        /// Their names.
        containers: Vec<String>,
    },
    /// The state file was damaged, and the state was made anew.
    StateReset {
        /// How, and what could be had back.
        #[serde(flatten)]
        reset: StateReset,
    },
    /// The engine cannot be reached; what runs goes on.
    EngineLost {
        /// What the system said.
        reason: String,
    },
    /// The engine is back.
    EngineBack,
    /// The project has converged.
    Converged,
    /// All that was made is removed.
    Removed,
}

/// A stage on the way to another version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "rollout", rename_all = "snake_case")]
pub enum Milestone {
    /// It starts, or now has another target.
    Begun {
        /// Where it leads.
        underway: Underway,
    },
    /// It is known in which order it replaces replicas.
    Order {
        /// Which, and why.
        order: ReplacementOrder,
    },
    /// The new version gets more from now on.
    Step {
        /// How much.
        share: Share,
    },
    /// The new version gets everything: the old replicas go.
    Promoted,
    /// The new version is not worth having.
    Failed {
        /// Its number.
        version: u32,
        /// Why.
        failure: Failure,
        /// What follows.
        action: FailureAction,
    },
    /// All replicas run the version, and it has proved itself.
    Done {
        /// Where it led.
        underway: Underway,
        /// What became of connections meanwhile, where somebody counts them.
        rollout_summary: Option<RolloutSummary>,
        /// How long no replica was ready meanwhile, as far as the supervisor has seen it.
        outage: Option<Duration>,
    },
}

/// Takes events in, hands them out, keeps the last ones.
#[derive(Clone, Debug)]
pub struct Journal {
    inner: Arc<Mutex<JournalInner>>,
}

#[derive(Debug)]
struct JournalInner {
    kept: VecDeque<Event>,
    /// None once nothing happens any more.
    live: Option<broadcast::Sender<Event>>,
}

impl Default for Journal {
    fn default() -> Self {
        let live = Some(broadcast::Sender::new(KEPT));
        Self { inner: Arc::new(Mutex::new(JournalInner { kept: VecDeque::new(), live })) }
    }
}

impl Journal {
    /// Takes an event in.
    pub fn record(&self, time: Timestamp, kind: EventKind) {
        let event = Event { time, kind };
        tracing::debug!(?event);
        let mut inner = self.inner();
        if inner.kept.len() == KEPT {
            inner.kept.pop_front();
        }
        inner.kept.push_back(event.clone());
        if let Some(live) = &inner.live {
            // Nobody listening is no error.
            let _ = live.send(event);
        }
    }

    /// The events so far, as far as they are kept, and those to come. There are no more once the supervisor has
    /// ended.
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

/// The supervisor's own hold on its journal: nothing happens any more once it is dropped.
#[derive(Debug)]
pub(super) struct JournalWriter(Journal);

impl JournalWriter {
    /// Writes in `journal`.
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
    async fn who_comes_later_is_told_what_is_kept() {
        let journal = Journal::default();
        for _ in 0..KEPT + 1 {
            journal.record(Timestamp::UNIX_EPOCH, EventKind::Converged);
        }
        journal.record(Timestamp::UNIX_EPOCH, EventKind::EngineBack);
        let (past, mut live) = journal.follow();
        assert_eq!(past.len(), KEPT);
        assert_eq!(past.last().unwrap().kind, EventKind::EngineBack);
        journal.record(Timestamp::UNIX_EPOCH, EventKind::Removed);
        assert_eq!(live.recv().await.unwrap().kind, EventKind::Removed);
    }

    #[tokio::test]
    async fn nothing_is_to_come_once_the_supervisor_has_ended() {
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
