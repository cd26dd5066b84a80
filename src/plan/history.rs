//! What was tried on one target, and how it went: the memory that a fair back-off needs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    engine::{ContainerId, ContainerState, EngineError, Exit, tells_of_host_fault},
    kernel::steering::OtherUser,
    spec::{Generation, Image, Limits, Protocol, Restart, RestartCondition},
};

use super::{Connects, Container, Target, UnhealthyReplacement, backoff, status::ExitStatus};

/// How long a replica must stay up for its start to count as a success, unless the file says otherwise.
pub const WINDOW: Duration = Duration::from_secs(10);

/// So often in a row a replica may end because its port is another user's: several users may want it at the same time.
const EXCUSED: u32 = 6;

/// What happened to one target so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Exits in a row of one version, each sooner than the window after its start.
    pub exits: u32,
    /// Which version that is.
    of: Option<Generation>,
    /// The last one that was counted.
    counted: Option<(ContainerId, Timestamp)>,
    /// A process that we ended ourselves: its end is no failure.
    ignored: Option<(ContainerId, Timestamp)>,
    /// A process that we ended because it did not work, and for how long it had: its end is a failure.
    replaced: Option<(ContainerId, Timestamp, Duration)>,
    /// That the last end was such a one.
    pub replacement: Option<UnhealthyReplacement>,
    /// The last change of limits that the engine answered, and whether it refused.
    limits: Option<(ContainerId, Limits, Answer)>,
    /// Exits in a row of that version that were ignored, since its port was another user's.
    excused: u32,
    /// What was tried to put connections right, by container and network.
    connects: BTreeMap<(ContainerId, String), Connects>,
    /// Engine calls in a row that failed, and the last one's error.
    pub errors: Option<Errors>,
    /// What was found out about its last end that was no doing of ours.
    pub last_termination: Option<LastTermination>,
}

/// What the engine said to a change of limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Accepted,
    /// It is not, and never will be.
    Refused,
}

/// What was found out about the end of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastTermination {
    /// How it ended.
    pub exit: ExitStatus,
    /// The last lines that it wrote.
    pub log: Vec<String>,
    /// Set when its port was taken by another replica, because the image does not share it.
    pub port_not_shared: Option<PortNotShared>,
    /// Set when its port was taken by replicas of another user, and it did not get it after many tries.
    #[serde(default)]
    pub other_user: Option<OtherUser>,
    /// Set when it asked for a port that is exclusive and that another replica holds.
    #[serde(default)]
    pub exclusive_port: Option<ExclusivePort>,
}

/// A replica ended because its port was taken by another replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortNotShared {
    /// What it runs.
    pub image: Image,
    /// The port, if the replica told it or its pod has only one.
    pub port: Option<u16>,
}

/// A port that only one replica can hold at a time, and that another one holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExclusivePort {
    /// The port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

/// `30001/tcp`.
impl fmt::Display for ExclusivePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

impl ExclusivePort {
    /// What to write in the Compose file to have replicas share a port.
    #[must_use]
    pub fn how_to_share(port: u16) -> String {
        format!("`x-sameport: {{ ports: {{ \"{port}\": shared }} }}`")
    }
}

/// Engine calls in a row that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors {
    /// How many.
    pub count: u32,
    /// What the last one said.
    pub last: EngineError,
    /// When the next try is due.
    pub retry_at: Timestamp,
}

/// What the restart rule says about a container that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It starts again, then.
    Again(Timestamp),
    /// It has done its work.
    Completed,
    /// It failed, and the rule allows no further try.
    GivenUp,
    /// Somebody has stopped it without sameport, then.
    StoppedOutside(Timestamp),
}

