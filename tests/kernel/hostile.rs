//! One replica of three does what it can to keep the others from being served.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use sameport::{
    kernel::{sockets::Transport, steering::PodReport},
    spec::PodName,
};
use serde_json::{Value, json};

use super::{
    agent::Agent,
    pod::{Pod, SIDECAR, id},
    server::PORT,
    support::wait,
};

/// The port of the other service in the same pod.
const SIDE_PORT: (Transport, u16) = (Transport::Tcp, 9090);
/// The hostile one.
const HOSTILE: u32 = 3;
/// Processor time that steering may take, in percent.
const SHARE: f64 = 5.0;
/// What is measured may be twice as bad on another machine.
const TOLERANCE: u32 = 2;
/// A new listener on a declared port is known after 100 ms on a machine that has nothing else to do. Much of that is waiting
/// for the processor, so here it may take longer.
const KNOWN: Duration = Duration::from_millis(500);
/// Even if what the kernel tells of it is lost among all that it tells of the hostile one.
const WORST: Duration = Duration::from_secs(2);
/// Of 2,000 listeners so many are opened at least: some ports are in use.
const MANY: u64 = 1900;
/// How often each is measured; on an emulated machine, each takes half a minute.
fn times() -> usize {
    if wait::is_emulated() { 1 } else { 5 }
}

fn serve(agent: &mut Agent, port: (Transport, u16)) {
    agent.call("listen", json!({"address": "0.0.0.0", "port": port.1, "label": "server"}));
}

/// A pod of three replicas of a service and one of another, and a second pod of the same project.
struct Scene {
    pod: Pod,
    other: Pod,
    agents: Vec<Agent>,
}

fn other() -> PodName {
    "other".parse().unwrap()
}

impl Scene {
    fn new() -> Self {
        let (mut pod, mut other_pod) = (Pod::new(), Pod::new());
        other_pod.give_up();
        pod.declared.extend([PORT, SIDE_PORT]);
        other_pod.declared.insert(PORT);
        let mut scene = Self { pod, other: other_pod, agents: Vec::new() };
        for (slot, port) in [(1, PORT), (2, PORT), (HOSTILE, PORT), (SIDECAR + 1, SIDE_PORT)] {
            let mut agent = scene.pod.untold(slot);
            serve(&mut agent, port);
            scene.agents.push(agent);
        }
        let mut agent = scene.other.untold(1);
        serve(&mut agent, PORT);
        scene.agents.push(agent);
        scene.tell();
        for slot in [1, 2, HOSTILE] {
            scene.known(slot, PORT, Instant::now());
        }
        scene.known(SIDECAR + 1, SIDE_PORT, Instant::now());
        scene.known_in_other(Instant::now());
        scene
    }

    fn tell(&mut self) {
        self.pod.neighbours.insert(other(), self.other.config());
        self.pod.tell();
    }

    /// How long it takes until a replica is known to listen.
    fn known(&self, slot: u32, port: (Transport, u16), since: Instant) -> Duration {
        let pid = self.pod.pid(slot);
        until(
            since,
            || self.pod.report(),
            |report| {
                report.replicas.get(&id(slot)).is_some_and(|seen| seen.pid == pid && seen.listens_on(&port))
            },
        )
    }

    fn known_in_other(&self, since: Instant) -> Duration {
        let pid = self.other.pid(1);
        until(
            since,
            || self.pod.report_of(&other()),
            |report| {
                report.replicas.get(&id(1)).is_some_and(|seen| seen.pid == pid && seen.listens_on(&PORT))
            },
        )
    }

    /// Kills a replica and starts it anew; how long it takes from when it listens until it is known.
    fn restart(&mut self, slot: u32, port: (Transport, u16)) -> Duration {
        self.pod.kill(slot);
        let mut agent = self.pod.untold(slot);
        self.tell();
        serve(&mut agent, port);
        let took = self.known(slot, port, Instant::now());
        self.agents.push(agent);
        took
    }

    fn restart_other(&mut self) -> Duration {
        self.other.kill(1);
        let mut agent = self.other.untold(1);
        self.tell();
        serve(&mut agent, PORT);
        let took = self.known_in_other(Instant::now());
        self.agents.push(agent);
        took
    }

    /// Has the hostile one do something, and measures what that does to the others.
    fn suffer(&mut self, attack: &[(&str, Value)]) -> Figures {
        let hostile = &mut self.agents[2];
        if !attack.is_empty() {
            // Its own server, which does not ask to share, would keep it from opening more on its port.
            hostile.call("close", json!({"label": "server"}));
        }
        for (function, arguments) in attack {
            let done = hostile.call(function, arguments.clone());
            assert!(done.as_u64().is_none_or(|count| count >= MANY), "{function}: {done}");
        }
        thread::sleep(Duration::from_secs(3));
        let steering = self.pod.steering.as_ref().unwrap();
        let (before, begun) = (steering.usage(), Instant::now());
        thread::sleep(Duration::from_secs(6));
        let (after, took) = (steering.usage(), begun.elapsed());
        let share = 100.0 * (after.cpu - before.cpu).as_secs_f64() / took.as_secs_f64();
        let looks = after.looks - before.looks;
        let mut figures = Figures { share, looks, sibling: vec![], same_pod: vec![], other_pod: vec![] };
        for _ in 0..times() {
            figures.sibling.push(self.restart(1, PORT));
            figures.same_pod.push(self.restart(SIDECAR + 1, SIDE_PORT));
            figures.other_pod.push(self.restart_other());
        }
        figures
    }
}

