//! Runs the probes of the running replicas, one task per probe and replica. The results count as the replica's health.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::{
    check_places::CheckPlaces,
    first_checks::{FirstCheck, FirstChecks},
};
use crate::{
    engine::{ContainerId, ContainerState, Engine, EngineError, ExecOptions, Health, Ran, Role},
    kernel::{Netns, steering::ReplicaReport},
    plan::{Container, Desired, Observed, Phase, Sharing},
    probe::{self, Opinion, ProbeError, Thresholds},
    spec::{Probe, ProbeKind, ProbeType},
};

/// Runs a command in a container, with a timeout.
pub type Check = Arc<
    dyn Fn(ContainerId, Vec<String>, Duration) -> BoxFuture<'static, Result<Ran, EngineError>> + Send + Sync,
>;

/// A run of a replica: its container and process ID.
pub type Life = (ContainerId, u32);

/// A probe of a run.
type Key = (Life, ProbeType);

/// The probe of a replica and its destination.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subject {
    /// `None` for a command.
    to: Option<(Ipv4Addr, u16)>,
    /// Whether the address belongs to this replica already; before, another replica or none would respond.
    is_reached: bool,
    probe: Probe,
}

impl Subject {
    /// Whether the probe and the port are the same, at any address.
    fn asks_as(&self, other: &Self) -> bool {
        let port = |subject: &Self| subject.to.map(|(_, port)| port);
        (port(self), &self.probe) == (port(other), &other.probe)
    }
}

/// All probes of a project.
pub struct Probes {
    check: Check,
    running: BTreeMap<Key, Running>,
    /// Runs whose startup probe succeeded, so that it does not run again.
    up: BTreeSet<Life>,
    /// The results of the engine's health checks in the last observation.
    checked: BTreeMap<ContainerId, Health>,
    /// The same checks, run by the supervisor until they pass once.
    first_checks: FirstChecks,
    told: mpsc::UnboundedReceiver<Report>,
    sender: mpsc::UnboundedSender<Report>,
}

struct Running {
    subject: Subject,
    verdict: Verdict,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The result of a probe so far.
#[derive(Clone, Debug)]
struct Verdict {
    opinion: Opinion,
    /// When the current series of failures began, and the last error; `None` if the last result was a success.
    failing: Option<(Instant, String)>,
}

struct Report {
    key: Key,
    verdict: Verdict,
}

/// The changes from new probe results.
#[derive(Debug, Default)]
pub struct Applied {
    /// Containers whose health changed.
    pub health: Vec<ContainerId>,
    /// Containers whose health check turned out to be impossible to run.
    pub check_errors: Vec<ContainerId>,
}

/// A replica that must be replaced because of its probe results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeFailure {
    /// The probe that fails.
    pub probe_type: ProbeType,
    /// How long it has been failing.
    pub lasted: Duration,
    /// The last error.
    pub said: String,
}

impl Probes {
    /// Starts without probes. The engine runs probe commands.
    pub fn new<E: Engine>(engine: Arc<E>, places: CheckPlaces) -> Self {
        let check: Check = Arc::new(move |id, command, limit| {
            let engine = Arc::clone(&engine);
            let command = ExecOptions { command, limit: Some(limit), ..ExecOptions::default() };
            async move { engine.run(&id, &command).await }.boxed()
        });
        Self::by(check, places)
    }

    fn by(check: Check, places: CheckPlaces) -> Self {
        let (sender, told) = mpsc::unbounded_channel();
        let (running, up, checked) = Default::default();
        let first_checks = FirstChecks::new(Arc::clone(&check), places);
        Self { check, running, up, checked, first_checks, told, sender }
    }

    /// Processes an observation. From the start of a process, the health of a replica with probes is their result.
    pub fn see(&mut self, desired: &Desired, observed: &mut Observed) {
        self.checked.clear();
        for (id, container) in &observed.containers {
            if let ContainerState::Running(process) = &container.state {
                self.checked.insert(id.clone(), process.health);
            }
        }
        self.follow(desired, observed);
        self.apply(&mut observed.containers);
    }

