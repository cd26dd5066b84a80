//! Two servers in one container, of which the outer asks the inner one on localhost.

use std::{collections::BTreeSet, thread, time::Duration};

use sameport::api::schema::ReplicaState;

use super::{
    super::support::{
        load::{self, Load, Report},
        wait::{self, check},
    },
    asked, container, up, within,
};

/// Replicas of nginx, each with a gunicorn behind it on a port of localhost.
fn stack(version: &str, replicas: u32) -> String {
    format!(
        r#"
services:
  web:
    image: ${{GUNICORN}}
    environment: {{ REPLICA: "{version}.{{{{.Slot}}}}" }}
    healthcheck: {{ test: ["CMD", "wget", "-qO-", "http://localhost/"], interval: 500ms, retries: 20 }}
    stop_signal: SIGQUIT
    ports: ["${{PORT}}:80"]
    deploy: {{ replicas: {replicas}, update_config: {{ monitor: 500ms, parallelism: 3 }} }}
"#
    )
}

/// Each nginx has asked the gunicorn of its own replica; returns which replicas there were.
pub fn asked_itself(report: &Report) -> BTreeSet<String> {
    let both = asked(report).into_iter();
    both.inspect(|(nginx, gunicorn)| assert_eq!(nginx, gunicorn, "{report}"))
        .map(|(nginx, _)| nginx.to_owned())
        .collect()
}

/// It does so from the beginning, while one of them is killed, and during a rollout.
fn each_asks_itself(replicas: u32) {
    const CLIENTS: usize = 4;
    let names =
        |version: &str| (1..=replicas).map(|slot| format!("{version}.{slot}")).collect::<BTreeSet<_>>();
    let project = up(&stack("v1", replicas));
    let report = load::one_by_one(100, || load::request(project.loopback()));
    assert_eq!(report.answered(), 100, "{report}");
    assert_eq!(asked_itself(&report), names("v1"));
    for slot in 1..=replicas {
        let answer = within(&project, "web", slot, "wget -qO- http://127.0.0.1:9000/");
        assert_eq!(answer, [format!("replica v1.{slot}")]);
    }

    let load = Load::start(project.outside(), 100);
    let before = project.docker.pid(&container(&project, "web", replicas));
    project.run(&["kill", &format!("web-{replicas}")]);
    wait::until("the killed one is replaced", || {
        let all = project.replicas("web");
        check(all.iter().all(|replica| replica.state == ReplicaState::Healthy), all)
    });
    assert_ne!(project.docker.pid(&container(&project, "web", replicas)), before);
    thread::sleep(Duration::from_millis(500));
    let report = load.finish();
    eprintln!("kill of one of {replicas}: {report}");
    // What the killed one had in its hands.
    assert!(report.failures.len() <= CLIENTS, "{report}");
    assert_eq!(asked_itself(&report), names("v1"));

    let load = Load::start(project.outside(), 100);
    project.write(&stack("v2", replicas));
    project.run(&["up", "-d", "--wait"]);
    thread::sleep(Duration::from_millis(500));
    let report = load.finish();
    eprintln!("rollout of {replicas}: {report}");
    assert!(report.failures.is_empty(), "{report}");
    assert_eq!(asked_itself(&report), &names("v1") | &names("v2"));
}

#[test]
fn the_only_nginx_asks_the_server_behind_it_on_localhost() {
    each_asks_itself(1);
}

#[test]
fn each_of_three_nginx_asks_the_server_behind_it_on_localhost() {
    each_asks_itself(3);
}
