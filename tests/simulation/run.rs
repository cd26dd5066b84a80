//! One run: faults, then quiet, then the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use sameport::{
    clock::Clock,
    engine::{
        ContainerId, ContainerState, Labels, Role,
        memory::{Call, Faults, Memory, OnChange},
    },
    plan::{Desired, Observed, Orphans, Verb, replacement_order, versions::Steps},
    spec::{FailureAction, Generation, Image, Order, Project, ServiceName, Share, Sharing, Slot},
    supervisor::{
        Apply, Change, Handle, Kernel, NoKernel, Preview, Reply, Request, RolloutRequest, Selector, Settings,
        StateFile, start,
    },
    tick::Ticker,
};
use tokio::{task::JoinHandle, time::sleep};

use crate::{kernel::SimulatedKernel, project};

/// A crash loop backs off to half a minute, an engine call as well, and a stop may take ten seconds, one at a
/// time: quiet for longer than this and not converged is never.
const PATIENCE: Duration = Duration::from_secs(600);

/// A supervisor looks at least that often.
const RESYNC: Duration = Duration::from_secs(31);
/// How many calls such a look makes at most: it lists containers, networks and volumes, inspects eight containers, and
/// asks after what belongs to others.
const CALLS_OF_A_LOOK: u64 = 20;

/// How far the engine's clock is ahead of ours, in seconds.
const SKEWS: [i64; 5] = [0, 0, 1, 3600, -3600];

/// Runs one seed.
pub fn seed(seed: u64) -> Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async { Simulation::new(seed).run().await })
}

