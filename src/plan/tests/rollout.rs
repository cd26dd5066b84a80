//! On the way to another version: who starts, who stops, and what happens when the new version fails.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{Is, NOTHING, Scene, replica};
use crate::{
    engine::{ContainerId, EngineError, Health},
    kernel::{
        sockets::Transport,
        steering::{PodReport, ReplicaReport, Report, Traffic},
    },
    plan::{
        Direction, ExclusivePort, Goal, LastTermination, Outcome, Previous, Regression, Rollout, Signals,
        Strategy, Target, assess,
        assess::FailureReason,
        status::{self, ExitStatus},
    },
    spec::{FailureAction, Image, Order, Protocol, RestartCondition, Service, Share, Update},
};

const MONITOR: i64 = 5;

impl Scene {
    /// Another version is wanted of a service; the one that runs has proved itself.
    pub(super) fn roll_out(self, name: &str) -> Self {
        let old = self.desired.project.services[&name.parse().unwrap()].clone();
        let scene = self.edit(name, |service| service.container.image = Image("app:2".to_owned()));
        let previous = Previous { generation: old.generation(), service: Arc::new(old) };
        scene.on_its_way(name, |rollout| rollout.direction = Direction::Forward { previous: Some(previous) })
    }

    fn on_its_way(mut self, name: &str, change: impl FnOnce(&mut Rollout)) -> Self {
        let begun = Rollout {
            direction: Direction::Back,
            paused: false,
            strategy: Strategy::Rolling,
            began: jiff::Timestamp::MIN,
        };
        change(self.desired.rollouts.entry(name.parse().unwrap()).or_insert(begun));
        self
    }

    fn rules(self, change: impl FnOnce(&mut crate::spec::Update)) -> Self {
        self.edit("web", |service| change(&mut service.update))
    }

    fn outcome(&self) -> Option<Outcome> {
        assess(&self.desired, &self.observed, self.now).into_values().next()
    }

    fn reason(&self) -> Option<FailureReason> {
        match self.outcome() {
            Some(Outcome::Failed(failure)) => Some(failure.reason),
            _ => None,
        }
    }

    fn without(mut self, id: &str) -> Self {
        self.observed.containers.remove(&ContainerId(id.to_owned()));
        self
    }

    fn weight(&self, id: &str) -> u32 {
        let containers = &self.observed.containers;
        let container = &containers[&ContainerId(id.to_owned())];
        let planner = super::super::Planner::new(&self.desired, &self.observed, self.now);
        let service = self.desired.project.services.values().next().unwrap();
        planner.in_proportion(service, container, 100)
    }
}

#[test]
fn a_replacement_starts_first_and_takes_over_once_it_is_ready() {
    let scene = || Scene::up(&[("web", 2)]).roll_out("web");
    assert_eq!(scene().lines(), ["launch web-1 replacement"]);
    let young = scene().replacement("web", 1, Is::Up(1));
    assert_eq!(young.lines(), NOTHING);
    assert_eq!(young.plan().wake, Some(young.now + Duration::from_secs(4)));
    let proved = || scene().replacement("web", 1, Is::Up(MONITOR));
    // The next one begins at once: nobody is missing.
    assert_eq!(proved().lines(), ["launch web-2 replacement", "stop web-1"]);
    let alone = proved().without("web-1");
    assert_eq!(alone.lines(), ["launch web-2 replacement", "promote web-1 replacement"]);
    let ended = scene().edit("web", |_| {}).replacement("web", 1, Is::Up(MONITOR));
    let mut ended = ended;
    let exit = ended.state(Is::Exited(0, 60));
    ended.container("web-1").state = exit;
    assert_eq!(ended.lines(), ["launch web-2 replacement", "remove web-1"]);
}

#[test]
fn a_replacement_that_is_not_ready_replaces_nobody() {
    for is in [Is::UpAnd(Health::Starting, 60), Is::UpAnd(Health::Unhealthy, 60), Is::Paused] {
        let scene = Scene::up(&[("web", 2)]).roll_out("web").replacement("web", 1, is);
        assert_eq!(scene.lines(), NOTHING);
    }
    let crashed = Scene::up(&[("web", 2)]).roll_out("web").replacement("web", 1, Is::Exited(1, 1));
    assert_eq!(crashed.lines(), NOTHING, "it waits for its next try");
}

