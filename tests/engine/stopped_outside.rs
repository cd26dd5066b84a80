//! `docker stop` and `docker pause` by somebody else are meant: what was stopped stays down until it is started, whatever the
//! restart rule says, as with Docker alone.

use std::{
    thread,
    time::{Duration, Instant},
};

use sameport::api::schema::{Replica, ReplicaState};

use super::support::{
    load::{self, Failure, Load},
    project::Project,
    wait::{self, check},
};

/// A replica that is to start again would have done so by then, many times over.
const LONG_ENOUGH: Duration = Duration::from_secs(4);

fn up(replicas: u32) -> Project {
    let project = Project::new(&format!(
        r#"
services:
  web:
    image: ${{NGINX}}
    environment: {{ REPLICA: "{{{{.Slot}}}}" }}
    restart: always
    ports: ["${{PORT}}:8080"]
    deploy: {{ replicas: {replicas} }}
"#
    ));
    project.run(&["up", "-d", "--wait"]);
    project
}

fn container(project: &Project, slot: u32) -> String {
    format!("{}-web-{slot}", project.name)
}

fn runs(project: &Project, slot: u32) -> bool {
    project.docker.inspect(&container(project, slot))["State"]["Running"] == true
}

/// Waits until a replica is known to be stopped from outside.
fn known(project: &Project, slot: u32) -> Replica {
    wait::until("it is known that the replica was stopped from outside", || {
        let replicas = project.replicas("web");
        let stopped =
            replicas.iter().find(|replica| replica.slot == slot && replica.stopped_externally_at.is_some());
        stopped.cloned().ok_or_else(|| format!("{replicas:#?}"))
    })
}

fn stays_down(project: &Project, slot: u32) {
    let replica = known(project, slot);
    assert_eq!(replica.state, ReplicaState::Stopped, "{replica:#?}");
    thread::sleep(LONG_ENOUGH);
    assert!(!runs(project, slot), "{}", project.log());
}

fn told(project: &Project, kind: &str) -> usize {
    project.events().iter().filter(|event| event["event"] == kind).count()
}

#[test]
fn who_is_stopped_from_outside_stays_down_until_docker_starts_it() {
    let project = up(2);
    let name = container(&project, 2);
    let load = Load::start(project.outside(), 100);
    project.docker.run(&["stop", &name]);
    stays_down(&project, 2);
    let rows = project.run(&["ps"]);
    assert!(rows.contains("stopped from outside") && rows.contains("`sameport start web`"), "{rows}");
    let finished = project.try_run(&["ps"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(told(&project, "stopped_externally"), 1);
    let status = project.status();
    assert!(status.converged, "nothing is left to be done: {status:#?}");
    project.docker.run(&["start", &name]);
    project.serves(2);
    let report = load.finish();
    // nginx closes at SIGTERM what has just come.
    assert!(!report.failures.iter().any(|(_, failure)| *failure == Failure::Refused), "{report}");
    assert!(project.replicas("web").iter().all(|replica| replica.stopped_externally_at.is_none()));
}

#[test]
fn the_only_replica_that_is_stopped_from_outside_refuses_at_once_until_it_is_started() {
    let project = up(1);
    project.docker.run(&["stop", &container(&project, 1)]);
    stays_down(&project, 1);
    let pod = project.in_pod("web", 8080);
    let begin = Instant::now();
    let refused = load::request(pod);
    assert!(matches!(refused, Err(Failure::Refused)), "{refused:?}");
    assert!(begin.elapsed() < Duration::from_secs(1), "nobody has to wait: {:?}", begin.elapsed());
    project.run(&["start", "web"]);
    project.serves(1);
    // Whatever ends otherwise is healed as ever.
    let name = container(&project, 1);
    for breaking in
        [&["kill", &name][..], &["kill", "-s", "TERM", &name], &["restart", &name], &["rm", "-f", &name]]
    {
        let before = project.processes();
        project.docker.run(breaking);
        wait::until(&format!("another one runs after docker {}", breaking.join(" ")), || {
            let after = project.processes();
            let kept = after.iter().filter(|process| before.contains(process)).count();
            check(after.len() == 2 && kept == 1, (&before, after))
        });
        project.serves(1);
    }
    assert_eq!(told(&project, "stopped_externally"), 1);
}

#[test]
fn the_next_supervisor_knows_who_was_stopped_from_outside() {
    let project = up(3);
    project.docker.run(&["stop", &container(&project, 1)]);
    known(&project, 1);
    project.kill_supervisor();
    // While nobody looks.
    project.docker.run(&["stop", &container(&project, 2)]);
    let pid = project.docker.pid(&container(&project, 3));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    let resumed = project.start(&["supervise", "--resume"]);
    wait::until("the one that crashed runs again", || check(runs(&project, 3), resumed.printed()));
    stays_down(&project, 1);
    stays_down(&project, 2);
    let status = project.run(&["ps"]);
    project.run(&["up", "-d", "--wait"]);
    project.serves(3);
    drop(resumed);
    assert!(status.contains("stopped from outside"), "{status}");
}

#[test]
fn who_was_stopped_from_outside_starts_again_with_whatever_asks_for_its_service() {
    let project = up(2);
    for asking in [&["restart", "web"][..], &["scale", "web=2"], &["up", "-d"], &["rollout", "web"]] {
        project.docker.run(&["stop", &container(&project, 2)]);
        known(&project, 2);
        project.run(asking);
        wait::until(&format!("it runs again after {}", asking.join(" ")), || {
            check(runs(&project, 2), project.log())
        });
        project.serves(2);
    }
}

#[test]
fn who_is_paused_is_told_and_out_of_rotation_and_not_replaced() {
    let project = up(2);
    let before = project.processes();
    let name = container(&project, 2);
    project.docker.run(&["pause", &name]);
    let weight = |slot: u32| {
        let replicas = project.replicas("web");
        replicas.iter().find(|replica| replica.slot == slot).unwrap().clone()
    };
    wait::until("it is out of rotation", || {
        let replica = weight(2);
        let traffic = replica.traffic.clone();
        check(replica.state == ReplicaState::Paused && traffic.is_some_and(|t| t.weight == 0), replica)
    });
    let load = Load::start(project.outside(), 100);
    thread::sleep(LONG_ENOUGH);
    let report = load.finish();
    assert!(report.failures.is_empty() && report.answers.keys().all(|replica| replica == "1"), "{report}");
    assert_eq!(told(&project, "paused"), 1);
    project.docker.run(&["unpause", &name]);
    project.serves(2);
    assert_eq!(project.processes(), before);
}
