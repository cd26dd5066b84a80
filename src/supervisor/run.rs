//! The loop: look, plan, act, and wait for a reason to look again.

use std::{
    collections::{BTreeMap, BTreeSet},
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
        Action, Answer, Container, Observed, Phase, Plan, PostStart, Replacement, Sharing, Signals, Stage,
        Target, assess, plan, status, versions::Versions,
    },
    spec::{ProjectName, ServiceName},
};

use super::{
    Asked, EventKind, Handle, Journal, Kernel, Milestone, NetnsOf, Reply, Request, StateError, StateFile,
    Wish, act, before, hooks,
    illness::Illnesses,
    journal::Pen,
    observe::{Dirty, Observer, Snapshot},
    preview::preview,
    probes::Probes,
    traffic::{self, Traffic},
    vanished::{Glances, ProcessView},
    watch,
    wish::Unsaved,
};

/// Between two looks, however much happens.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// After a look that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Without any event it is looked that often: events can get lost.
const RESYNC: Duration = Duration::from_secs(30);
/// A look that takes longer than that shows an engine that does not answer.
const LATE: Duration = Duration::from_secs(2);
/// Between two tries to write a state that could not be written.
const SAVE_PAUSE: Duration = Duration::from_secs(5);
/// How many actions are under way at most; the engine bounds its calls by itself.
const AT_ONCE: usize = 64;

/// What a supervisor needs besides an engine and a project's name.
#[derive(Clone)]
pub struct Settings {
    /// What must outlive it.
    pub state: StateFile,
    /// What time it is.
    pub clock: Clock,
    /// Tells the network namespace of a process.
    pub netns_of: NetnsOf,
    /// Sees the processes of containers.
    pub processes: Arc<dyn ProcessView>,
    /// What can share ports and choose among replicas.
    pub kernel: Arc<dyn Kernel>,
}

/// Starts a supervisor. It wants nothing until it is asked to, and ends after [`Request::Down`] or
/// [`Request::Detach`], or when every [`Handle`] is gone.
///
/// A damaged state file is put aside, and what the engine shows of it is taken in before anything is done.
///
/// # Errors
/// When the state file cannot be read, or a newer sameport wrote it.
pub fn start<E: Engine>(
    engine: Arc<E>,
    project: ProjectName,
    settings: Settings,
) -> Result<(Handle, JoinHandle<()>), StateError> {
    let (requests, asked) = mpsc::channel(16);
    let journal = Journal::default();
    let handle = Handle { requests, journal: journal.clone(), reader: super::reading::Reader::default() };
    let processes = Arc::clone(&settings.processes);
    let glances = Glances::new(Arc::clone(&processes));
    let observer = Observer::new(Arc::clone(&engine), settings.netns_of, processes, settings.clock);
    let probed = Arc::clone(&engine);
    let mut wish = Wish::new(project, settings.state)?;
    if let Some(damage) = wish.damage() {
        tracing::warn!("{damage}");
    }
    if let Err(error) = wish.put_damage_aside() {
        tracing::warn!(%error, "the damaged file cannot be put aside, and is overwritten");
    }
    let observed = Observed { post_start: wish.post_start().clone(), ..Observed::default() };
    let supervisor = Supervisor {
        engine,
        wish,
        observed,
        plan: Plan::default(),
        observer: Some(observer),
        dirty: Dirty::EVERYTHING,
        look_at: Instant::now(),
        resync_at: Instant::now() + RESYNC,
        seen: false,
        ended: BTreeSet::new(),
        reachable: true,
        answered_at: settings.clock.now(),
        looking_since: None,
        converged: false,
        foreign: BTreeSet::new(),
        unsaved: false,
        save_at: Instant::now(),
        unlisted: BTreeSet::new(),
        doubted: None,
        glances,
        events: None,
        tasks: JoinSet::new(),
        clock: settings.clock,
        journal: Pen::new(journal),
        traffic: Traffic::new(settings.kernel),
        probes: Probes::new(probed),
        illnesses: Illnesses::default(),
        signals: Signals::default(),
    };
    Ok((handle, tokio::spawn(supervisor.run(asked))))
}