fn until(since: Instant, seen: impl Fn() -> PodReport, holds: impl Fn(&PodReport) -> bool) -> Duration {
    loop {
        let report = seen();
        if holds(&report) {
            return since.elapsed();
        }
        assert!(since.elapsed() < wait::slowly(Duration::from_secs(30)), "it is not known: {report:#?}");
        thread::sleep(Duration::from_millis(1));
    }
}

struct Figures {
    share: f64,
    looks: u64,
    sibling: Vec<Duration>,
    same_pod: Vec<Duration>,
    other_pod: Vec<Duration>,
}

impl Figures {
    fn times(&self) -> [(&'static str, &Vec<Duration>); 3] {
        [("sibling", &self.sibling), ("same pod", &self.same_pod), ("other pod", &self.other_pod)]
    }

    fn check(&self, case: &str) {
        // The same work is a larger share of a processor that is emulated.
        let share = if wait::is_emulated() { 100.0 } else { SHARE * f64::from(TOLERANCE) };
        assert!(self.share < share, "{case}: {self}");
        for (who, times) in self.times() {
            let (median, worst) = middle_and_worst(times);
            let [known, latest] = [KNOWN, WORST].map(|limit| wait::slowly(limit * TOLERANCE));
            assert!(median < known && worst < latest, "{case}: {who}: {self}");
        }
    }
}

fn middle_and_worst(times: &[Duration]) -> (Duration, Duration) {
    let mut times = times.to_vec();
    times.sort();
    (times[times.len() / 2], times[times.len() - 1])
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} % of a core, {} looks in 6 s", self.share, self.looks)?;
        for (who, times) in self.times() {
            let (median, worst) = middle_and_worst(times);
            write!(f, "; {who} {} ms, at worst {} ms", median.as_millis(), worst.as_millis())?;
        }
        Ok(())
    }
}

fn other_ports(kind: &str, count: u16) -> (&'static str, Value) {
    let ports: Vec<u16> = (20_000..20_000 + count).collect();
    ("hoard", json!({"kind": kind, "address": "0.0.0.0", "ports": ports}))
}

fn same_port(kind: &str, count: usize) -> (&'static str, Value) {
    ("hoard", json!({"kind": kind, "address": "0.0.0.0", "ports": vec![PORT.1; count], "reuseport": 1}))
}

fn churn(kind: &str, port: u16) -> (&'static str, Value) {
    ("churn", json!({"kind": kind, "address": "0.0.0.0", "port": port, "reuseport": 1}))
}

fn crowd(processes: u32, descriptors: u32) -> (&'static str, Value) {
    ("crowd", json!({"processes": processes, "descriptors": descriptors}))
}

#[test]
fn two_thousand_listeners_on_other_ports_take_nothing_from_others() {
    let figures = Scene::new().suffer(&[other_ports("tcp", 2000)]);
    println!("{figures}");
    figures.check("2,000 listeners on other ports");
}

/// All that a replica has tried: the figures are printed.
#[test]
#[ignore = "takes minutes: `.ci/full hostile-kernel`"]
fn whatever_a_replica_does_others_are_served_and_little_time_is_taken() {
    let cases: [(&str, Vec<(&str, Value)>); 9] = [
        ("nothing", vec![]),
        ("2,000 listeners on other ports", vec![other_ports("tcp", 2000)]),
        ("2,000 UDP sockets on other ports", vec![other_ports("udp", 2000)]),
        ("2,000 listeners on the shared port", vec![same_port("tcp", 2000)]),
        ("bind, listen, close in a loop", vec![churn("tcp", 21_000)]),
        ("the same on the shared port", vec![churn("tcp", PORT.1)]),
        ("the same with UDP", vec![churn("udp", 21_000)]),
        (
            "the same with 600 processes and 20,000 descriptors",
            vec![crowd(600, 20_000), churn("tcp", 21_000)],
        ),
        (
            "all at once",
            vec![
                crowd(600, 15_000),
                other_ports("tcp", 2000),
                same_port("tcp", 2000),
                churn("tcp", PORT.1),
                churn("udp", PORT.1),
            ],
        ),
    ];
    let measure = |(case, attack): (&'static str, Vec<_>)| {
        let figures = Scene::new().suffer(&attack);
        println!("{case}: {figures}");
        (case, figures)
    };
    let figures: Vec<_> = cases.into_iter().map(measure).collect();
    for (case, figures) in &figures {
        figures.check(case);
    }
}