#[test]
fn a_replacement_that_loses_its_network_starts_again_and_replaces_nobody_before() {
    let scene = |is| Scene::up(&[("web", 2)]).roll_out("web").replacement("web", 1, is);
    let id = "shop-web-1-next";
    for is in [Is::Up(MONITOR), Is::UpAnd(Health::Starting, 60)] {
        let mut cut_off = scene(is);
        cut_off.container(id).netns = Some(8);
        let stop = "stop web-1 replacement".to_owned();
        assert!(cut_off.lines().contains(&stop), "{:?}", cut_off.lines());
        assert!(!cut_off.lines().contains(&"stop web-1".to_owned()), "{:?}", cut_off.lines());
    }
    for is in [Is::Created, Is::Exited(0, 60)] {
        let mut unbound = scene(is);
        unbound.container(id).joined = Some(ContainerId("gone".to_owned()));
        assert_eq!(unbound.lines(), ["remove web-1 replacement"]);
    }
}

#[test]
fn so_many_at_once_and_so_long_between_them() {
    let scene = || Scene::up(&[("web", 4)]).roll_out("web");
    assert_eq!(
        scene().rules(|rules| rules.parallelism = 2).lines(),
        ["launch web-1 replacement", "launch web-2 replacement"]
    );
    assert_eq!(scene().rules(|rules| rules.parallelism = 0).lines().len(), 4);
    let delayed = scene()
        .rules(|rules| rules.delay = Duration::from_secs(30))
        .replacement("web", 1, Is::Up(MONITOR + 10))
        .without("web-1");
    assert_eq!(delayed.lines(), ["promote web-1 replacement"]);
    assert_eq!(delayed.plan().wake, Some(delayed.now + Duration::from_secs(20)));
    assert!(delayed.later(Duration::from_secs(20)).lines().contains(&"launch web-2 replacement".to_owned()));
}

#[test]
fn with_stop_first_nobody_goes_while_another_one_is_missing() {
    let scene =
        || Scene::up(&[("web", 3)]).roll_out("web").rules(|rules| rules.order = Some(Order::StopFirst));
    assert_eq!(scene().lines(), ["stop web-1"]);
    assert_eq!(scene().without("web-1").lines(), ["launch web-1"], "of the new version");
    let unready = scene().replica("web", 1, Is::UpAnd(Health::Starting, 60));
    assert_eq!(unready.lines(), NOTHING);
    assert_eq!(scene().replica("web", 1, Is::Up(MONITOR)).lines(), ["stop web-2"]);
}

#[test]
fn what_dies_on_the_way_comes_back_as_it_was() {
    let scene = || Scene::up(&[("web", 3)]).roll_out("web").replacement("web", 1, Is::Up(1));
    let launched = |scene: &Scene, line: &str| {
        let plan = scene.plan();
        let found = plan.actions.iter().find(|action| action.to_string() == line).cloned();
        match found {
            Some(crate::plan::Action::LaunchReplica { service, .. }) => service.container.image.0.clone(),
            other => panic!("{other:?} in {plan:?}"),
        }
    };
    // One slot is under way already: an empty one gets the version that has proved itself.
    assert_eq!(launched(&scene().without("web-3"), "launch web-3"), "web:1");
    // More replicas are wanted in the middle of it.
    let more = scene().goal("web", Goal::Run { replicas: 4 });
    assert_eq!(launched(&more, "launch web-4"), "web:1");
    // Nothing is known of a version before.
    let unknown =
        scene().without("web-3").on_its_way("web", |r| r.direction = Direction::Forward { previous: None });
    assert_eq!(launched(&unknown, "launch web-3"), "app:2");
}

#[test]
fn while_paused_everything_stays() {
    let paused = |scene: Scene| scene.on_its_way("web", |rollout| rollout.paused = true);
    let scene = || Scene::up(&[("web", 2)]).roll_out("web");
    assert_eq!(paused(scene()).lines(), NOTHING);
    assert_eq!(paused(scene().replacement("web", 1, Is::Up(60))).lines(), NOTHING);
    assert_eq!(paused(scene()).outcome(), None);
}

