//! Steers the connections of a project's pods: has the kernel share their ports, choose among the replicas that are
//! ready, and count.
//!
//! In: [`Wishes`], which say who gets how much. Out: a [`Report`] of what the kernel shows. In between a thread of its
//! own: it alone has the rights that this takes, and what it does never waits for an engine. It looks when it is told
//! something new, when the programs in the kernel tell that a listener came or went, and now and then.
//!
//! Always holds: whatever happens to us, the kernel goes on choosing by what it was told last.

mod hold;
mod ids;
mod pod;
mod port;
mod project;
mod wish;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::sync::watch;

use self::{pod::Pod, project::InKernel};
use super::{KernelError, Pins, former, rights, sockets::Transport};
use crate::spec::{PodName, ProjectName};

pub use wish::{
    OtherUser, PodReport, PodWish, Port, ReplicaReport, ReplicaWish, Report, Rules, Stranger, Traffic,
    Waiting, Wishes,
};

/// Looks at everything that often: what nobody told is found then.
const RESYNC: Duration = Duration::from_secs(1);
/// Looks that often while somebody waits for a change that nobody tells.
const EAGER: Duration = Duration::from_millis(50);
/// Looks that often while connections wait to be accepted.
const QUEUED: Duration = Duration::from_millis(100);
/// Looks that often while connections come: so soon a queue is seen that nobody empties.
const FLOWING: Duration = Duration::from_millis(200);
/// Whoever waits for a look waits so long at most.
const LOOK: Duration = Duration::from_millis(50);
/// Looks so soon again while there are sockets that were not looked at yet.
const SOON: Duration = Duration::from_millis(5);
/// Between two looks at least, however much is told.
const PAUSE: Duration = Duration::from_millis(2);

/// Something that takes the rights of the thread that steers.
pub type Job = Box<dyn FnOnce() + Send>;

/// Whoever steers: the kernel, or in a simulation something like it.
pub trait Steering: Send + Sync {
    /// Says what is wanted from now on, of all pods. It is in force a moment later; the report then says so.
    fn want(&self, wishes: Wishes);

    /// Looks at once, and returns once that is done, or nearly.
    fn look(&self);

    /// What is seen.
    fn reports(&self) -> watch::Receiver<Arc<Report>>;

    /// Has something short done by the thread that has the rights for it; where there is none, it is dropped.
    fn delegate(&self, job: Job) {
        drop(job);
    }

    /// Takes everything away that outlives us.
    ///
    /// # Errors
    /// When the kernel does not let something go.
    fn remove(&self) -> Result<(), KernelError>;
}

/// The kernel of this host, steered by a thread of ours. It ends with this, and what runs goes on.
#[derive(Debug)]
pub struct KernelSteering {
    shared: Arc<Shared>,
    reports: watch::Receiver<Arc<Report>>,
    thread: Mutex<Option<JoinHandle<Result<(), KernelError>>>>,
}

/// What the thread is told.
#[derive(Debug)]
struct Shared {
    order: Mutex<Order>,
    wake: std::os::fd::OwnedFd,
}

#[derive(Default)]
struct Order {
    jobs: Vec<Job>,
    wishes: Option<Wishes>,
    end: Option<End>,
    /// Who waits for the next look.
    looks: Vec<std::sync::mpsc::Sender<()>>,
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Order").field("wishes", &self.wishes).field("end", &self.end).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// What is in the kernel stays.
    Leave,
    /// It goes.
    Remove,
}

impl KernelSteering {
    /// Loads the programs for a project, or takes over those that a supervisor before us has left, and begins.
    ///
    /// # Errors
    /// When this host cannot do it, or we may not.
    pub fn start(project: &ProjectName) -> Result<Self, KernelError> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| KernelError::io("make an event descriptor")(errno.into()))?;
        let shared = Arc::new(Shared { order: Mutex::default(), wake });
        let (sender, reports) = watch::channel(Arc::default());
        let (opened, result) = std::sync::mpsc::channel();
        let (name, order) = (project.clone(), Arc::clone(&shared));
        let thread = thread::Builder::new()
            .name("steering".to_owned())
            .spawn(move || {
                let kernel = rights::raise().and_then(|()| InKernel::open(Pins::open(&name)?));
                match kernel {
                    Ok(kernel) => {
                        let _ = opened.send(Ok(()));
                        let (strays_are_gone, former_is_gone) = (false, false);
                        Steerer {
                            kernel,
                            pods: BTreeMap::new(),
                            wishes: None,
                            shared: order,
                            sender,
                            strays_are_gone,
                            former_is_gone,
                        }
                        .run()
                    }
                    Err(error) => {
                        let _ = opened.send(Err(error));
                        Ok(())
                    }
                }
            })
            .map_err(KernelError::io("start a thread"))?;
        match result.recv() {
            Ok(Ok(())) => Ok(Self { shared, reports, thread: Mutex::new(Some(thread)) }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(KernelError::Gone { what: "the steering thread".to_owned() }),
        }
    }

    fn tell(&self, change: impl FnOnce(&mut Order)) {
        change(&mut self.shared.order.lock().unwrap_or_else(PoisonError::into_inner));
        // It fails only when it is full of wakes already.
        let _ = rustix::io::write(&self.shared.wake, &1_u64.to_ne_bytes());
    }

    fn end(&self, end: End) -> Result<(), KernelError> {
        self.tell(|order| order.end = order.end.or(Some(end)));
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let gone = |_| KernelError::Gone { what: "the steering thread".to_owned() };
        // Who has ended before has told how.
        thread.map_or(Ok(()), |thread| thread.join().map_err(gone)?)
    }
}

