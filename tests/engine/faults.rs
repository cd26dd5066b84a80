//! Things die, by accident or by hand, and come back.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::support::{
    load::{Failure, Load},
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

/// Whoever comes while nobody is there waits, and is answered by those who come back.
#[test]
fn all_replicas_are_killed_under_load_and_only_what_they_had_in_hand_is_lost() {
    /// Clients of the load, each with one request at a time.
    const CLIENTS: usize = 4;
    let project = Project::new(
        r#"
services:
  web:
    image: ${GO}
    environment: { REPLICA: "{{.Slot}}" }
    ports: ["${PORT}:8080"]
    deploy: { replicas: 3 }
"#,
    );
    project.run(&["up", "-d", "--wait"]);
    let load = Load::start(project.in_pod("web", 8080), 200);
    for _ in 0..3 {
        let names: Vec<_> = (1..=3).map(|slot| format!("{}-web-{slot}", project.name)).collect();
        let victims: Vec<_> = names.iter().map(|name| project.docker.pid(name)).collect();
        for victim in &victims {
            kill(Pid::from_raw(*victim), Signal::SIGKILL).unwrap();
        }
        wait::until("all of them are replaced", || {
            let states: Vec<_> = names.iter().map(|n| project.docker.inspect(n)["State"].take()).collect();
            let is_back = |(state, victim): (&serde_json::Value, &i32)| {
                state["Running"] == true && state["Pid"] != *victim
            };
            check(states.iter().zip(&victims).all(is_back), states)
        });
        project.serves(3);
    }
    let report = load.finish();
    assert!(report.failures.len() <= 3 * CLIENTS, "{report}");
    assert!(!report.failures.iter().any(|(_, failure)| *failure == Failure::Refused), "{report}");
    assert!(report.answered() > 100, "{report}");
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
fn a_replica_killed_or_removed_by_hand_comes_back() {
    let project = Project::web(2);
    project.run(&["up", "-d", "--wait"]);
    let name = format!("{}-web-2", project.name);
    for breaking in [&["kill", &name][..], &["rm", "-f", &name], &["kill", "-s", "TERM", &name]] {
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