#[test]
fn on_the_way_back_whoever_is_no_good_goes_at_once() {
    // The old version is wanted again: the successors are of another one.
    let scene = Scene::up(&[("web", 2)]).roll_out("web").replacement("web", 1, Is::Up(1));
    let back = scene
        .edit("web", |service| service.container.image = Image("web:1".to_owned()))
        .on_its_way("web", |rollout| rollout.direction = Direction::Back);
    assert_eq!(back.lines(), ["stop web-1 replacement"]);
    let mut gone = back.without("shop-web-1-next");
    assert_eq!((gone.lines(), gone.outcome()), (vec![], Some(Outcome::Done)));
    // Whoever is to serve does not yet: better the other one than nobody.
    gone = gone.edit("web", |service| service.container.image = Image("app:2".to_owned()));
    gone = gone.replacement("web", 1, Is::Up(60));
    gone = gone.edit("web", |service| service.container.image = Image("web:1".to_owned()));
    let exited = gone.state(Is::Exited(0, 60));
    gone.container("web-1").state = exited;
    gone.observed.history.clear();
    assert_eq!(gone.lines(), ["start web-1"]);
}

#[test]
fn a_rollout_is_done_when_every_slot_has_proved_itself() {
    let scene = Scene::up(&[("web", 2)]).roll_out("web").replica("web", 1, Is::Up(60));
    assert_eq!(scene.outcome(), None);
    assert_eq!(scene.replica("web", 2, Is::Up(MONITOR - 1)).outcome(), None);
    let scene = Scene::up(&[("web", 2)]).roll_out("web").replica("web", 1, Is::Up(60));
    assert_eq!(scene.replica("web", 2, Is::Up(MONITOR)).outcome(), Some(Outcome::Done));
    let nobody = Scene::up(&[("web", 2)]).roll_out("web").goal("web", Goal::Run { replicas: 0 });
    assert_eq!(nobody.outcome(), Some(Outcome::Done));
}

#[test]
fn a_new_version_fails_by_what_its_replicas_do() {
    let scene = |is| Scene::up(&[("web", 4)]).roll_out("web").replacement("web", 1, is);
    assert_eq!(scene(Is::UpAnd(Health::Unhealthy, 3)).reason(), Some(FailureReason::Unhealthy));
    assert_eq!(scene(Is::UpAnd(Health::Starting, 599)).reason(), None);
    assert_eq!(
        scene(Is::UpAnd(Health::Starting, 600)).later(Duration::from_secs(600)).reason(),
        Some(FailureReason::TooSlow { seconds: 600 })
    );
    let mut crashed = scene(Is::Exited(3, 1));
    assert_eq!(crashed.reason(), None, "what it died of is found out first");
    let last_termination = LastTermination {
        exit: ExitStatus { code: 3, out_of_memory: false, error: None, at: crashed.now },
        log: vec!["no database".to_owned()],
        port_not_shared: None,
        other_user: None,
        exclusive_port: None,
    };
    let target = Target::Replacement("web".parse().unwrap(), crate::spec::Slot::new(1).unwrap());
    crashed.observed.history.get_mut(&target).unwrap().last_termination = Some(last_termination.clone());
    let reason = crashed.reason().unwrap();
    assert_eq!(reason, FailureReason::Ended { last_termination: Box::new(last_termination.clone()) });
    let port = ExclusivePort { port: 30_001, protocol: Protocol::Tcp };
    let last_termination = LastTermination { exclusive_port: Some(port), ..last_termination };
    assert_eq!(
        FailureReason::Ended { last_termination: Box::new(last_termination) }.to_string(),
        "it asked for port 30001/tcp, which is exclusive and held by another replica"
    );
    assert!(reason.to_string().contains("exit code 3") && reason.to_string().contains("no database"));
    // One of four may fail.
    let some = crashed.rules(|rules| rules.max_failure_ratio = Share::of_thousand(250).unwrap());
    assert_eq!(some.outcome(), None);
    let none = some.rules(|rules| {
        rules.max_failure_ratio = Share::NONE;
        rules.failure_action = FailureAction::Continue;
    });
    assert_eq!(none.outcome(), None);
    assert_eq!(none.lines(), ["launch web-2 replacement"], "the others go on");
}

#[test]
fn one_failed_start_is_retried_and_two_fail_the_version() {
    let failed = |exits| start_failed("containerd: unavailable", exits);
    assert_eq!(failed(1).reason(), None);
    assert!(failed(2).reason().unwrap().to_string().contains("containerd: unavailable"));
    // Nobody tries again.
    let once = failed(1).edit("web", |service| service.restart.condition = RestartCondition::Never);
    assert!(once.reason().is_some());
}

