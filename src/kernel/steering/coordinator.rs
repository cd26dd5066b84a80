//! The thread that tells those of the pods what is wanted, and sees to what belongs to no pod that there is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, mpsc},
    thread,
    time::Instant,
};

use rustix::event::{PollFd, PollFlags, poll};

use super::{
    Job,
    config::{PodReport, SteeringConfig, SteeringConfigs},
    inbox::Inbox,
    project::InKernel,
    reports::{PodId, Reports},
    worker::{Seen, Worker},
};
use crate::{
    kernel::{KernelError, host::Look, previous_layout, rights},
    tick,
};

/// How the names of threads begin that have rights in force.
pub const THREAD: &str = "steering";
/// Pods beyond these share threads.
const MOST_WORKERS: usize = 64;

/// What the coordinator is told.
#[derive(Default)]
pub struct Orders {
    pub jobs: Vec<Job>,
    pub steering_configs: Option<SteeringConfigs>,
    pub end: Option<End>,
    /// Who waits for the next look: until these are dropped.
    pub looks: Vec<mpsc::Sender<()>>,
    /// What is new of pods; none: it was let go of.
    pub seen: BTreeMap<PodId, Option<Seen>>,
}

impl std::fmt::Debug for Orders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Orders")
            .field("steering_configs", &self.steering_configs)
            .field("end", &self.end)
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

/// What becomes of what is in the kernel when a thread ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It stays.
    Leave,
    /// It goes.
    Remove,
}

/// The thread's own.
pub struct Coordinator {
    kernel: InKernel,
    inbox: Arc<Inbox<Orders>>,
    reports: Arc<Reports>,
    workers: Vec<Worker>,
    steering_configs: Option<SteeringConfigs>,
    seen: BTreeMap<PodId, Seen>,
    /// When it is to be looked whether all is pinned and attached.
    next_look_at_pins: Instant,
    strays_are_gone: bool,
    previous_is_gone: bool,
}

impl Coordinator {
    /// One that knows of no pod yet.
    pub fn new(kernel: InKernel, inbox: Arc<Inbox<Orders>>, reports: Arc<Reports>) -> Self {
        Self {
            kernel,
            inbox,
            reports,
            workers: Vec::new(),
            steering_configs: None,
            seen: BTreeMap::new(),
            next_look_at_pins: Instant::now(),
            strays_are_gone: false,
            previous_is_gone: false,
        }
    }

    /// Does what it is told until it is told to end.
    ///
    /// # Errors
    /// When the kernel does not let something go.
    pub fn run(mut self) -> Result<(), KernelError> {
        loop {
            let next = self.next_look_at_pins.saturating_duration_since(Instant::now());
            let timeout = next.try_into().ok();
            // An interruption is a wake like any other.
            let _ = poll(&mut [PollFd::new(&self.inbox, PollFlags::IN)], timeout.as_ref());
            let orders = self.inbox.take();
            orders.jobs.into_iter().for_each(begin);
            if let Some(end) = orders.end {
                return self.end(end);
            }
            self.take_note(orders.seen);
            let is_new = orders.steering_configs.is_some();
            if let Some(steering_configs) = orders.steering_configs {
                self.reports.keep(&steering_configs);
                self.steering_configs = Some(steering_configs);
            }
            self.look_at_pins();
            self.replace_dead_workers();
            if is_new || self.lacks_workers() {
                self.assign();
            }
            for worker in &self.workers {
                worker.look(&orders.looks);
            }
            self.let_go_of_strays();
            self.release_previous();
        }
    }

    fn take_note(&mut self, seen: BTreeMap<PodId, Option<Seen>>) {
        for (id, seen) in seen {
            match seen {
                Some(seen) => {
                    self.seen.insert(id, seen);
                }
                None => {
                    self.seen.remove(&id);
                    // Unless it is wanted again by now.
                    if !wanted(self.steering_configs.as_ref()).any(|(wanted, _)| wanted == id) {
                        self.workers.iter_mut().for_each(|worker| worker.release(&id));
                    }
                }
            }
        }
        let (idle, busy) = std::mem::take(&mut self.workers).into_iter().partition(Worker::is_idle);
        self.workers = busy;
        // They have nothing left to let go of.
        let _ = end_all(idle, End::Leave);
    }

    /// Mends what somebody has removed or detached. What cannot be mended is told with each pod, and all goes on as far as
    /// descriptors reach.
    fn look_at_pins(&mut self) {
        if self.next_look_at_pins > Instant::now() {
            return;
        }
        let looked = self.kernel.look();
        self.next_look_at_pins = tick::after(Instant::now());
        let error = match looked {
            Ok(Look::Whole) => None,
            Ok(Look::Mended(lost)) => {
                tracing::warn!(
                    ?lost,
                    "kernel programs and maps of the host were removed or detached; restored"
                );
                None
            }
            Ok(Look::Replaced) => self.renew().err(),
            // What cannot be looked at is not known to be lost.
            Err(error) if error.is_shortage() => {
                tracing::debug!(%error, "it is not looked whether all is whole");
                return;
            }
            Err(error) => Some(error),
        };
        let error = error.map(|error| error.to_string());
        if let Some(error) = self.reports.lost(error) {
            tracing::warn!(%error, "kernel programs and maps of the host are missing");
        }
    }

    /// Begins anew, as another supervisor would, where somebody has made anew what all projects share.
    fn renew(&mut self) -> Result<(), KernelError> {
        self.kernel.renew()?;
        tracing::warn!("kernel programs and maps of the host were removed; creating them again");
        self.seen.clear();
        // They have descriptors of what there was.
        end_all(std::mem::take(&mut self.workers), End::Leave)
    }

