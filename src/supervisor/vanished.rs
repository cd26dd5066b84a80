//! Processes that have ended without the engine telling: those that it says run, and those that its list lacks.
//!
//! In: what the engine says of a container, and what this host shows of its process. Out: whether it is there. The engine is
//! believed until a second look says the same: the word of an end takes a moment to come.

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

/// Sees the processes of containers.
pub trait ProcessView: Send + Sync {
    /// Whether the process with that id is there, and that of the container.
    fn presence(&self, pid: u32, container: &ContainerId) -> Presence;

    /// Whether it is certainly not there: cheaper to find out.
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

/// For an engine whose processes cannot be seen from here.
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

/// So long the engine is believed that says that a process runs.
pub const SECOND_LOOK: Duration = Duration::from_secs(3);

/// What is known of processes, over several looks.
pub struct Processes {
    view: Arc<dyn ProcessView>,
    /// Whether any process was seen to be its container's: only then are the engine's process ids those of this host.
    are_ours_to_see: bool,
    known: BTreeMap<ContainerId, Known>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    pid: u32,
    /// When it started, if it was seen.
    started: Option<u64>,
    /// Since when it is not there.
    gone_since: Option<Timestamp>,
}

/// What becomes of a process that the engine says runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It runs, as far as can be told.
    Runs,
    /// It is not there; the engine may tell so until then.
    Doubted(Timestamp),
    /// It is not there, and was not before: the engine has lost its end.
    Lost,
}

impl Processes {
    /// Nothing has been seen yet.
    pub fn new(view: Arc<dyn ProcessView>) -> Self {
        Self { view, are_ours_to_see: false, known: BTreeMap::new() }
    }

    /// Looks for the process of a container that runs, as the engine has just said.
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
            // Another process has its id by now. One that only left its control group is the same.
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

    /// Whether the process of a container is there beyond doubt.
    pub fn is_there(&self, id: &ContainerId, pid: u32) -> bool {
        matches!(self.view.presence(pid, id), Presence::There { .. })
    }

    /// Forgets containers that are no more.
    pub fn retain(&mut self, is_there: impl Fn(&ContainerId) -> bool) {
        self.known.retain(|id, _| is_there(id));
    }
}

impl std::fmt::Debug for Processes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Processes").field("known", &self.known).finish_non_exhaustive()
    }
}

/// Looks now and then whether a process has gone, so that the engine is asked.
pub struct Glances {
    view: Arc<dyn ProcessView>,
    /// Who is looked for.
    sought: Arc<Mutex<Vec<(ContainerId, u32)>>>,
    absent: Watch,
    /// Who was found missing, so that the engine is asked once.
    missed: BTreeMap<ContainerId, u32>,
}

impl Glances {
    /// The first look is in a moment. Such a look is one system call for each process.
    pub fn new(view: Arc<dyn ProcessView>, ticker: &Ticker) -> Self {
        let sought = Arc::<Mutex<Vec<(ContainerId, u32)>>>::default();
        let (seen, wanted) = (Arc::clone(&view), Arc::clone(&sought));
        let absent = ticker.watch(move || absent(&*seen, &lock(&wanted)).next().is_some());
        Self { view, sought, absent, missed: BTreeMap::new() }
    }

    /// Waits until processes are missing, of those with these ids; each is told once.
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
    fn a_process_is_lost_after_a_second_look_and_only_where_processes_can_be_told() {
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
    fn one_process_that_is_seen_tells_that_another_is_not_there() {
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