#[test]
fn a_host_that_is_out_of_something_condemns_no_version_and_the_start_is_tried_again() {
    for words in [
        "failed to create shim task: mkdir /run/containerd/x: no space left on device: unknown",
        "fork/exec /usr/bin/runc: cannot allocate memory",
    ] {
        assert_eq!(start_failed(words, 9).reason(), None, "{words}");
        let once =
            start_failed(words, 1).edit("web", |service| service.restart.condition = RestartCondition::Never);
        assert_eq!(once.reason(), None, "{words}");
    }
    // Whatever the rule says of one that has run.
    let mut scene = Scene::of(&[("web", 1)]).sandbox("web", Is::Up(60)).replica("web", 1, Is::Exited(128, 0));
    scene = scene.edit("web", |service| service.restart.condition = RestartCondition::Never);
    assert_eq!(scene.lines(), NOTHING);
    let container = scene.container("web-1");
    let crate::engine::ContainerState::Exited(exit) = &mut container.state else { panic!() };
    exit.error = Some("no space left on device".to_owned());
    assert_eq!(scene.later(Duration::from_secs(31)).lines(), ["start web-1"]);
}

/// The first replica of a new version could not be started, so often in a row.
fn start_failed(words: &str, exits: u32) -> Scene {
    let mut scene = Scene::up(&[("web", 4)]).roll_out("web").replacement("web", 1, Is::Exited(128, 1));
    let error = Some(words.to_owned());
    let exit = ExitStatus { code: 128, out_of_memory: false, error, at: Timestamp::UNIX_EPOCH };
    let target = Target::Replacement("web".parse().unwrap(), crate::spec::Slot::new(1).unwrap());
    let history = scene.observed.history.get_mut(&target).unwrap();
    history.exits = exits;
    history.last_termination = Some(LastTermination {
        exit,
        log: Vec::new(),
        port_not_shared: None,
        other_user: None,
        exclusive_port: None,
    });
    scene
}

#[test]
fn an_image_that_cannot_be_run_fails_after_a_few_tries() {
    let mut scene = Scene::up(&[("web", 2)]).roll_out("web");
    let target = Target::Replacement("web".parse().unwrap(), crate::spec::Slot::new(1).unwrap());
    let refused = EngineError::Gone { what: "image app:2".to_owned() };
    let busy = EngineError::Busy { message: "later".to_owned() };
    let full = EngineError::HostFault { message: "no space left on device".to_owned() };
    for (error, tries, fails) in
        [(&refused, 2, false), (&refused, 3, true), (&busy, 9, false), (&full, 9, false)]
    {
        let history = scene.observed.history.entry(target.clone()).or_default();
        history.succeeded();
        (0..tries).for_each(|_| history.failed(&target, error.clone(), scene.now));
        assert_eq!(scene.reason().is_some(), fails, "{error} {tries} times");
    }
    // What goes wrong with an old one is not the new one's fault.
    let mut scene = Scene::up(&[("web", 2)]).roll_out("web");
    let history = scene.observed.history.entry(replica("web", 1)).or_default();
    (0..3).for_each(|_| history.failed(&replica("web", 1), refused.clone(), scene.now));
    assert_eq!(scene.reason(), None);
}

#[test]
fn beside_the_old_ones_so_many_come_as_their_share_needs() {
    let beside = |new, share| {
        let strategy = Strategy::Beside { replicas: new, share: Share::of_thousand(share).unwrap() };
        Scene::up(&[("web", 4)]).roll_out("web").on_its_way("web", |rollout| rollout.strategy = strategy)
    };
    assert_eq!(beside(1, 100).lines(), ["launch web-1 replacement"]);
    assert_eq!(beside(4, 0).lines().len(), 4);
    let there = beside(1, 100).replacement("web", 1, Is::Up(60));
    assert_eq!(there.lines(), NOTHING, "nobody goes");
    assert!(matches!(there.outcome(), Some(Outcome::Reached(_))));
    // Fewer are wanted than there are.
    let fewer = beside(1, 100).replacement("web", 1, Is::Up(60)).replacement("web", 2, Is::Up(60));
    assert_eq!(fewer.lines(), ["stop web-2 replacement"]);
    for (new, share, weights) in [
        (1, 0, (100, 0)),
        (1, 100, (100, 44)),
        (1, 250, (100, 133)),
        (2, 500, (100, 200)),
        (4, 900, (11, 100)),
        (4, 1000, (0, 100)),
    ] {
        let scene = beside(new, share).replacement("web", 1, Is::Up(60));
        assert_eq!((scene.weight("web-2"), scene.weight("shop-web-1-next")), weights, "{share} to {new}");
    }
}

