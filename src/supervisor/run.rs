//! The control loop of the supervisor: observe, plan, act, and wait for a reason to observe again.

mod act;
mod look;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream::BoxStream};
use jiff::Timestamp;
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::Instant,
};

use crate::{
    clock::Clock,
    engine::{ContainerId, ContainerState, Engine, EngineError, EngineEvent, Role, ownership::ForeignKind},
    plan::{
        Action, Container, Observed, Outages, Phase, Plan, Sharing, Signals, Strategy, Target, assess, plan,
        replacement_order, status, versions::Versions,
    },
    spec::{ProjectName, ServiceName, Share},
    tick::Ticker,
};

use super::{
    DesiredState, EventKind, Handle, Journal, Kernel, Milestone, NetnsOf, PendingRequest, Reply, Request,
    StateError, StateFile,
    bind_sources::{self, BindSources},
    check_places::CheckPlaces,
    desired_state::SaveError,
    journal::JournalWriter,
    kept_images::{self, KeptImages},
    observe::{Dirty, Observer, Snapshot},
    own_connections::{OwnConnections, To},
    preview::preview,
    probes::{Applied, Probes},
    shared_files::{self, SharedFiles},
    state_file::Removal,
    traffic::{self, Traffic},
    unhealthy::HealthTracker,
    vanished::{Glances, ProcessView},
    watch,
};

/// Minimum delay between two observations, regardless of the number of events.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// Delay after a failed observation.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Maximum time between two observations, in case events are lost.
const RESYNC: Duration = Duration::from_secs(30);
/// After this time, an observation in progress means that the engine does not respond.
const LATE: Duration = Duration::from_secs(2);
/// Delay between attempts to write the state file.
const SAVE_PAUSE: Duration = Duration::from_secs(5);
/// The maximum number of concurrent actions; the engine client limits its calls in addition.
const AT_ONCE: usize = 64;

/// The parameters of a supervisor besides the engine and the project's name.
#[derive(Clone)]
pub struct Settings {
    /// The state file.
    pub state: StateFile,
    /// The source of the current time.
    pub clock: Clock,
    /// Returns the network namespace of a process.
    pub netns_of: NetnsOf,
    /// Checks the processes of containers.
    pub processes: Arc<dyn ProcessView>,
    /// Provides the steering of connections.
    pub kernel: Arc<dyn Kernel>,
    /// Triggers periodic checks of what no event reports.
    pub ticker: Ticker,
    /// The folder through which the supervisors of this user limit concurrent health checks; `None`: no shared limit.
    pub check_folder: Option<PathBuf>,
}

/// Starts a supervisor. It changes nothing until it receives a request, and ends after [`Request::Down`] or
/// [`Request::Detach`], or when every [`Handle`] is dropped.
///
/// A damaged state file is moved aside, and its content is recovered from the engine before the first action.
///
/// # Errors
/// If the state file cannot be read, or was written by a newer release.
pub fn start<E: Engine>(
    engine: Arc<E>,
    project: ProjectName,
    settings: Settings,
) -> Result<(Handle, JoinHandle<()>), StateError> {
    let (requests, asked) = mpsc::channel(16);
    let journal = Journal::default();
    let handle = Handle { requests, journal: journal.clone(), reader: super::reading::Reader::default() };
    let processes = Arc::clone(&settings.processes);
    let glances = Glances::new(Arc::clone(&processes), &settings.ticker);
    let observer = Observer::new(Arc::clone(&engine), settings.netns_of, processes, settings.clock);
    let probed = Arc::clone(&engine);
    let removal = Removal::of(settings.state.clone(), &settings.ticker);
    let mut desired_state = DesiredState::new(project, settings.state)?;
    if let Some(damage) = desired_state.damage() {
        tracing::warn!("{damage}");
    }
    if let Err(error) = desired_state.put_damage_aside() {
        tracing::warn!(%error, "the damaged file cannot be put aside, and is overwritten");
    }
    let observed = Observed { post_start: desired_state.post_start().clone(), ..Observed::default() };
    let supervisor = Supervisor {
        engine,
        desired_state,
        observed,
        plan: Plan::default(),
        observer: Some(observer),
        dirty: Dirty::EVERYTHING,
        look_at: Instant::now(),
        resync_at: Instant::now() + RESYNC,
        seen: false,
        ended: BTreeSet::new(),
        reachable: true,
        told_silent: false,
        answered_at: settings.clock.now(),
        looking_since: None,
        converged: false,
        foreign: BTreeSet::new(),
        stops: BTreeMap::new(),
        kept_images: KeptImages::new(),
        unsaved: false,
        save_at: Instant::now(),
        removal,
        unlisted: BTreeSet::new(),
        doubted: None,
        glances,
        events: None,
        events_lost: false,
        tasks: JoinSet::new(),
        clock: settings.clock,
        journal: JournalWriter::new(journal),
        traffic: Traffic::new(settings.kernel),
        probes: Probes::new(probed, CheckPlaces::new(settings.check_folder)),
        unhealthy: HealthTracker::default(),
        signals: Signals::default(),
        own_connections: OwnConnections::default(),
        bind_sources: BindSources::new(),
        shared_files: SharedFiles::new(),
        outages: Outages::default(),
        ordered: BTreeMap::new(),
    };
    Ok((handle, tokio::spawn(supervisor.run(asked))))
}

