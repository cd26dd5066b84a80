//! A thread that steers pods: one, unless there are very many.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{
    config::{PodReport, SteeringConfig},
    coordinator::{self, End},
    gone,
    inbox::Inbox,
    pace::{self, Allowance, cpu_time},
    pod::{NextLook, Pod},
    project::InKernel,
    reports::{PodId, Reports},
};
use crate::{
    kernel::{KernelError, rights},
    tick,
};

/// Between two looks at least, however much is told.
const PAUSE: Duration = Duration::from_millis(2);
/// What the kernel tells is collected for so long, or for so many times as long as it took to read it the last time, but no
/// longer than that: a replica may have it tell something a hundred thousand times a second.
const COLLECT: Duration = Duration::from_millis(5);
const COLLECT_TIMES: u32 = 50;
const COLLECT_MOST: Duration = Duration::from_millis(50);
/// What does not work is tried again so soon.
const RETRY: Duration = Duration::from_millis(50);
/// What was lost and cannot be had back yet is tried again so soon: the project's folder is made by the coordinator.
const RETRY_PINS: Duration = Duration::from_millis(100);
/// In thousandths of a processor, what looks at a pod may take in the long run; and how much at once.
const SHARE: u32 = 25;
const AT_ONCE: Duration = Duration::from_millis(300);
/// No call goes deep.
const STACK: usize = 512 * 1024;

/// What a worker is told.
#[derive(Debug, Default)]
struct Orders {
    steering_configs: Option<BTreeMap<PodId, SteeringConfig>>,
    end: Option<End>,
    looks: Vec<mpsc::Sender<()>>,
}

/// What the coordinator has to know of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// By which the programs know its network.
    pub cookie: u64,
    /// Whether something of a release of another layout is in use.
    pub has_previous: bool,
    /// Whether the last look found no error.
    pub is_well: bool,
}

/// The coordinator's hold of such a thread.
pub struct Worker {
    inbox: Arc<Inbox<Orders>>,
    thread: JoinHandle<Result<(), KernelError>>,
    /// Those that it has, also while it lets go of them.
    pods: BTreeSet<PodId>,
}

impl Worker {
    /// Starts one.
    ///
    /// # Errors
    /// When there are no more threads or descriptors.
    pub fn start(
        name: String,
        kernel: InKernel,
        coordinator: Arc<Inbox<coordinator::Orders>>,
        reports: Arc<Reports>,
    ) -> Result<Self, KernelError> {
        let inbox = Arc::new(Inbox::new()?);
        let orders = Arc::clone(&inbox);
        let work = move || {
            rights::raise()?;
            Thread { kernel, inbox: orders, coordinator, reports, pods: BTreeMap::new() }.run()
        };
        let thread = thread::Builder::new()
            .name(name)
            .stack_size(STACK)
            .spawn(work)
            .map_err(KernelError::io("start a thread"))?;
        Ok(Self { inbox, thread, pods: BTreeSet::new() })
    }

    /// Its pods.
    pub fn pods(&self) -> &BTreeSet<PodId> {
        &self.pods
    }

    /// Whether a pod is its own.
    pub fn has(&self, id: &PodId) -> bool {
        self.pods.contains(id)
    }

    /// Whether it has a pod in that network, under any name.
    pub fn has_network(&self, netns: u64) -> bool {
        self.pods.iter().any(|(_, other)| *other == netns)
    }

    /// A pod is its own from now on.
    pub fn take(&mut self, id: PodId) {
        self.pods.insert(id);
    }

    /// It has let go of a pod.
    pub fn release(&mut self, id: &PodId) {
        self.pods.remove(id);
    }

    /// Whether it has no pods left.
    pub fn is_idle(&self) -> bool {
        self.pods.is_empty()
    }

    /// Whether it has ended, of which it was not told.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Tells what is wanted of all its pods. It lets go of others.
    pub fn want(&self, steering_configs: BTreeMap<PodId, SteeringConfig>) {
        self.inbox.tell(|orders| orders.steering_configs = Some(steering_configs));
    }

    /// Has it look at once, and drop these then.
    pub fn look(&self, looks: &[mpsc::Sender<()>]) {
        if !looks.is_empty() {
            self.inbox.tell(|orders| orders.looks.extend_from_slice(looks));
        }
    }