#[test]
fn both_are_shown_while_both_are_there() {
    let scene = Scene::up(&[("web", 2)]).roll_out("web").replacement("web", 1, Is::Up(1));
    let status = status::status(&scene.desired, &scene.observed, scene.now);
    let rows: Vec<_> =
        status.replicas.iter().map(|row| (row.slot.number(), row.replacement, row.current)).collect();
    assert_eq!(rows, [(1, false, false), (1, true, true), (2, false, false)]);
    assert!(!status.converged);
}

#[test]
fn a_service_of_another_version_has_its_rules_from_the_file() {
    let mut file: Service = super::service("web", 3);
    let mut old = file.clone();
    old.container.image = Image("web:0".to_owned());
    old.replicas = 9;
    file.drain = Duration::from_secs(1);
    let mixed = file.with_version_of(&old);
    assert_eq!(
        (mixed.generation(), mixed.replicas, mixed.drain),
        (old.generation(), 3, Duration::from_secs(1))
    );
}

#[test]
fn what_a_replica_met_before_its_first_client_is_not_held_against_its_version() {
    let scene = Scene::steered(1).roll_out("web").replacement("web", 1, Is::Up(1));
    let mut signals = Signals::default();
    for (weight, overflowed, reset, wanted) in [
        (0, 0, 0, None),
        (0, 50, 50, None),
        (100, 54, 54, None),
        (100, 55, 54, Some(Regression::Overflows)),
        (0, 55, 55, Some(Regression::Resets)),
    ] {
        let traffic = Traffic { total: overflowed, overflowed, reset, ..Traffic::default() };
        let ports = BTreeMap::from([((Transport::Tcp, 80), traffic)]);
        let replica = ReplicaReport { pid: 42, weight, ports, ..ReplicaReport::default() };
        let replicas = BTreeMap::from([(ContainerId("shop-web-1-next".to_owned()), replica)]);
        let pod = PodReport { replicas, ..PodReport::default() };
        let report = Report { pods: BTreeMap::from([("web".parse().unwrap(), pod)]) };
        signals.note(&scene.desired, &scene.observed, &report, scene.now);
        let metrics = signals.metrics()[&"web".parse().unwrap()];
        assert_eq!(metrics.regression(&Update::default(), scene.now), wanted, "{metrics:?}");
    }
}

#[test]
fn a_version_that_gets_none_of_the_connections_by_published_ports_is_no_good() {
    let scene = Scene::steered(1).roll_out("web").replacement("web", 1, Is::Up(1));
    // Totals of the old replica and of the new one, and whether the new one is in rotation.
    let run = |scene: &Scene, steps: &[(u64, u64, bool)]| {
        let mut signals = Signals::default();
        for (old, new, is_in) in steps {
            let replica = |weight: u32, total: u64| {
                let traffic = Traffic { total, listens: true, shared: true, ..Traffic::default() };
                let ports = BTreeMap::from([((Transport::Tcp, 80), traffic)]);
                ReplicaReport { pid: 42, weight, ports, ..ReplicaReport::default() }
            };
            let replicas = BTreeMap::from([
                (ContainerId("web-1".to_owned()), replica(100, *old)),
                (ContainerId("shop-web-1-next".to_owned()), replica(if *is_in { 100 } else { 0 }, *new)),
            ]);
            let pod = PodReport { replicas, ..PodReport::default() };
            let report = Report { pods: BTreeMap::from([("web".parse().unwrap(), pod)]) };
            signals.note(&scene.desired, &scene.observed, &report, scene.now);
        }
        signals.metrics()[&"web".parse().unwrap()].regression(&Update::default(), scene.now)
    };
    let none = [(5000, 0, false), (5100, 0, true), (5139, 0, true)];
    assert_eq!(run(&scene, &none), None, "39 came, so that 19 were due");
    let enough = [(5000, 0, false), (5100, 0, true), (5140, 0, true)];
    assert_eq!(run(&scene, &enough), Some(Regression::NoConnections));
    assert_eq!(run(&scene, &[(5000, 0, false), (5100, 0, true), (5140, 4, true)]), None);
    assert_eq!(
        run(&scene, &[(5000, 0, false), (5100, 0, true), (6000, 0, false)]),
        None,
        "it is out of rotation"
    );
    // Nobody outside comes by what is only exposed.
    assert_eq!(run(&declares(scene, &[80]), &enough), None);
}