    /// Probes exactly the running replicas whose services have probes and which can be reached.
    pub fn follow(&mut self, desired: &Desired, observed: &Observed) {
        self.follow_first_checks(desired, observed);
        let mut wanted = BTreeMap::new();
        if desired.phase == Phase::Up {
            let lives = observed.containers.values().filter_map(life);
            self.up.retain(|life| lives.clone().any(|other| other == *life));
            for container in observed.containers.values() {
                wanted.extend(self.subjects(desired, &observed.sharing, container));
            }
        }
        self.running
            .retain(|key, running| wanted.get(key).is_some_and(|subject| subject.asks_as(&running.subject)));
        for (key, subject) in wanted {
            // A replacement that took over its slot is probed at its new address, and keeps its result.
            let fresh =
                || Verdict { opinion: Thresholds::new(key.1, &subject.probe).opinion(), failing: None };
            let verdict = match self.running.get(&key) {
                Some(running) if running.subject == subject => continue,
                Some(running) => running.verdict.clone(),
                None => fresh(),
            };
            let told = self.sender.clone();
            let watch = watch(key.clone(), subject.clone(), verdict.opinion, Arc::clone(&self.check), told);
            self.running.insert(key, Running { subject, verdict, task: tokio::spawn(watch) });
        }
    }

    /// Runs the health check of replicas that are not healthy yet according to the engine, once they listen or if they
    /// need not listen.
    fn follow_first_checks(&mut self, desired: &Desired, observed: &Observed) {
        let is_awaited =
            |id: &ContainerId| desired.phase == Phase::Up && self.checked.get(id) == Some(&Health::Starting);
        let wanted = observed.containers.values().filter_map(|container| {
            let check = container.check.as_ref().filter(|_| is_awaited(&container.id))?;
            may_be_up(desired, &observed.sharing, container).then_some((life(container)?, check))
        });
        let wanted = wanted.collect();
        let runs = |(id, pid): &Life| {
            let process = observed.containers.get(id).and_then(Container::process);
            process.is_some_and(|process| process.pid == *pid)
        };
        self.first_checks.follow(runs, wanted);
    }

    /// The probes of a replica at this time: the startup probe until it succeeds, then all others.
    fn subjects(&self, desired: &Desired, sharing: &Sharing, container: &Container) -> Vec<(Key, Subject)> {
        let (Some(life), Role::Replica { service, slot }) = (life(container), &container.labels.role) else {
            return Vec::new();
        };
        let project = &desired.project;
        let Some(service) = project.services.get(service) else { return Vec::new() };
        let Some(probes) = &service.probe else { return Vec::new() };
        let by_kernel = matches!(sharing, Sharing::ByKernel(_)) && project.wants_kernel(&service.pod);
        let subject = |probe: &Probe| {
            let to = match probe.needs_port() {
                true if !by_kernel => return None,
                true => Some((
                    desired.own_address(service, *slot, container)?,
                    project.probe_port(service, probe)?,
                )),
                false => None,
            };
            let is_reached = to.is_none_or(|(address, _)| leads(sharing, container, address));
            Some(Subject { to, is_reached, probe: probe.clone() })
        };
        let is_up = probes.startup.as_ref().and_then(subject).is_none() || self.up.contains(&life);
        let aims =
            ProbeType::ALL.into_iter().filter(|probe_type| (*probe_type == ProbeType::Startup) != is_up);
        aims.filter_map(|probe_type| Some(((life.clone(), probe_type), subject(probes.get(probe_type)?)?)))
            .collect()
    }

    /// Waits until the result of a probe changes, or a first check has a result.
    pub async fn changed(&mut self) {
        loop {
            let told = tokio::select! {
                () = self.first_checks.changed() => return,
                told = self.told.recv() => told,
            };
            // The channel is never closed: `self` holds a sender.
            let Some(Report { key, verdict }) = told else { return };
            let Some(running) = self.running.get_mut(&key) else { continue };
            let is_new = running.verdict.opinion != verdict.opinion;
            running.verdict = verdict;
            if !is_new {
                continue;
            }
            if key.1 == ProbeType::Startup && running.verdict.opinion == Opinion::Ready {
                self.up.insert(key.0);
            }
            return;
        }
    }