struct Supervisor<E> {
    engine: Arc<E>,
    wish: Wish,
    observed: Observed,
    plan: Plan,
    /// Away while it looks.
    observer: Option<Observer<E>>,
    dirty: Dirty,
    look_at: Instant,
    resync_at: Instant,
    /// Whether the engine was seen since the last request.
    seen: bool,
    /// Targets whose action has ended since the last look began.
    ended: BTreeSet<Target>,
    reachable: bool,
    /// When the engine answered last; before it has, when the supervisor began.
    answered_at: Timestamp,
    /// Since when the look takes that is under way.
    looking_since: Option<Instant>,
    converged: bool,
    /// What was told of as not ours.
    foreign: BTreeSet<(ForeignKind, String)>,
    /// Whether it was told that the state cannot be written, and when that is tried again.
    unsaved: bool,
    save_at: Instant,
    /// What was told of as missing from the engine's list.
    unlisted: BTreeSet<ContainerId>,
    /// Containers whose process may have gone, and when to look at them again.
    doubted: Option<(Timestamp, BTreeSet<ContainerId>)>,
    glances: Glances,
    events: Option<BoxStream<'static, EngineEvent>>,
    tasks: JoinSet<Task<E>>,
    clock: Clock,
    journal: Pen,
    traffic: Traffic,
    probes: Probes,
    illnesses: Illnesses,
    signals: Signals,
}

/// What has ended.
enum Task<E> {
    Looked { observer: Observer<E>, settled: BTreeSet<Target>, result: Looked },
    Acted { action: Action, result: Result<Option<EventKind>, EngineError> },
    Told(watch::Told),
}