    /// Tells it to end.
    pub fn end(&self, end: End) {
        self.inbox.tell(|orders| orders.end = Some(end));
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// When the kernel has not let something go, or it has panicked.
    pub fn join(self) -> Result<(), KernelError> {
        self.thread.join().map_err(|_| gone())?
    }
}

/// The thread's own.
struct Thread {
    kernel: InKernel,
    inbox: Arc<Inbox<Orders>>,
    coordinator: Arc<Inbox<coordinator::Orders>>,
    reports: Arc<Reports>,
    pods: BTreeMap<PodId, Steered>,
}

/// A pod that is wanted.
struct Steered {
    config: SteeringConfig,
    /// None before it could be entered.
    pod: Option<Pod>,
    next: NextLook,
    /// When it is to be looked whether all of it is pinned and attached.
    next_look_at_pins: Instant,
    /// Why something of that cannot be had back.
    lost: Option<String>,
    allowance: Allowance,
    /// What was seen last.
    report: PodReport,
    seen: Option<Seen>,
}

impl Thread {
    fn run(mut self) -> Result<(), KernelError> {
        let mut next_look = Instant::now();
        let mut next_notices = next_look;
        loop {
            self.sleep();
            thread::sleep(next_look.saturating_duration_since(Instant::now()));
            if Instant::now() < next_notices {
                // What is wanted does not wait, nor does a look.
                self.wait(&[], Some(next_notices));
            }
            let (begun, used) = (Instant::now(), cpu_time());
            let orders = self.inbox.take();
            match orders.end {
                Some(End::Leave) => return Ok(()),
                Some(End::Remove) => return self.close(|_| true),
                None => {}
            }
            if let Some(steering_configs) = orders.steering_configs {
                self.want(steering_configs);
            }
            let is_asked = !orders.looks.is_empty();
            let mut has_looked = false;
            for (id, steered) in &mut self.pods {
                has_looked |= steered.attend(&mut self.kernel, id, is_asked, &self.reports);
                let seen = steered.seen();
                if seen.is_some() && seen != steered.seen {
                    steered.seen = seen;
                    self.coordinator.tell(|orders| {
                        orders.seen.insert(id.clone(), seen);
                    });
                }
            }
            drop(orders.looks);
            if has_looked {
                next_look = begun + PAUSE;
            } else {
                let took = cpu_time().saturating_sub(used) * COLLECT_TIMES;
                next_notices = Instant::now() + took.clamp(COLLECT, COLLECT_MOST);
            }
        }
    }

    /// Waits until there is something to do.
    fn sleep(&self) {
        let pods = self.pods.values().filter_map(|steered| steered.pod.as_ref());
        let files: Vec<_> = pods
            .flat_map(|pod| {
                let (notices, addresses) = pod.wakers();
                [PollFd::new(notices, PollFlags::IN), PollFd::new(addresses, PollFlags::IN)]
            })
            .collect();
        self.wait(&files, None);
    }

    /// Waits until there are orders, or one of these can be read, or it is time for a look, or that time has come.
    fn wait(&self, files: &[PollFd<'_>], until: Option<Instant>) {
        let mut files = files.to_vec();
        files.push(PollFd::new(&self.inbox, PollFlags::IN));
        let next = self.pods.values().map(Steered::next).chain(until).min();
        let timeout = next.map(|next| next.saturating_duration_since(Instant::now()));
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        let timeout = timeout.map(|timeout| timeout.try_into().unwrap_or(second));
        // An interruption is a wake like any other.
        let _ = poll(&mut files, timeout.as_ref());
    }

    fn want(&mut self, mut steering_configs: BTreeMap<PodId, SteeringConfig>) {
        if let Err(error) = self.close(|id| !steering_configs.contains_key(id)) {
            tracing::warn!(%error, "something of a pod stays in the kernel");
        }
        for (id, steered) in &mut self.pods {
            if let Some(config) = steering_configs.remove(id)
                && config != steered.config
            {
                steered.config = config;
                steered.next.urgent = Some(Instant::now());
            }
        }
        self.pods.extend(steering_configs.into_iter().map(|(id, config)| (id, Steered::new(config))));
    }

    /// Lets go of as much as can be of some pods, and tells the first thing that stays.
    fn close(&mut self, is_gone: impl Fn(&PodId) -> bool) -> Result<(), KernelError> {
        let (gone, kept): (BTreeMap<_, _>, _) =
            std::mem::take(&mut self.pods).into_iter().partition(|(id, _)| is_gone(id));
        self.pods = kept;
        let mut results = Vec::new();
        for (id, steered) in gone {
            results.push(steered.pod.map_or(Ok(()), |pod| pod.close(&mut self.kernel)));
            self.coordinator.tell(|orders| {
                orders.seen.insert(id, None);
            });
        }
        results.into_iter().collect()
    }
}

impl Steered {
    fn new(config: SteeringConfig) -> Self {
        let now = Instant::now();
        Self {
            config,
            pod: None,
            next: NextLook { ordinary: None, urgent: Some(now) },
            next_look_at_pins: tick::after(now),
            lost: None,
            allowance: Allowance::new(SHARE, AT_ONCE, now),
            report: PodReport::default(),
            seen: None,
        }
    }

