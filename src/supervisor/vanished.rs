//! Detects processes that ended without a report of the engine: those that it reports as running, and those that its
//! list lacks.
//!
//! It compares the engine's report of a container with the process on this host. The engine is believed until a second
//! check confirms that the process is gone, because its report of an exit takes a moment.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

use crate::{
    engine::ContainerId,
    kernel::presence::{self, Presence},
    tick::{Ticker, Watch},
};

/// Checks the processes of containers.
pub trait ProcessView: Send + Sync {
    /// Whether the process with this ID exists and belongs to the container.
    fn presence(&self, pid: u32, container: &ContainerId) -> Presence;

    /// Whether the process certainly does not exist. This check is cheaper.
    fn is_absent(&self, pid: u32, container: &ContainerId) -> bool {
        self.presence(pid, container) == Presence::Absent
    }
}

/// The processes of this host.
#[derive(Clone, Copy, Debug)]
pub struct HostProcesses;

impl ProcessView for HostProcesses {
    fn presence(&self, pid: u32, container: &ContainerId) -> Presence {
        presence::of(pid, &container.0)
    }

    fn is_absent(&self, pid: u32, _container: &ContainerId) -> bool {
        presence::is_absent(pid)
    }
}

/// For engines whose processes are not visible from this host.
#[derive(Clone, Copy, Debug)]
pub struct HiddenProcesses;

impl ProcessView for HiddenProcesses {
    fn presence(&self, _pid: u32, _container: &ContainerId) -> Presence {
        Presence::Unknown
    }
}

impl<F: Fn(u32, &ContainerId) -> Presence + Send + Sync> ProcessView for F {
    fn presence(&self, pid: u32, container: &ContainerId) -> Presence {
        self(pid, container)
    }
}

/// How long the engine is believed after the first check found no process.
pub const SECOND_LOOK: Duration = Duration::from_secs(3);

/// The results of past checks of processes.
pub struct Processes {
    view: Arc<dyn ProcessView>,
    /// Whether any process was found to belong to its container. Only then are the engine's process IDs valid on this
    /// host.
    are_ours_to_see: bool,
    known: BTreeMap<ContainerId, Known>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    pid: u32,
    /// Its start time, if it was seen.
    started: Option<u64>,
    /// Since when it is gone.
    gone_since: Option<Timestamp>,
}

/// The state of a process that the engine reports as running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It runs, as far as can be determined.
    Runs,
    /// It is gone; the engine has until this time to report its exit.
    Doubted(Timestamp),
    /// It is gone and was gone in an earlier check: the engine missed its exit.
    Lost,
}

impl Processes {
    /// Starts without results.
    pub fn new(view: Arc<dyn ProcessView>) -> Self {
        Self { view, are_ours_to_see: false, known: BTreeMap::new() }
    }

    /// Checks the process of a container that the engine reports as running.
    pub fn look(&mut self, id: &ContainerId, pid: u32, now: Timestamp) -> Fate {
        let presence = self.view.presence(pid, id);
        let known = self.known.entry(id.clone()).or_default();
        if known.pid != pid {
            *known = Known { pid, ..Known::default() };
        }
        let is_gone = match presence {
            Presence::There { started } => {
                self.are_ours_to_see = true;
                known.started = Some(started);
                false
            }
            // With another start time, the process ID was reused. With the same one, the process only left its control
            // group.
            Presence::Other { started } => known.started.is_some_and(|before| before != started),
            Presence::Absent => self.are_ours_to_see,
            Presence::Unknown => false,
        };
        if !is_gone {
            known.gone_since = None;
            return Fate::Runs;
        }
        let second = known.gone_since.get_or_insert(now).checked_add(SECOND_LOOK).unwrap_or(Timestamp::MAX);
        if second <= now { Fate::Lost } else { Fate::Doubted(second) }
    }

    /// Whether the process of a container certainly exists.
    pub fn is_there(&self, id: &ContainerId, pid: u32) -> bool {
        matches!(self.view.presence(pid, id), Presence::There { .. })
    }

    /// Drops containers that are gone.
    pub fn retain(&mut self, is_there: impl Fn(&ContainerId) -> bool) {
        self.known.retain(|id, _| is_there(id));
    }
}

impl std::fmt::Debug for Processes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Processes").field("known", &self.known).finish_non_exhaustive()
    }
}

/// Checks periodically whether processes are gone, so that the engine is observed again.
pub struct Glances {
    view: Arc<dyn ProcessView>,
    /// The processes to check.
    sought: Arc<Mutex<Vec<(ContainerId, u32)>>>,
    absent: Watch,
    /// Processes that were reported as missing, so that each is reported once.
    missed: BTreeMap<ContainerId, u32>,
}