impl History {
    /// Takes note of a container's state, and tells whether its process ended anew and not by our doing.
    /// Noting the same end again changes nothing.
    pub fn note(&mut self, container: &Container, rule: &Restart) -> bool {
        let ContainerState::Exited(exit) = &container.state else { return false };
        let key = (container.id.clone(), exit.finished_at);
        if self.counted.as_ref() == Some(&key) {
            return false;
        }
        let is_new_version = self.of.as_ref() != Some(&container.labels.generation);
        let well_for = self.replaced_after(&container.id, exit.started_at);
        if is_new_version || well_for.unwrap_or_else(|| uptime(exit)) >= rule.window.unwrap_or(WINDOW) {
            self.exits = 0;
            self.excused = 0;
        }
        self.of = Some(container.labels.generation.clone());
        self.counted = Some(key);
        if self.is_ignored(&container.id, exit.started_at) {
            return false;
        }
        self.exits = self.exits.saturating_add(1);
        if well_for.is_some() {
            return false;
        }
        self.replacement = None;
        true
    }

    /// Exits in a row of the version that a container runs: none any more, once its process has stayed up.
    #[must_use]
    pub fn exits_of(&self, container: &Container, now: Timestamp, rule: &Restart) -> u32 {
        let age = Duration::try_from(now.duration_since(container.since)).unwrap_or_default();
        let stayed_up = container.process().is_some() && age >= rule.window.unwrap_or(WINDOW);
        let same_version = self.of.as_ref() == Some(&container.labels.generation);
        if same_version && !stayed_up { self.exits } else { 0 }
    }

    /// Whether a container that has ended starts again, by the rule, and when.
    #[must_use]
    pub fn verdict(&self, container: &Container, exit: &Exit, target: &Target, rule: &Restart) -> Verdict {
        if self.is_ignored(&container.id, exit.started_at) {
            return Verdict::Again(container.since);
        }
        // It has not run: whatever the rule says of one that did, it is still to run for the first time.
        if exit.error.as_deref().is_some_and(tells_of_host_fault) {
            return Verdict::Again(later(container.since, backoff::pause(self.exits, target)));
        }
        let failed = exit.code != 0
            || exit.out_of_memory
            || exit.error.is_some()
            || self.is_replaced(&container.id, exit.started_at);
        match rule.condition {
            RestartCondition::Never | RestartCondition::OnFailure if !failed => return Verdict::Completed,
            RestartCondition::Never => return Verdict::GivenUp,
            RestartCondition::OnFailure | RestartCondition::Always => {}
        }
        if rule.max_attempts.is_some_and(|most| self.exits > most) {
            return if failed { Verdict::GivenUp } else { Verdict::Completed };
        }
        let pause = rule.delay.unwrap_or_else(|| backoff::pause(self.exits, target));
        Verdict::Again(later(container.since, pause))
    }

    /// The process that started then is ended by us: its exit counts for nothing, and a new one is due.
    pub fn ignore_exit(&mut self, container: &ContainerId, started_at: Timestamp) {
        self.ignored = Some((container.clone(), started_at));
    }

    /// The process that started then ended because its port was another user's, and is given to its own meanwhile: its exit counts
    /// for nothing, and a new one is due. Returns whether that is so: not if it ends for it again and again.
    pub fn excuse(&mut self, container: &ContainerId, started_at: Timestamp) -> bool {
        if self.excused >= EXCUSED {
            return false;
        }
        self.excused += 1;
        self.exits = self.exits.saturating_sub(1);
        self.last_termination = None;
        self.ignore_exit(container, started_at);
        true
    }

    /// The process that started then is ended by us because it does not work: its exit counts as any failure does, and
    /// it was up only as long as it worked.
    pub fn replace(
        &mut self,
        container: &ContainerId,
        started_at: Timestamp,
        well_for: Duration,
        why: UnhealthyReplacement,
    ) {
        self.replaced = Some((container.clone(), started_at, well_for));
        self.replacement = Some(why);
        self.last_termination = None;
    }

    /// Whether a process was ended by us because it did not work.
    #[must_use]
    pub fn is_replaced(&self, container: &ContainerId, started_at: Timestamp) -> bool {
        self.replaced_after(container, started_at).is_some()
    }

