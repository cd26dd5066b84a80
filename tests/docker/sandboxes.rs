//! The container that holds a pod's namespaces: what it costs, and who sees what of it.

use std::{
    fs,
    time::{Duration, Instant},
};

use sameport::{
    engine::{ContainerId, Engine, IpcNamespace, Namespaces},
    spec::{Network, NetworkAttachment, Pod, PodNetwork},
};

use super::workbench::{Workbench, shell};

/// Hundredths of a second of CPU: fields 14 and 15 of proc_pid_stat(5), behind the name in parentheses.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test]
async fn it_costs_next_to_nothing_and_ends_at_once() {
    let bench = Workbench::new().await;
    let id = bench.sandbox(Pod { network: PodNetwork::None, ..Pod::default() }, Vec::new()).await;
    let pid = bench.process(&id).await.pid;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kilobytes: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap();
    assert!((1..=256).contains(&kilobytes), "{kilobytes} kB");
    let before = ticks(pid);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(ticks(pid), before, "it uses no CPU");

    let begin = Instant::now();
    bench.docker.stop(&id, Duration::from_secs(60)).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    assert_eq!(bench.ended(&id).await, 0, "it ended on its stop signal");
}

/// In the network of a sandbox, with an IPC namespace of its own.
fn joining(sandbox: &ContainerId) -> Namespaces {
    let ipc = IpcNamespace::Own {
        shm_size: Some(1 << 20),
        sysctls: [("kernel.shmmni".to_owned(), "77".to_owned())].into(),
    };
    Namespaces::Join { sandbox: sandbox.clone(), ipc }
}

#[tokio::test]
async fn replicas_share_its_network_and_if_they_are_told_to_its_memory() {
    let bench = Workbench::new().await;
    let sandbox = bench.sandbox(Pod { network: PodNetwork::None, ..Pod::default() }, Vec::new()).await;
    let sharing = || Namespaces::Join { sandbox: sandbox.clone(), ipc: IpcNamespace::Sandbox };
    let mut ids = vec![sandbox.clone()];
    for (slot, namespaces) in
        [joining(&sandbox), joining(&sandbox), sharing(), sharing()].into_iter().enumerate()
    {
        let slot = u32::try_from(slot + 1).unwrap();
        ids.push(bench.start(&bench.replica(slot, shell("sleep 1000"), namespaces)).await);
    }
    let mut pids = Vec::new();
    for id in &ids {
        pids.push(bench.process(id).await.pid);
    }
    let namespace = |pid: u32, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    let shares = |one: usize, other: usize, kind| namespace(pids[one], kind) == namespace(pids[other], kind);
    for (kind, shared) in [("net", true), ("pid", false), ("mnt", false)] {
        for (one, other) in [(0, 1), (1, 2), (0, 3), (3, 4)] {
            assert_eq!(shares(one, other, kind), shared, "{kind} of {one} and {other}");
        }
    }
    for (one, other, shared) in [(0, 1, false), (1, 2, false), (0, 3, true), (3, 4, true)] {
        assert_eq!(shares(one, other, "ipc"), shared, "{one} and {other}");
    }
    // /dev/shm, too: POSIX shared memory lives there.
    bench.sh(&ids[1], "echo one > /dev/shm/word");
    bench.sh(&ids[3], "echo three > /dev/shm/word");
    let word = "cat /dev/shm/word || echo none";
    assert_eq!([2, 4].map(|place: usize| bench.sh(&ids[place], word)), ["none", "three"]);
    let size = bench.sh(&ids[1], "grep /dev/shm /proc/mounts; cat /proc/sys/kernel/shmmni");
    assert!(size.contains("size=1024k") && size.ends_with("77"), "{size}");
    assert_eq!(bench.docker.inspect(&ids[1]).await.unwrap().host.joined(), Some(sandbox));
}

#[tokio::test]
async fn waiting_connections_may_move_between_its_replicas() {
    let bench = Workbench::new().await;
    let sandbox = bench.sandbox(Pod { network: PodNetwork::None, ..Pod::default() }, Vec::new()).await;
    let one = bench.start(&bench.replica(1, shell("sleep 1000"), joining(&sandbox))).await;
    assert_eq!(bench.sh(&one, "cat /proc/sys/net/ipv4/tcp_migrate_req"), "1");
}

#[tokio::test]
async fn what_belongs_to_the_pod_is_seen_by_its_replicas() {
    let bench = Workbench::new().await;
    let attachment = |aliases: &[&str]| NetworkAttachment {
        aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
        ..NetworkAttachment::default()
    };
    let mut networks = Vec::new();
    for (key, alias) in [("front", "web"), ("back", "api")] {
        let network = Network { internal: true, ..Network::new(bench.name(key)) };
        bench.docker.create_network(&bench.project, &network).await.unwrap();
        networks.push((network.name, attachment(&[alias])));
    }
    let pod = Pod {
        network: PodNetwork::Networks(networks.iter().cloned().collect()),
        hostname: Some("shop".to_owned()),
        dns: vec!["192.0.2.53".to_owned()],
        dns_search: vec!["shop.example".to_owned()],
        dns_opt: vec!["ndots:2".to_owned()],
        extra_hosts: vec!["db.example:192.0.2.7".to_owned()],
        sysctls: [("net.core.somaxconn".to_owned(), "777".to_owned())].into(),
        shm_size: Some(1 << 20),
        ..Pod::default()
    };
    let sandbox = bench.sandbox(pod, networks.clone()).await;
    let replica = shell("sleep 1000");
    let one = bench.start(&bench.replica(1, replica, joining(&sandbox))).await;
    assert_eq!(bench.sh(&one, "cat /proc/sys/net/core/somaxconn"), "777");
    assert_eq!(bench.sh(&one, "cat /etc/hostname"), "shop");
    let hosts = bench.sh(&one, "cat /etc/hosts");
    assert!(hosts.contains("192.0.2.7\tdb.example"), "{hosts}");
    let resolver = bench.sh(&one, "cat /etc/resolv.conf");
    assert!(resolver.contains("search shop.example") && resolver.contains("ndots:2"), "{resolver}");
    let memory = bench.sh(&one, "grep /dev/shm /proc/mounts");
    assert!(memory.contains("size=1024k"), "{memory}");

    // By either name, from a container that is not in the pod, over each network.
    let addresses = bench.docker.inspect(&sandbox).await.unwrap().addresses;
    for (network, attachment) in &networks {
        let image = bench.command.run(&["container", "inspect", &one.0, "-f", "{{.Config.Image}}"]);
        let alias = &attachment.aliases[0];
        let look = format!("grep -q . /etc/resolv.conf; busybox nslookup {alias} 127.0.0.11");
        let told = bench.command.run(&[
            "run",
            "--rm",
            "--network",
            network,
            "--entrypoint",
            "sh",
            &image,
            "-c",
            &look,
        ]);
        assert!(told.contains(&addresses[network]), "{network}: {told}");
    }
}
