//! The container that holds a pod's namespaces: what it costs, and who sees what of it.

use std::{
    fs,
    time::{Duration, Instant},
};

use sameport::{
    engine::{Engine, Namespaces},
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

#[tokio::test]
async fn replicas_share_its_network_and_memory_and_nothing_else() {
    let bench = Workbench::new().await;
    let sandbox = bench.sandbox(Pod { network: PodNetwork::None, ..Pod::default() }, Vec::new()).await;
    let join = || Namespaces::Join(sandbox.clone());
    let one = bench.start(&bench.replica(1, shell("sleep 1000"), join())).await;
    let two = bench.start(&bench.replica(2, shell("sleep 1000"), join())).await;
    let mut pids = Vec::new();
    for id in [&sandbox, &one, &two] {
        pids.push(bench.process(id).await.pid);
    }
    let namespace = |pid: u32, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    for (kind, shared) in [("net", true), ("ipc", true), ("pid", false), ("mnt", false)] {
        for other in [pids[0], pids[2]] {
            assert_eq!(namespace(pids[1], kind) == namespace(other, kind), shared, "{kind}");
        }
    }
    // The same /dev/shm, too: POSIX shared memory lives there.
    bench.sh(&one, "echo hello > /dev/shm/word");
    assert_eq!(bench.sh(&two, "cat /dev/shm/word"), "hello");
    assert_eq!(bench.docker.inspect(&one).await.unwrap().host.joined(), Some(sandbox));
}

#[tokio::test]
async fn waiting_connections_may_move_between_its_replicas() {
    let bench = Workbench::new().await;
    let sandbox = bench.sandbox(Pod { network: PodNetwork::None, ..Pod::default() }, Vec::new()).await;
    let one = bench.start(&bench.replica(1, shell("sleep 1000"), Namespaces::Join(sandbox))).await;
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
    let one = bench.start(&bench.replica(1, replica, Namespaces::Join(sandbox.clone()))).await;
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