struct Supervisor<E> {
    engine: Arc<E>,
    desired_state: DesiredState,
    observed: Observed,
    plan: Plan,
    /// `None` during an observation.
    observer: Option<Observer<E>>,
    dirty: Dirty,
    look_at: Instant,
    resync_at: Instant,
    /// Whether the engine was observed since the last request.
    seen: bool,
    /// Targets whose action ended since the start of the last observation.
    ended: BTreeSet<Target>,
    reachable: bool,
    /// Whether it was reported that the engine fails or is late, and not yet that it responds again.
    told_silent: bool,
    /// When the engine last answered; initially the start of the supervisor.
    answered_at: Timestamp,
    /// The start of the observation in progress.
    looking_since: Option<Instant>,
    converged: bool,
    /// Foreign resources that were reported.
    foreign: BTreeSet<(ForeignKind, String)>,
    /// Containers that were stopped from outside, and when, until the effect is known.
    stops: BTreeMap<ContainerId, Timestamp>,
    kept_images: KeptImages,
    /// Whether it was reported that the state cannot be written.
    unsaved: bool,
    save_at: Instant,
    removal: Removal,
    /// Containers that were reported as missing in the engine's list.
    unlisted: BTreeSet<ContainerId>,
    /// Containers whose process may be gone, and when to observe them again.
    doubted: Option<(Timestamp, BTreeSet<ContainerId>)>,
    glances: Glances,
    events: Option<BoxStream<'static, EngineEvent>>,
    /// Whether an event stream has ended since the start.
    events_lost: bool,
    tasks: JoinSet<Task<E>>,
    clock: Clock,
    journal: JournalWriter,
    traffic: Traffic,
    probes: Probes,
    unhealthy: HealthTracker,
    signals: Signals,
    own_connections: OwnConnections,
    bind_sources: BindSources,
    shared_files: SharedFiles,
    outages: Outages,
    /// Rollouts whose replacement order was reported, with their start times.
    ordered: BTreeMap<ServiceName, Timestamp>,
}

/// A task that has ended.
enum Task<E> {
    Looked {
        observer: Observer<E>,
        settled: BTreeSet<Target>,
        result: Looked,
    },
    Acted {
        action: Action,
        result: Result<Option<EventKind>, EngineError>,
    },
    TerminationReport(watch::TerminationReport),
    /// An attempt to name the images with these IDs.
    Kept {
        images: BTreeSet<String>,
        result: Result<(), EngineError>,
    },
}