    /// Combines probe results and first checks with the engine's health checks, and stores the health in `containers`.
    pub fn apply(&self, containers: &mut BTreeMap<ContainerId, Container>) -> Applied {
        let mut opinions: BTreeMap<&Life, Opinion> = BTreeMap::new();
        for ((life, _), running) in &self.running {
            let worst = opinions.entry(life).or_insert(Opinion::Ready);
            *worst = regression(*worst, running.verdict.opinion);
        }
        let mut applied = Applied::default();
        for (id, container) in containers {
            let Some(life) = life(container) else { continue };
            let ContainerState::Running(process) = &mut container.state else { continue };
            let checked = self.checked(id);
            let checked = match self.first_checks.of(&life).filter(|_| checked == Health::Starting) {
                Some(FirstCheck::Passed) => Health::Healthy,
                Some(FirstCheck::CannotRun(error)) => {
                    if process.check_error.replace(error.clone()).is_none() {
                        applied.check_errors.push(id.clone());
                    }
                    Health::None
                }
                Some(FirstCheck::Failed(_)) | None => checked,
            };
            let health = opinions.get(&life).map_or(checked, |opinion| together(checked, *opinion));
            if std::mem::replace(&mut process.health, health) != health {
                applied.health.push(id.clone());
            }
        }
        applied
    }

    /// The last result of the engine's health check of a container.
    pub fn checked(&self, id: &ContainerId) -> Health {
        self.checked.get(id).copied().unwrap_or(Health::None)
    }

    /// Why replicas are not ready yet: the last errors of their probes or health checks.
    pub fn reasons(&self, containers: &BTreeMap<ContainerId, Container>) -> BTreeMap<ContainerId, String> {
        let reason = |container: &Container| {
            let life = life(container)?;
            let process = container.process().filter(|process| process.health == Health::Starting)?;
            let probed = ProbeType::ALL.into_iter().find_map(|probe_type| {
                let running = self.running.get(&(life.clone(), probe_type))?;
                running.verdict.failing.as_ref().map(|(_, said)| said.clone())
            });
            let checked = || match self.first_checks.of(&life) {
                Some(FirstCheck::Failed(said)) => Some(said.clone()),
                _ => None,
            };
            probed.or_else(checked).or_else(|| process.complaint.as_deref().map(probe::last_line))
        };
        containers.values().filter_map(|container| Some((container.id.clone(), reason(container)?))).collect()
    }

    /// The failure of a startup or liveness probe, because of which a replica must be replaced.
    pub fn complaint(&self, container: &Container) -> Option<ProbeFailure> {
        let life = life(container)?;
        [ProbeType::Startup, ProbeType::Liveness].into_iter().find_map(|probe_type| {
            let verdict = &self.running.get(&(life.clone(), probe_type))?.verdict;
            let (since, said) = verdict.failing.as_ref().filter(|_| verdict.opinion == Opinion::Failing)?;
            Some(ProbeFailure { probe_type, lasted: since.elapsed(), said: said.clone() })
        })
    }
}

fn life(container: &Container) -> Option<Life> {
    match &container.state {
        ContainerState::Running(process) => Some((container.id.clone(), process.pid)),
        _ => None,
    }
}

/// Whether a replica can be checked: it listens, or its pod declares no ports.
fn may_be_up(desired: &Desired, sharing: &Sharing, container: &Container) -> bool {
    let Sharing::ByKernel(report) = sharing else { return true };
    let Some(pod) = desired.project.pods.get(&container.labels.pod) else { return true };
    let shown = report.pods.get(&container.labels.pod).and_then(|pod| pod.replicas.get(&container.id));
    pod.declared().next().is_none() || shown.is_some_and(ReplicaReport::listens)
}

/// Whether the kernel reports the address as the replica's. That takes a moment after the start of the supervisor, and
/// after a replacement has taken over an address.
fn leads(sharing: &Sharing, container: &Container, address: Ipv4Addr) -> bool {
    let Sharing::ByKernel(report) = sharing else { return false };
    let found = report.pods.get(&container.labels.pod).and_then(|pod| pod.replicas.get(&container.id));
    let process = container.process().map(|process| process.pid);
    found.is_some_and(|replica| replica.address == Some(address) && Some(replica.pid) == process)
}

fn regression(one: Opinion, other: Opinion) -> Opinion {
    match (one, other) {
        (Opinion::Failing, _) | (_, Opinion::Failing) => Opinion::Failing,
        (Opinion::Starting, _) | (_, Opinion::Starting) => Opinion::Starting,
        (Opinion::Ready, Opinion::Ready) => Opinion::Ready,
    }
}

/// The worse of the two.
fn together(checked: Health, opinion: Opinion) -> Health {
    match checked {
        Health::Starting | Health::Unhealthy => checked,
        Health::None | Health::Healthy => opinion.into(),
    }
}

