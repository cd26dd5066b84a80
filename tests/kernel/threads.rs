//! Each pod has a thread of its own, which rests while nothing changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Child,
    time::Duration,
};

use sameport::{
    kernel::{
        Netns,
        sockets::Transport,
        steering::{KernelSteering, Steering, SteeringConfig, SteeringConfigs},
    },
    spec::{PodName, PortSet, ProjectName},
};
use serde_json::json;

use super::{
    network::sandbox,
    pod::Pod,
    server::{PORT, http},
    support::wait::{self, check},
};

/// Sockets of nobody, as the engine has one in each pod, must not count as new at each look, and neither must those behind
/// which connections wait.
#[test]
fn a_thread_rests_while_nothing_changes() {
    let mut pod = Pod::new();
    pod.declared.insert(PORT);
    pod.start(1, &mut http());
    pod.listening(1, PORT);
    let mut foreign = pod.foreign();
    for (function, address, port) in
        [("listen", "127.0.0.11", 41_000), ("udp", "127.0.0.11", 41_000), ("listen", "127.0.0.12", PORT.1)]
    {
        foreign
            .call(function, json!({"address": address, "port": port, "label": format!("{function}{port}")}));
    }
    wait::until("all is known", || {
        let report = pod.report();
        check(report.foreign_listeners.len() == 1 && report.waiting.contains_key(&PORT.1), report)
    });
    let steering = pod.steering.as_ref().unwrap();
    let before = steering.usage();
    std::thread::sleep(Duration::from_secs(3));
    let after = steering.usage();
    let (looks, cpu) = (after.looks - before.looks, after.cpu.checked_sub(before.cpu).unwrap());
    println!("{looks} looks in 3 s, {cpu:?}");
    assert!((1..=5).contains(&looks), "{looks} looks in 3 s, {cpu:?}");
}

/// Pods without replicas, each with a network of its own, of one project.
struct Many {
    steering: KernelSteering,
    sandboxes: Vec<Child>,
    steering_configs: SteeringConfigs,
}

impl Many {
    fn new(name: &str) -> Self {
        let project: ProjectName = format!("spt{}-{name}", std::process::id()).parse().unwrap();
        let steering = KernelSteering::start(&project).unwrap();
        Self { steering, sandboxes: Vec::new(), steering_configs: BTreeMap::new() }
    }

    fn add(&mut self, name: &str) {
        let sandbox = sandbox();
        let config = SteeringConfig {
            coming: BTreeMap::new(),
            pid: sandbox.id(),
            netns: Netns::of(sandbox.id()).unwrap().inode,
            declared: BTreeSet::from([(Transport::Tcp, 80)]),
            exclusive: PortSet::default(),
            rules: BTreeMap::new(),
            replicas: Vec::new(),
        };
        self.sandboxes.push(sandbox);
        self.steering_configs.insert(name.parse().unwrap(), config);
    }

    fn tell(&self) {
        self.steering.want(self.steering_configs.clone());
    }

    /// Waits until exactly those that are wanted are steered.
    fn steered(&self) {
        let wanted: BTreeMap<PodName, u64> =
            self.steering_configs.iter().map(|(name, config)| (name.clone(), config.netns)).collect();
        wait::until("all are steered", || {
            let reports = self.steering.reports();
            let report = reports.borrow().clone();
            let steered = report.pods.iter().filter(|(_, pod)| pod.error.is_none());
            let steered = steered.map(|(name, pod)| (name.clone(), pod.netns)).collect();
            check(wanted == steered, report)
        });
    }
}

impl Drop for Many {
    fn drop(&mut self) {
        let _ = self.steering.remove();
        for sandbox in &mut self.sandboxes {
            let _ = sandbox.kill();
            let _ = sandbox.wait();
        }
    }
}

/// Names of threads of this process that begin so.
fn threads(begin: &str) -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with(begin)).count()
}

#[test]
fn a_thread_comes_and_goes_with_its_pod_and_very_many_pods_share_some() {
    let mut many = Many::new("many");
    for number in 0..70 {
        many.add(&format!("mny{number}"));
    }
    many.tell();
    many.steered();
    assert_eq!(threads("steering-mny"), 64);
    // Their ends and new starts of their sandboxes: what is there is let go of before it is entered again.
    let last = many.steering_configs.pop_last().unwrap();
    while many.steering_configs.len() > 2 {
        many.steering_configs.pop_first();
    }
    many.tell();
    many.steering_configs.insert(last.0, last.1);
    many.add("mny0");
    many.tell();
    many.steered();
    wait::until("threads without pods end", || {
        check((1..=4).contains(&threads("steering-mny")), "they stay")
    });
}

/// What cannot be entered is tried again, and nobody waits for it.
#[test]
fn a_pod_that_cannot_be_entered_does_not_delay_another_one() {
    let mut many = Many::new("bad");
    many.add("bad");
    many.add("well");
    let bad: PodName = "bad".parse().unwrap();
    many.steering_configs.get_mut(&bad).unwrap().netns += 1;
    many.tell();
    wait::until("one is steered, the other is not", || {
        let reports = many.steering.reports();
        let report = reports.borrow().clone();
        let errors: Vec<_> = report.pods.values().filter(|pod| pod.error.is_some()).collect();
        check(report.pods.len() == 2 && errors.len() == 1, &report)
    });
    many.steering_configs.get_mut(&bad).unwrap().netns -= 1;
    many.tell();
    many.steered();
}