impl Steering for KernelSteering {
    fn want(&self, wishes: Wishes) {
        self.tell(|order| order.wishes = Some(wishes));
    }

    fn look(&self) {
        let (seen, looked) = std::sync::mpsc::channel();
        self.tell(|order| order.looks.push(seen));
        // Whoever is too busy shows what was seen last.
        let _ = looked.recv_timeout(LOOK);
    }

    fn reports(&self) -> watch::Receiver<Arc<Report>> {
        self.reports.clone()
    }

    fn delegate(&self, job: Job) {
        self.tell(|order| order.jobs.push(job));
    }

    fn remove(&self) -> Result<(), KernelError> {
        self.end(End::Remove)
    }
}

impl Drop for KernelSteering {
    fn drop(&mut self) {
        if let Err(error) = self.end(End::Leave) {
            tracing::error!(%error, "steering has failed");
        }
    }
}

/// The thread's own.
struct Steerer {
    kernel: InKernel,
    pods: BTreeMap<PodName, Pod>,
    wishes: Option<Wishes>,
    shared: Arc<Shared>,
    sender: watch::Sender<Arc<Report>>,
    strays_are_gone: bool,
    former_is_gone: bool,
}

impl Steerer {
    fn run(mut self) -> Result<(), KernelError> {
        let mut pause = RESYNC;
        loop {
            self.sleep(pause);
            let order =
                std::mem::take(&mut *self.shared.order.lock().unwrap_or_else(PoisonError::into_inner));
            order.jobs.into_iter().for_each(|job| job());
            self.heed_notices();
            if let Some(wishes) = order.wishes {
                self.wishes = Some(wishes);
            }
            match order.end {
                Some(End::Leave) => return Ok(()),
                Some(End::Remove) => return self.remove(),
                None => {}
            }
            let begun = Instant::now();
            pause = self.update();
            for look in order.looks {
                // It may have stopped waiting.
                let _ = look.send(());
            }
            thread::sleep(PAUSE.saturating_sub(begun.elapsed()));
        }
    }

    /// Waits until there is something to do.
    fn sleep(&mut self, pause: Duration) {
        let timeout = Timespec::try_from(pause).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let mut files = vec![PollFd::new(&self.shared.wake, PollFlags::IN)];
        for pod in self.pods.values() {
            let (notices, addresses) = pod.wakers();
            files.extend([PollFd::new(notices, PollFlags::IN), PollFd::new(addresses, PollFlags::IN)]);
        }
        // An interruption is a wake like any other.
        let _ = poll(&mut files, Some(&timeout));
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.shared.wake, &mut count);
    }

    fn heed_notices(&mut self) {
        for pod in self.pods.values_mut() {
            pod.heed_notices(&self.kernel.host);
        }
    }

    /// Does what is wanted, tells what is seen, and says how long nothing has to be done.
    fn update(&mut self) -> Duration {
        self.renew();
        let Some(wishes) = self.wishes.take() else { return RESYNC };
        self.let_go_of_others(&wishes);
        let pods: BTreeMap<_, _> =
            wishes.iter().map(|(name, wish)| (name.clone(), self.pod(name, wish))).collect();
        self.wishes = Some(wishes);
        self.let_go_of_strays(&pods);
        self.let_go_of_former();
        let report = Report { pods };
        let pause = match self.pods.values().any(Pod::is_behind) {
            true => SOON,
            false => pause(&self.sender.borrow(), &report),
        };
        self.sender.send_if_modified(|last| {
            let changed = **last != report;
            if changed {
                *last = Arc::new(report);
            }
            changed
        });
        pause
    }

    /// Begins anew, as another supervisor would, where somebody has removed what all projects share: by hand, or for want of
    /// a part of it.
    fn renew(&mut self) {
        if self.kernel.host.is_current() {
            return;
        }
        match self.kernel.renew() {
            Ok(()) => {
                tracing::warn!("what all projects share in the kernel was removed, and is made anew");
                self.pods.clear();
            }
            Err(error) => tracing::warn!(%error, "what all projects share in the kernel is gone"),
        }
    }

    fn pod(&mut self, name: &PodName, wish: &PodWish) -> PodReport {
        let failed = |error: KernelError| {
            tracing::debug!(%error, pod = %name, "cannot steer");
            PodReport { error: Some(error.to_string()), ..PodReport::default() }
        };
        let pod = match self.pods.entry(name.clone()) {
            std::collections::btree_map::Entry::Occupied(pod) => pod.into_mut(),
            std::collections::btree_map::Entry::Vacant(free) => match Pod::open(&mut self.kernel, wish) {
                Ok(pod) => free.insert(pod),
                Err(error) => return failed(error),
            },
        };
        pod.update(&mut self.kernel, wish)
            .unwrap_or_else(|error| PodReport { netns: pod.netns(), ..failed(error) })
    }

    /// Lets go of pods that are no longer wanted.
    fn let_go_of_others(&mut self, wishes: &Wishes) {
        let kept = |name: &PodName, pod: &Pod| wishes.get(name).is_some_and(|wish| wish.netns == pod.netns());
        let (kept, gone) =
            std::mem::take(&mut self.pods).into_iter().partition(|(name, pod)| kept(name, pod));
        self.pods = kept;
        let closed: Result<Vec<()>, _> =
            BTreeMap::into_values(gone).map(|pod: Pod| pod.close(&mut self.kernel)).collect();
        if let Err(error) = closed {
            tracing::warn!(%error, "something of a pod stays in the kernel");
        }
    }

    /// Lets go of pods that a supervisor before us has entered, and that are no more.
    fn let_go_of_strays(&mut self, seen: &BTreeMap<PodName, PodReport>) {
        if self.strays_are_gone || seen.values().any(|pod| pod.error.is_some()) {
            return;
        }
        let known: Vec<u64> = self.pods.values().map(Pod::cookie).collect();
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
            Err(error) => tracing::warn!(%error, "something of a pod that is no more stays in the kernel"),
        }
    }

    /// Lets go of what a release of another layout has left, once it is in use no more.
    fn let_go_of_former(&mut self) {
        if self.former_is_gone || !self.strays_are_gone || self.pods.values().any(Pod::has_former) {
            return;
        }
        match former::remove(self.kernel.pins.path()) {
            Ok(()) => self.former_is_gone = true,
            Err(error) => {
                tracing::warn!(%error, "something of another release of sameport stays in the kernel")
            }
        }
    }

    /// Lets go of as much as can be, and tells the first thing that stays.
    fn remove(self) -> Result<(), KernelError> {
        let Self { mut kernel, pods, .. } = self;
        let mut results: Vec<_> = pods.into_values().map(|pod| pod.close(&mut kernel)).collect();
        results.push(kernel.pins.remove_all());
        results.into_iter().collect()
    }
}

