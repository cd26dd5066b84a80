//! Things die, by accident or by hand, and come back.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::support::{
    load::Load,
    project::Project,
    wait::{self, check},
};

#[test]
fn ten_kills_under_load_cost_at_most_ten_requests() {
    let project = Project::web(4);
    project.run(&["up", "-d", "--wait"]);
    project.serves(4);
    let load = Load::start(project.outside(), 200);
    for number in 0..10 {
        let name = format!("{}-web-{}", project.name, number % 4 + 1);
        let victim = project.docker.pid(&name);
        kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
        wait::until(&format!("{name} is replaced"), || {
            let state = project.docker.inspect(&name)["State"].take();
            check(state["Running"] == true && state["Pid"] != victim, state)
        });
        project.serves(4);
    }
    let report = load.finish();
    assert!(report.failures.len() <= 10, "{report}");
    assert!(report.answered() > 500, "{report}");
}

#[test]
fn a_sandbox_that_is_killed_or_removed_takes_its_pod_through_a_new_start() {
    let project = Project::web(2);
    project.run(&["up", "-d", "--wait"]);
    let sandbox = format!("{}-web-sandbox", project.name);
    for breaking in [["kill", &sandbox], ["stop", &sandbox]] {
        let before = project.processes();
        project.docker.run(&breaking);
        back_with_other_processes(&project, &before);
    }
    let before = project.processes();
    project.docker.run(&["rm", "-f", &sandbox]);
    back_with_other_processes(&project, &before);
}

fn back_with_other_processes(project: &Project, before: &[(String, String)]) {
    wait::until("the pod is rebuilt", || {
        let after = project.processes();
        check(after.len() == 3 && after.iter().all(|p| !before.contains(p)), (before, after))
    });
    project.serves(2);
    let sandbox = project.docker.pid(&format!("{}-web-sandbox", project.name));
    for slot in [1, 2] {
        let replica = project.docker.pid(&format!("{}-web-{slot}", project.name));
        let netns = |pid| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        assert_eq!(netns(replica), netns(sandbox), "replica {slot} is in the pod's network");
    }
}

#[test]
fn a_replica_stopped_or_removed_by_hand_comes_back() {
    let project = Project::web(2);
    project.run(&["up", "-d", "--wait"]);
    let name = format!("{}-web-2", project.name);
    for breaking in [&["stop", &name][..], &["rm", "-f", &name], &["kill", "-s", "TERM", &name]] {
        let before = project.processes();
        project.docker.run(breaking);
        wait::until(&format!("the replica is back after docker {}", breaking.join(" ")), || {
            let after = project.processes();
            let kept = after.iter().filter(|p| before.contains(p)).count();
            check(after.len() == 3 && kept == 2, (&before, after))
        });
        project.serves(2);
    }
}
