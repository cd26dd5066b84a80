//! What the kernel part promises to whoever is connected: nobody is cut off by what is done on purpose, and nobody
//! notices what happens to the supervisor.

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use aya::programs::{links::PinnedLink, loaded_programs};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use sameport::api::schema::Traffic;

use super::support::{
    load::{self, Failure, Load},
    project::Project,
    wait::{self, check},
};

/// Go's own server, which does not share; `/slow` takes its time.
fn go(replicas: u32, more: &str) -> String {
    format!(
        r#"
services:
  web:
    image: ${{GO}}
    environment: {{ REPLICA: "{{{{.Slot}}}}" }}
    ports: ["${{PORT}}:8080"]
    deploy: {{ replicas: {replicas} }}
    {more}
"#
    )
}

fn up(compose: &str) -> Project {
    let project = Project::new(compose);
    project.run(&["up", "-d", "--wait"]);
    project
}

/// Requests that each take longer than anything else here, so that some are always under way.
struct Slow {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Failure>>>,
}

impl Slow {
    fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..6).map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    failures.extend(load::request_path(address, "/slow?ms=1500").err());
                }
                failures
            })
        });
        let clients = clients.collect();
        Self { stop, clients }
    }

    fn finish(self) -> Vec<Failure> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    }
}

#[test]
fn whoever_is_taken_down_on_purpose_finishes_its_requests_first() {
    let project = up(&go(3, "stop_grace_period: 1s"));
    let slow = Slow::start(project.outside());
    let quick = Load::start(project.outside(), 100);
    thread::sleep(Duration::from_millis(500));
    project.run(&["scale", "web=1"]);
    project.run(&["scale", "web=3"]);
    project.run(&["restart", "web"]);
    project.write(&go(3, "stop_grace_period: 1s\n    labels: { version: two }"));
    project.run(&["up", "-d", "--wait"]);
    let report = quick.finish();
    assert_eq!(slow.finish(), []);
    assert!(report.failures.is_empty(), "{report}");
    assert!(project.replicas("web").iter().all(|replica| replica.up_to_date && replica.state.is_up()));
}

/// The next one cannot know at once who has connections.
#[test]
fn whoever_is_taken_down_by_the_next_supervisor_finishes_its_requests_first() {
    let project = up(&go(3, "stop_grace_period: 1s"));
    let address = project.outside();
    // The server goes on for as long as it may once it is told to end: these take longer.
    let slow = (0..6).map(|_| thread::spawn(move || load::request_path(address, "/slow?ms=5000")));
    let slow: Vec<_> = slow.collect();
    wait::until("the requests are under way", || {
        let replicas = project.replicas("web");
        let busy = |traffic: &Traffic| traffic.connections > 0;
        check(replicas.iter().all(|replica| replica.traffic.as_ref().is_some_and(busy)), &replicas)
    });
    project.kill_supervisor();
    project.write(&go(1, "stop_grace_period: 1s"));
    project.run(&["up", "-d", "--wait"]);
    assert_eq!(project.replicas("web").len(), 1);
    let failures = slow.into_iter().filter_map(|client| client.join().unwrap().err());
    assert_eq!(failures.collect::<Vec<_>>(), []);
}

#[test]
fn a_stop_waits_for_requests_no_longer_than_the_file_says() {
    let project = up(&go(1, "x-sameport: { drain: 2s }\n    stop_grace_period: 1s"));
    let endless = thread::spawn({
        let address = project.outside();
        move || load::request_path(address, "/hold")
    });
    wait::until("the request is under way", || {
        let replicas = project.replicas("web");
        check(replicas[0].traffic.as_ref().is_some_and(|traffic| traffic.connections == 1), &replicas)
    });
    let begin = Instant::now();
    project.run(&["stop", "web"]);
    let took = begin.elapsed();
    assert!((1900..15_000).contains(&took.as_millis()), "{took:?}");
    // It ends with its replica, one way or the other.
    drop(endless.join().unwrap());
}

#[test]
fn nobody_notices_that_the_supervisor_is_frozen_killed_and_replaced() {
    let project = up(&go(3, ""));
    project.run(&["weight", "web-3=0"]);
    let before = project.processes();
    let load = Load::start(project.outside(), 200);
    thread::sleep(Duration::from_millis(500));
    let supervisor = project.supervisor().unwrap();
    kill(supervisor, Signal::SIGSTOP).unwrap();
    thread::sleep(Duration::from_secs(2));
    kill(supervisor, Signal::SIGCONT).unwrap();
    project.kill_supervisor();
    thread::sleep(Duration::from_secs(1));
    project.run(&["up", "-d", "--wait"]);
    thread::sleep(Duration::from_millis(500));
    let report = load.finish();
    assert!(report.failures.is_empty(), "{report}");
    assert!(report.answered() > 400, "{report}");
    assert_eq!(report.answers.keys().collect::<Vec<_>>(), ["1", "2"], "the weight stays in force: {report}");
    assert_eq!(project.processes(), before);
    wait::until("counts go on, and come back to zero", || {
        let replicas = project.replicas("web");
        let traffic: Vec<_> = replicas.iter().filter_map(|replica| replica.traffic.clone()).collect();
        let total: u64 = traffic.iter().map(|traffic| traffic.connections_total).sum();
        let live: u64 = traffic.iter().map(|traffic| traffic.connections).sum();
        check(live == 0 && total >= u64::from(report.answered()), traffic)
    });
}

