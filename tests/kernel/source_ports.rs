//! Ports that replicas listen on are no source ports, and there are more of others.

use std::{collections::BTreeSet, fs, net::Ipv4Addr, ops::Range};

use sameport::kernel::sockets::Transport;

use serde_json::json;

use super::{
    pod::Pod,
    server::{PORT, http},
    support::{
        time_wait::TimeWait,
        wait::{self, check},
    },
};

const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

fn read(pod: &Pod, path: &str) -> String {
    pod.inside(|| fs::read_to_string(path).unwrap()).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn ports_that_are_declared_or_listened_on_are_no_source_ports() {
    let mut pod = Pod::new();
    pod.declared.insert((Transport::Tcp, 50_051));
    pod.start(1, &mut http());
    pod.listening(1, PORT);
    wait::until("both are reserved", || {
        let reserved = read(&pod, RESERVED);
        check(reserved == "8080,50051", reserved)
    });
    assert_eq!(read(&pod, RANGE), "16384 65535");
    // The kernel picks none of them, however many are asked for: here of a few ports around one.
    let picked: BTreeSet<u16> = pod.inside(|| {
        fs::write(RANGE, "50048 50055").unwrap();
        let bind = |_| std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
        let sockets: Vec<_> = (0..20).map_while(|number: u32| bind(number).ok()).collect();
        sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect()
    });
    assert_eq!(
        picked.into_iter().collect::<Vec<_>>(),
        [50_048, 50_049, 50_050, 50_052, 50_053, 50_054, 50_055]
    );
}

#[test]
fn a_range_that_somebody_has_chosen_stays() {
    let mut pod = Pod::new();
    pod.inside(|| {
        fs::write(RANGE, "40000 50000").unwrap();
        fs::write(RESERVED, "40000-40010").unwrap();
    });
    pod.start(1, &mut http());
    pod.listening(1, PORT);
    wait::until("the port is reserved beside those of before", || {
        let reserved = read(&pod, RESERVED);
        check(reserved == "8080,40000-40010", reserved)
    });
    assert_eq!(read(&pod, RANGE), "40000 50000");
}

/// As many short connections as to one server a network that is not ours could have.
const SHORT: usize = 28_000;
/// Where they go, in the other network.
const BACKEND: &str = "10.77.3.1:6379";
/// Ports that replicas listen on in the midst of the source ports. The kernel takes even ones for connections first, and
/// these are too many for those alone: whatever even port is not reserved, is taken.
const DECLARED: (Transport, u16) = (Transport::Tcp, 50_052);
const UNDECLARED: (Transport, u16) = (Transport::Tcp, 40_000);
const NOT_RESERVED: Range<u16> = 45_000..45_080;

#[test]
fn a_hundred_replicas_bind_their_ports_with_twenty_eight_thousand_source_ports_in_time_wait() {
    const ROLLOUTS: u32 = 100;
    let mut pod = Pod::wired();
    pod.declared.extend([PORT, DECLARED]);
    let ports = [PORT, DECLARED, UNDECLARED];
    let listen = |port: u16| json!({"address": "0.0.0.0", "port": port, "label": port.to_string()});
    let mut current = pod.agent(1);
    for (_, port) in ports {
        current.call("listen", listen(port));
    }
    pod.listening(1, UNDECLARED);
    wait::until("they are reserved", || {
        let reserved = read(&pod, RESERVED);
        check(reserved == "8080,40000,50052", reserved)
    });
    // An emulated machine opens no more within the minute that each lasts.
    let (most, rollouts) = if wait::is_emulated() { (20_000, 20) } else { (SHORT, ROLLOUTS) };
    let short = TimeWait::keep(most, pod.sandbox(), pod.outside_pid(), BACKEND.parse().unwrap());
    let mut failed = Vec::new();
    for rollout in 1..=rollouts {
        let slot = 1 + rollout % 2;
        short.full();
        let mut newcomer = pod.agent(slot);
        for (_, port) in ports {
            if let Err(error) = newcomer.try_to("listen", listen(port)) {
                failed.push((rollout, port, error));
            }
        }
        wait::until("the newcomer listens", || {
            let report = pod.report();
            let seen = report.replicas.get(&super::pod::id(slot));
            let all = seen.is_some_and(|seen| {
                seen.pid == pod.pid(slot) && ports.iter().all(|port| seen.listens_on(port))
            });
            check(all || !failed.is_empty(), report)
        });
        current = newcomer;
        pod.remove(3 - slot);
    }
    assert_eq!(failed, []);
    short.full();
    // Of what is not reserved most cannot be bound: so much is in use.
    let tried: Vec<_> = NOT_RESERVED.step_by(2).map(|port| current.try_to("listen", listen(port))).collect();
    let refused = tried.iter().filter(|tried| **tried == Err("EADDRINUSE".to_owned())).count();
    assert!(2 * refused > tried.len(), "{tried:?}");
}
