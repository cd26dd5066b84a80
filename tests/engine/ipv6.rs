//! Networks with IPv6 on a real engine, and servers that take IPv6 alone, or both.

use std::{
    net::{Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sameport::api::schema::ReplicaState;

use super::support::{
    load::{self, Load, Report},
    project::Project,
    wait::{self, check},
};

static NETWORKS: AtomicU16 = AtomicU16::new(0);

/// A server on a network with IPv6, published at `[::1]` alone, in three replicas that name their slot.
struct Service {
    image: &'static str,
    environment: &'static str,
    probe: &'static str,
    /// Requests that have to be answered while something changes.
    requests: u32,
}

impl Service {
    fn file(&self, subnet: &str, version: u32) -> String {
        let Self { image, environment, probe, .. } = self;
        format!(
            r#"
services:
  web:
    image: ${{{image}}}
    environment: {{ REPLICA: "{{{{.Slot}}}}", VERSION: "{version}", {environment} }}
    ports: ["[::1]:${{PORT}}:8080"]
    deploy: {{ replicas: 3, update_config: {{ monitor: 1s }} }}
    x-sameport: {{ probe: {probe} }}
networks:
  default:
    enable_ipv6: true
    ipam: {{ config: [{{ subnet: "{subnet}" }}] }}
"#
        )
    }

    fn check(&self) {
        let (process, network) = (std::process::id(), NETWORKS.fetch_add(1, Ordering::Relaxed));
        let subnet = format!("fd77:{:x}:{:x}:{network:x}::/64", process >> 16, process & 0xffff);
        let project = Project::new(&self.file(&subnet, 1));
        project.run(&["up", "-d", "--wait"]);
        assert!(project.replicas("web").iter().all(|replica| replica.state == ReplicaState::Healthy));
        each_is_reached_alone(&project);
        let published = SocketAddr::from((Ipv6Addr::LOCALHOST, project.port));
        let inside = pod_address(&project);
        spread(&load::one_by_one(300, || load::request(inside)));
        assert_eq!(load::send(published, 30).answered(), 30);

        let report = self.under_load(inside, || {
            project.write(&self.file(&subnet, 2));
            project.run(&["up", "-d", "--wait"]);
        });
        assert!(report.failures.is_empty(), "rollout: {report}");
        let report = self.under_load(inside, || {
            project.run(&["drain", "web-2"]);
            wait::until("it is out of rotation", || {
                let replicas = project.replicas("web");
                check(replicas[1].traffic.as_ref().is_some_and(|traffic| traffic.weight == 0), &replicas)
            });
            let report = load::send(inside, 60);
            assert_eq!(report.answers.keys().collect::<Vec<_>>(), ["1", "3"], "{report}");
            project.run(&["weight", "web-2=100"]);
        });
        assert!(report.failures.is_empty(), "drain: {report}");
        let report = self.under_load(inside, || {
            let before = project.replicas("web").remove(0).started_at;
            let victim = project.docker.pid(&format!("{}-web-1", project.name));
            kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
            wait::until("it is back", || {
                let replicas = project.replicas("web");
                let first = &replicas[0];
                let is_back = first.state == ReplicaState::Healthy && first.started_at > before;
                check(is_back, &replicas)
            });
        });
        // What it had in hand when it was killed.
        assert!(report.failures.len() <= 1, "kill: {report}");
        each_is_reached_alone(&project);
    }

    /// What became of requests while something was done, and after it until there were enough of them.
    fn under_load(&self, address: SocketAddr, change: impl FnOnce()) -> Report {
        const RATE: u32 = 500;
        let load = Load::start(address, RATE);
        change();
        let begun = std::time::Instant::now();
        let mut report = load.finish();
        if report.answered() < self.requests {
            let load = Load::start(address, RATE);
            let left = self.requests - report.answered();
            thread::sleep(Duration::from_secs(1) * left / RATE + Duration::from_millis(200));
            report.merge(load.finish());
        }
        eprintln!("{}: {report}, of which {:.1?} after the change", self.image, begun.elapsed());
        assert!(report.answered() >= self.requests / 2, "{report}");
        report
    }
}

fn pod_address(project: &Project) -> SocketAddr {
    let format = "{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}{{end}}";
    let sandbox = format!("{}-web-sandbox", project.name);
    let address = project.docker.run(&["container", "inspect", &sandbox, "-f", format]);
    (address.parse::<Ipv6Addr>().unwrap(), 8080).into()
}

/// `sameport curl` finds each one, as probes do.
fn each_is_reached_alone(project: &Project) {
    for slot in 1..=3 {
        let replica = format!("web-{slot}");
        let answer = project.run(&["curl", "-i", &replica, "/get"]).to_lowercase();
        assert!(answer.contains(&format!("x-replica: {slot}\r")), "{answer}");
    }
}

/// Each one gets its share, within 10 %.
fn spread(report: &Report) {
    assert!(report.failures.is_empty(), "{report}");
    let share = report.answered() / 3;
    assert_eq!(report.answers.len(), 3, "{report}");
    assert!(report.answers.values().all(|count| count.abs_diff(share) <= share / 10), "{report}");
}

const NGINX: Service = Service {
    image: "NGINX",
    environment: r#"PORT: "[::]:8080", LISTEN: """#,
    probe: "{ http: /, interval: 500ms }",
    requests: 1000,
};

/// By itself nginx takes IPv6 alone at `[::]` (`IPV6_V6ONLY`).
#[test]
fn replicas_of_nginx_that_take_ipv6_alone_are_as_good_as_any() {
    NGINX.check();
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn replicas_of_node_that_take_both_are_reached_by_ipv6() {
    let probe = "{ tcp: true, interval: 500ms }";
    Service { image: "NODE", environment: "", probe, requests: 1000 }.check();
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn thousands_of_requests_by_ipv6_of_each_server() {
    Service { requests: 5000, ..NGINX }.check();
    for (image, environment) in [("UVICORN", r#"UVICORN_HOST: "::""#), ("NODE", ""), ("JAVA", "")] {
        Service { image, environment, probe: "{ tcp: true, interval: 500ms }", requests: 5000 }.check();
    }
}