#[test]
fn whoever_became_healthy_without_a_supervisor_is_in_rotation_when_the_next_one_says_that_all_is_up() {
    // Nobody waits for a replica: who comes too early fails.
    let check_file = "healthcheck: { test: [CMD, ls, /tmp/ready], interval: 300ms, start_period: 5m }";
    let project = Project::new(&go(2, &format!("{check_file}\n    x-sameport: {{ hold: 0s }}")));
    project.run(&["up", "-d"]);
    assert_eq!(load::send(project.outside(), 10).answered(), 0, "nobody is ready yet");
    kill(project.supervisor().unwrap(), Signal::SIGSTOP).unwrap();
    for name in ["web-1", "web-2"].map(|name| format!("{}-{name}", project.name)) {
        project.docker.run(&["exec", &name, "touch", "/tmp/ready"]);
        wait::until("it is healthy", || {
            let state = project.docker.inspect(&name)["State"]["Health"]["Status"].clone();
            check(state == "healthy", state)
        });
    }
    project.kill_supervisor();
    project.run(&["up", "-d", "--wait"]);
    let report = load::send(project.outside(), 30);
    assert!(report.failures.is_empty() && report.answers.len() == 2, "{report}");
}

#[test]
fn down_leaves_no_pin_no_link_and_no_program() {
    let project = up(&go(2, ""));
    let folder = sameport::kernel::capability::mounted("bpf").unwrap().join("sameport").join(&project.name);
    let is_pod = |path: &std::path::PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("pod_");
    let pod = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).find(is_pod).unwrap();
    let links = fs::read_dir(pod).unwrap().map(|entry| entry.unwrap().path());
    let links = links.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("link_"));
    let ours: Vec<u32> = links
        .map(|path| {
            let link: aya::programs::links::FdLink = PinnedLink::from_pin(path).unwrap().into();
            link.info().unwrap().program_id()
        })
        .collect();
    // Those at the control groups are other projects' as well.
    assert_eq!(ours.len(), 1, "the one that picks sockets");
    project.run(&["down"]);
    assert!(!folder.exists());
    let left =
        || loaded_programs().filter_map(Result::ok).map(|info| info.id()).filter(|id| ours.contains(id));
    // The kernel frees them a moment after nobody refers to them.
    wait::until("the programs are gone", || check(left().count() == 0, left().collect::<Vec<_>>()));
}

#[test]
fn a_project_scaled_to_nothing_keeps_its_visitors_waiting() {
    let project = up(&go(1, ""));
    project.run(&["scale", "web=0"]);
    wait::until("nothing runs", || {
        let left = project.processes();
        check(left.len() == 1, left)
    });
    let visitor = thread::spawn({
        let address = project.outside();
        move || load::request(address)
    });
    wait::until("the visitor is seen", || {
        let table = project.try_run(&["ps"]);
        check(table.stderr.contains("1 connections to port 8080 wait"), table)
    });
    project.run(&["scale", "web=1"]);
    assert_eq!(visitor.join().unwrap(), Ok("1".to_owned()));
}

