//! Changes of version on a real engine: nobody notices the good ones, and the bad ones undo themselves.

use std::{
    collections::VecDeque,
    fs,
    io::Write,
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::Value;

use super::support::{
    docker::Docker,
    load::{self, Load},
    project::Project,
    wait::{self, check},
};

/// Replicas of Go that answer with the name of their version.
fn go(version: &str, more: &str) -> String {
    format!(
        r#"
services:
  web:
    image: ${{GO}}
    environment: {{ REPLICA: "{version}" }}
    ports: ["${{PORT}}:8080"]
    deploy: {{ replicas: 3, update_config: {{ monitor: 1s }} }}
{more}"#
    )
}

/// Moments of a rollout at which the supervisor is killed.
const MOMENTS: u64 = 5;

fn up(compose: &str) -> Project {
    let project = Project::new(compose);
    project.run(&["up", "-d", "--wait"]);
    project
}

fn versions(project: &Project) -> Value {
    serde_json::from_str(&project.run(&["rollout", "status", "web", "--format", "json"])).unwrap()
}

/// Who answers: version to number of answers.
fn answers(project: &Project) -> Vec<String> {
    load::send(project.loopback(), 30).answers.into_keys().collect()
}

/// Two services of nginx, which takes three seconds to open its port; one exposes it, and the other says nothing of it.
fn slow(version: u32) -> String {
    let service = |name: &str, exposes: &str| {
        format!(
            r#"
  {name}:
    image: ${{NGINX}}
    entrypoint: [sh, -c, "sleep 3; exec /start"]
    environment: {{ REPLICA: "{version}" }}
    {exposes}
    deploy: {{ replicas: 2, update_config: {{ parallelism: 2, monitor: 1s }} }}
    x-sameport: {{ hold: 1s }}
"#
        )
    };
    format!("services:\n{}{}", service("exposed", "expose: [8080]"), service("undeclared", ""))
}

#[test]
fn servers_that_take_their_time_take_over_once_they_listen_also_on_ports_that_nobody_publishes() {
    let project = up(&slow(1));
    let loads = ["exposed", "undeclared"].map(|service| {
        let address = project.in_pod(service, 8080);
        wait::until("it serves", || load::request(address).map_err(|failure| format!("{failure:?}")));
        (service, Load::start(address, 50))
    });
    project.write(&slow(2));
    project.run(&["up", "-d", "--wait"]);
    for (service, load) in loads {
        let report = load.finish();
        assert!(report.failures.is_empty(), "{service}: {report}{}", project.log());
        assert!(report.answers.len() >= 2, "{service}: {report}");
    }
}

#[test]
fn a_new_version_comes_and_goes_back_and_no_request_fails() {
    let project = up(&go("1", ""));
    let load = Load::start(project.loopback(), 100);
    project.write(&go("2", ""));
    project.run(&["up", "-d", "--wait"]);
    assert_eq!(answers(&project), ["2"]);
    project.run(&["rollout", "undo", "web"]);
    assert_eq!(answers(&project), ["1"]);
    // As long as the file says nothing new, what was asked for stays.
    project.run(&["up", "-d", "--wait"]);
    assert_eq!(answers(&project), ["1"]);
    project.run(&["rollout", "web"]);
    assert_eq!(answers(&project), ["2"]);
    let names: Vec<_> = project.replicas("web").into_iter().map(|replica| replica.name).collect();
    assert_eq!(
        names,
        [1, 2, 3].map(|slot| format!("{}-web-{slot}", project.name)),
        "they have their own names"
    );
    let report = load.finish();
    assert!(report.failures.is_empty(), "{report}");
    assert_eq!(report.answers.len(), 2, "{report}");
    println!("{report}");
    let last = versions(&project)["last"].clone();
    assert!(last["summary"]["connections"].as_u64() > Some(10), "{last:#}");
    assert_eq!((&last["summary"]["refused"], &last["summary"]["reset"]), (&0.into(), &0.into()), "{last:#}");
    let history: Value =
        serde_json::from_str(&project.run(&["rollout", "history", "web", "--format", "json"])).unwrap();
    let causes: Vec<_> = history.as_array().unwrap().iter().map(|r| r["cause"].as_str().unwrap()).collect();
    assert_eq!(causes, ["up", "up", "undo", "rollout"]);
}

/// A version that fails never replaces one that works, and `up` says why.
fn fails(bad: &str, words: &[&str]) {
    let project = up(&go("1", ""));
    let before = project.processes();
    let load = Load::start(project.loopback(), 50);
    project.write(bad);
    let up = project.try_run(&["up", "-d", "--wait", "--pull", "missing"]);
    assert_eq!(up.code, Some(1), "{up:#?}");
    for words in words {
        assert!(up.stderr.contains(words), "{words}: {up:#?}");
    }
    wait::until("everything is as before", || {
        let now = project.processes();
        check(now == before, (&before, now))
    });
    let report = load.finish();
    assert!(report.failures.is_empty(), "{report}");
    // The next good one is as welcome as ever.
    project.write(&go("3", ""));
    project.run(&["up", "-d", "--wait"]);
    assert_eq!(answers(&project), ["3"]);
}

#[test]
fn a_version_that_crashes_at_its_start_changes_nothing() {
    fails(&go("2", "    command: [sh, -c, \"echo no database; exit 3\"]\n"), &["exit code 3", "no database"]);
}

#[test]
fn a_version_that_never_gets_healthy_changes_nothing() {
    let check = "    healthcheck: { test: \"exit 1\", interval: 300ms, retries: 2 }\n";
    fails(&go("2", check), &["its health check fails"]);
}

#[test]
fn a_version_that_crashes_soon_after_its_start_changes_nothing() {
    let soon = "    command: [sh, -c, \"timeout 0.7 /usr/bin/server; exit 4\"]\n";
    fails(&go("2", soon), &["exit code 4"]);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn a_version_that_listens_elsewhere_changes_nothing() {
    let elsewhere = "    command: [sh, -c, \"exec httpd -f -p 9090\"]
    healthcheck: { test: [CMD, sh, -c, \":\"], interval: 300ms }\n";
    fails(&go("2", elsewhere), &["9090", "8080"]);
}

#[test]
fn a_program_that_does_not_exist_changes_nothing() {
    fails(&go("2", "    entrypoint: [/usr/bin/nothing]\n"), &["no such file"]);
}

/// An image that is there as long as this is.
struct Tagged<'a> {
    docker: &'a Docker,
    name: String,
}

impl Drop for Tagged<'_> {
    fn drop(&mut self) {
        let _ = self.docker.try_run(&["rmi", "-f", &self.name]);
    }
}

#[test]
fn a_version_for_another_processor_changes_nothing() {
    let docker = Docker::default();
    let tagged = Tagged { docker: &docker, name: format!("localhost/spt-foreign:{}", std::process::id()) };
    let project = Project::new(&go("1", ""));
    // The header of a program for another machine: 183 is AArch64, 62 is x86-64.
    let machine = if cfg!(target_arch = "aarch64") { 62 } else { 183 };
    let mut program = vec![0; 64];
    program[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    program[16] = 2;
    program[18] = machine;
    program[20] = 1;
    let file = project.path("foreign");
    fs::write(&file, program).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    let container = docker.run(&["create", &project.image("GO")]);
    docker.run(&["cp", file.to_str().unwrap(), &format!("{container}:/usr/bin/foreign")]);
    docker.run(&["commit", &container, &tagged.name]);
    docker.run(&["rm", &container]);
    let bad = go("2", "    entrypoint: [/usr/bin/foreign]\n").replace("${GO}", &tagged.name);
    fails(&bad, &["exec format error"]);
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn a_tag_that_means_another_image_is_a_new_version_only_when_it_is_asked_for() {
    let docker = Docker::default();
    let tagged = Tagged { docker: &docker, name: format!("localhost/spt-moving:{}", std::process::id()) };
    let project = Project::new(&go("1", ""));
    let first = project.image("GO");
    docker.run(&["tag", &first, &tagged.name]);
    project.write(&go("1", "").replace("${GO}", &tagged.name));
    project.run(&["up", "-d", "--wait"]);
    let before = project.processes();
    // The same files with another label are another image.
    let container = docker.run(&["create", "--label", "release=2", &first]);
    docker.run(&["commit", &container, &tagged.name]);
    docker.run(&["rm", &container]);
    let images = || {
        let ids = (1..=3).map(|slot| format!("{}-web-{slot}", project.name));
        ids.map(|name| docker.run(&["inspect", "-f", "{{.Image}}", &name])).collect::<Vec<_>>()
    };
    let id = |name: &str| docker.run(&["image", "inspect", "-f", "{{.Id}}", name]);
    assert_ne!(id(&first), id(&tagged.name));
    project.run(&["up", "-d", "--wait"]);
    assert_eq!(project.processes(), before, "nobody has asked for it");
    // One that is made anew meanwhile is what it was.
    docker.run(&["rm", "-f", &format!("{}-web-2", project.name)]);
    wait::until("it is replaced", || {
        let now = project.processes();
        check(now.len() == before.len() && now != before, now)
    });
    assert_eq!(images(), vec![id(&first); 3]);
    project.run(&["rollout", "web"]);
    assert_eq!(images(), vec![id(&tagged.name); 3]);
    project.run(&["rollout", "undo", "web"]);
    assert_eq!(images(), vec![id(&first); 3]);
    project.run(&["down"]);
}

/// A server in Python that does this with each connection `c`.
fn python(version: &str, body: &str) -> String {
    let more = "deploy: { replicas: 3, update_config: { monitor: 4s } }\n    x-sameport: { balance: hash }";
    prepared_python(version, "pass", body, more)
}

/// The same, that does something else first, when it listens already.
fn prepared_python(version: &str, first: &str, body: &str, more: &str) -> String {
    format!(
        r#"
services:
  web:
    image: ${{PYTHON}}
    environment: {{ REPLICA: "{version}" }}
    command:
      - python3
      - -c
      - |
        import socket, struct, time
        s = socket.create_server(("", 8080), backlog=64)
        {first}
        while True:
            c, _ = s.accept()
            {body}
    ports: ["${{PORT}}:8080"]
    stop_signal: SIGKILL
    {more}
"#
    )
}

const ANSWER: &str =
    r#"c.recv(999); c.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\nX-Replica: 1\r\n\r\n1"); c.close()"#;

#[test]
fn a_version_that_breaks_off_its_connections_goes_as_it_came() {
    let project = up(&python("1", ANSWER));
    let before = project.processes();
    let load = Load::start(project.loopback(), 100);
    let linger = r#"c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); c.close()"#;
    project.write(&python("2", linger));
    let up = project.try_run(&["up", "-d", "--wait"]);
    assert_eq!(up.code, Some(1), "{up:#?}");
    assert!(up.stderr.contains("connections were reset, and 0 of"), "{up:#?}");
    let now = project.processes();
    assert_eq!(now, before);
    // Some were unlucky, and nobody is any more.
    let report = load.finish();
    assert!(!report.failures.is_empty() && report.failures.len() < 100, "{report}");
    let after = load::send(project.loopback(), 50);
    assert!(after.failures.is_empty(), "{after}");
    println!("{} of {} requests met the bad version", report.failures.len(), report.answered());
}

/// It listens long before it accepts anything: those who wait for it are probes, and when it answers them, they have gone.
#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn a_version_that_takes_its_time_until_it_is_ready_is_not_blamed_for_that() {
    let file = |version, first| {
        let probe = "x-sameport: { probe: { http: /, interval: 200ms, timeout: 200ms } }";
        let more = format!("deploy: {{ replicas: 1, update_config: {{ monitor: 1s }} }}\n    {probe}");
        prepared_python(version, first, ANSWER, &more)
    };
    let project = up(&file("1", "pass"));
    let load = Load::start(project.loopback(), 50);
    project.write(&file("2", "time.sleep(12)"));
    project.run(&["up", "-d", "--wait"]);
    let report = load.finish();
    assert!(report.failures.is_empty(), "{report}");
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn a_version_that_cannot_keep_up_goes_as_it_came() {
    let project = up(&python("1", ANSWER));
    let before = project.processes();
    let is_over = Arc::new(AtomicBool::new(false));
    let (address, over) = (project.loopback(), Arc::clone(&is_over));
    // Visitors who come whether others wait or not.
    let visitors = thread::spawn(move || {
        let mut there = VecDeque::new();
        while !over.load(Ordering::Relaxed) {
            let mut visitor = TcpStream::connect(address).unwrap();
            visitor.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
            there.push_back(visitor);
            if there.len() > 400 {
                there.pop_front();
            }
            thread::sleep(Duration::from_millis(10));
        }
    });
    project.write(&python("2", &format!("time.sleep(0.3); {ANSWER}")));
    let up = project.try_run(&["up", "-d", "--wait"]);
    is_over.store(true, Ordering::Relaxed);
    visitors.join().unwrap();
    assert_eq!(up.code, Some(1), "{up:#?}");
    assert!(up.stderr.contains("connections wait for it to accept them"), "{up:#?}");
    let now = project.processes();
    assert_eq!(now, before);
}

/// The supervisor is killed again and again, at other moments of a rollout each time.
#[test]
fn a_rollout_outlives_its_supervisor() {
    let project = up(&go("1", ""));
    let load = Load::start(project.loopback(), 50);
    for (version, pause) in (2..).zip((0..MOMENTS).map(|moment| Duration::from_millis(150 + 397 * moment))) {
        let version = version.to_string();
        project.write(&go(&version, ""));
        let up = project.start(&["up", "-d", "--wait"]);
        thread::sleep(pause);
        project.kill_supervisor();
        drop(up);
        project.run(&["up", "-d", "--wait"]);
        assert_eq!(answers(&project), [version], "after {pause:?}");
        assert_eq!(project.processes().len(), 4, "nobody is left over after {pause:?}");
    }
    let report = load.finish();
    assert!(report.failures.is_empty(), "{report}");
}

#[test]
fn a_canary_gets_its_part_until_it_is_promoted() {
    let file = |version: &str| go(version, "");
    let project = up(&file("1"));
    let load = Load::start(project.loopback(), 100);
    // The same image by another name is another version.
    let image = project.image("GO");
    let other = format!("localhost/{}-canary:1", project.name);
    project.docker.run(&["tag", &image, &other]);
    project.run(&["rollout", "web", "--image", &other, "--canary", "25%"]);
    let status = versions(&project);
    assert_eq!(status["in_progress"]["done"], 1, "{status:#}");
    let weights: Vec<_> = project
        .replicas("web")
        .into_iter()
        .map(|replica| (replica.replacement, replica.traffic.map(|traffic| traffic.weight)))
        .collect();
    let wanted = [(false, 100), (true, 100), (false, 100), (false, 100)].map(|(s, w)| (s, Some(w)));
    assert_eq!(weights, wanted);
    project.run(&["rollout", "abort", "web"]);
    assert_eq!(project.replicas("web").len(), 3);
    project.run(&["rollout", "web", "--image", &other, "--strategy", "blue-green"]);
    let images: Vec<_> = (1..=3)
        .map(|slot| {
            project.docker.lines(&[
                "inspect",
                "-f",
                "{{.Config.Image}}",
                &format!("{}-web-{slot}", project.name),
            ])
        })
        .collect();
    assert_eq!(images, vec![vec![other.clone()]; 3]);
    let report = load.finish();
    assert!(report.failures.is_empty() && report.answered() > 200, "{report}");
    project.run(&["down"]);
    project.docker.run(&["rmi", &other]);
}