impl Scene {
    /// The first successor of `web` runs; the kernel shows where it listens, and it is noted now.
    fn listens_on(mut self, health: Health, ports: &[u16]) -> Self {
        let id = ContainerId("shop-web-1-next".to_owned());
        if let crate::engine::ContainerState::Running(process) = &mut self.container(&id.0).state {
            process.health = health;
        }
        let traffic = Traffic { listens: true, ..Traffic::default() };
        let ports = ports.iter().map(|port| ((Transport::Tcp, *port), traffic)).collect();
        let mut scene = self.reports(|pod| {
            pod.replicas.insert(id, ReplicaReport { pid: 42, ports, ..ReplicaReport::default() });
        });
        scene.observed.note_listening(scene.now);
        scene
    }

    fn seconds_later(self, seconds: u64) -> Self {
        self.later(Duration::from_secs(seconds))
    }
}

#[test]
fn a_server_has_time_to_open_its_published_port_after_others() {
    let elsewhere = |found: &[u16]| {
        Some(FailureReason::ListensElsewhere { wanted: vec![80], found: found.to_vec(), out_of_reach: None })
    };
    let scene = |health| {
        Scene::steered(2).roll_out("web").replacement("web", 1, Is::Up(1)).listens_on(health, &[4369])
    };
    for (health, patience) in [(Health::None, 60), (Health::Healthy, 15)] {
        let young = scene(health);
        assert_eq!(young.plan().wake, Some(young.now + Duration::from_secs(patience)));
        assert_eq!(young.seconds_later(patience - 1).reason(), None, "{health:?}");
        assert_eq!(scene(health).seconds_later(patience).reason(), elsewhere(&[4369]), "{health:?}");
        // With each port that it opens it has shown that it is still on its way.
        let more = || scene(health).seconds_later(patience - 1).listens_on(health, &[4369, 25672]);
        assert_eq!(more().seconds_later(patience - 1).reason(), None, "{health:?}");
        assert_eq!(more().seconds_later(patience).reason(), elsewhere(&[4369, 25672]), "{health:?}");
        let there = more().seconds_later(1).listens_on(health, &[4369, 25672, 80]);
        assert_eq!(there.seconds_later(600).reason(), None, "{health:?}");
    }
    // A check that has only just passed: the last look may be from before that.
    let ready = scene(Health::Starting).seconds_later(100);
    assert_eq!(ready.reason(), None);
    let ready = ready.listens_on(Health::Healthy, &[4369]);
    assert_eq!(ready.reason(), None);
    assert_eq!(ready.seconds_later(15).reason(), elsewhere(&[4369]));
}

/// `web` publishes no port, and exposes these.
fn declares(scene: Scene, exposed: &[u16]) -> Scene {
    let ports = exposed.iter().map(|port| (*port, Protocol::Tcp)).collect();
    let mut scene = scene.edit_pod("web", |pod| {
        pod.ports.clear();
        pod.expose = ports;
    });
    let generation = scene.desired.project.pods[&"web".parse().unwrap()].generation();
    scene.container("web-sandbox").labels.generation = generation;
    scene
}

/// The first successor of `web` has run for a minute and listens there; the others serve port 80.
fn follows(exposed: &[u16], listens: &[u16]) -> Scene {
    let scene = declares(Scene::steered(2), exposed).roll_out("web").replacement("web", 1, Is::Up(60));
    scene.listens_on(Health::None, listens)
}

/// Whether the replica in the first slot makes way within some seconds.
fn makes_way(mut scene: Scene) -> bool {
    let ready = scene.plan().ready;
    scene.observed.note_ready(&ready, scene.now);
    scene.seconds_later(10).plan().draining.contains(&ContainerId("web-1".to_owned()))
}