/// Runs a probe repeatedly.
async fn watch(
    key: Key,
    subject: Subject,
    opinion: Opinion,
    check: Check,
    told: mpsc::UnboundedSender<Report>,
) {
    let ((id, pid), probe_type) = key.clone();
    let mut thresholds = Thresholds::new(probe_type, &subject.probe).with(opinion);
    if !subject.is_reached {
        // Once the address is the replica's, another task replaces this one.
        return std::future::pending().await;
    }
    let mut asker = ProbeRunner { id: id.clone(), pid, check, last: None };
    let begun = Instant::now();
    let mut failing: Option<Instant> = None;
    loop {
        let asked_at = Instant::now();
        let answer = asker.ask(&subject).await;
        if let Err(error) = &answer
            && error.was_not_asked()
        {
            tracing::debug!(%error, container = %id, ?probe_type, "a probe cannot be made");
            tokio::time::sleep(probe::first_pause(&subject.probe)).await;
            continue;
        }
        let opinion = thresholds.note(answer.is_ok(), asked_at.duration_since(begun));
        let failing = match answer {
            Ok(()) => {
                failing = None;
                None
            }
            Err(error) => {
                tracing::debug!(%error, container = %id, ?probe_type, "probe");
                Some((*failing.get_or_insert(asked_at), error.to_string()))
            }
        };
        if told.send(Report { key: key.clone(), verdict: Verdict { opinion, failing } }).is_err() {
            return;
        }
        // Replicas that are starting are probed more often.
        let pause = match opinion {
            Opinion::Starting => probe::first_pause(&subject.probe),
            Opinion::Ready | Opinion::Failing => subject.probe.interval,
        };
        tokio::time::sleep(pause.max(Duration::from_millis(10))).await;
    }
}

/// Runs the probes of a replica one after the other.
struct ProbeRunner {
    id: ContainerId,
    pid: u32,
    check: Check,
    /// A command that timed out and may still run.
    last: Option<Command>,
}

impl ProbeRunner {
    async fn ask(&mut self, subject: &Subject) -> Result<(), ProbeError> {
        let probe = subject.probe.clone();
        match (&subject.probe.kind, subject.to) {
            (ProbeKind::Exec { command }, _) => self.run(command, probe.timeout).await,
            (_, Some(to)) => {
                let pid = self.pid;
                let asked = move || probe::ask(&Netns::of(pid)?, to, &probe);
                tokio::task::spawn_blocking(asked).await.unwrap_or(Err(ProbeError::StillRuns))
            }
            (_, None) => Ok(()),
        }
    }

    async fn run(&mut self, command: &[String], limit: Duration) -> Result<(), ProbeError> {
        if self.last.as_ref().is_some_and(|last| !last.0.is_finished()) {
            return Err(ProbeError::StillRuns);
        }
        let running = (self.check)(self.id.clone(), command.to_vec(), limit);
        let command = self.last.insert(Command(tokio::spawn(running)));
        match timeout(limit, &mut command.0).await {
            Ok(Ok(Ok(Ran { code: 0, .. }))) => Ok(()),
            Ok(Ok(Ok(Ran { code, output }))) => Err(ProbeError::Exit { code, output }),
            Ok(Ok(Err(error))) => Err(error.into()),
            Ok(Err(_)) | Err(_) => Err(ProbeError::TimedOut(limit)),
        }
    }
}

/// A running command; dropping this stops waiting for it.
struct Command(JoinHandle<Result<Ran, EngineError>>);

