//! Somebody freezes a container (`docker pause`).

use std::{thread, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sameport::api::schema::ReplicaState;

use super::{
    super::support::{
        docker::Docker,
        project::Project,
        wait::{self, check, slowly},
    },
    is_converged, name, unnoticed,
};

/// How long it stays so: a replica that only hangs is replaced by then.
const WHILE: Duration = Duration::from_secs(8);

/// A container that goes on when this is dropped.
struct Paused<'a>(&'a Docker, String);

impl<'a> Paused<'a> {
    fn new(project: &'a Project, rest: &str) -> Self {
        let name = name(project, rest);
        project.docker.run(&["pause", &name]);
        Self(&project.docker, name)
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        // It fails where it was replaced, which the test finds out.
        let _ = self.0.try_run(&["unpause", &self.1]);
    }
}

#[test]
fn a_replica_that_somebody_pauses_is_left_alone_and_gets_nothing() {
    let project = Project::web(3);
    project.run(&["up", "-d", "--wait"]);
    project.serves(3);
    let before = project.processes();
    let paused = Paused::new(&project, "web-2");
    wait::until("it is told", || {
        let replica = project.replicas("web").remove(1);
        let weight = replica.traffic.as_ref().map(|traffic| traffic.weight);
        check(replica.state == ReplicaState::Paused && weight == Some(0), &replica)
    });
    let ps = project.run(&["ps"]);
    assert!(ps.lines().any(|line| line.contains("web-2") && line.contains("paused")), "{ps}");
    let report = unnoticed("while it is paused", &project, || thread::sleep(slowly(WHILE)));
    assert_eq!(report.answers.keys().collect::<Vec<_>>(), ["1", "3"], "{report}");
    assert_eq!(project.processes(), before, "nothing is replaced for it");
    drop(paused);
    project.serves(3);
    is_converged(&project);
    assert_eq!(project.processes(), before, "nothing was replaced for it");
}

#[test]
fn a_pod_whose_sandbox_somebody_pauses_serves_and_replaces_who_dies() {
    let project = Project::web(2);
    project.run(&["up", "-d", "--wait"]);
    project.serves(2);
    let before = project.processes();
    let paused = Paused::new(&project, "web-sandbox");
    unnoticed("while the sandbox is paused", &project, || thread::sleep(slowly(Duration::from_secs(2))));
    let victim = project.docker.pid(&name(&project, "web-2"));
    kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
    wait::until("it is replaced", || {
        let state = project.docker.find(&name(&project, "web-2")).map(|mut found| found["State"].take());
        let is_new = |state: &serde_json::Value| state["Running"] == true && state["Pid"] != victim;
        check(state.as_ref().is_some_and(is_new), state)
    });
    project.serves(2);
    drop(paused);
    is_converged(&project);
    let kept = project.processes().iter().filter(|process| before.contains(process)).count();
    assert_eq!(kept, 2, "the sandbox and the other replica go on");
}
