//! Limits that are changed in place.

use sameport::{
    engine::Engine,
    spec::{Limits, Resources},
};

use super::workbench::{Workbench, nowhere, shell};

const MB: u64 = 1 << 20;

/// A limit of memory as the kernel has it, under either version of control groups.
const MEMORY: &str =
    "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";
const PIDS: &str = "cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max";
const CPUS: &str =
    "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d' ' -f1 /sys/fs/cgroup/cpu.max";

#[tokio::test]
async fn limits_become_others_while_the_process_goes_on() {
    let bench = Workbench::new().await;
    let mut container = shell("sleep 1000");
    container.resources = Resources {
        memory: Some(64 * MB),
        pids: Some(50),
        nano_cpus: Some(500_000_000),
        ..Resources::default()
    };
    let before = container.resources.limits();
    let id = bench.start(&bench.replica(1, container, nowhere())).await;
    assert_eq!(bench.docker.inspect(&id).await.unwrap().limits, before);
    let process = bench.process(&id).await;
    // Up, beyond what memory and swap had together, and down again.
    for memory in [512 * MB, 32 * MB] {
        let wanted = Limits {
            memory: Some(memory),
            memory_reservation: Some(memory / 2),
            nano_cpus: Some(250_000_000),
            cpuset: Some("0".to_owned()),
            pids: Some(30),
        };
        let now = bench.docker.inspect(&id).await.unwrap().limits;
        bench.docker.update(&id, &now.changes_to(&wanted).unwrap()).await.unwrap();
        assert_eq!(bench.docker.inspect(&id).await.unwrap().limits, wanted);
        assert_eq!(bench.sh(&id, MEMORY), memory.to_string());
        assert_eq!(bench.sh(&id, PIDS), "30");
        assert_eq!(bench.sh(&id, CPUS), "25000");
        assert_eq!(bench.process(&id).await, process);
    }
    // The one that can be taken away.
    let wanted = Limits { pids: None, ..bench.docker.inspect(&id).await.unwrap().limits };
    let changes = Limits { pids: Some(-1), ..Limits::default() };
    bench.docker.update(&id, &changes).await.unwrap();
    assert_eq!(bench.docker.inspect(&id).await.unwrap().limits, wanted);
    assert_eq!(bench.sh(&id, PIDS), "max");
    assert_eq!(bench.process(&id).await, process);
}

#[tokio::test]
async fn a_limit_that_the_engine_does_not_take_is_refused_and_nothing_changes() {
    let bench = Workbench::new().await;
    let id = bench.shell("sleep 1000").await;
    let before = bench.docker.inspect(&id).await.unwrap().limits;
    // Docker's least is 6 MB.
    let error =
        bench.docker.update(&id, &Limits { memory: Some(MB), ..Limits::default() }).await.unwrap_err();
    assert!(!error.is_passing(), "{error:?}");
    assert!(error.to_string().contains("memory"), "{error}");
    assert_eq!(bench.docker.inspect(&id).await.unwrap().limits, before);
}
