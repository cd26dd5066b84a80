//! A sample state that uses every field, as stored in `layout_0.json`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

use super::{Scale, State};
use crate::{
    engine::ContainerId,
    kernel::{Counters, steering::OtherUser},
    plan::{
        Counted, Failure, FailureReason, HookPhase, LastTermination, PortNotShared, PostStart,
        RolloutSummary,
        status::ExitStatus,
        versions::{Ended, Pin, Revision, Steps, Underway, Versions, Why},
    },
    spec::{
        Balance, Canary, Container, Dependency, DependencyCondition, FailureAction, Generation, Hook, Hooks,
        Image, Order, PortSet, PreDeploy, Probe, ProbeKind, Probes, PullPolicy, Restart, RestartCondition,
        Service, Share, Sharing, Slot, Unhealthy, Update,
    },
};

fn time(seconds: i64) -> Timestamp {
    Timestamp::new(1_700_000_000 + seconds, 123_456_789).unwrap()
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn slot(number: u32) -> Slot {
    Slot::new(number).unwrap()
}

fn share(thousandths: u16) -> Share {
    Share::of_thousand(thousandths).unwrap()
}

fn id(id: &str) -> ContainerId {
    ContainerId(id.to_owned())
}

/// A service with defaults only.
fn plain() -> Service {
    Service {
        name: "web".parse().unwrap(),
        pod: "web".parse().unwrap(),
        container: Container::new(Image("app:1".to_owned())),
        replicas: 2,
        container_name: None,
        restart: Restart::default(),
        stop_grace: Service::STOP_GRACE,
        depends_on: BTreeMap::new(),
        pull_policy: PullPolicy::Always,
        sharing: Sharing::Auto,
        balance: Balance::Random,
        drain: Service::DRAIN,
        hold: Service::HOLD,
        probe: None,
        unhealthy: Unhealthy::Replace,
        hooks: Hooks::default(),
        pre_deploy: None,
        update: Update::default(),
        rollback: Update { failure_action: FailureAction::Continue, ..Update::default() },
        canary: None,
        exclusive_ports: PortSet::default(),
        shared_ports: PortSet::default(),
    }
}

/// A service with every setting except those of its container, which the hashes cover.
fn full() -> Service {
    let hook = Hook {
        command: words(&["echo", "up"]),
        user: text("0"),
        privileged: true,
        working_dir: text("/tmp"),
        environment: BTreeMap::from([("A".to_owned(), None), ("B".to_owned(), text("{{.Slot}}"))]),
    };
    let dependency = |condition| Dependency { condition, required: true, restart: false };
    let probe =
        |kind| Probe { port: Some(80), start_period: Some(Duration::from_secs(9)), ..Probe::of(kind) };
    Service {
        pod: "shared".parse().unwrap(),
        container_name: text("the-web"),
        restart: Restart {
            condition: RestartCondition::OnFailure,
            delay: Some(Duration::from_millis(1500)),
            max_attempts: Some(3),
            window: Some(Duration::from_secs(5)),
        },
        depends_on: BTreeMap::from([
            ("db".parse().unwrap(), dependency(DependencyCondition::Healthy)),
            ("jobs".parse().unwrap(), dependency(DependencyCondition::CompletedSuccessfully)),
            ("cache".parse().unwrap(), dependency(DependencyCondition::Started)),
        ]),
        pull_policy: PullPolicy::Never,
        sharing: Sharing::Kernel,
        balance: Balance::LeastConnections,
        probe: Some(Probes {
            startup: Some(probe(ProbeKind::Exec { command: words(&["true"]) })),
            readiness: Some(probe(ProbeKind::Http { path: "/healthz".to_owned() })),
            liveness: Some(probe(ProbeKind::Tcp)),
        }),
        unhealthy: Unhealthy::Keep,
        hooks: Hooks { post_start: vec![hook.clone()], pre_stop: vec![hook] },
        pre_deploy: Some(PreDeploy {
            command: words(&["migrate"]),
            image: Some(Image("migrations:2".to_owned())),
            environment: BTreeMap::from([("DB".to_owned(), text("main"))]),
            timeout: PreDeploy::TIMEOUT,
        }),
        update: Update {
            parallelism: 3,
            delay: Duration::from_millis(2500),
            order: Some(Order::StopFirst),
            monitor: Duration::from_secs(1),
            max_failure_ratio: share(250),
            failure_action: FailureAction::Pause,
            deadline: Duration::from_secs(60),
            budget: share(20),
        },
        rollback: Update { order: Some(Order::StartFirst), ..Update::default() },
        canary: Some(Canary {
            image: Image("app:2".to_owned()),
            image_id: text("sha256:cd"),
            share: share(50),
        }),
        ..plain()
    }
}

fn failures() -> Vec<FailureReason> {
    let other = OtherUser { port: 80, user: 1000, owner: 0 };
    let exit = |error| ExitStatus { code: 137, out_of_memory: true, error, at: time(7) };
    vec![
        FailureReason::Ended {
            last_termination: Box::new(LastTermination {
                exit: exit(None),
                log: words(&["no database", "bye \u{1b}[0m"]),
                port_not_shared: Some(PortNotShared { image: Image("app:2".to_owned()), port: Some(80) }),
                other_user: Some(other),
                exclusive_port: None,
            }),
        },
        FailureReason::Ended {
            last_termination: Box::new(LastTermination {
                exit: exit(text("no such file")),
                log: Vec::new(),
                port_not_shared: Some(PortNotShared { image: Image("app:2".to_owned()), port: None }),
                other_user: None,
                exclusive_port: None,
            }),
        },
        FailureReason::Refused { error: "no space left on device".to_owned() },
        FailureReason::Job { error: "it ended with exit code 1".to_owned() },
        FailureReason::Unhealthy,
        FailureReason::ListensElsewhere { wanted: vec![80, 81], found: vec![8080], out_of_reach: None },
        FailureReason::TooSlow { seconds: 600 },
        FailureReason::Ill { why: "unhealthy for 4 s: no database".to_owned() },
        FailureReason::Resets { reset: 1, connections: 2, old_reset: 3, old_connections: 4 },
        FailureReason::Overflows { overflowed: 5, connections: u64::MAX },
        FailureReason::Queues { waiting: 6, old_waiting: 7 },
        FailureReason::OtherUser { other },
    ]
}

/// A service with a rollout in progress.
fn rolling() -> Versions {
    let revision = |number, service| Revision {
        number,
        at: time(i64::from(number)),
        by: "anna as root".to_owned(),
        cause: "up".to_owned(),
        service: Box::new(service),
        served: None,
        failure: None,
    };
    let counters = Counters { opened: 10, migrated: 2, lost_in_migration: 1, overflowed: 3, reset: 4 };
    Versions {
        revisions: vec![revision(3, plain()), revision(4, full())],
        stable: 3,
        underway: Some(Underway {
            to: 4,
            from: 3,
            back: None,
            paused: Some(Why::Requested),
            steps: Some(Steps {
                shares: vec![share(100), share(500), Share::ALL],
                at: 1,
                every: Some(Duration::from_secs(30)),
                whole: true,
                by_file: true,
            }),
            began: time(5),
            counted: Some(Counted { counters, refused: 5 }),
        }),
        pin: Some(Pin { file: Generation::from_label("0123456789ab"), revision: 4, why: Why::Requested }),
        last: Some(Ended {
            to: 3,
            at: time(6),
            failed: None,
            rollout_summary: Some(RolloutSummary { connections: 8, migrated: 9, refused: 10, reset: 11 }),
        }),
    }
}

/// A service whose rollout failed for this reason, in each of the three places that store it.
fn failed(reason: FailureReason) -> Versions {
    let failure = || Failure { slot: slot(2), reason: reason.clone() };
    let why = || Why::Failed(Box::new(failure()));
    Versions {
        revisions: Vec::new(),
        stable: 1,
        underway: Some(Underway {
            to: 1,
            from: 2,
            back: Some(why()),
            paused: None,
            steps: None,
            began: time(5),
            counted: None,
        }),
        pin: Some(Pin { file: Generation::from_label("ba9876543210"), revision: 1, why: why() }),
        last: Some(Ended { to: 1, at: time(6), failed: Some((2, failure())), rollout_summary: None }),
    }
}

/// A state that uses every field.
pub fn everything() -> State {
    let name = |name: &str| name.parse::<crate::spec::ServiceName>().unwrap();
    let mut versions: BTreeMap<_, _> = failures()
        .into_iter()
        .enumerate()
        .map(|(number, reason)| (name(&format!("failed-{number:02}")), failed(reason)))
        .collect();
    versions.insert(name("web"), rolling());
    versions.insert(name("new"), Versions::default());
    let post_start = |phase| PostStart { started_at: time(1), phase };
    State {
        scale: BTreeMap::from([(name("web"), Scale { file: 2, replicas: 5 })]),
        stopped: BTreeSet::from([name("db"), name("cache")]),
        weights: BTreeMap::from([(name("web"), BTreeMap::from([(slot(1), 10), (slot(12), 0)]))]),
        done_before: BTreeMap::from([(name("web"), Generation::from_label("0123456789ab"))]),
        interrupted_jobs: BTreeMap::from([(id("job"), Timestamp::UNIX_EPOCH)]),
        post_start: BTreeMap::from([
            (id("1f"), post_start(HookPhase::Begun)),
            (id("2f"), post_start(HookPhase::Done)),
        ]),
        restart_after: BTreeSet::from([name("web")]),
        ending: BTreeMap::new(),
        stopped_outside: BTreeMap::new(),
        renew_volumes: BTreeSet::new(),
        variables: BTreeSet::new(),
        folder: None,
        engine: None,
        versions,
    }
}