struct Simulation {
    chance: fastrand::Rng,
    engine: Memory,
    clock: Clock,
    project: Project,
    /// What each service may have at most: the highest number that was wanted so far.
    most: BTreeMap<ServiceName, u32>,
    state: tempfile::TempDir,
    handle: Handle,
    task: JoinHandle<()>,
    foreign: Vec<ContainerId>,
    kernel: Option<SimulatedKernel>,
    /// Replicas that were told to end while they got new connections.
    stopped_in_rotation: Arc<Mutex<Vec<ContainerId>>>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut chance = fastrand::Rng::with_seed(seed);
        let clock = Clock::starting_at(Timestamp::UNIX_EPOCH);
        // The engine's clock may be anywhere: it is another host's, or this one's was set.
        let skew = SKEWS[chance.usize(..SKEWS.len())];
        let theirs = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(skew);
        let engine = Memory::new(Clock::starting_at(theirs), chance.u64(..));
        // In every other world the kernel shares ports.
        let kernel = seed.is_multiple_of(2).then(|| SimulatedKernel::new(engine.clone(), seed));
        let sharing = if kernel.is_some() { Sharing::Auto } else { Sharing::Application };
        let project = project::random(&mut chance, sharing);
        let state = tempfile::tempdir().unwrap();
        let (handle, task) = supervise(&engine, clock, &state, kernel.clone());
        let stopped_in_rotation = Arc::new(Mutex::new(Vec::new()));
        if let Some(kernel) = kernel.clone() {
            engine.world().on_change = Some(never_in_rotation(kernel, Arc::clone(&stopped_in_rotation)));
        }
        let foreign = {
            let mut world = engine.world();
            // With the labels of a volume that may be ours.
            let labels = Labels::of_resource(&"sim".parse().unwrap(), "sim_data-1");
            world.add_foreign_volume("sim_theirs", labels);
            let labels = |role| Labels {
                project: "sim".parse().unwrap(),
                pod: "api".parse().unwrap(),
                generation: Generation::from_label("0123456789ab"),
                role,
            };
            let replica = Role::Replica { service: "api".parse().unwrap(), slot: Slot::FIRST };
            vec![
                // All labels that an earlier release wrote, without its names and networks.
                world.add_foreign("sim-api-debug", labels(replica).to_map()),
                world.add_foreign("debug-sandbox", labels(Role::Sandbox).to_map()),
                world.add_foreign("sim-web-99", BTreeMap::new()),
                world.add_foreign("other-web-1", BTreeMap::new()),
                // Labels that are almost ours: another project's, and an incomplete set.
                world.add_foreign(
                    "sim-api-98",
                    BTreeMap::from([(Labels::PROJECT.to_owned(), "sim".to_owned())]),
                ),
                world.add_foreign(
                    "sim2-api-1",
                    BTreeMap::from([(Labels::PROJECT.to_owned(), "sim2".to_owned())]),
                ),
            ]
        };
        Self {
            chance,
            engine,
            clock,
            project,
            most: BTreeMap::new(),
            state,
            handle,
            task,
            foreign,
            kernel,
            stopped_in_rotation,
        }
    }

    async fn run(mut self) -> Result<(), String> {
        self.apply().await?;
        self.engine.world().faults = Faults {
            before: self.chance.u32(0..150),
            refused: self.chance.u32(0..50),
            after: self.chance.u32(0..100),
            lost_events: self.chance.u32(0..500),
            slow_start: self.chance.u32(0..200),
            crash_at_start: self.chance.u32(0..200),
            command_fails: self.chance.u32(0..200),
        };
        for _ in 0..self.chance.u32(1..12) {
            self.disturb().await?;
            for _ in 0..self.chance.u32(1..20) {
                let before = self.calls();
                let pause = Duration::from_millis(self.chance.u64(1..400));
                sleep(pause).await;
                self.check_always()?;
                self.check_calls(before, pause)?;
            }
        }
        self.engine.world().faults = Faults::default();
        self.engine.world().up = true;
        // An event that was lost is made good by the next look at everything.
        sleep(RESYNC).await;
        // What failed, was paused or undone is wanted once more.
        self.apply().await?;
        for service in self.project.services.keys() {
            self.roll_out(service, Change::Start { image: None, image_id: None, steps: None }).await?;
        }
        self.converge().await?;
        self.check_converged()?;
        self.check_idle().await?;
        self.check_replacing().await.map_err(|failure| format!("replacing: {failure}"))?;
        self.check_restart().await.map_err(|failure| format!("restart: {failure}"))?;
        self.check_rollout().await.map_err(|failure| format!("rollout: {failure}"))?;
        self.check_bad_version().await.map_err(|failure| format!("bad version: {failure}"))?;
        self.check_adoption().await?;
        self.check_down().await
    }

    async fn disturb(&mut self) -> Result<(), String> {
        let ours: Vec<_> = {
            let world = self.engine.world();
            world
                .containers()
                .filter(|(_, _, labels, ..)| labels.is_some())
                .map(|(id, ..)| id.clone())
                .collect()
        };
        let victim = (!ours.is_empty()).then(|| ours[self.chance.usize(..ours.len())].clone());
        match (self.chance.u32(0..20), victim) {
            // Somebody wants to see what is in it.
            (15, Some(id)) => {
                let name = format!("sim-api-{}", 100 + self.foreign.len());
                self.foreign.extend(self.engine.world().commit_and_run(&id, &name));
            }
            // The engine loses the end of a process.
            (17, Some(id)) => self.engine.world().vanish(&id),
            // Somebody takes a pod off its network.
            (18, Some(id)) => {
                let mut world = self.engine.world();
                world.networks_of(&id).iter().for_each(|network| world.disconnect(&id, network));
            }
            // Lists come back empty for a while, and nobody is to be touched for that.
            (19, _) => {
                self.engine.world().lists_nothing = true;
                sleep(Duration::from_millis(self.chance.u64(1..40_000))).await;
                self.engine.world().lists_nothing = false;
            }
            // As if an earlier release had made all that is there.
            (16, _) => {
                self.task.abort();
                let mut world = self.engine.world();
                ours.iter().for_each(|id| world.make_legacy(id));
                drop(world);
                self.respawn();
            }
            (11..=12, Some(id)) => {
                let is_replica = self.engine.world().containers().any(|(other, _, labels, ..)| {
                    *other == id && labels.is_some_and(|labels| labels.role != Role::Sandbox)
                });
                if is_replica {
                    self.engine.world().sicken(&id);
                }
            }
            (0..=2, Some(id)) => self.engine.world().exit(&id, 137),
            (3, Some(id)) => self.engine.world().remove(&id),
            // Somebody stops one, and may start it again.
            (10, Some(id)) => {
                self.engine.world().stop(&id, 143);
                sleep(Duration::from_millis(self.chance.u64(1..6000))).await;
                if self.chance.bool() {
                    // It may be gone, and its sandbox too.
                    let _ = self.engine.world().start(&id);
                }
            }
            (4, _) => {
                let live = self.chance.bool();
                self.engine.world().go_down(live);
                sleep(Duration::from_millis(self.chance.u64(1..5000))).await;
                self.engine.world().up = true;
            }
            (5, _) => {
                project::edit(&mut self.project, &mut self.chance);
                self.apply().await?;
            }
            (6, _) => self.respawn(),
            (7, _) => {
                let name = self.any_service();
                self.ask(Request::Restart {
                    replicas: vec![Selector { service: name, slot: None }],
                    grace: None,
                })
                .await?;
            }
            (9, _) => self.refuse().await?,
            (13 | 14, _) => {
                let name = self.any_service();
                let change = self.any_change();
                // Some are not possible at some times.
                let _ = self.roll_out(&name, change).await;
            }
            (8, _) => {
                self.ask(Request::Stop { services: Vec::new(), grace: None }).await?;
                sleep(Duration::from_millis(self.chance.u64(1..3000))).await;
                self.ask(Request::Start { services: Vec::new() }).await?;
            }
            _ => {
                let names: Vec<_> = self.project.services.keys().cloned().collect();
                let name = names[self.chance.usize(..names.len())].clone();
                let replicas = self.chance.u32(0..6);
                self.project.services.get_mut(&name).unwrap().replicas = replicas;
                self.apply().await?;
            }
        }
        Ok(())
    }

    /// For a while the engine answers, and refuses every change.
    async fn refuse(&mut self) -> Result<(), String> {
        let faults = self.engine.world().faults;
        self.engine.world().faults.refused = 1000;
        // What has begun before is let through.
        sleep(Duration::from_secs(1)).await;
        let (_, before) = self.calls();
        let seconds = self.chance.u64(10..60);
        sleep(Duration::from_secs(seconds)).await;
        let (_, after) = self.calls();
        self.engine.world().faults = faults;
        // From 100 ms doubling, a minute has room for ten tries.
        let most = 10 * self.targets();
        match after - before {
            changes if changes as u64 > most => {
                Err(format!("{changes} tries in {seconds} s, {most} at most"))
            }
            _ => Ok(()),
        }
    }

    /// How many things a plan can be about: each slot that was ever wanted, its successor, its volume and their commands,
    /// and for each service a sandbox, the old one, its job and that of another version.
    fn targets(&self) -> u64 {
        self.most.values().map(|most| 5 * u64::from(*most) + 4).sum::<u64>() + 1
    }

    /// As `kill -9` of the supervisor and a new `up`.
    fn respawn(&mut self) {
        self.task.abort();
        (self.handle, self.task) = supervise(&self.engine, self.clock, &self.state, self.kernel.clone());
        let (handle, apply) = (self.handle.clone(), self.request());
        tokio::spawn(async move { handle.request(apply).await });
    }

    /// A new supervisor that has heard what is wanted.
    async fn respawn_and_wait(&mut self) {
        self.respawn();
        sleep(Duration::from_millis(100)).await;
    }

    fn request(&mut self) -> Request {
        for service in self.project.services.values() {
            let most = self.most.entry(service.name.clone()).or_default();
            *most = (*most).max(service.replicas);
        }
        Request::Apply(Box::new(Apply {
            orphans: Orphans::Remove,
            recreate_pod: true,
            again: true,
            ..Apply::all(self.project.clone(), "simulation")
        }))
    }

    async fn apply(&mut self) -> Result<(), String> {
        let request = self.request();
        self.ask(request).await
    }

    async fn ask(&self, request: Request) -> Result<(), String> {
        match self.handle.request(request).await {
            Ok(Reply::Rejected(rejection)) => Err(format!("rejected: {rejection}")),
            Ok(_) => Ok(()),
            Err(ended) => Err(ended.to_string()),
        }
    }

    /// What must hold at every moment.
    fn check_always(&self) -> Result<(), String> {
        if let Some(id) = self.stopped_in_rotation.lock().unwrap().first() {
            return Err(format!("{id} was told to end while it got new connections"));
        }
        let world = self.engine.world();
        let there: BTreeMap<_, _> =
            world.containers().map(|(id, _, _, state, _)| (id.clone(), state.clone())).collect();
        for id in &self.foreign {
            match there.get(id) {
                Some(ContainerState::Running(_)) => {}
                // The daemon's own end takes everybody's containers along.
                Some(ContainerState::Exited(exit)) if exit.code == 0 => {}
                state => return Err(format!("a container of others was touched: {state:?}")),
            }
        }
        let (mut slots, mut jobs) = (BTreeSet::new(), BTreeSet::new());
        let mut set_aside = BTreeMap::<_, u32>::new();
        for (id, name, labels, ..) in world.containers() {
            if let Some(Labels { role: Role::PreDeploy { service }, .. }) = &labels
                && !jobs.insert(service.clone())
            {
                return Err(format!("{name} is not the only job of its service"));
            }
            let Some(Labels { role: Role::Replica { service, slot }, generation, .. }) = labels else {
                continue;
            };
            let needs_job = self.project.services.get(&service).is_some_and(|spec| spec.pre_deploy.is_some());
            if needs_job && !world.jobs_done.contains(&(service.clone(), generation)) {
                return Err(format!("{name} is there, and the job before its version never succeeded"));
            }
            if slot.number() > self.most.get(&service).copied().unwrap_or(0) {
                return Err(format!("{name} was never wanted"));
            }
            if id.is_set_aside_name(name) {
                let others = set_aside.entry((service, slot)).or_default();
                *others += 1;
                if *others > 4 {
                    return Err(format!("{name} is one too many that has given up its slot"));
                }
                continue;
            }
            if !slots.insert((service, slot, name.ends_with("-next"))) {
                return Err(format!("{name} is not alone in its slot"));
            }
        }
        Ok(())
    }

    /// How many calls there were, and how many of them changed something.
    fn calls(&self) -> (u64, usize) {
        let world = self.engine.world();
        (world.calls, world.changes.len())
    }

    /// Whatever goes wrong, the engine is not stormed: it is looked at fifty times a second at most, and no
    /// target is acted on more often than the shortest back-off allows.
    fn check_calls(&self, before: (u64, usize), pause: Duration) -> Result<(), String> {
        let (calls, changes) = self.calls();
        let (calls, changes) = (calls - before.0, changes - before.1);
        // An action is two changing calls at most.
        let targets = 2 * self.targets();
        let rounds = |shortest: u64| u64::try_from(pause.as_millis()).unwrap() / shortest + 2;
        if changes as u64 > targets * rounds(100) {
            return Err(format!("{changes} changing calls in {pause:?}"));
        }
        let looks = calls - changes as u64;
        if looks > (targets + 10) * rounds(20) {
            return Err(format!("{looks} looks in {pause:?}"));
        }
        Ok(())
    }

    /// Whoever stays unhealthy is replaced, one at a time for each service, and nobody else is touched; one that never
    /// stays healthy is tried more and more rarely.
    async fn check_replacing(&mut self) -> Result<(), String> {
        let services = self.project.services.values().filter(|service| service.replicas > 0);
        let services: Vec<_> = services.map(|service| (service.name.clone(), service.replicas)).collect();
        if services.is_empty() {
            return Ok(());
        }
        let (name, replicas) = services[self.chance.usize(..services.len())].clone();
        let before = self.engine.world().changes.len();
        let mut sick = BTreeSet::new();
        for id in self.ids(&name) {
            if sick.is_empty() || self.chance.bool() {
                self.engine.world().sicken(&id);
                sick.insert(id);
                sleep(Duration::from_millis(self.chance.u64(0..3000))).await;
            }
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.engine.world().is_anybody_unhealthy() || !self.is_converged().await? {
            sleep(Duration::from_millis(self.chance.u64(1..100))).await;
            let running = self.running(&name);
            if running + 1 < replicas {
                return Err(format!(
                    "{running} of {replicas} replicas of {name} run: one at a time is replaced"
                ));
            }
            self.check_always()?;
            if tokio::time::Instant::now() > deadline {
                return Err(format!("{name} is never healthy again"));
            }
        }
        for call in &self.engine.world().changes[before..] {
            match call {
                Call::Stop(id) | Call::Start(id) | Call::Run(id) if sick.contains(id) => {}
                other => return Err(format!("only {sick:?} are unhealthy, and there was {other:?}")),
            }
        }
        // Whatever is done, it does not help.
        let has_pauses = self.project.services[&name].restart.delay.is_none();
        let Some(id) = sick.first().cloned().filter(|_| has_pauses) else { return Ok(()) };
        let before = self.engine.world().changes.len();
        for _ in 0..100 {
            self.engine.world().sicken(&id);
            sleep(Duration::from_secs(1)).await;
        }
        let stop = Call::Stop(id);
        let stops = self.engine.world().changes[before..].iter().filter(|call| **call == stop).count();
        // With pauses from 100 ms doubling, 2 s each until it is certain, and up to 10 s each to end.
        if !(3..=12).contains(&stops) {
            return Err(format!("{stops} tries in a hundred seconds"));
        }
        self.converge().await?;
        self.check_converged()
    }

    /// Containers of a service's replicas.
    fn ids(&self, name: &ServiceName) -> Vec<ContainerId> {
        let world = self.engine.world();
        let replicas = world.containers().filter(|(_, _, labels, ..)| {
            labels.as_ref().is_some_and(
                |labels| matches!(&labels.role, Role::Replica { service, .. } if service == name),
            )
        });
        replicas.map(|(id, ..)| id.clone()).collect()
    }

    fn any_service(&mut self) -> ServiceName {
        let names: Vec<_> = self.project.services.keys().cloned().collect();
        names[self.chance.usize(..names.len())].clone()
    }

    /// Anything that can be wanted of a rollout.
    fn any_change(&mut self) -> Change {
        let shares = |chance: &mut fastrand::Rng| {
            (0..chance.usize(1..4)).map(|_| Share::of_thousand(chance.u16(0..=1000)).unwrap()).collect()
        };
        let chance = &mut self.chance;
        match chance.u32(0..7) {
            0 => Change::Pause,
            1 => Change::Resume,
            2 => Change::Undo { to: None },
            3 => Change::Undo { to: Some(chance.u32(1..4)) },
            4 => Change::Promote,
            5 => Change::Start {
                image: Some(Image(format!("app:{}", chance.u32(0..4)))),
                image_id: None,
                steps: None,
            },
            _ => Change::Start {
                image: Some(Image(format!("app:{}", chance.u32(0..4)))),
                image_id: None,
                steps: Some(Steps::of(
                    shares(chance),
                    Some(Duration::from_millis(chance.u64(0..2000))),
                    chance.bool(),
                )),
            },
        }
    }

    async fn roll_out(&self, service: &ServiceName, change: Change) -> Result<(), String> {
        let request = RolloutRequest { service: service.clone(), by: "simulation".to_owned(), change };
        self.ask(Request::Rollout(Box::new(request))).await
    }

    /// A restart takes down one replica of a service at a time.
    async fn check_restart(&mut self) -> Result<(), String> {
        let name = self.any_service();
        let least = self.project.services[&name].replicas.saturating_sub(1);
        let replicas = vec![Selector { service: name.clone(), slot: None }];
        self.ask(Request::Restart { replicas, grace: None }).await?;
        self.watch(&name, least, |_| false).await?;
        self.check_converged()
    }

    /// A new version comes without anybody missing, or no more than the file allows, whatever comes in between.
    async fn check_rollout(&mut self) -> Result<(), String> {
        let name = self.any_service();
        self.project.services.get_mut(&name).unwrap().container.image = Image("app:next".to_owned());
        let least = self.least(&name);
        let preview = self.preview().await?;
        let before = self.engine.world().changes.len();
        self.apply().await?;
        let mind = self.chance.u32(0..6);
        if mind < 4 {
            let pause = Duration::from_millis(self.chance.u64(0..8000));
            let end = tokio::time::Instant::now() + pause;
            self.watch(&name, least, |now| now >= end).await?;
        }
        match mind {
            0 => self.respawn_and_wait().await,
            1 => {
                let _ = self.roll_out(&name, Change::Pause).await;
                let end = tokio::time::Instant::now() + Duration::from_secs(20);
                self.watch(&name, least, |now| now >= end).await?;
                let _ = self.roll_out(&name, Change::Resume).await;
            }
            2 => {
                self.project.services.get_mut(&name).unwrap().container.image = Image("app:after".to_owned());
                self.apply().await?;
            }
            3 => {
                let _ = self.roll_out(&name, Change::Undo { to: None }).await;
                let end = tokio::time::Instant::now() + Duration::from_secs(5);
                self.watch(&name, least, |now| now >= end).await?;
                self.roll_out(&name, Change::Start { image: None, image_id: None, steps: None }).await?;
            }
            _ => {}
        }
        self.watch(&name, least, |_| false).await?;
        if mind >= 4 {
            self.check_preview(&preview, before)?;
        }
        self.check_converged()
    }

    /// What was done is what was foretold.
    fn check_preview(&self, preview: &Preview, before: usize) -> Result<(), String> {
        let world = self.engine.world();
        let done =
            |is_one: fn(&Call) -> bool| world.changes[before..].iter().filter(|call| is_one(call)).count();
        let foretold = |verb| preview.steps.iter().filter(|step| step.verb == verb).count();
        for (what, done, foretold) in [
            ("made", done(|call| matches!(call, Call::Create(_))), foretold(Verb::Launch)),
            ("stopped", done(|call| matches!(call, Call::Stop(_))), foretold(Verb::Stop)),
            ("removed", done(|call| matches!(call, Call::Remove(_))), foretold(Verb::Remove)),
        ] {
            if done != foretold {
                return Err(format!(
                    "{done} were {what}, {foretold} should have been: {preview:#?}, {:?}",
                    &world.changes[before..]
                ));
            }
        }
        Ok(())
    }

    /// A version that ends at once takes nobody's place, and everything is as it was in the end.
    async fn check_bad_version(&mut self) -> Result<(), String> {
        let name = self.any_service();
        let before = self.project.clone();
        let service = self.project.services.get_mut(&name).unwrap();
        service.container.image = Image("bad:1".to_owned());
        service.update.failure_action = FailureAction::Rollback;
        service.update.max_failure_ratio = Share::NONE;
        let least = self.least(&name);
        self.apply().await?;
        sleep(Duration::from_millis(self.chance.u64(1..500))).await;
        if self.chance.bool() {
            self.respawn_and_wait().await;
        }
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !self.has_gone_back(&name).await? {
            sleep(Duration::from_millis(self.chance.u64(1..200))).await;
            let running = self.running(&name);
            if running < least {
                return Err(format!("{running} replicas of {name} run, {least} have to"));
            }
            self.check_always()?;
            if tokio::time::Instant::now() > deadline {
                return Err(format!("{name} never goes back: {}", self.situation(&name).await));
            }
        }
        self.project = before;
        self.check_converged()?;
        // The file says what it said before, which is what runs.
        self.apply().await?;
        self.converge().await
    }

    /// Whether a version was tried, and is no more.
    async fn has_gone_back(&self, name: &ServiceName) -> Result<bool, String> {
        let Ok(Reply::Status(status)) = self.handle.request(Request::Status).await else {
            return Err("no status".to_owned());
        };
        let is_tried = self.project.services[name].replicas == 0 || !status.errors.is_empty();
        Ok(status.settled && status.rollouts.is_empty() && is_tried)
    }

    /// How many replicas of a service must run while it is on its way to another version.
    fn least(&self, name: &ServiceName) -> u32 {
        let service = &self.project.services[name];
        let desired = Desired::all(self.project.clone());
        let found = replacement_order(&desired, &Observed::default(), service, &service.update);
        match (found.unwrap().order, service.update.parallelism) {
            (Order::StartFirst, _) => service.replicas,
            (Order::StopFirst, 0) => 0,
            (Order::StopFirst, at_once) => service.replicas.saturating_sub(at_once),
        }
    }

    /// Looks on until the project has converged, or for as long as it is told to; so many replicas have to run all the time.
    async fn watch(
        &mut self,
        name: &ServiceName,
        least: u32,
        is_over: impl Fn(tokio::time::Instant) -> bool,
    ) -> Result<(), String> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !self.is_converged().await? {
            for _ in 0..5 {
                sleep(Duration::from_millis(self.chance.u64(1..200))).await;
                let running = self.running(name);
                if running < least {
                    return Err(format!("{running} replicas of {name} run, {least} have to"));
                }
            }
            self.check_always()?;
            let now = tokio::time::Instant::now();
            if is_over(now) {
                return Ok(());
            }
            if now > deadline {
                return Err(format!("{name} is never replaced: {}", self.situation(name).await));
            }
        }
        Ok(())
    }

    /// What is known of a service, for whoever looks for a fault.
    async fn situation(&self, name: &ServiceName) -> String {
        let Ok(Reply::Status(status)) = self.handle.request(Request::Status).await else {
            return "no status".to_owned();
        };
        let replicas = status.replicas.iter().filter(|replica| replica.service == *name);
        let replicas: Vec<_> = replicas
            .map(|replica| {
                let version = if replica.current { "current" } else { "another" };
                let other = [replica.unhealthy.is_some(), replica.last_termination.is_some()];
                format!("{} ({version}, {:?}, ill, died: {other:?})", replica.name, replica.state)
            })
            .collect();
        format!("replicas {replicas:#?}\nrollouts {:#?}\ntroubles {:#?}", status.rollouts, status.errors)
    }

    fn running(&self, name: &ServiceName) -> u32 {
        let world = self.engine.world();
        let running = world.containers().filter(|(_, _, labels, state, connected)| {
            let ours = labels.as_ref().is_some_and(
                |labels| matches!(&labels.role, Role::Replica { service, .. } if service == name),
            );
            ours && *connected && matches!(state, ContainerState::Running(_))
        });
        u32::try_from(running.count()).unwrap()
    }

    async fn is_converged(&self) -> Result<bool, String> {
        match self.handle.request(Request::Status).await {
            Ok(Reply::Status(status)) => Ok(status.converged),
            _ => Err("no status".to_owned()),
        }
    }

    async fn converge(&self) -> Result<(), String> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            sleep(Duration::from_millis(500)).await;
            self.check_always()?;
            let Ok(Reply::Status(status)) = self.handle.request(Request::Status).await else {
                return Err("no status".to_owned());
            };
            if status.converged {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                return Err(format!("never converged: {status:#?}"));
            }
        }
    }

    /// What must hold once the project has converged: exactly the replicas of the file, all running, all reachable.
    fn check_converged(&self) -> Result<(), String> {
        let wanted: BTreeSet<_> = self
            .project
            .services
            .values()
            .flat_map(|s| Slot::first(s.replicas).map(move |slot| (s.name.clone(), slot)))
            .collect();
        let world = self.engine.world();
        let mut found = BTreeSet::new();
        for (id, name, labels, state, connected) in world.containers() {
            let Some(labels) = labels else { continue };
            if let Role::PreDeploy { .. } = labels.role {
                return Err(format!("{name} is still there"));
            }
            if !matches!(state, ContainerState::Running(_)) {
                return Err(format!("{name} is {state:?}"));
            }
            if !connected {
                return Err(format!("{name} is cut off from its pod"));
            }
            match labels.role {
                Role::Replica { service, slot } => {
                    let spec = self.project.services.get(&service).ok_or(format!("{name} is an orphan"))?;
                    if labels.generation != spec.generation() {
                        return Err(format!("{name} runs an old version"));
                    }
                    if world.limits(id) != Some(&spec.container.resources.limits()) {
                        return Err(format!("{name} has other limits: {:?}", world.limits(id)));
                    }
                    let all = spec.hooks.post_start.len() as u64;
                    if all > 0 && world.ran(id) < all {
                        return Err(format!("{name} counts as ready without its post_start"));
                    }
                    found.insert((service, slot));
                }
                Role::PreDeploy { .. } => {}
                Role::Sandbox if !self.project.pods.contains_key(&labels.pod) => {
                    return Err(format!("{name} is an orphan"));
                }
                Role::Sandbox => {}
            }
        }
        if found == wanted { Ok(()) } else { Err(format!("wanted {wanted:?}, found {found:?}")) }
    }

    /// What would be done for the file as it is now. To ask changes nothing.
    async fn preview(&mut self) -> Result<Preview, String> {
        let before = self.engine.world().changes.len();
        let request = self.request();
        let reply = self.handle.request(Request::Preview(Box::new(request))).await;
        if self.engine.world().changes.len() > before {
            return Err("a preview has changed something".to_owned());
        }
        match reply {
            Ok(Reply::Preview(preview)) => Ok(*preview),
            other => Err(format!("no preview: {other:?}")),
        }
    }

    /// A converged project is left alone, and the engine with it.
    async fn check_idle(&mut self) -> Result<(), String> {
        let preview = self.preview().await?;
        if preview != Preview::default() {
            return Err(format!("there would be something to do while idle: {preview:#?}"));
        }
        let before = {
            let world = self.engine.world();
            (world.changes.len(), world.calls)
        };
        sleep(Duration::from_secs(60)).await;
        let world = self.engine.world();
        if world.changes.len() > before.0 {
            return Err(format!("changed while idle: {:?}", &world.changes[before.0..]));
        }
        // Whatever there is to be looked at.
        let (calls, most) = (world.calls - before.1, 2 * CALLS_OF_A_LOOK);
        if calls > most { Err(format!("{calls} calls in an idle minute, {most} at most")) } else { Ok(()) }
    }

    /// `kill -9` of the supervisor, then `up`: everything is adopted, nothing is started.
    async fn check_adoption(&mut self) -> Result<(), String> {
        let before = self.engine.world().changes.len();
        self.respawn_and_wait().await;
        self.converge().await?;
        let world = self.engine.world();
        if world.changes.len() > before {
            return Err(format!("changed while adopting: {:?}", &world.changes[before..]));
        }
        Ok(())
    }

    async fn check_down(mut self) -> Result<(), String> {
        self.ask(Request::Down { volumes: true, grace: None }).await?;
        let ended = tokio::time::timeout(PATIENCE, &mut self.task).await;
        let world = self.engine.world();
        if ended.is_err() {
            return Err(format!("`down` does not end: {:?}", world.containers().collect::<Vec<_>>()));
        }
        let left: Vec<_> = world.containers().filter(|(_, _, labels, ..)| labels.is_some()).collect();
        if !left.is_empty() {
            return Err(format!("`down` left {left:?}"));
        }
        if world.resources() != ["sim_theirs"] {
            return Err(format!("`down` left {:?}", world.resources()));
        }
        drop(world);
        self.check_always()
    }
}