    /// A thread that has panicked leaves its pods to another one, which takes over as after a new start.
    fn replace_dead_workers(&mut self) {
        for worker in self.workers.extract_if(.., |worker| worker.has_ended()) {
            for id in worker.pods() {
                let error = Some(super::gone().to_string());
                self.reports.publish(id, &PodReport { netns: id.1, error, ..PodReport::default() });
                self.seen.remove(id);
            }
            tracing::error!(pods = ?worker.pods(), "a thread that steers has ended; another one takes over");
        }
    }

    /// Whether a pod is wanted that no thread has.
    fn lacks_workers(&self) -> bool {
        wanted(self.steering_configs.as_ref())
            .any(|(id, _)| !self.workers.iter().any(|worker| worker.has(&id)))
    }

    /// Tells each thread what is wanted of its pods, and gives one to those that have none.
    fn assign(&mut self) {
        let steering_configs = self.steering_configs.take();
        let mut shares: Vec<BTreeMap<PodId, SteeringConfig>> = vec![BTreeMap::new(); self.workers.len()];
        for (id, config) in wanted(steering_configs.as_ref()) {
            let at = match self.worker_for(&id) {
                Ok(at) => at,
                Err(error) => {
                    let error = Some(error.to_string());
                    self.reports.publish(&id, &PodReport { error, ..PodReport::default() });
                    continue;
                }
            };
            shares.resize(self.workers.len(), BTreeMap::new());
            if let (Some(worker), Some(share)) = (self.workers.get_mut(at), shares.get_mut(at)) {
                worker.take(id.clone());
                share.insert(id, config.clone());
            }
        }
        for (worker, share) in self.workers.iter().zip(shares) {
            worker.want(share);
        }
        self.steering_configs = steering_configs;
    }

    /// The thread that has a pod, or shall have it.
    fn worker_for(&mut self, id: &PodId) -> Result<usize, KernelError> {
        // What is let go of in a network is gone before it is entered again.
        if let Some(at) = self.workers.iter().position(|worker| worker.has_network(id.1)) {
            return Ok(at);
        }
        if self.workers.len() >= MOST_WORKERS {
            let least = self.workers.iter().enumerate().min_by_key(|(_, worker)| worker.pods().len());
            return Ok(least.map_or(0, |(at, _)| at));
        }
        let name = format!("{THREAD}-{}", id.0);
        let kernel = self.kernel.for_another_thread()?;
        self.workers.push(Worker::start(name, kernel, Arc::clone(&self.inbox), Arc::clone(&self.reports))?);
        Ok(self.workers.len() - 1)
    }

    /// Whether all that is wanted is seen, and all is well with it.
    fn all_are_well(&self) -> bool {
        let seen = |id: &PodId| self.seen.get(id).is_some_and(|seen| seen.is_well);
        self.steering_configs.is_some()
            && wanted(self.steering_configs.as_ref()).all(|(id, _)| seen(&id))
            && self.seen.len() == self.steering_configs.iter().flatten().count()
    }

    /// Lets go of pods that a supervisor before us has entered, and that are no more.
    fn let_go_of_strays(&mut self) {
        if self.strays_are_gone || !self.all_are_well() {
            return;
        }
        let known: BTreeSet<u64> = self.seen.values().map(|seen| seen.cookie).collect();
        let kernel = &mut self.kernel;
        let dropped = kernel.pins.pods().and_then(|entered| {
            let mut strays = entered.into_iter().filter(|netns| !known.contains(netns));
            strays.try_for_each(|netns| {
                kernel.host.maps.remove_pod(netns)?;
                kernel.pins.remove_pod(netns)
            })
        });
        match dropped {
            Ok(()) => self.strays_are_gone = true,
            Err(error) => tracing::warn!(%error, "cannot remove kernel objects of a removed pod"),
        }
    }

    /// Lets go of what a release of another layout has left, once it is in use no more.
    fn release_previous(&mut self) {
        if self.previous_is_gone || !self.strays_are_gone || self.seen.values().any(|seen| seen.has_previous)
        {
            return;
        }
        match previous_layout::remove(self.kernel.pins.path()) {
            Ok(()) => self.previous_is_gone = true,
            Err(error) => {
                tracing::warn!(%error, "something of another release of sameport stays in the kernel");
            }
        }
    }

    /// Lets go of as much as can be, if it is to go, and tells the first thing that stays.
    fn end(self, end: End) -> Result<(), KernelError> {
        let ended = end_all(self.workers, end);
        let removed = if end == End::Remove { self.kernel.pins.remove_all() } else { Ok(()) };
        ended.and(removed)
    }
}

/// All pods that are wanted.
fn wanted(steering_configs: Option<&SteeringConfigs>) -> impl Iterator<Item = (PodId, &SteeringConfig)> {
    steering_configs.into_iter().flatten().map(|(name, config)| ((name.clone(), config.netns), config))
}

/// Ends threads, all at once.
fn end_all(workers: Vec<Worker>, end: End) -> Result<(), KernelError> {
    workers.iter().for_each(|worker| worker.end(end));
    let results: Vec<_> = workers.into_iter().map(Worker::join).collect();
    results.into_iter().collect()
}

/// Has something done that takes rights. It may take long, so nobody waits for it.
fn begin(job: Job) {
    let work = move || match rights::raise() {
        Ok(()) => job(),
        Err(error) => tracing::warn!(%error, "something that takes rights is not done"),
    };
    if let Err(error) = thread::Builder::new().name(format!("{THREAD}-job")).spawn(work) {
        tracing::warn!(%error, "something that takes rights is not done");
    }
}
