//! New replicas of a service that opens many short connections have their ports, although all replicas of a pod have the
//! same source ports.

use std::{collections::BTreeSet, time::Instant};

use super::support::{
    load::Load,
    project::Project,
    time_wait::TimeWait,
    wait::{self, check},
};

/// How many source ports of the pod are in TIME_WAIT.
const SHORT: usize = 28_000;
/// The port of the replicas, amidst the source ports. The kernel takes even ones for connections first, and `SHORT` are more
/// than all of those: it would be taken if it were not reserved.
const PORT: u16 = 40_000;

fn file(version: u32) -> String {
    format!(
        r#"
services:
  backend:
    image: ${{GO}}
    command: ["/bin/sleep", "1000000"]
    stop_signal: SIGKILL
    expose: ["6379"]
  web:
    image: ${{GO}}
    environment: {{ REPLICA: "{version}", ADDRESS: ":{PORT}" }}
    ports: ["${{PORT}}:{PORT}"]
    deploy: {{ replicas: 3, update_config: {{ monitor: 0s, parallelism: 3 }} }}
    x-sameport: {{ drain: 300ms }}
"#
    )
}

/// Who runs: versions and slots.
fn versions(project: &Project) -> BTreeSet<Option<String>> {
    project.replicas("web").into_iter().map(|replica| replica.generation).collect()
}

fn rollouts(times: u32) {
    let project = Project::new(&file(0));
    project.run(&["up", "-d"]);
    project.serves_some();
    let sandbox = |service: &str| {
        u32::try_from(project.docker.pid(&format!("{}-{service}-sandbox", project.name))).unwrap()
    };
    let backend = project.in_pod("backend", 7000);
    let short = TimeWait::keep(SHORT, sandbox("web"), sandbox("backend"), backend);
    let load = Load::start(project.outside(), 100);
    let begin = Instant::now();
    for version in 1..=times {
        let before = versions(&project);
        short.full();
        project.write(&file(version));
        project.run(&["up", "-d"]);
        wait::until("the new version serves alone", || {
            let status = project.status();
            let after = versions(&project);
            let is_done = status.rollouts.is_empty() && after.len() == 1 && after.is_disjoint(&before);
            check(is_done && project.replicas("web").len() == 3, status)
        });
    }
    let took = begin.elapsed();
    let report = load.finish();
    let events = project.run(&["events", "--no-follow"]);
    let replicas = project.replicas("web");
    eprintln!(
        "{times} rollouts in {took:.0?}, each with {SHORT} in TIME_WAIT: {} answered, {} failed",
        report.answered(),
        report.failures.len()
    );
    assert!(report.failures.is_empty(), "{report}");
    assert!(report.answered() > 100, "{report}");
    // A failed bind would have ended a replica.
    assert!(!events.contains("ended") && !events.contains("in use"), "{events}");
    assert!(replicas.iter().all(|replica| replica.exits == 0), "{replicas:?}");
}

#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn five_rollouts_with_twenty_eight_thousand_source_ports_in_time_wait_fail_no_bind_and_no_request() {
    rollouts(5);
}

/// Takes some minutes.
#[test]
#[ignore = "takes its time: `.ci/full engine`"]
fn a_hundred_rollouts_with_twenty_eight_thousand_source_ports_in_time_wait_fail_no_bind_and_no_request() {
    rollouts(100);
}