    /// When there is something to do, if nothing happens before.
    fn next(&self) -> Instant {
        let pins = self.pod.is_some().then_some(self.next_look_at_pins);
        pins.map_or_else(|| self.next_look(), |pins| pins.min(self.next_look()))
    }

    /// When it is to be looked at.
    fn next_look(&self) -> Instant {
        let ordinary = self.next.ordinary.map(|at| at.max(self.allowance.free()));
        ordinary.into_iter().chain(self.next.urgent).min().unwrap_or_else(Instant::now)
    }

    /// Takes note of what the kernel has told, and looks if it is time, or somebody asks. Returns whether it has looked.
    fn attend(&mut self, kernel: &mut InKernel, id: &PodId, is_asked: bool, reports: &Reports) -> bool {
        let (begun, was_open) = (cpu_time(), self.pod.is_some());
        if let Some(pod) = &mut self.pod {
            self.next = self.next.or(pod.heed_notices(&mut kernel.host));
        }
        self.look_at_pins(id, reports);
        let looks = is_asked || self.next_look() <= Instant::now();
        if looks {
            self.look(kernel, id, reports);
        }
        let (took, now) = (cpu_time().saturating_sub(begun), Instant::now());
        // To load a pod's programs takes as long as very many looks, which would have to wait for it on a slow machine. It is
        // done once.
        if was_open || self.pod.is_none() {
            self.allowance.charge(took, now);
        }
        reports.count(looks, took);
        if looks && let Some(pod) = &mut self.pod {
            pod.charge(took, now);
        }
        looks
    }

    /// Mends what somebody has removed or detached of the pod, if it is time.
    fn look_at_pins(&mut self, id: &PodId, reports: &Reports) {
        let Some(pod) = self.pod.as_mut().filter(|_| self.next_look_at_pins <= Instant::now()) else {
            return;
        };
        let mended = pod.mend();
        let now = Instant::now();
        self.next_look_at_pins = if mended.is_ok() { tick::after(now) } else { now + RETRY_PINS };
        let error = match mended {
            // The coordinator makes the folder again, or tells why it cannot.
            Err(KernelError::Gone { .. }) => return,
            // What cannot be looked at is not known to be lost.
            Err(error) if error.is_shortage() => {
                tracing::debug!(%error, pod = %id.0, "it is not looked whether a pod is whole");
                self.next_look_at_pins = tick::after(now);
                return;
            }
            Err(error) => Some(error.to_string()),
            Ok(lost) => {
                if !lost.is_empty() {
                    tracing::warn!(?lost, pod = %id.0, "kernel programs and maps of a pod were removed or detached; restored");
                }
                None
            }
        };
        if self.lost != error {
            if let Some(error) = &error {
                tracing::warn!(error, pod = %id.0, "kernel programs and maps of a pod are missing");
            }
            self.lost = error;
            self.publish(id, reports);
        }
    }

    fn publish(&self, id: &PodId, reports: &Reports) {
        let error = self.report.error.clone().or_else(|| self.lost.clone());
        reports.publish(id, &PodReport { error, ..self.report.clone() });
    }

    fn look(&mut self, kernel: &mut InKernel, id: &PodId, reports: &Reports) {
        let failed = |error: KernelError| {
            tracing::debug!(%error, pod = %id.0, "cannot steer");
            PodReport { error: Some(error.to_string()), ..PodReport::default() }
        };
        let (report, next) = match self.update(kernel) {
            Ok(report) => {
                let next = pace::next_look(&self.report, &report, Instant::now());
                (report, next)
            }
            Err(error) => {
                let netns = self.pod.as_ref().map_or(0, Pod::netns);
                (PodReport { netns, ..failed(error) }, Instant::now() + RETRY)
            }
        };
        let found = self.pod.as_mut().map(Pod::take_next_look).unwrap_or_default();
        self.next = found.or(NextLook { ordinary: Some(next), urgent: None });
        self.report = report;
        self.publish(id, reports);
    }

    fn update(&mut self, kernel: &mut InKernel) -> Result<PodReport, KernelError> {
        let pod = match &mut self.pod {
            Some(pod) => pod,
            none => none.insert(Pod::open(kernel, &self.config)?),
        };
        pod.update(kernel, &self.config)
    }

    /// Nothing before the pod was entered.
    fn seen(&self) -> Option<Seen> {
        let pod = self.pod.as_ref()?;
        let is_well = self.report.error.is_none() && self.report.netns == pod.netns();
        Some(Seen { cookie: pod.cookie(), has_previous: pod.has_previous(), is_well })
    }
}