#[test]
fn a_new_version_takes_over_once_it_serves_what_the_one_before_it_does() {
    // A port that is only exposed is no other than a published one.
    assert!(makes_way(follows(&[80], &[80])));
    assert!(!makes_way(follows(&[80], &[])));
    assert!(!makes_way(follows(&[80], &[9090])));
    let other = follows(&[80], &[9090]).seconds_later(60).reason();
    assert_eq!(
        other,
        Some(FailureReason::ListensElsewhere { wanted: vec![80], found: vec![9090], out_of_reach: None })
    );
    // What the version before does not serve is not asked for.
    assert!(makes_way(follows(&[80, 81], &[80])));
    // Nobody has declared it: it is waited for, but not without end, and it is no fault.
    assert!(makes_way(follows(&[], &[80])));
    for listens in [&[][..], &[9090]] {
        let late = follows(&[], listens);
        assert!(!makes_way(late.clone()), "{listens:?}");
        assert_eq!(late.plan().wake, Some(late.now + Duration::from_secs(60)), "{listens:?}");
        let later = late.seconds_later(60);
        assert_eq!(later.reason(), None, "{listens:?}");
        assert!(makes_way(later), "{listens:?}");
    }
}

#[test]
fn a_version_that_nobody_outside_of_its_container_reaches_does_not_take_over() {
    let published = || Scene::steered(2).roll_out("web").replacement("web", 1, Is::Up(60));
    let at = |scene: Scene, address: Option<&str>| {
        scene.listens_on(Health::None, &[80]).reports(|pod| {
            let replacement = pod.replicas.get_mut(&ContainerId("shop-web-1-next".to_owned())).unwrap();
            let traffic = replacement.ports.get_mut(&(Transport::Tcp, 80)).unwrap();
            traffic.only_at = address.map(|address| address.parse().unwrap());
        })
    };
    assert!(makes_way(at(published(), None)));
    let local = at(published(), Some("127.0.0.1"));
    assert!(!makes_way(local.clone()));
    assert_eq!(local.clone().seconds_later(59).reason(), None);
    let reason = local.seconds_later(60).reason().unwrap();
    assert_eq!(
        reason.to_string(),
        "it listens on 127.0.0.1:80 only, which cannot be reached from outside the container; make it listen on 0.0.0.0"
    );
    assert!(matches!(reason, FailureReason::ListensElsewhere { wanted, .. } if wanted == [80]));
}

#[test]
fn all_published_ports_that_are_served_count_but_not_on_the_way_back() {
    let serves_two = || {
        let scene = declares(Scene::steered(2), &[80, 81]).reports(|pod| {
            for replica in pod.replicas.values_mut() {
                let traffic = Traffic { listens: true, ..Traffic::default() };
                replica.ports.insert((Transport::Tcp, 81), traffic);
            }
        });
        scene.roll_out("web").replacement("web", 1, Is::Up(60)).listens_on(Health::None, &[80])
    };
    assert!(!makes_way(serves_two()));
    let wanted =
        Some(FailureReason::ListensElsewhere { wanted: vec![81], found: vec![80], out_of_reach: None });
    assert_eq!(serves_two().seconds_later(60).reason(), wanted);
    let back = serves_two().on_its_way("web", |rollout| rollout.direction = Direction::Back);
    assert!(makes_way(back));
}

#[test]
fn a_server_that_listens_elsewhere_is_judged_no_later_than_any_other() {
    let scene = |ports: &[u16]| {
        Scene::steered(2)
            .rules(|rules| rules.deadline = Duration::from_secs(20))
            .roll_out("web")
            .replacement("web", 1, Is::Up(0))
            .listens_on(Health::None, ports)
            .seconds_later(20)
    };
    assert!(matches!(scene(&[9090]).reason(), Some(FailureReason::ListensElsewhere { .. })));
    assert!(matches!(scene(&[]).reason(), Some(FailureReason::TooSlow { seconds: 20 })));
}

impl Scene {
    /// The successor in the first slot of `web` has proved itself, and the one before it still has a connection, out of
    /// rotation since so long.
    fn hands_over(replicas: u32, out: i64) -> Self {
        Self::steered(replicas)
            .roll_out("web")
            .replacement("web", 1, Is::Up(60))
            .listens_on(Health::None, &[80])
            .shows(1, 0, Some(1))
            .out(1, out)
    }

    /// What was planned for the container with that id, which has another name by now.
    fn renamed(mut self, id: &str, name: &str) -> Self {
        self.container(id).name = name.to_owned();
        self
    }