    fn replaced_after(&self, container: &ContainerId, started_at: Timestamp) -> Option<Duration> {
        let (id, start, well_for) = self.replaced.as_ref()?;
        (id == container && *start == started_at).then_some(*well_for)
    }

    /// Whether this is the first time that the end of a process is noted.
    pub fn note_end(&mut self, container: &ContainerId, finished_at: Timestamp) -> bool {
        let key = (container.clone(), finished_at);
        self.counted.replace(key.clone()) != Some(key)
    }

    /// Whether an end has been noted, and what was found out about it is not there yet.
    pub(super) fn awaits_last_termination(&self, container: &ContainerId, finished_at: Timestamp) -> bool {
        let noted = self.counted.as_ref().is_some_and(|(id, at)| id == container && *at == finished_at);
        noted
            && self
                .last_termination
                .as_ref()
                .is_none_or(|last_termination| last_termination.exit.at != finished_at)
    }

    /// A container was connected to a network; `reconnects`: it was taken off it first.
    pub fn note_connect(&mut self, id: &ContainerId, network: &str, reconnects: bool, now: Timestamp) {
        // A sandbox that is no more is asked after no more.
        self.connects.retain(|(known, _), _| known == id);
        self.connects.entry((id.clone(), network.to_owned())).or_default().note(reconnects, now);
    }

    /// Those are connected as they should be: what is wrong later is somebody's doing, and not what connecting anew could not
    /// put right.
    pub(super) fn note_connected(&mut self, connected: &BTreeSet<ContainerId>) {
        let right = self.connects.iter_mut().filter(|((id, _), _)| connected.contains(id));
        right.for_each(|(_, connects)| connects.reconnected = false);
    }

    pub(super) fn connects(&self, id: &ContainerId, network: &str) -> Option<&Connects> {
        self.connects.get(&(id.clone(), network.to_owned()))
    }

    /// The engine answered a change of limits.
    pub fn note_limits(&mut self, container: &ContainerId, changes: &Limits, answer: Answer) {
        self.limits = Some((container.clone(), changes.clone(), answer));
    }

    pub(super) fn asked_limits(&self, container: &ContainerId, changes: &Limits) -> bool {
        self.limits.as_ref().is_some_and(|(id, asked, _)| id == container && asked == changes)
    }

    pub(super) fn refused_limits(&self, container: &ContainerId, changes: &Limits) -> bool {
        self.limits.as_ref().is_some_and(|(id, asked, answer)| {
            id == container && asked == changes && *answer == Answer::Refused
        })
    }

    pub(super) fn is_ignored(&self, container: &ContainerId, started_at: Timestamp) -> bool {
        self.ignored.as_ref().is_some_and(|(id, start)| id == container && *start == started_at)
    }

    /// What happened so far counts no more: somebody wants it to be tried anew.
    pub fn forget(&mut self) {
        self.exits = 0;
        self.excused = 0;
        self.errors = None;
        self.last_termination = None;
    }

    /// An engine call failed.
    pub fn failed(&mut self, target: &Target, error: EngineError, now: Timestamp) {
        let count = self.errors.as_ref().map_or(0, |e| e.count).saturating_add(1);
        let retry_at = later(now, backoff::pause(count, target));
        self.errors = Some(Errors { count, last: error, retry_at });
    }

    /// An engine call succeeded.
    pub fn succeeded(&mut self) {
        self.errors = None;
    }

    /// When the next engine call is due; `None` is at once.
    #[must_use]
    pub fn retry_at(&self) -> Option<Timestamp> {
        self.errors.as_ref().map(|e| e.retry_at)
    }
}

/// How long a process ran.
#[must_use]
pub fn uptime(exit: &Exit) -> Duration {
    Duration::try_from(exit.finished_at.duration_since(exit.started_at)).unwrap_or_default()
}

/// A time that much later, or the end of all time.
pub(super) fn later(time: Timestamp, pause: Duration) -> Timestamp {
    time.checked_add(pause).unwrap_or(Timestamp::MAX)
}
