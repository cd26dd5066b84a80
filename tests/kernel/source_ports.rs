//! Ports that replicas listen on are no source ports, and there are more of others.

use std::{collections::BTreeSet, fs, net::Ipv4Addr};

use sameport::kernel::sockets::Transport;

use super::{
    pod::Pod,
    server::{PORT, http},
    support::wait::{self, check},
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