    fn set_aside(self, id: &str) -> Self {
        let name = ContainerId(id.to_owned()).set_aside_name("shop-web-1");
        self.renamed(id, &name)
    }

    fn next_version(self, image: &str) -> Self {
        self.edit("web", |service| service.container.image = Image(image.to_owned()))
    }
}

#[test]
fn who_takes_long_to_finish_gives_up_its_slot_and_the_rollout_is_done() {
    let brief = Scene::hands_over(1, 9);
    assert_eq!(brief.lines(), NOTHING);
    assert_eq!(brief.plan().wake, Some(brief.now + Duration::from_secs(1)));
    let long = Scene::hands_over(1, 10);
    assert_eq!(long.lines(), ["set aside web-1"]);
    assert_eq!(long.outcome(), None);
    let long = long.set_aside("web-1");
    assert_eq!(long.lines(), ["promote web-1 replacement"]);
    let long = long.renamed("shop-web-1-next", "shop-web-1");
    assert_eq!(long.lines(), NOTHING);
    assert_eq!(long.outcome(), Some(Outcome::Done));
    let plan = long.plan();
    assert!(plan.draining.contains(&ContainerId("web-1".to_owned())));
    // It has finished, or has had its time.
    assert_eq!(long.shows(1, 0, Some(0)).lines(), ["stop web-1 (draining)"]);
    let drained = || Scene::hands_over(1, 30).set_aside("web-1").renamed("shop-web-1-next", "shop-web-1");
    assert_eq!(drained().lines(), ["stop web-1 (draining)"]);
    let mut ended = drained();
    let exit = ended.state(Is::Exited(0, 60));
    ended.container("web-1").state = exit;
    assert_eq!(ended.lines(), ["remove web-1 (draining)"]);
    let stopped = ended.goal("web", Goal::Stop);
    assert!(stopped.lines().contains(&"remove web-1 (draining)".to_owned()), "{:?}", stopped.lines());
}

#[test]
fn a_version_that_comes_before_the_last_but_one_has_finished_does_not_bring_that_back() {
    let scene = || Scene::hands_over(1, 1).next_version("app:3");
    assert_eq!(scene().lines(), ["set aside web-1"]);
    let given = || scene().set_aside("web-1");
    assert_eq!(given().lines(), ["promote web-1 replacement"]);
    let promoted = given().renamed("shop-web-1-next", "shop-web-1");
    assert_eq!(promoted.lines(), ["launch web-1 replacement"]);
    let weights = |scene: &Scene, id: &str| {
        let steering_configs = scene.plan().steering_configs;
        let replicas = steering_configs.into_values().flat_map(|pod| pod.replicas);
        replicas.filter(|replica| replica.id.0 == id).map(|replica| replica.weight).collect::<Vec<_>>()
    };
    for scene in [scene(), given(), promoted] {
        assert_eq!(weights(&scene, "web-1"), [0]);
        assert_eq!(weights(&scene, "shop-web-1-next"), [100]);
    }
    // One whose successor has not proved itself is still needed.
    let young =
        Scene::steered(1).roll_out("web").replacement("web", 1, Is::Up(1)).listens_on(Health::None, &[80]);
    assert_eq!(young.next_version("app:3").lines(), ["stop web-1 replacement"]);
}

#[test]
fn a_slot_holds_so_many_who_finish_and_no_more() {
    let scene = |others: usize| {
        let mut scene = Scene::hands_over(1, 20).next_version("app:3");
        for number in 0..others {
            let id = format!("old-{number}");
            scene = scene.replica_named(&id, "web", 1, Is::Up(600)).set_aside(&id).reports(|pod| {
                let traffic = Traffic { listens: true, live: 1, ..Traffic::default() };
                let ports = [((Transport::Tcp, 80), traffic)].into();
                let replica = ReplicaReport { pid: 42, ports, ..ReplicaReport::default() };
                pod.replicas.insert(ContainerId(id.clone()), replica);
            });
            scene.observed.out_since.insert(ContainerId(id), scene.now);
        }
        scene
    };
    assert_eq!(scene(3).lines(), ["set aside web-1"]);
    let full = scene(4);
    assert_eq!(full.lines(), NOTHING);
    assert!(full.plan().draining.contains(&ContainerId("web-1".to_owned())));
    // `down` and `stop` forget none of them.
    let stopped = full.goal("web", Goal::Stop).plan();
    assert_eq!(stopped.draining.len(), 5);
}