/// How long to wait before the next look, after what was seen before and now.
fn pause(before: &Report, now: &Report) -> Duration {
    let queue = |pod: &PodReport| {
        let ports = pod.replicas.values().flat_map(|replica| &replica.ports);
        ports
            .filter(|((transport, _), _)| *transport == Transport::Tcp)
            .map(|(_, traffic)| traffic.queue)
            .sum::<u64>()
    };
    let total = |report: &Report| {
        let replicas = report.pods.values().flat_map(|pod| pod.replicas.values());
        replicas.flat_map(|replica| replica.ports.values()).map(|traffic| traffic.total).sum::<u64>()
    };
    if now.pods.values().any(is_changing) {
        EAGER
    } else if now.pods.values().any(|pod| queue(pod) > 0) {
        QUEUED
    } else if total(before) != total(now) {
        FLOWING
    } else {
        RESYNC
    }
}

/// Whether something is going on in a pod that nobody tells us of.
fn is_changing(pod: &PodReport) -> bool {
    let waiting = pod.waiting.values().any(|waiting| waiting.connections > 0);
    let draining = pod.replicas.values().any(|replica| {
        replica.weight == 0 && replica.ports.values().any(|traffic| traffic.live > 0 || traffic.has_flows())
    });
    waiting || draining || pod.error.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_goes_on_the_sooner_is_the_next_look() {
        let shows = |weight, traffic| {
            let ports = BTreeMap::from([((Transport::Tcp, 80), traffic)]);
            let replica = ReplicaReport { weight, ports, ..ReplicaReport::default() };
            let id = crate::engine::ContainerId("web-1".to_owned());
            let pod = PodReport { replicas: BTreeMap::from([(id, replica)]), ..PodReport::default() };
            let Ok(name) = PodName::new("web") else { return Report::default() };
            Report { pods: BTreeMap::from([(name, pod)]) }
        };
        let quiet = shows(100, Traffic { total: 5, live: 1, ..Traffic::default() });
        let idle = |seconds| Traffic {
            total: 5,
            udp_idle: Some(Duration::from_secs(seconds)),
            ..Traffic::default()
        };
        for (case, now, wanted) in [
            ("nothing", quiet.clone(), RESYNC),
            ("connections come", shows(100, Traffic { total: 6, ..Traffic::default() }), FLOWING),
            ("connections wait", shows(100, Traffic { total: 6, queue: 1, ..Traffic::default() }), QUEUED),
            ("somebody drains", shows(0, Traffic { total: 5, live: 1, ..Traffic::default() }), EAGER),
            ("datagrams come", shows(0, idle(0)), EAGER),
            ("some may still come", shows(0, idle(4)), EAGER),
            ("none have come for long", shows(0, idle(5)), RESYNC),
        ] {
            assert_eq!(pause(&quiet, &now), wanted, "{case}");
        }
    }
}