/// Notes whoever is told to end while it gets new connections.
fn never_in_rotation(kernel: SimulatedKernel, stopped_in_rotation: Arc<Mutex<Vec<ContainerId>>>) -> OnChange {
    Box::new(move |call| {
        if let Call::Stop(id) = call
            && kernel.weight(id).is_some_and(|weight| weight > 0)
        {
            stopped_in_rotation.lock().unwrap().push(id.clone());
        }
    })
}

fn supervise(
    engine: &Memory,
    clock: Clock,
    state: &tempfile::TempDir,
    kernel: Option<SimulatedKernel>,
) -> (Handle, JoinHandle<()>) {
    let kernel: Arc<dyn Kernel> = match kernel {
        Some(kernel) => Arc::new(kernel),
        None => Arc::new(NoKernel),
    };
    let (eyes, processes) = (engine.clone(), engine.clone());
    let settings = Settings {
        state: StateFile::at(state.path().join("sim.json")),
        clock,
        netns_of: Arc::new(move |pid| eyes.world().netns_of(pid)),
        processes: Arc::new(move |pid, _: &_| processes.world().presence(pid)),
        kernel,
        ticker: Ticker::by_tokio(),
        check_folder: None,
    };
    start(Arc::new(engine.clone()), "sim".parse().unwrap(), settings).unwrap()
}