impl Drop for Command {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    };

    use super::*;
    use crate::{
        engine::{Labels, Process},
        kernel::steering::{PodReport, ReplicaReport, Report},
        spec::{Probes as Spec, Project, Slot},
    };

    fn project(probes: Spec) -> Project {
        let image = crate::spec::Image("localhost/demo".to_owned());
        let mut project = crate::demo::project::project(image, 1, "127.0.0.1:4000".parse().unwrap()).unwrap();
        for service in project.services.values_mut() {
            service.probe = Some(probes.clone());
        }
        project
    }

    fn readiness() -> Spec {
        Spec { readiness: Some(Probe { port: Some(80), ..Probe::of(ProbeKind::Tcp) }), ..Spec::default() }
    }

    /// A command that returns the given exit code and records each run.
    fn answering(code: &Arc<AtomicU32>, asked: &Arc<Mutex<Vec<String>>>) -> Probes {
        let (code, asked) = (Arc::clone(code), Arc::clone(asked));
        Probes::by(
            Arc::new(move |_, command, _| {
                let (code, asked) = (Arc::clone(&code), Arc::clone(&asked));
                async move {
                    asked.lock().unwrap().extend(command);
                    let code = i64::from(code.load(Ordering::Relaxed));
                    Ok(Ran { code, output: vec!["no database".to_owned()] })
                }
                .boxed()
            }),
            CheckPlaces::new(None),
        )
    }

    fn silent() -> Probes {
        answering(&Arc::default(), &Arc::default())
    }

    /// A running replica without any results.
    fn running(project: &Project) -> Container {
        let service = project.services.values().next().unwrap();
        Container {
            id: ContainerId("one".to_owned()),
            name: "one".to_owned(),
            labels: Labels {
                project: project.name.clone(),
                pod: service.pod.clone(),
                generation: service.generation(),
                role: Role::Replica { service: service.name.clone(), slot: Slot::new(1).unwrap() },
            },
            joined: None,
            image_id: None,
            hooks: crate::spec::Hooks::default(),
            limits: crate::spec::Limits::default(),
            recreated: false,
            check: None,
            volumes: std::collections::BTreeSet::new(),
            connections: None,
            state: ContainerState::Running(Process {
                pid: u32::MAX,
                started_at: jiff::Timestamp::UNIX_EPOCH,
                health: Health::None,
                complaint: None,
                check_error: None,
            }),
            since: jiff::Timestamp::UNIX_EPOCH,
            netns: None,
        }
    }

    fn health(observed: &Observed) -> Health {
        observed.containers.values().next().unwrap().process().unwrap().health
    }

    #[tokio::test]
    async fn a_replica_with_probes_is_not_ready_at_first() {
        let project = project(readiness());
        let container = running(&project);
        let mut observed = Observed { sharing: Sharing::ByKernel(Arc::default()), ..Observed::default() };
        observed.containers.insert(container.id.clone(), container);
        let (mut probes, desired) = (silent(), Desired::all(project));
        probes.see(&desired, &mut observed);
        assert_eq!(health(&observed), Health::Starting);
        // Without addresses for single replicas, none is probed.
        observed.sharing = Sharing::ByImages;
        observed.containers = [running(&desired.project)].map(|c| (c.id.clone(), c)).into();
        probes.see(&desired, &mut observed);
        assert_eq!(health(&observed), Health::None);
    }

    #[tokio::test(start_paused = true)]
    async fn other_probes_start_after_the_startup_probe_and_commands_need_no_address() {
        let probe = |word: &str| {
            Some(Probe { failures: 2, ..Probe::of(ProbeKind::Exec { command: vec![word.to_owned()] }) })
        };
        let spec = Spec { startup: probe("up"), readiness: probe("ready"), liveness: probe("alive") };
        let project = project(spec);
        let (code, asked) = (Arc::new(AtomicU32::new(1)), Arc::default());
        let mut probes = answering(&code, &asked);
        let mut observed = Observed::default();
        let container = running(&project);
        observed.containers.insert(container.id.clone(), container.clone());
        let desired = Desired::all(project);
        probes.see(&desired, &mut observed);
        assert_eq!(health(&observed), Health::Starting);
        probes.changed().await;
        probes.apply(&mut observed.containers);
        assert_eq!(health(&observed), Health::Unhealthy);
        let complaint = probes.complaint(&container).unwrap();
        assert_eq!(
            (complaint.probe_type, complaint.said.as_str()),
            (ProbeType::Startup, "exit code 1: no database")
        );
        assert!(asked.lock().unwrap().iter().all(|word| word == "up"), "{asked:?}");
        // The startup probe succeeds.
        code.store(0, Ordering::Relaxed);
        probes.changed().await;
        asked.lock().unwrap().clear();
        probes.follow(&desired, &observed);
        probes.changed().await;
        probes.apply(&mut observed.containers);
        assert_eq!((health(&observed), probes.complaint(&container)), (Health::Healthy, None));
        tokio::time::sleep(Duration::from_secs(10)).await;
        let words: BTreeSet<_> = asked.lock().unwrap().drain(..).collect();
        assert_eq!(words, ["alive", "ready"].map(str::to_owned).into());
        // The liveness probe fails.
        code.store(1, Ordering::Relaxed);
        while probes.complaint(&container).is_none() {
            probes.changed().await;
        }
        assert_eq!(probes.complaint(&container).unwrap().probe_type, ProbeType::Liveness);
    }

    #[tokio::test]
    async fn a_replica_is_not_probed_before_its_address_is_in_force() {
        let project = project(readiness());
        let container = running(&project);
        let service = project.services.values().next().unwrap();
        let address = project.own_address(service, Slot::new(1).unwrap()).unwrap();
        let elsewhere = Ipv4Addr::new(127, 77, 0, 99);
        for (pid, found, leads_there) in [
            (u32::MAX, Some(address), true),
            (u32::MAX, Some(elsewhere), false),
            (u32::MAX, None, false),
            (7, Some(address), false),
        ] {
            let replica = ReplicaReport { pid, address: found, ..ReplicaReport::default() };
            let pod = PodReport {
                replicas: BTreeMap::from([(container.id.clone(), replica)]),
                ..PodReport::default()
            };
            let report = Report { pods: BTreeMap::from([(service.pod.clone(), pod)]) };
            let subjects = silent().subjects(
                &Desired::all(project.clone()),
                &Sharing::ByKernel(report.into()),
                &container,
            );
            assert_eq!(subjects[0].1.is_reached, leads_there, "{pid} {found:?}");
        }
        let nothing = Sharing::ByKernel(Arc::default());
        let subjects = silent().subjects(&Desired::all(project.clone()), &nothing, &container);
        assert!(!subjects[0].1.is_reached, "nothing is seen yet");
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_cannot_be_reached_says_nothing_about_a_replica() {
        let is_there = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let (reachable, asked) = (Arc::clone(&is_there), Arc::new(AtomicU32::new(0)));
        let count = Arc::clone(&asked);
        let mut probes = Probes::by(
            Arc::new(move |_, _, _| {
                count.fetch_add(1, Ordering::Relaxed);
                let unreachable =
                    EngineError::Unreachable { address: "a".to_owned(), reason: "b".to_owned() };
                let answer = reachable.load(Ordering::Relaxed).then_some(Ran { code: 0, output: Vec::new() });
                async move { answer.ok_or(unreachable) }.boxed()
            }),
            CheckPlaces::new(None),
        );
        let probe = Probe { failures: 1, ..Probe::of(ProbeKind::Exec { command: vec!["alive".to_owned()] }) };
        let project =
            project(Spec { readiness: Some(probe.clone()), liveness: Some(probe), ..Spec::default() });
        let mut observed = Observed::default();
        let container = running(&project);
        observed.containers.insert(container.id.clone(), container.clone());
        let desired = Desired::all(project);
        probes.see(&desired, &mut observed);
        while health(&observed) != Health::Healthy {
            probes.changed().await;
            probes.apply(&mut observed.containers);
        }
        is_there.store(false, Ordering::Relaxed);
        let before = asked.load(Ordering::Relaxed);
        let changed = timeout(Duration::from_secs(60), probes.changed()).await;
        assert!(changed.is_err() && asked.load(Ordering::Relaxed) > before + 5);
        probes.apply(&mut observed.containers);
        assert_eq!((health(&observed), probes.complaint(&container)), (Health::Healthy, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_that_times_out_is_a_failure_and_does_not_run_twice() {
        let runs = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&runs);
        let mut asker = ProbeRunner {
            id: ContainerId("one".to_owned()),
            pid: 1,
            check: Arc::new(move |_, _, _| {
                counted.fetch_add(1, Ordering::Relaxed);
                std::future::pending().boxed()
            }),
            last: None,
        };
        let probe = Probe::of(ProbeKind::Exec { command: vec!["sleep".to_owned()] });
        let subject = Subject { to: None, is_reached: true, probe };
        let begun = Instant::now();
        assert!(matches!(asker.ask(&subject).await, Err(ProbeError::TimedOut(_))));
        assert_eq!(begun.elapsed(), Probe::TIMEOUT);
        assert!(matches!(asker.ask(&subject).await, Err(ProbeError::StillRuns)));
        assert_eq!(runs.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_worse_of_health_check_and_probe_counts() {
        for (checked, opinion, expected) in [
            (Health::None, Opinion::Starting, Health::Starting),
            (Health::None, Opinion::Ready, Health::Healthy),
            (Health::Healthy, Opinion::Failing, Health::Unhealthy),
            (Health::Unhealthy, Opinion::Ready, Health::Unhealthy),
            (Health::Starting, Opinion::Ready, Health::Starting),
        ] {
            assert_eq!(together(checked, opinion), expected, "{checked:?}, {opinion:?}");
        }
    }
}