#[test]
fn only_threads_that_steer_have_rights_in_force_and_none_has_all() {
    let project = up(&go(1, ""));
    let pid = project.supervisor().unwrap();
    let bits = |task: &str, key: &str| -> u64 {
        let status = fs::read_to_string(format!("/proc/{pid}/task/{task}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
    };
    let (sys_admin, net_admin, dac_override) = (1 << 21, 1 << 12, 1 << 1);
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|e| e.unwrap().file_name());
    let tasks: Vec<_> = tasks.map(|name| name.into_string().unwrap()).collect();
    let mut steering = 0;
    for task in &tasks {
        let name = fs::read_to_string(format!("/proc/{pid}/task/{task}/comm")).unwrap();
        assert_eq!(bits(task, "CapPrm") & dac_override, 0, "{name}");
        assert_eq!(bits(task, "CapBnd") & dac_override, 0, "{name}");
        let in_force = bits(task, "CapEff") & (sys_admin | net_admin) != 0;
        assert_eq!(in_force, name.starts_with("steering"), "{name}");
        steering += u32::from(in_force);
    }
    // One that coordinates, and one for the pod.
    assert_eq!(steering, 2);
}

/// Without the rights for BPF, as for an ordinary user who may use the engine.
#[test]
fn without_the_rights_images_share_by_themselves_and_one_line_says_so() {
    let compose = r#"
services:
  web:
    image: ${NGINX}
    environment: { REPLICA: "{{.Slot}}" }
    ports: ["${PORT}:8080"]
    deploy: { replicas: 2 }
"#;
    let project = Project::new(compose);
    let without = |args: &[&str]| {
        project.try_run_by_setpriv(&["--bounding-set=-bpf,-sys_admin,-net_admin"], None, args)
    };
    let output = without(&["up", "-d", "--wait"]);
    let printed = output.stderr;
    assert_eq!(output.code, Some(0), "{printed}");
    let lines: Vec<_> =
        printed.lines().filter(|line| line.contains("the kernel does not share ports")).collect();
    assert_eq!(lines.len(), 1, "{printed}");
    assert!(lines[0].contains("sharing: application") && lines[0].contains("doctor"), "{printed}");
    project.serves(2);
    let status = project.status();
    assert!(status.pods[0].sharing_error.is_some());
    let weight = project.try_run(&["weight", "web-1=10"]);
    assert_eq!(weight.code, Some(1), "{weight:#?}");
    project.run(&["down"]);

    project.write(&compose.replace("    deploy", "    x-sameport: { sharing: kernel }\n    deploy"));
    let output = without(&["up", "-d", "--wait"]);
    let printed = output.stderr;
    assert_eq!(output.code, Some(1), "{printed}");
    assert!(printed.contains("cannot be started") && printed.contains("doctor"), "{printed}");
}

#[test]
fn doctor_tries_each_thing_that_the_kernel_does() {
    let project = Project::new(&go(1, ""));
    let text = project.try_run(&["doctor", "--format", "json"]).stdout;
    let findings: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    for topic in ["BPF", "sharing", "readiness", "counting", "addresses", "hold", "datagrams"] {
        let finding = findings.iter().find(|finding| finding["topic"] == topic);
        assert_eq!(finding.map(|finding| &finding["level"]), Some(&"ok".into()), "{topic}: {text}");
    }
    let left = fs::read_dir("/sys/fs/bpf/sameport").into_iter().flatten().flatten();
    let left: Vec<_> =
        left.map(|e| e.file_name()).filter(|name| name.to_string_lossy().contains("doctor")).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Somebody else's process joins the port by way of the pod's network.
#[test]
fn a_foreign_listener_gets_nothing_and_is_reported() {
    let project = up(&go(1, ""));
    let sandbox = project.docker.pid(&format!("{}-web-sandbox", project.name));
    let mut foreign = std::process::Command::new("nsenter")
        .arg(format!("--net=/proc/{sandbox}/ns/net"))
        .args(["python3", "-m", "http.server", "--bind", "::", "8080"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(i32::try_from(foreign.id()).unwrap());
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait::until("it is told", || {
            let table = project.try_run(&["ps"]);
            check(table.stderr.contains(&format!("process {pid}")), table)
        });
        load::send(project.outside(), 100)
    }));
    foreign.kill().unwrap();
    foreign.wait().unwrap();
    let report = told.unwrap();
    assert_eq!(report.answers.get("1"), Some(&100), "{report}");
}

/// The first of two replicas is frozen, so that connections pile up, and then killed.
#[test]
fn ps_tells_how_many_connections_moved_on_from_a_replica_that_died() {
    let project = up(&go(2, ""));
    let quiet = project.try_run(&["ps"]);
    assert!(!quiet.stderr.contains("moved"), "{quiet:#?}");
    let first = format!("{}-web-1", project.name);
    project.docker.run(&["kill", "-s", "STOP", &first]);
    let address = project.in_pod("web", 8080);
    let clients = [(); 6].map(|()| thread::spawn(move || load::request_path(address, "/slow?ms=5000")));
    let waiting = wait::until("all of them are connected", || {
        let traffic: Vec<_> = project.replicas("web").into_iter().filter_map(|r| r.traffic).collect();
        check(traffic.iter().map(|traffic| traffic.connections).sum::<u64>() == 6, &traffic)
            .map(|()| traffic[0].queued)
    });
    assert!(waiting > 0, "none came to the first one");
    project.docker.run(&["kill", "-s", "KILL", &first]);
    for client in clients {
        assert_eq!(client.join().unwrap(), Ok("2".to_owned()));
    }
    let counters = project.status().pods[0].counters.unwrap();
    assert_eq!((counters.migrated, counters.migration_failures), (waiting, 0), "{counters:?}");
    let table = project.try_run(&["ps"]);
    assert!(table.stderr.contains(&format!("web: {waiting} connections moved")), "{table:#?}");
}
