//! What a supervisor keeps for itself while nothing happens.

use std::fs;

use nix::unistd::Pid;

use super::support::{
    project::Project,
    wait::{self, check},
};

/// Kilobytes of the heap that are in memory.
fn heap(supervisor: Pid) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{supervisor}/smaps")).unwrap();
    let mut of_heap = maps.lines().skip_while(|line| !line.ends_with("[heap]"));
    let line = of_heap.find_map(|line| line.strip_prefix("Rss:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// About 1.3 MB are in use. To begin, with all that is read of the engine and loaded into the kernel, takes two to four times as
/// much, most of which the C library would keep.
#[test]
fn a_supervisor_gives_memory_back_that_it_needed_to_begin() {
    const MOST: u64 = 2_000;
    let project = Project::new(
        r#"
services:
  web: &service
    image: ${NGINX}
    ports: ["${PORT}:8080"]
    deploy: { replicas: 2 }
  api: { <<: *service, ports: ["8080"] }
"#,
    );
    project.run(&["up", "-d", "--wait"]);
    let supervisor = project.supervisor().unwrap();
    let at_rest = || wait::until("it is at rest", || check(heap(supervisor) < MOST, heap(supervisor)));
    at_rest();
    // And what it needs for a change.
    project.run(&["up", "-d", "--wait", "--scale", "web=8"]);
    project.run(&["up", "-d", "--wait", "--scale", "web=2"]);
    at_rest();
}
