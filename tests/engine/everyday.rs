//! What people do every day: up again, scale, stop, start, restart.

use std::collections::BTreeSet;

use super::support::{
    load,
    project::Project,
    wait::{self, check},
};

#[test]
fn up_twice_changes_nothing() {
    let project = Project::web(2);
    project.run(&["up", "-d", "--wait"]);
    let before = project.processes();
    assert_eq!(before.len(), 3, "two replicas and the sandbox");
    let supervisor = project.supervisor();
    project.run(&["up", "-d", "--wait"]);
    assert_eq!(project.processes(), before);
    assert_eq!(project.supervisor(), supervisor);
}

#[test]
fn a_changed_file_replaces_what_it_changes_and_nothing_else() {
    let two = |value: &str| {
        format!(
            "services:\n  web:\n    image: ${{NGINX}}\n    ports: [\"${{PORT}}:8080\"]\n    \
             environment: {{ REPLICA: \"{value}{{{{.Slot}}}}\" }}\n    scale: 2\n  \
             other:\n    image: ${{NGINX}}\n"
        )
    };
    let project = Project::new(&two("old"));
    project.run(&["up", "-d", "--wait"]);
    let other = |project: &Project| project.docker.pid(&format!("{}-other-1", project.name));
    let (sandbox, neighbour) =
        (project.docker.pid(&format!("{}-web-sandbox", project.name)), other(&project));
    project.write(&two("new"));
    project.run(&["up", "-d", "--wait"]);
    let report = project.serves(2);
    assert_eq!(report.answers.keys().collect::<Vec<_>>(), ["new1", "new2"]);
    assert_eq!(project.docker.pid(&format!("{}-web-sandbox", project.name)), sandbox);
    assert_eq!(other(&project), neighbour);
}

#[test]
fn scaling_keeps_the_replicas_that_stay() {
    let project = Project::web(2);
    project.run(&["up", "-d", "--wait"]);
    let two = project.processes();
    project.run(&["scale", "web=4"]);
    project.serves(4);
    let four: BTreeSet<_> = project.processes().into_iter().collect();
    assert!(two.iter().all(|process| four.contains(process)), "{two:#?} in {four:#?}");
    project.run(&["scale", "web=2"]);
    project.serves(2);
    wait::until("the newest are gone", || {
        let now = project.processes();
        check(now == two, &now)
    });
    // Another `up` of the same file keeps what was asked for since, until it is told otherwise.
    project.run(&["up", "-d", "--wait", "--scale", "web=3"]);
    project.serves(3);
}

#[test]
fn stop_keeps_the_containers_and_start_runs_them_again() {
    let project = Project::web(2);
    project.run(&["up", "-d", "--wait"]);
    let ids =
        |project: &Project| project.replicas("web").into_iter().map(|r| r.id.unwrap()).collect::<Vec<_>>();
    let before = ids(&project);
    project.run(&["stop"]);
    assert_eq!(project.processes(), []);
    assert!(load::request(project.loopback()).is_err());
    assert_eq!(ids(&project), before, "stopped replicas are shown");
    project.run(&["start"]);
    project.serves(2);
    assert_eq!(ids(&project).len(), 2);
}

#[test]
fn restart_gives_every_replica_a_new_process_and_the_port_is_served_throughout() {
    let project = Project::web(2);
    project.run(&["up", "-d", "--wait"]);
    let started = |project: &Project| {
        project.replicas("web").into_iter().map(|r| r.started_at.unwrap()).collect::<Vec<_>>()
    };
    let before = started(&project);
    project.run(&["restart", "web.2"]);
    project.serves(2);
    let one = started(&project);
    assert_eq!(one[0], before[0]);
    assert!(one[1] > before[1]);
    project.run(&["restart", "web"]);
    project.serves(2);
    let both = started(&project);
    assert!(both.iter().zip(&one).all(|(new, old)| new > old), "{both:?} after {one:?}");
}
