//! Limits that the file moves while replicas run.

use super::support::{
    project::Project,
    wait::{self, check},
};

fn file(limits: &str) -> String {
    format!(
        "services:\n  web:\n    image: ${{NGINX}}\n    ports: [\"${{PORT}}:8080\"]\n    \
         environment: {{ REPLICA: \"{{{{.Slot}}}}\" }}\n    tmpfs: [/ram]\n    scale: 2\n{limits}"
    )
}

const MB: u64 = 1 << 20;

/// The limit of memory as the kernel has it, under either version of control groups.
const MEMORY: &str =
    "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";

fn replica(project: &Project, slot: u32) -> String {
    format!("{}-web-{slot}", project.name)
}

#[test]
fn another_limit_is_in_force_without_a_restart() {
    let project = Project::new(&file("    mem_limit: 64m\n    cpus: 0.5\n"));
    project.run(&["up", "-d", "--wait"]);
    let before = project.processes();
    project.write(&file(
        "    cpuset: \"0\"\n    deploy: {resources: {limits: {memory: 256m, cpus: 0.25, pids: 64}, reservations: {memory: 32m}}}\n",
    ));
    project.run(&["up", "-d", "--wait"]);
    for slot in [1, 2] {
        let name = replica(&project, slot);
        let host = project.docker.inspect(&name)["HostConfig"].take();
        let told =
            ["Memory", "MemoryReservation", "NanoCpus", "PidsLimit"].map(|key| host[key].as_u64().unwrap());
        assert_eq!(told, [256 * MB, 32 * MB, 250_000_000, 64]);
        assert_eq!(host["CpusetCpus"], "0");
        let kernel = project.docker.run(&["exec", &name, "sh", "-c", MEMORY]);
        assert_eq!(kernel, (256 * MB).to_string());
    }
    assert_eq!(project.processes(), before);
    // What somebody else changes is put right, by a supervisor that looks.
    project.docker.run(&["update", "--pids-limit", "10", &replica(&project, 1)]);
    wait::until("the limit of the file is back", || {
        let now = project.docker.inspect(&replica(&project, 1))["HostConfig"]["PidsLimit"].take();
        check(now == 64, &now)
    });
    assert_eq!(project.processes(), before);
}

#[test]
fn a_limit_that_is_taken_away_replaces_one_replica_after_the_other() {
    let project = Project::new(&file("    mem_limit: 64m\n    pids_limit: 50\n"));
    project.run(&["up", "-d", "--wait"]);
    let before = project.processes();
    // That of processes goes in place.
    project.write(&file("    mem_limit: 64m\n"));
    project.run(&["up", "-d", "--wait"]);
    assert_eq!(project.processes(), before);
    project.write(&file(""));
    project.run(&["up", "-d", "--wait"]);
    project.serves(2);
    for slot in [1, 2] {
        assert_eq!(project.docker.inspect(&replica(&project, slot))["HostConfig"]["Memory"], 0);
    }
    assert!(
        project.processes().iter().filter(|process| before.contains(process)).count() == 1,
        "the sandbox stays"
    );
}

#[test]
fn a_limit_that_the_kernel_refuses_is_told_and_the_replica_replaced() {
    let project = Project::new(&file("    mem_limit: 128m\n"));
    if project.docker.run(&["info", "--format", "{{.CgroupVersion}}"]) != "1" {
        // The second version takes any limit, and ends who is above it.
        return;
    }
    project.run(&["up", "-d", "--wait"]);
    let before = project.replicas("web");
    // Memory that cannot be given back.
    let fill = "busybox dd if=/dev/zero of=/ram/x bs=1M count=64";
    project.docker.run(&["exec", &replica(&project, 1), "sh", "-c", fill]);
    project.write(&file("    mem_limit: 32m\n"));
    project.run(&["up", "-d", "--wait"]);
    let events = project.run(&["events", "--no-follow"]);
    assert!(events.contains("cannot update web-1: "), "{events}");
    let after = project.replicas("web");
    assert_ne!(after[0].id, before[0].id);
    assert_eq!(after[1].id, before[1].id);
    assert_eq!(after[1].started_at, before[1].started_at);
    for slot in [1, 2] {
        assert_eq!(project.docker.inspect(&replica(&project, slot))["HostConfig"]["Memory"], 32 * MB);
    }
    project.serves(2);
}