impl Glances {
    /// Starts periodic checks. A check takes one system call per process.
    pub fn new(view: Arc<dyn ProcessView>, ticker: &Ticker) -> Self {
        let sought = Arc::<Mutex<Vec<(ContainerId, u32)>>>::default();
        let (seen, wanted) = (Arc::clone(&view), Arc::clone(&sought));
        let absent = ticker.watch(move || absent(&*seen, &lock(&wanted)).next().is_some());
        Self { view, sought, absent, missed: BTreeMap::new() }
    }

    /// Waits until processes of `running` are missing. Reports each once.
    pub async fn missing(&mut self, mut running: Vec<(ContainerId, u32)>) -> Vec<ContainerId> {
        self.missed.retain(|id, pid| running.iter().any(|(other, now)| (other, now) == (id, pid)));
        running.retain(|(id, pid)| self.missed.get(id) != Some(pid));
        *lock(&self.sought) = running;
        loop {
            self.absent.found().await;
            let gone: Vec<_> = absent(&*self.view, &lock(&self.sought)).cloned().collect();
            if !gone.is_empty() {
                self.missed.extend(gone.iter().cloned());
                return gone.into_iter().map(|(id, _)| id).collect();
            }
        }
    }
}

fn lock(sought: &Mutex<Vec<(ContainerId, u32)>>) -> MutexGuard<'_, Vec<(ContainerId, u32)>> {
    sought.lock().unwrap_or_else(PoisonError::into_inner)
}

fn absent<'s>(
    view: &'s dyn ProcessView,
    sought: &'s [(ContainerId, u32)],
) -> impl Iterator<Item = &'s (ContainerId, u32)> {
    sought.iter().filter(|(id, pid)| view.is_absent(*pid, id))
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use jiff::ToSpan;

    use super::*;

    #[test]
    fn a_process_is_lost_after_a_second_check_and_only_where_processes_are_visible() {
        let there = Presence::There { started: 7 };
        let at = |second: i64| Timestamp::UNIX_EPOCH + second.seconds();
        let (runs, lost) = (Fate::Runs, Fate::Lost);
        let doubted = |second: i64| Fate::Doubted(at(second + 3));
        for (case, looks, wanted) in [
            ("it goes", vec![there, Presence::Absent, Presence::Absent], vec![runs, doubted(10), lost]),
            ("it is back", vec![there, Presence::Absent, there], vec![runs, doubted(10), runs]),
            (
                "another one has its id",
                vec![there, Presence::Other { started: 9 }, Presence::Other { started: 9 }],
                vec![runs, doubted(10), lost],
            ),
            ("it left its group", vec![there, Presence::Other { started: 7 }], vec![runs, runs]),
            ("the engine is elsewhere", vec![Presence::Absent, Presence::Absent], vec![runs, runs]),
            ("ids are others'", vec![Presence::Other { started: 1 }, Presence::Absent], vec![runs, runs]),
            ("nothing is told", vec![there, Presence::Unknown, Presence::Unknown], vec![runs, runs, runs]),
        ] {
            let shown = Arc::new(Mutex::new(Presence::Unknown));
            let eyes = Arc::clone(&shown);
            let mut processes = Processes::new(Arc::new(move |_: u32, _: &ContainerId| {
                *eyes.lock().unwrap_or_else(PoisonError::into_inner)
            }));
            let id = ContainerId("web-1".to_owned());
            let found: Vec<_> = looks
                .iter()
                .zip(0..)
                .map(|(look, number)| {
                    *shown.lock().unwrap() = *look;
                    processes.look(&id, 42, at(10 * number))
                })
                .collect();
            assert_eq!(found, wanted, "{case}");
        }
    }

    #[test]
    fn one_visible_process_proves_that_another_is_gone() {
        let eyes = |_: u32, id: &ContainerId| match id.0.as_str() {
            "web-1" => Presence::There { started: 1 },
            _ => Presence::Absent,
        };
        let mut processes = Processes::new(Arc::new(eyes));
        let look = |processes: &mut Processes, id: &str| {
            processes.look(&ContainerId(id.to_owned()), 42, Timestamp::UNIX_EPOCH)
        };
        assert_eq!(look(&mut processes, "web-2"), Fate::Runs, "nothing is known yet");
        assert_eq!(look(&mut processes, "web-1"), Fate::Runs);
        assert!(matches!(look(&mut processes, "web-2"), Fate::Doubted(_)));
    }
}
