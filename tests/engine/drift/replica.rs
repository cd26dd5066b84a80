//! A replica: its limits and its network.

use std::fs;

use super::{
    super::support::{
        project::Project,
        wait::{self, check},
    },
    Frozen, is_converged, name, unnoticed,
};

const MB: u64 = 1 << 20;

fn file(limits: &str) -> String {
    format!(
        r#"
services:
  web:
    image: ${{NGINX}}
    environment: {{ REPLICA: "{{{{.Slot}}}}" }}
    ports: ["${{PORT}}:8080"]
    deploy: {{ replicas: 3 }}
{limits}"#
    )
}

#[test]
fn limits_that_somebody_changes_are_those_of_the_file_again() {
    let project = Project::new(&file("    mem_limit: 96m\n    cpus: 0.75\n    pids_limit: 80\n"));
    project.run(&["up", "-d", "--wait"]);
    project.serves(3);
    let replica = name(&project, "web-2");
    let before = project.processes();
    for (key, wanted, args) in [
        ("Memory", 96 * MB, &["--memory", "128m", "--memory-swap", "256m"][..]),
        ("NanoCpus", 750_000_000, &["--cpus", "0.5"]),
        ("PidsLimit", 80, &["--pids-limit", "40"]),
    ] {
        let has = || project.docker.inspect(&replica)["HostConfig"][key].as_u64();
        assert_eq!(has(), Some(wanted), "{key}");
        unnoticed(key, &project, || {
            let frozen = Frozen::supervisor(&project);
            project.docker.run(&[&["update"], args, &[&replica]].concat());
            assert_ne!(has(), Some(wanted), "{key}: it is made");
            drop(frozen);
            wait::until(key, || check(has() == Some(wanted), has()));
        });
        is_converged(&project);
        assert_eq!(project.processes(), before, "{key}: nothing was replaced for it");
    }
}

#[test]
fn a_replica_that_somebody_limits_is_replaced_and_nobody_notices() {
    let project = Project::new(&file(""));
    project.run(&["up", "-d", "--wait"]);
    project.serves(3);
    let replica = name(&project, "web-2");
    let before = project.processes();
    let memory = || project.docker.find(&replica).map(|found| found["HostConfig"]["Memory"].clone());
    unnoticed("a limit of memory", &project, || {
        project.docker.run(&["update", "--memory", "128m", "--memory-swap", "256m", &replica]);
        wait::until("it has no limit", || check(memory() == Some(0.into()), memory()));
        project.serves(3);
    });
    is_converged(&project);
    let after = project.processes();
    assert_eq!(after.iter().filter(|process| before.contains(process)).count(), 3, "one was replaced");
}

/// A sandbox that has ended and runs again has another network, and replicas go on in the one that is no more.
#[test]
fn replicas_that_are_left_in_another_network_are_replaced() {
    let project = Project::new(&file(""));
    project.run(&["up", "-d", "--wait"]);
    project.serves(3);
    let before = project.processes();
    let netns = |rest: &str| {
        let pid = project.docker.find(&name(&project, rest))?["State"]["Pid"].as_i64()?;
        fs::read_link(format!("/proc/{pid}/ns/net")).ok()
    };
    let frozen = Frozen::supervisor(&project);
    project.docker.run(&["restart", "-t", "0", &name(&project, "web-sandbox")]);
    let sandbox = netns("web-sandbox");
    assert!(sandbox.is_some() && netns("web-1") != sandbox, "it is made");
    drop(frozen);
    wait::until("all replicas are in the pod's network", || {
        let sandbox = netns("web-sandbox");
        let replicas = ["web-1", "web-2", "web-3"].map(netns);
        check(sandbox.is_some() && replicas.iter().all(|netns| *netns == sandbox), (sandbox, replicas))
    });
    project.serves(3);
    is_converged(&project);
    let after = project.processes();
    assert!(after.len() == 4 && after.iter().all(|process| !before.contains(process)), "{after:?}");
}