type Looked = Result<(Snapshot, Option<BoxStream<'static, EngineEvent>>), EngineError>;

impl<E: Engine> Supervisor<E> {
    async fn run(mut self, mut asked: mpsc::Receiver<PendingRequest>) {
        loop {
            self.look();
            let wake = self.wake();
            let (events, traffic, probes) = (&mut self.events, &mut self.traffic, &mut self.probes);
            let (glances, containers) = (&mut self.glances, &self.observed.containers);
            let (removal, desired_state, sources) =
                (&mut self.removal, &self.desired_state, &mut self.bind_sources);
            let shared_files = &mut self.shared_files;
            tokio::select! {
                biased;
                request = asked.recv() => match request {
                    Some((Request::Detach, reply)) => {
                        let _ = reply.send(Reply::Accepted);
                        return;
                    }
                    Some((request, reply)) => {
                        let answer = self.answer(request);
                        // The client may have disconnected; the request counts anyway.
                        let _ = reply.send(answer);
                    }
                    None => return,
                },
                Some(task) = self.tasks.join_next() => match task {
                    Ok(task) => self.ended(task),
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
                begun = traffic.changed() => self.steered(begun),
                () = probes.changed() => self.probed(),
                event = next(events) => self.happened(event),
                missing = glances.missing(running(containers)) => self.dirty.containers.extend(missing),
                found = sources.found(|| bind_sources::wanted(&desired_state.desired, containers)) => {
                    self.observed.bind_sources = found;
                }
                found = shared_files.found(|| shared_files::wanted(&desired_state.desired, containers)) => {
                    self.tell_of_shared_files(found);
                }
                () = removal.seen(|| desired_state.is_written()) => {
                    tracing::warn!("the state file was removed, and is written again");
                    self.desired_state.save_again();
                }
                () = tokio::time::sleep_until(wake) => {}
            }
            self.tell_of_silence();
            self.act();
            self.save();
            self.keep_images();
            if self.is_gone() {
                kept_images::release_all(&*self.engine, &self.desired_state.desired.project.name).await;
                if let Some(event) = self.traffic.remove(&self.desired_state.desired.project.name) {
                    self.journal.record(self.clock.now(), event);
                }
                self.journal.record(self.clock.now(), EventKind::Removed);
                if let Err(error) = self.desired_state.forget() {
                    tracing::warn!(%error, "the state of the removed project stays");
                }
                return;
            }
        }
    }

    fn answer(&mut self, request: Request) -> Reply {
        if let Request::Status = request {
            self.traffic.refresh();
            self.steered(None);
            self.observed.not_ready = self.probes.reasons(&self.observed.containers);
            let mut status = status::status(&self.desired_state.desired, &self.observed, self.clock.now());
            status.engine_silent_since = self.silent_since();
            let known = self.seen && status.engine_silent_since.is_none();
            status.converged &= known;
            status.settled &= known;
            return Reply::Status(Box::new(status));
        }
        if let Request::Preview(request) = request {
            let desired_state = self.desired_state.simulated();
            return match preview(desired_state, self.observed.clone(), *request, self.clock.now()) {
                Ok(preview) => Reply::Preview(Box::new(preview)),
                Err(rejection) => Reply::Rejected(rejection),
            };
        }
        let applied = matches!(request, Request::Apply(_));
        let only_traffic = matches!(request, Request::Weight(_));
        let before = self.desired_state.desired.versions.clone();
        match self.desired_state.take(request, &self.observed, self.clock.now()) {
            // This request needs no observation of the engine.
            Ok(()) if only_traffic => Reply::Accepted,
            Ok(()) => {
                if applied {
                    let services = self.desired_state.desired.goals.len();
                    self.journal.record(self.clock.now(), EventKind::Applied { services });
                }
                self.tell_of_new_rollouts(&before);
                self.begin_to_steer();
                self.bind_sources.forget();
                // Actions that failed may succeed in the new desired state: retry without delay.
                self.observed.history.values_mut().for_each(crate::plan::History::succeeded);
                self.dirty = Dirty::EVERYTHING;
                self.seen = false;
                self.converged = false;
                Reply::Accepted
            }
            Err(rejection) => Reply::Rejected(rejection),
        }
    }

    fn tell_of_new_rollouts(&mut self, before: &BTreeMap<ServiceName, Versions>) {
        for (name, versions) in &self.desired_state.desired.versions {
            let was = before.get(name).and_then(|versions| versions.underway.as_ref());
            let Some(underway) = &versions.underway else { continue };
            if was.is_none_or(|was| (was.to, &was.back) != (underway.to, &underway.back)) {
                for (target, history) in &mut self.observed.history {
                    if let Target::Replica(service, _) | Target::Replacement(service, _) = target
                        && service == name
                    {
                        history.forget();
                    }
                }
                let milestone = Milestone::Begun { underway: underway.clone() };
                let kind = EventKind::Rollout { service: name.clone(), milestone };
                self.journal.record(self.clock.now(), kind);
            }
        }
    }

    /// Updates the names of the images of known versions, once the versions are known.
    fn keep_images(&mut self) {
        let is_known = self.seen && self.reachable && self.desired_state.knows_names();
        if !is_known || self.desired_state.desired.phase != Phase::Up {
            return;
        }
        let wanted = kept_images::of(&self.desired_state.desired.versions);
        if let Some(images) = self.kept_images.begin(&wanted) {
            let (engine, project) =
                (Arc::clone(&self.engine), self.desired_state.desired.project.name.clone());
            self.tasks.spawn(async move {
                let result = kept_images::settle(&*engine, &project, &images).await;
                Task::Kept { images, result }
            });
        }
    }

    /// Retries to write the state at intervals if that failed, and reports failure and success.
    fn save(&mut self) {
        let now = Instant::now();
        if self.desired_state.unsaved().is_some() && now >= self.save_at {
            self.save_at = now + SAVE_PAUSE;
            self.desired_state.save_again();
        }
        let kind = match (self.desired_state.unsaved(), self.unsaved) {
            (Some(unsaved), false) => {
                let SaveError { path, reason } = unsaved.clone();
                EventKind::StateNotSaved { path, reason }
            }
            (None, true) => EventKind::StateSaved,
            _ => return,
        };
        self.unsaved = !self.unsaved;
        self.journal.record(self.clock.now(), kind);
    }

    /// Processes the outcomes of rollouts. Returns when to call this again.
    fn conclude(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.desired_state.note_counted(&self.observed);
        let outcomes = assess(&self.desired_state.desired, &self.observed, now);
        if outcomes.is_empty() {
            return None;
        }
        let before = self.desired_state.desired.versions.clone();
        let (told, wake) = self.desired_state.conclude(outcomes, &self.observed, now);
        for (service, mut milestone) in told {
            if let Milestone::Done { outage, .. } = &mut milestone {
                *outage = self.outages.of(&service, now);
            }
            self.journal.record(now, EventKind::Rollout { service, milestone });
        }
        self.tell_of_new_rollouts(&before);
        wake
    }

    /// Reports the replacement order of each rollout as soon as it is known.
    fn tell_of_orders(&mut self) {
        let rollouts = &self.desired_state.desired.rollouts;
        self.ordered.retain(|name, began| rollouts.get(name).is_some_and(|rollout| rollout.began == *began));
        for (name, rollout) in rollouts {
            let Some(service) = self.desired_state.desired.project.services.get(name) else { continue };
            if rollout.strategy != Strategy::Rolling || self.ordered.contains_key(name) {
                continue;
            }
            let rules = self.desired_state.desired.update_rules(service);
            if let Some(order) =
                replacement_order(&self.desired_state.desired, &self.observed, service, rules)
            {
                self.ordered.insert(name.clone(), rollout.began);
                let milestone = Milestone::Order { order };
                let kind = EventKind::Rollout { service: name.clone(), milestone };
                self.journal.record(self.clock.now(), kind);
            }
        }
    }

    /// Starts steering if the project needs it.
    fn begin_to_steer(&mut self) {
        self.traffic.begin(&self.desired_state.desired.project);
        self.observed.sharing = self.traffic.sharing();
    }

    /// Processes new probe results.
    fn probed(&mut self) {
        let now = self.clock.now();
        self.probes.follow(&self.desired_state.desired, &self.observed);
        let Applied { health, check_errors } = self.probes.apply(&mut self.observed.containers);
        let is_new = |container: &Container| check_errors.contains(&container.id);
        for kind in watch::check_errors(&self.desired_state.desired, &self.observed, is_new) {
            self.journal.record(now, kind);
        }
        for id in health {
            let Some(container) = self.observed.containers.get(&id) else { continue };
            if let (Role::Replica { service, slot }, Some(process)) =
                (&container.labels.role, container.process())
            {
                let (service, slot, health) = (service.clone(), *slot, process.health);
                self.journal.record(now, EventKind::Health { service, slot, health });
            }
        }
    }

    /// Processes a report of the kernel, and the result of the start of steering.
    fn steered(&mut self, begun: Option<EventKind>) {
        if let Some(event) = begun {
            self.journal.record(self.clock.now(), event);
        }
        let before = std::mem::replace(&mut self.observed.sharing, self.traffic.sharing());
        if let Sharing::ByKernel(report) = &self.observed.sharing {
            let now = self.clock.now();
            self.unhealthy.queues().note(report, now);
            self.signals.note(&self.desired_state.desired, &self.observed, report, now);
            self.observed.metrics = self.signals.metrics();
        }
        self.own_connections.follow(&self.silent_ports());
        for kind in traffic::compare(&self.desired_state.desired.project, &before, &self.observed) {
            self.journal.record(self.clock.now(), kind);
        }
    }

    /// The destinations of test connections: new versions that get no connections from clients.
    fn silent_ports(&self) -> BTreeMap<ServiceName, To> {
        let Sharing::ByKernel(_) = &self.observed.sharing else { return BTreeMap::new() };
        let ports = self.signals.silent_ports().into_iter();
        let to = ports.filter_map(|(name, port)| {
            let service = self.desired_state.desired.project.services.get(&name)?;
            let is_judged = self.desired_state.desired.update_rules(service).budget < Share::ALL;
            let to = |container: &Container| {
                Some(To { pid: container.process()?.pid, netns: container.netns?, port })
            };
            let to = self.observed.service(&name).find_map(|(_, container)| to(container))?;
            is_judged.then_some((name, to))
        });
        to.collect()
    }

    /// The time to continue if nothing happens before.
    fn wake(&self) -> Instant {
        let mut wake = self.resync_at;
        if self.observer.is_some() && (self.dirty != Dirty::NOTHING || !self.ended.is_empty()) {
            wake = wake.min(self.look_at);
        }
        let doubted = self.doubted.as_ref().map(|(time, _)| *time);
        if self.desired_state.unsaved().is_some() {
            wake = wake.min(self.save_at);
        }
        if let (Some(since), false) = (self.looking_since, self.told_silent) {
            wake = wake.min(since + LATE);
        }
        if let Some(time) = self.plan.wake.into_iter().chain(doubted).min() {
            // Timers have a resolution of a millisecond. Waking early would wake again and again.
            wake = wake.min(self.clock.instant(time) + Duration::from_millis(1));
        }
        wake
    }

    /// Whether a project in `down` is completely removed.
    fn is_gone(&self) -> bool {
        matches!(self.desired_state.desired.phase, Phase::Down { .. })
            && self.seen
            && self.reachable
            && self.observer.is_some()
            && self.dirty == Dirty::NOTHING
            && self.observed.busy.is_empty()
            && self.observed.containers.is_empty()
            // Kernel state that is created meanwhile would be left behind.
            && !self.traffic.is_beginning()
            && plan(&self.desired_state.desired, &self.observed, Timestamp::MAX).actions.is_empty()
    }
}

/// Running containers and their process IDs.
fn running(containers: &BTreeMap<ContainerId, Container>) -> Vec<(ContainerId, u32)> {
    let running = containers.values().filter_map(|container| match &container.state {
        ContainerState::Running(process) => Some((container.id.clone(), process.pid)),
        _ => None,
    });
    running.collect()
}

/// The next event; waits forever without a stream.
async fn next(events: &mut Option<BoxStream<'static, EngineEvent>>) -> Option<EngineEvent> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}