type Looked = Result<(Snapshot, Option<BoxStream<'static, EngineEvent>>), EngineError>;

impl<E: Engine> Supervisor<E> {
    async fn run(mut self, mut asked: mpsc::Receiver<Asked>) {
        loop {
            self.look();
            let wake = self.wake();
            let (events, traffic, probes) = (&mut self.events, &mut self.traffic, &mut self.probes);
            let (glances, containers) = (&mut self.glances, &self.observed.containers);
            tokio::select! {
                biased;
                request = asked.recv() => match request {
                    Some((Request::Detach, reply)) => {
                        let _ = reply.send(Reply::Accepted);
                        return;
                    }
                    Some((request, reply)) => {
                        let answer = self.answer(request);
                        // Whoever asked may have gone; the wish stands.
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
                missing = glances.missing(|| running(containers)) => self.dirty.containers.extend(missing),
                () = tokio::time::sleep_until(wake) => {}
            }
            self.act();
            self.save();
            if self.is_gone() {
                if let Some(event) = self.traffic.remove(&self.wish.desired.project.name) {
                    self.journal.record(self.clock.now(), event);
                }
                self.journal.record(self.clock.now(), EventKind::Removed);
                if let Err(error) = self.wish.forget() {
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
            let mut status = status::status(&self.wish.desired, &self.observed, self.clock.now());
            status.engine_silent_since = self.silent_since();
            let known = self.seen && status.engine_silent_since.is_none();
            status.converged &= known;
            status.settled &= known;
            return Reply::Status(Box::new(status));
        }
        if let Request::Preview(request) = request {
            let wish = self.wish.imagined();
            return match preview(wish, self.observed.clone(), *request, self.clock.now()) {
                Ok(preview) => Reply::Preview(Box::new(preview)),
                Err(rejection) => Reply::Rejected(rejection),
            };
        }
        let applied = matches!(request, Request::Apply(_));
        let only_traffic = matches!(request, Request::Weight(_));
        let before = self.wish.desired.versions.clone();
        match self.wish.take(request, &self.observed, self.clock.now()) {
            // The engine has nothing to do with it, and need not be asked first.
            Ok(()) if only_traffic => Reply::Accepted,
            Ok(()) => {
                if applied {
                    let services = self.wish.desired.goals.len();
                    self.journal.record(self.clock.now(), EventKind::Applied { services });
                }
                self.tell_of_new_rollouts(&before);
                self.begin_to_steer();
                // What failed before may succeed under the new wish: try at once.
                self.observed.history.values_mut().for_each(crate::plan::History::succeeded);
                self.dirty = Dirty::EVERYTHING;
                self.seen = false;
                self.converged = false;
                Reply::Accepted
            }
            Err(rejection) => Reply::Rejected(rejection),
        }
    }

    /// When the engine answered last, if it has not answered a look that should have ended by now, or refuses to.
    fn silent_since(&self) -> Option<Timestamp> {
        let is_late = self.looking_since.is_some_and(|since| since.elapsed() >= LATE);
        (!self.reachable || is_late).then_some(self.answered_at)
    }

    fn tell_of_new_rollouts(&mut self, before: &BTreeMap<ServiceName, Versions>) {
        for (name, versions) in &self.wish.desired.versions {
            let was = before.get(name).and_then(|versions| versions.underway.as_ref());
            let Some(underway) = &versions.underway else { continue };
            if was.is_none_or(|was| (was.to, &was.back) != (underway.to, &underway.back)) {
                for (target, history) in &mut self.observed.history {
                    if let Target::Replica(service, _) | Target::Successor(service, _) = target
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

    /// Tries again now and then to write a state that could not be written, and tells of it.
    fn save(&mut self) {
        let now = Instant::now();
        if self.wish.unsaved().is_some() && now >= self.save_at {
            self.save_at = now + SAVE_PAUSE;
            self.wish.save_again();
        }
        let kind = match (self.wish.unsaved(), self.unsaved) {
            (Some(unsaved), false) => {
                let Unsaved { path, reason } = unsaved.clone();
                EventKind::StateNotSaved { path, reason }
            }
            (None, true) => EventKind::StateSaved,
            _ => return,
        };
        self.unsaved = !self.unsaved;
        self.journal.record(self.clock.now(), kind);
    }

    /// Takes in what has become of rollouts. Returns when to look again.
    fn conclude(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.wish.note_counted(&self.observed);
        let outcomes = assess(&self.wish.desired, &self.observed, now);
        if outcomes.is_empty() {
            return None;
        }
        let before = self.wish.desired.versions.clone();
        let (told, wake) = self.wish.conclude(outcomes, &self.observed, now);
        for (service, milestone) in told {
            self.journal.record(now, EventKind::Rollout { service, milestone });
        }
        self.tell_of_new_rollouts(&before);
        wake
    }

    /// Has the kernel share the project's ports, if it wants that.
    fn begin_to_steer(&mut self) {
        self.traffic.begin(&self.wish.desired.project);
        self.observed.sharing = self.traffic.sharing();
    }

    /// Takes in what a probe has found out.
    fn probed(&mut self) {
        let now = self.clock.now();
        self.probes.follow(&self.wish.desired, &self.observed);
        for id in self.probes.apply(&mut self.observed.containers) {
            let Some(container) = self.observed.containers.get(&id) else { continue };
            if let (Role::Replica { service, slot }, Some(process)) =
                (&container.labels.role, container.process())
            {
                let (service, slot, health) = (service.clone(), *slot, process.health);
                self.journal.record(now, EventKind::Health { service, slot, health });
            }
        }
    }

    /// Takes in what the kernel shows, and how that began.
    fn steered(&mut self, begun: Option<EventKind>) {
        if let Some(event) = begun {
            self.journal.record(self.clock.now(), event);
        }
        let before = std::mem::replace(&mut self.observed.sharing, self.traffic.sharing());
        if let Sharing::ByKernel(report) = &self.observed.sharing {
            let now = self.clock.now();
            self.illnesses.queues().note(report, now);
            self.signals.note(&self.wish.desired, &self.observed, report, now);
            self.observed.signs = self.signals.signs();
        }
        for kind in traffic::compare(&before, &self.observed) {
            self.journal.record(self.clock.now(), kind);
        }
    }

    /// Begins to look at the engine, if there is a reason to and the last look has ended.
    fn look(&mut self) {
        let now = Instant::now();
        if now >= self.resync_at {
            self.dirty.in_turn = true;
            self.dirty.resources = true;
            self.resync_at = now + RESYNC;
        }
        if let Some((_, doubted)) = self.doubted.take_if(|(time, _)| *time <= self.clock.now()) {
            self.dirty.containers.extend(doubted);
        }
        if now < self.look_at || (self.dirty == Dirty::NOTHING && self.ended.is_empty()) {
            return;
        }
        let Some(mut observer) = self.observer.take() else { return };
        let dirty = std::mem::replace(&mut self.dirty, Dirty::NOTHING);
        let settled = std::mem::take(&mut self.ended);
        let (desired, expected) = (self.wish.desired.clone(), self.wish.expected());
        // Before the file is read, what is ours by a name in it cannot be told from what is not.
        let knows_names = self.wish.knows_names();
        self.looking_since = Some(Instant::now());
        let subscribe = self.events.is_none();
        let engine = Arc::clone(&self.engine);
        self.seen = true;
        self.tasks.spawn(async move {
            let result = async {
                // Listening first: what happens during the look is heard.
                let events = match subscribe {
                    true => Some(engine.events(&desired.project.name).await?),
                    false => None,
                };
                let dirty = if subscribe { &Dirty::EVERYTHING } else { &dirty };
                let mut snapshot = observer.look(&desired, &expected, dirty).await?;
                if !knows_names {
                    snapshot.foreign.clear();
                }
                Ok((snapshot, events))
            }
            .await;
            Task::Looked { observer, settled, result }
        });
    }

    /// When to go on if nothing happens before.
    fn wake(&self) -> Instant {
        let mut wake = self.resync_at;
        if self.observer.is_some() && (self.dirty != Dirty::NOTHING || !self.ended.is_empty()) {
            wake = wake.min(self.look_at);
        }
        let doubted = self.doubted.as_ref().map(|(time, _)| *time);
        if self.wish.unsaved().is_some() {
            wake = wake.min(self.save_at);
        }
        if let Some(time) = self.plan.wake.into_iter().chain(doubted).min() {
            // A timer fires on the millisecond: never before the time, or it would fire again and again.
            wake = wake.min(self.clock.instant(time) + Duration::from_millis(1));
        }
        wake
    }

    fn ended(&mut self, task: Task<E>) {
        match task {
            Task::Looked { observer, settled, result } => {
                self.observer = Some(observer);
                self.looking_since = None;
                match result {
                    Ok((snapshot, events)) => {
                        self.look_at = Instant::now() + LOOK_PAUSE;
                        self.events = events.or(self.events.take());
                        self.saw(snapshot, &settled);
                    }
                    Err(error) => {
                        self.look_at = Instant::now() + RETRY_PAUSE;
                        self.dirty = Dirty::EVERYTHING;
                        self.ended.extend(settled);
                        self.lost(&error);
                    }
                }
            }
            Task::Acted { action, result } => self.acted(&action, result),
            Task::Told(told) => {
                let history = self.observed.history.entry(told.target).or_default();
                let events = match told.excuse {
                    Some(excuse) if history.excuse(&excuse.container, excuse.started_at) => {
                        vec![excuse.event]
                    }
                    _ => {
                        history.autopsy = Some(told.autopsy);
                        told.events
                    }
                };
                events.into_iter().for_each(|event| self.journal.record(event.time, event.kind));
            }
        }
    }

    fn lost(&mut self, error: &EngineError) {
        self.events = None;
        if std::mem::replace(&mut self.reachable, false) {
            self.journal.record(self.clock.now(), EventKind::EngineLost { reason: error.to_string() });
        }
    }

    fn saw(&mut self, snapshot: Snapshot, settled: &BTreeSet<Target>) {
        let now = self.clock.now();
        self.answered_at = now;
        if !std::mem::replace(&mut self.reachable, true) {
            self.journal.record(now, EventKind::EngineBack);
        }
        let before = std::mem::replace(&mut self.observed.containers, snapshot.containers);
        if self.wish.awaits_recovery()
            && let Some(reset) = self.wish.recover(&mut self.observed, now)
        {
            self.journal.record(now, EventKind::StateReset { reset });
        }
        self.follow_promoted(&before);
        self.probes.see(&self.wish.desired, &mut self.observed);
        self.observed.networks = snapshot.networks;
        self.observed.volumes = snapshot.volumes;
        self.observed.foreign = snapshot.foreign;
        self.doubted = snapshot.again;
        self.tell_of_foreign(now);
        self.tell_of_unlisted(snapshot.unlisted, now);
        self.tell_of_recreated(&before, now);
        for id in snapshot.lost {
            if before.get(&id).is_some_and(|before| before.process().is_some())
                && let Some(container) = self.observed.containers.get(&id)
            {
                let target = self.wish.desired.target_of(container);
                self.journal.record(now, EventKind::ProcessLost { target });
            }
        }
        self.observed.busy.retain(|target, _| !settled.contains(target));
        self.wish.catch_up(&mut self.observed);
        self.steered(None);
        let seen = watch::compare(&self.wish.desired, &before, &mut self.observed);
        for kind in seen.events {
            self.journal.record(now, kind);
        }
        for failure in before::failures(&self.wish.desired, &mut self.observed) {
            let engine = Arc::clone(&self.engine);
            self.tasks.spawn(async move { Task::Told(before::autopsy(&*engine, failure, now).await) });
        }
        for death in seen.deaths {
            let engine = Arc::clone(&self.engine);
            self.tasks.spawn(async move { Task::Told(watch::autopsy(&*engine, death, now).await) });
        }
    }

    /// Names what carries our labels and is not ours, each once.
    fn tell_of_foreign(&mut self, now: Timestamp) {
        let told = std::mem::take(&mut self.foreign);
        for foreign in &self.observed.foreign {
            if !told.contains(&foreign.key()) {
                self.journal.record(now, EventKind::ForeignFound { foreign: foreign.clone() });
            }
            self.foreign.insert(foreign.key());
        }
    }

    /// Names replicas that another program has made anew.
    fn tell_of_recreated(&mut self, before: &BTreeMap<ContainerId, Container>, now: Timestamp) {
        for container in self.observed.containers.values() {
            let is_told = before.get(&container.id).is_some_and(|before| before.recreated);
            if let (Role::Replica { service, slot }, true, false) =
                (&container.labels.role, container.recreated, is_told)
            {
                let image = container.image_id.clone().unwrap_or_default();
                let (service, slot) = (service.clone(), *slot);
                self.journal.record(now, EventKind::Recreated { service, slot, image });
            }
        }
    }

    /// Names those that run and that the engine's list lacks, each once.
    fn tell_of_unlisted(&mut self, unlisted: BTreeSet<ContainerId>, now: Timestamp) {
        let names: Vec<_> = unlisted
            .difference(&self.unlisted)
            .filter_map(|id| Some(self.observed.containers.get(id)?.name.clone()))
            .collect();
        if !names.is_empty() {
            self.journal.record(now, EventKind::Unlisted { containers: names });
        }
        self.unlisted = unlisted;
    }

    /// Who has taken the place of another one brings along what happened to it.
    fn follow_promoted(&mut self, before: &BTreeMap<ContainerId, Container>) {
        let desired = &self.wish.desired;
        for (id, container) in &self.observed.containers {
            let Some(was) = before.get(id).map(|was| desired.target_of(was)) else { continue };
            let is = desired.target_of(container);
            if was != is
                && let Some(history) = self.observed.history.remove(&was)
            {
                self.observed.history.insert(is, history);
            }
        }
    }

    fn happened(&mut self, event: Option<EngineEvent>) {
        match event {
            Some(EngineEvent::Container(id)) => {
                self.dirty.containers.insert(id);
            }
            // Those of others are told, too.
            Some(EngineEvent::Connection(id)) if self.observed.containers.contains_key(&id) => {
                self.dirty.containers.insert(id);
            }
            Some(EngineEvent::Connection(_)) => {}
            Some(EngineEvent::Resource) => self.dirty.resources = true,
            None => {
                // The engine went away, or the stream broke off: look, and listen anew.
                self.events = None;
                self.dirty = Dirty::EVERYTHING;
                self.look_at = self.look_at.max(Instant::now() + LOOK_PAUSE);
            }
        }
    }

    /// Begins all that is planned.
    fn act(&mut self) {
        // What is not known cannot be acted on; and a plan from before must not wake us again and again.
        self.plan = Plan::default();
        if !self.reachable || !self.seen {
            return;
        }
        let now = self.clock.now();
        // The file may have said something new.
        self.probed();
        let found = self.illnesses.examine(&self.wish.desired, &mut self.observed, &self.probes, now);
        found.events.into_iter().for_each(|event| self.journal.record(now, event));
        let wake = self.conclude(now);
        self.plan = plan(&self.wish.desired, &self.observed, now);
        self.plan.wake = self.plan.wake.into_iter().chain(found.wake).chain(wake).min();
        traffic::note_out(&self.plan.wishes, &mut self.observed.out_since, now);
        self.observed.note_ready(&self.plan.ready, now);
        self.wish.note_served(&self.observed);
        self.traffic.want(std::mem::take(&mut self.plan.wishes));
        let free = AT_ONCE.saturating_sub(self.observed.busy.len());
        let actions: Vec<_> = self.plan.actions.drain(..).take(free).collect();
        for action in actions {
            let target = action.target();
            if let Action::Stop { id, .. } = &action
                && let Some(started_at) = self.observed.containers.get(id).and_then(|c| c.started_at())
            {
                let history = self.observed.history.entry(target.clone()).or_default();
                match self.plan.replaced.get(id) {
                    Some(illness) => {
                        let why = Replacement { why: illness.why(now), at: now };
                        if let Target::Replica(service, slot) = &target {
                            let (service, slot, why) = (service.clone(), *slot, why.why.clone());
                            self.journal.record(now, EventKind::Replaced { service, slot, why });
                        }
                        history.replace(id, started_at, illness.well_for, why);
                    }
                    None => history.forgive(id, started_at),
                }
            }
            let hooks = hooks::of(&action, &self.observed);
            let last_words = self.traffic.last_words(&action, &self.observed);
            self.wish.note_begun(&action, &self.observed);
            if let Action::Prepare { id, started_at } = &action {
                let progress = PostStart { started_at: *started_at, stage: Stage::Begun };
                self.wish.note_post_start(id, progress, &mut self.observed);
            }
            self.observed.busy.insert(target.clone(), action.verb());
            let kind = EventKind::Begun { verb: action.verb(), target: self.named(target) };
            self.journal.record(now, kind);
            let engine = Arc::clone(&self.engine);
            let project = self.wish.desired.project.clone();
            self.tasks.spawn(async move {
                let result = act::act(&*engine, &project, &action, &hooks, last_words).await;
                Task::Acted { action, result }
            });
        }
        self.note_convergence(now);
    }

    fn acted(&mut self, action: &Action, result: Result<Option<EventKind>, EngineError>) {
        let (now, verb, target) = (self.clock.now(), action.verb(), action.target());
        self.ended.insert(target.clone());
        match action {
            Action::EnsureNetwork { .. }
            | Action::EnsureVolume { .. }
            | Action::RemoveNetwork(_)
            | Action::RemoveVolume(_) => self.dirty.resources = true,
            Action::Start { id, .. }
            | Action::Rename { id, .. }
            | Action::RestoreName { id, .. }
            | Action::Connect { id, .. }
            | Action::Stop { id, .. }
            | Action::Update { id, .. }
            | Action::Remove { id, .. } => {
                self.dirty.containers.insert(id.clone());
            }
            Action::Prepare { id, started_at } => {
                if result.is_ok() {
                    let progress = PostStart { started_at: *started_at, stage: Stage::Done };
                    self.wish.note_post_start(id, progress, &mut self.observed);
                }
            }
            Action::LaunchSandbox(_) | Action::LaunchReplica { .. } | Action::LaunchBefore { .. } => {}
        }
        let history = self.observed.history.entry(target.clone()).or_default();
        let kind = match result {
            Ok(besides) => {
                history.succeeded();
                if let Action::Update { id, changes, .. } = action {
                    history.note_limits(id, changes, Answer::Accepted);
                }
                if let Action::Connect { id, network, reconnects, .. } = action {
                    history.note_connect(id, network, *reconnects, now);
                }
                besides.into_iter().for_each(|kind| self.journal.record(now, kind));
                EventKind::Done { verb, target: self.named(target) }
            }
            Err(error) => {
                if let (Action::Update { id, changes, .. }, false) = (action, error.is_passing()) {
                    history.note_limits(id, changes, Answer::Refused);
                }
                let (message, help) = (error.to_string(), error.help().map(str::to_owned));
                history.failed(&target, error, now);
                self.dirty.all = true;
                EventKind::Failed { verb, target: self.named(target), error: message, help }
            }
        };
        self.journal.record(now, kind);
    }

    /// A target as users know it: commands in a container are the replica's own.
    fn named(&self, target: Target) -> Target {
        let Target::Hooks(id) = &target else { return target };
        self.observed.containers.get(id).map_or(target.clone(), |container| self.observed.target(container))
    }

    fn note_convergence(&mut self, now: Timestamp) {
        let idle = self.observed.busy.is_empty() && self.dirty == Dirty::NOTHING && self.observer.is_some();
        if self.wish.desired.phase != Phase::Up || self.wish.desired.goals.is_empty() || !idle {
            return;
        }
        let converged = status::status(&self.wish.desired, &self.observed, now).converged;
        if converged && !self.converged {
            self.journal.record(now, EventKind::Converged);
        }
        self.converged = converged;
    }

    /// Whether a project that shall go is gone.
    fn is_gone(&self) -> bool {
        matches!(self.wish.desired.phase, Phase::Down { .. })
            && self.seen
            && self.reachable
            && self.observer.is_some()
            && self.dirty == Dirty::NOTHING
            && self.observed.busy.is_empty()
            && self.observed.containers.is_empty()
            // What is made in the kernel meanwhile would stay.
            && !self.traffic.is_beginning()
            && plan(&self.wish.desired, &self.observed, Timestamp::MAX).actions.is_empty()
    }
}

/// Containers that run, and their processes.
fn running(containers: &BTreeMap<ContainerId, Container>) -> Vec<(ContainerId, u32)> {
    let running = containers.values().filter_map(|container| match &container.state {
        ContainerState::Running(process) => Some((container.id.clone(), process.pid)),
        _ => None,
    });
    running.collect()
}

/// The next event; never, while there is no stream.
async fn next(events: &mut Option<BoxStream<'static, EngineEvent>>) -> Option<EngineEvent> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}
